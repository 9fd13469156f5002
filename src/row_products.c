/* Rows times the rows of a matrix (row_products.h).
 *
 *     task = out_block outs, all rows of a
 *       for each line of b, or each DOT_STREAMS of them     a line is read once, and multiplied by all rows of a
 *         sum[row][stream] += a[row] * b                  vectors along the reds; their lanes are added at the end
 *
 * Memory is read fastest in one go: a line has DOT_STREAMS sums, of every so many vectors. Where a is so long that it would not stay in
 * L1, it is read once for as many lines. */
#include "row_products.h"
#include "conv_epilogue.h"
#include "isa.h"

/* DOT_LONG: floats of a that stay in L1 beside what is read of b. DOT_AHEAD: floats from what is multiplied to what is fetched. */
enum { DOT_STREAMS = 4, DOT_LONG = 2048, DOT_AHEAD = 256 };

/* sums[row * VL + line] of `lines` lines of b, 1 or DOT_STREAMS. */
ALWAYS_INLINE void dot_products(const int rows, const int lines, const float *a, const float *b, int64_t reds, float *sums) {
    const int64_t apart = lines == 1 ? VL : reds, step = lines == 1 ? DOT_STREAMS * VL : VL;
    const int64_t ahead = lines == 1 ? DOT_STREAMS * DOT_AHEAD : DOT_AHEAD;
    vf total[ROW_PRODUCTS_ROWS][DOT_STREAMS];
    UNROLL(4)
    for (int row = 0; row < rows; row++)
        UNROLL(4)
        for (int stream = 0; stream < DOT_STREAMS; stream++) total[row][stream] = (vf){0};
    int64_t k = 0;
    for (; k + step <= reds; k += step) {
        UNROLL(4)
        for (int stream = 0; stream < DOT_STREAMS; stream++) {
            const float *line = b + stream * apart + k, *x = a + k + (lines == 1 ? stream * VL : 0);
            const vf w = vf_load(line);
            __builtin_prefetch(line + ahead, 0, 2); /* to the second level, which waits for more lines at a time than the first */
            UNROLL(4)
            for (int row = 0; row < rows; row++) total[row][stream] += vf_load(x + row * reds) * w;
        }
    }
    for (; k < reds; k += VL)
        for (int line = 0; line < lines; line++) {
            const vf w = vf_load_until(b + line * reds, k, reds);
            for (int row = 0; row < rows; row++) total[row][line] += vf_load_until(a + row * reds, k, reds) * w;
        }
    for (int row = 0; row < rows; row++)
        if (lines == 1)
            sums[row * VL] = vf_sum((total[row][0] + total[row][1]) + (total[row][2] + total[row][3]));
        else
            for (int line = 0; line < lines; line++) sums[row * VL + line] = vf_sum(total[row][line]);
}

/* VL outs, or the last `outs` of them. */
ALWAYS_INLINE void vector_of_outs(const int rows, const float *a, const float *b, int64_t reds, int64_t outs, float *sums) {
    int64_t out = 0;
    if (rows * reds > DOT_LONG)
        for (; out + DOT_STREAMS <= outs; out += DOT_STREAMS) dot_products(rows, DOT_STREAMS, a, b + out * reds, reds, sums + out);
    for (; out < outs; out++) dot_products(rows, 1, a, b + out * reds, reds, sums + out);
}

void KERNEL(row_products)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct row_products_params *p = params;
    const float *a = buffers[0], *bias = buffers[2], *residual = buffers[3];
    float *y = buffers[4];
    const struct epilogue end_of_store = epilogue(p->activation, p->alpha, p->beta);
    const int64_t end = min_i64(p->outs, (task + 1) * p->out_block);
    for (int64_t out = task * p->out_block; out < end; out += VL) {
        const float *b = (const float *)buffers[1] + out * p->reds;
        float sums[ROW_PRODUCTS_ROWS * VL];
        switch (p->rows) {
        case 1: vector_of_outs(1, a, b, p->reds, min_i64(VL, end - out), sums); break;
        case 2: vector_of_outs(2, a, b, p->reds, min_i64(VL, end - out), sums); break;
        case 3: vector_of_outs(3, a, b, p->reds, min_i64(VL, end - out), sums); break;
        default: vector_of_outs(4, a, b, p->reds, min_i64(VL, end - out), sums);
        }
        for (int64_t row = 0; row < p->rows; row++) {
            vf value = vf_load_until(sums + row * VL - out, out, end);
            if (bias) value += vf_load_until(bias, out, end);
            if (residual) value += vf_load_until(residual + row * p->outs, out, end);
            vf_store_until(y + row * p->outs, finish(end_of_store, value), out, end);
        }
    }
}
