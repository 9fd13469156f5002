/* Softmax and its logarithm (softmax.h): the largest element is subtracted first, so that no exponential overflows.
 * Sums are added in blocks. A contiguous axis is worked on along the vector, any other with one column a lane. */
#include "softmax.h"
#include "softmax_row.h"

/* Rows of a column whose terms are summed before they join the total. */
#define SOFTMAX_BLOCK_ROWS 128

/* ---- contiguous axis ------------------------------------------------------------------------------------------ */

/* y = x * scale, or x - shift. */
ALWAYS_INLINE void scale_row(const float *x, float *y, int64_t count, float scale) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(y + i, vf_load(x + i) * scale);
    if (i < count) vf_store_first(y + i, vf_load_first(x + i, count - i) * scale, count - i);
}

ALWAYS_INLINE void log_softmax_row(const float *x, float *y, int64_t count, float largest, float log_sum) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(y + i, vf_load(x + i) - largest - log_sum);
    if (i < count) vf_store_first(y + i, vf_load_first(x + i, count - i) - largest - log_sum, count - i);
}

static void softmax_row(const float *x, float *y, int64_t count, int64_t log) {
    const float largest = reduce_row(REDUCE_MAX, x, count);
    const float sum = exponential_sum(x, count, largest, log ? NULL : y);
    if (log) log_softmax_row(x, y, count, largest, vf_log(vf_set1(sum))[0]);
    else scale_row(y, y, count, 1.0f / sum);
}

/* Sum of dy, or of y * dy. */
ALWAYS_INLINE float gradient_sum(const float *y, const float *dy, int64_t count, int64_t log) {
    vf total = vf_set1(0.0f);
    for (int64_t begin = 0; begin < count; begin += SOFTMAX_BLOCK) {
        const int64_t end = min_i64(count, begin + SOFTMAX_BLOCK);
        vf block = vf_set1(0.0f);
        int64_t i = begin;
        for (; i + VL <= end; i += VL) block += log ? vf_load(dy + i) : vf_load(y + i) * vf_load(dy + i);
        if (i < end)
            block += log ? vf_load_first(dy + i, end - i) : vf_load_first(y + i, end - i) * vf_load_first(dy + i, end - i);
        total += block;
    }
    return vf_sum(total);
}

ALWAYS_INLINE vf softmax_gradient(vf y, vf dy, vf sum, int64_t log) {
    return log ? dy - vf_exp(y) * sum : y * (dy - sum);
}

ALWAYS_INLINE void softmax_backward_row(const float *y, const float *dy, float *dx, int64_t count, int64_t log) {
    const vf sum = vf_set1(gradient_sum(y, dy, count, log));
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(dx + i, softmax_gradient(vf_load(y + i), vf_load(dy + i), sum, log));
    if (i < count) {
        vf last = softmax_gradient(vf_load_first(y + i, count - i), vf_load_first(dy + i, count - i), sum, log);
        vf_store_first(dx + i, last, count - i);
    }
}

/* ---- columns -------------------------------------------------------------------------------------------------- */

/* total += block; block = 0. */
static void close_block(float *total, float *block, int64_t columns) {
    for (int64_t c = 0; c < columns; c += VL) {
        vf_store(total + c, vf_load(total + c) + vf_load(block + c));
        vf_store(block + c, vf_set1(0.0f));
    }
}

static void softmax_columns(const float *x, float *y, int64_t axis, int64_t inner, int64_t columns, int64_t log) {
    float largest[SOFTMAX_COLUMNS + VL], sum[SOFTMAX_COLUMNS + VL] = {0}, block[SOFTMAX_COLUMNS + VL] = {0};
    reduce_columns(REDUCE_MAX, x, axis, inner, columns, largest);
    for (int64_t r = 0; r < axis; r++) {
        for (int64_t c = 0; c < columns; c += VL) {
            vf e = vf_exp(vf_load_until(x + r * inner, c, columns) - vf_load(largest + c));
            if (!log) vf_store_until(y + r * inner, e, c, columns);
            vf_store(block + c, vf_load(block + c) + e);
        }
        if ((r + 1) % SOFTMAX_BLOCK_ROWS == 0) close_block(sum, block, columns);
    }
    close_block(sum, block, columns);
    for (int64_t c = 0; c < columns; c += VL)
        vf_store(sum + c, log ? vf_log(vf_load(sum + c)) : 1.0f / vf_load(sum + c));
    for (int64_t r = 0; r < axis; r++)
        for (int64_t c = 0; c < columns; c += VL) {
            vf value = log ? vf_load_until(x + r * inner, c, columns) - vf_load(largest + c) - vf_load(sum + c)
                           : vf_load_until(y + r * inner, c, columns) * vf_load(sum + c);
            vf_store_until(y + r * inner, value, c, columns);
        }
}

ALWAYS_INLINE void softmax_backward_columns(const float *y, const float *dy, float *dx, int64_t axis, int64_t inner,
                                            int64_t columns, int64_t log) {
    float sum[SOFTMAX_COLUMNS + VL] = {0}, block[SOFTMAX_COLUMNS + VL] = {0};
    for (int64_t r = 0; r < axis; r++) {
        for (int64_t c = 0; c < columns; c += VL) {
            vf term = vf_load_until(dy + r * inner, c, columns);
            if (!log) term *= vf_load_until(y + r * inner, c, columns);
            vf_store(block + c, vf_load(block + c) + term);
        }
        if ((r + 1) % SOFTMAX_BLOCK_ROWS == 0) close_block(sum, block, columns);
    }
    close_block(sum, block, columns);
    for (int64_t r = 0; r < axis; r++)
        for (int64_t c = 0; c < columns; c += VL) {
            vf value = softmax_gradient(vf_load_until(y + r * inner, c, columns),
                                        vf_load_until(dy + r * inner, c, columns), vf_load(sum + c), log);
            vf_store_until(dx + r * inner, value, c, columns);
        }
}

/* ---- the kernels ---------------------------------------------------------------------------------------------- */

struct softmax_block {
    int64_t slices;  /* in this task */
    int64_t columns; /* of every slice */
    int64_t offset;  /* of the first element */
};

static struct softmax_block softmax_block(const struct softmax_params *p, int64_t task) {
    const int64_t inner_blocks = ceil_div(p->inner, p->inner_block);
    const int64_t column = task % inner_blocks * p->inner_block, slice = task / inner_blocks * p->outer_block;
    return (struct softmax_block){.slices = min_i64(p->outer_block, p->outer - slice),
                                  .columns = min_i64(p->inner_block, p->inner - column),
                                  .offset = slice * p->axis * p->inner + column};
}

void KERNEL(softmax)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct softmax_params *p = params;
    const struct softmax_block block = softmax_block(p, task);
    const float *x = (const float *)buffers[0] + block.offset;
    float *y = (float *)buffers[1] + block.offset;
    for (int64_t s = 0; s < block.slices; s++, x += p->axis * p->inner, y += p->axis * p->inner) {
        if (p->inner == 1) softmax_row(x, y, p->axis, p->log);
        else softmax_columns(x, y, p->axis, p->inner, block.columns, p->log);
    }
}

void KERNEL(softmax_backward)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct softmax_params *p = params;
    const struct softmax_block block = softmax_block(p, task);
    int64_t offset = block.offset;
    for (int64_t s = 0; s < block.slices; s++, offset += p->axis * p->inner) {
        const float *y = (const float *)buffers[0] + offset, *dy = (const float *)buffers[1] + offset;
        float *dx = (float *)buffers[2] + offset;
        if (p->inner == 1) {
            if (p->log) softmax_backward_row(y, dy, dx, p->axis, 1);
            else softmax_backward_row(y, dy, dx, p->axis, 0);
        } else {
            if (p->log) softmax_backward_columns(y, dy, dx, p->axis, p->inner, block.columns, 1);
            else softmax_backward_columns(y, dy, dx, p->axis, p->inner, block.columns, 0);
        }
    }
}
