/* depthwise: y[pixel, c] = epilogue(sum over taps of x[source(pixel, t), c] * w[t][c]), and its weight gradient.
 *
 * The vector runs along the channels. A tile of COLS output pixels shares its loads of x and w (depthwise_tile.h); the
 * pixels of x that it touches are found once for all channels, and those outside of x point to a line of zeros. */
#include "conv.h"
#include "conv_epilogue.h"
#include "isa.h"

#define COLS_1(M) M(0)
#define COLS_2(M) COLS_1(M) M(1)
#define COLS_3(M) COLS_2(M) M(2)
#define COLS_4(M) COLS_3(M) M(3)

typedef void depthwise_tile(const struct depthwise_params *p, int64_t count, const float *const *columns, int64_t lines,
                            const float *weights, const float *bias, const float *residual, float *y);

#define TAPS 1
#define STRIDE 1
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 3
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 5
#include "depthwise_tiles.h"
#undef STRIDE
#define STRIDE 2
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 3
#include "depthwise_tiles.h"
#undef TAPS
#undef STRIDE

enum { DEPTHWISE_COLS = 4 };

struct depthwise_variant {
    int64_t taps, stride;
    depthwise_tile *tiles[DEPTHWISE_COLS + 1]; /* by number of columns */
};
#define VARIANT(t, s)                                                                                                  \
    { t, s, {0, depthwise_##t##_##s##_1, depthwise_##t##_##s##_2, depthwise_##t##_##s##_3, depthwise_##t##_##s##_4} }
static const struct depthwise_variant depthwise_variants[] = {VARIANT(3, 1), VARIANT(3, 2), VARIANT(5, 1),
                                                              VARIANT(5, 2), VARIANT(1, 1)};

/* The last variant, single taps, fits everything. */
static const struct depthwise_variant *depthwise_choose(const struct depthwise_params *p) {
    const struct depthwise_variant *variant = depthwise_variants;
    while (variant->taps != 1 &&
           !(variant->taps == p->tap_cols && variant->stride == p->col_step && p->tap_col_step == 1))
        variant++;
    return variant;
}

/* Steps first..last-1 of `count` whose position start + i * step lies in 0..size-1. */
static void steps_inside(int64_t start, int64_t step, int64_t count, int64_t size, int64_t *first, int64_t *last) {
    int64_t begin = 0, end = count;
    while (begin < end && (start + begin * step < 0 || start + begin * step >= size)) begin++;
    while (end > begin && (start + (end - 1) * step < 0 || start + (end - 1) * step >= size)) end--;
    *first = begin;
    *last = end;
}

/* The pixels of x that the tiles of one grid row see. */
struct columns {
    const float *row;     /* of the first tap row inside of x */
    int64_t tap_rows;     /* tap rows inside of x */
    int64_t next_tile;    /* the column after the full tile that the pointers belong to, if it was inside of x; or -1 */
    const float **pixels; /* lines of pointers */
};

/* Points at the pixels that output columns b .. b+cols-1 see, line by line; those outside of x at the zeros. A tile inside
 * of x that follows one of the same kind moves all pointers by the same distance. */
static void point_columns(const struct depthwise_params *p, const struct depthwise_variant *variant, int64_t b,
                          int64_t cols, const float *zeros, struct columns *columns) {
    const int single = variant->taps == 1;
    const int64_t inputs = (cols - 1) * variant->stride + variant->taps;
    const int64_t lines_per_row = single ? p->tap_cols : 1, step = single ? p->col_step : 1;
    const int64_t start = b * p->col_step + p->tap_col_start, reach = (p->tap_cols - 1) * p->tap_col_step;
    const int inside = start + min_i64(0, reach) >= 0 && start + (cols - 1) * p->col_step + max_i64(0, reach) < p->cols;
    if (inside && columns->next_tile == b && cols == DEPTHWISE_COLS) {
        const int64_t count = columns->tap_rows * lines_per_row * inputs, distance = cols * p->col_step * p->col_stride;
        for (int64_t i = 0; i < count; i++) columns->pixels[i] += distance;
    } else {
        const float **pixel = columns->pixels;
        for (int64_t r = 0; r < columns->tap_rows; r++)
            for (int64_t s = 0; s < lines_per_row; s++) {
                int64_t col = start + s * p->tap_col_step;
                for (int64_t j = 0; j < inputs; j++, col += step)
                    *pixel++ = col >= 0 && col < p->cols
                                   ? columns->row + r * p->tap_row_step * p->row_stride + col * p->col_stride
                                   : zeros;
            }
    }
    columns->next_tile = inside && cols == DEPTHWISE_COLS ? b + cols : -1;
}

void KERNEL(depthwise)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct depthwise_params *p = params;
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), row_blocks = ceil_div(p->grid_rows, p->row_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t count = min_i64(p->channel_block, p->channels - channel);
    const int64_t row_begin = task / channel_blocks % row_blocks * p->row_block;
    const int64_t row_end = min_i64(p->grid_rows, row_begin + p->row_block);
    const int64_t image = task / channel_blocks / row_blocks;

    const float *x = (const float *)buffers[0] + image * p->image_stride + channel;
    const float *bias = buffers[2] ? (const float *)buffers[2] + channel : NULL;
    const float *residual = buffers[3];

    float *zeros = scratch;
    const int64_t zeros_floats = conv_round(p->channel_block, CHUNK) + LINE_SLACK;
    memset(zeros, 0, (size_t)zeros_floats * sizeof(float));
    struct columns columns = {.pixels = (const float **)(zeros + zeros_floats)};

    const struct depthwise_variant *variant = depthwise_choose(p);
    for (int64_t row = row_begin; row < row_end; row++) {
        int64_t first, last;
        const int64_t start = row * p->row_step + p->tap_row_start;
        steps_inside(start, p->tap_row_step, p->tap_rows, p->rows, &first, &last);
        columns.row = x + (start + first * p->tap_row_step) * p->row_stride;
        columns.tap_rows = last - first;
        columns.next_tile = -1;
        const float *weights = (const float *)buffers[1] + channel + first * p->tap_cols * p->channels;
        const int64_t lines = columns.tap_rows * (variant->taps == 1 ? p->tap_cols : 1);
        for (int64_t col = 0; col < p->grid_cols; col += DEPTHWISE_COLS) {
            const int64_t cols = min_i64(DEPTHWISE_COLS, p->grid_cols - col);
            const int64_t offset = channel + p->out_offset + image * p->out_image_stride + row * p->out_row_stride +
                                   col * p->out_col_stride;
            point_columns(p, variant, col, cols, zeros, &columns);
            variant->tiles[cols](p, count, columns.pixels, lines, weights, bias, residual ? residual + offset : NULL,
                                 (float *)buffers[4] + offset);
        }
    }
}

/* The taps of one kernel row that dw sums over one grid row, for the vector of channels at `x` and `dy`. */
ALWAYS_INLINE void depthwise_gradient_row(const struct depthwise_weight_gradient_params *p, int64_t lanes, const float *x,
                                          const float *dy, float *parts) {
    for (int64_t s = 0; s < p->tap_cols; s++, parts += p->channels) {
        /* Grid columns begin..end read inside of x. */
        const int64_t start = p->tap_col_start + s * p->tap_col_step;
        const int64_t begin = start < 0 ? ceil_div(-start, p->col_step) : 0;
        const int64_t end = min_i64(p->grid_cols, start < p->cols ? ceil_div(p->cols - start, p->col_step) : 0);
        if (begin >= end) continue;
        const float *a = x + (start + begin * p->col_step) * p->col_stride, *b = dy + begin * p->out_col_stride;
        const int64_t a_step = p->col_step * p->col_stride, b_step = p->out_col_stride;
        vf even = {0}, odd = {0};
        int64_t col = begin;
#define PRODUCT(i)                                                                                                     \
    ((lanes == VL ? vf_load(a + (i)*a_step) : vf_load_first(a + (i)*a_step, lanes)) *                                  \
     (lanes == VL ? vf_load(b + (i)*b_step) : vf_load_first(b + (i)*b_step, lanes)))
        for (; col + 2 <= end; col += 2, a += 2 * a_step, b += 2 * b_step) {
            even += PRODUCT(0);
            odd += PRODUCT(1);
        }
        if (col < end) even += PRODUCT(0);
#undef PRODUCT
        even += odd;
        if (lanes == VL)
            vf_store(parts, vf_load(parts) + even);
        else
            vf_store_first(parts, vf_load_first(parts, lanes) + even, lanes);
    }
}

void KERNEL(depthwise_weight_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct depthwise_weight_gradient_params *p = params;
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), taps = p->tap_rows * p->tap_cols;
    const int64_t channel = task % channel_blocks * p->channel_block, part = task / channel_blocks;
    const int64_t count = min_i64(p->channel_block, p->channels - channel);
    const int64_t lines = p->images * p->grid_rows;

    const float *x = (const float *)buffers[0] + channel, *dy = (const float *)buffers[1] + p->out_offset + channel;
    float *parts = (float *)buffers[2] + part * taps * p->channels + channel;
    for (int64_t t = 0; t < taps; t++) memset(parts + t * p->channels, 0, (size_t)count * sizeof(float));

    for (int64_t line = lines * part / p->parts; line < lines * (part + 1) / p->parts; line++) {
        const int64_t image = line / p->grid_rows, row = line % p->grid_rows;
        const float *dy_row = dy + image * p->out_image_stride + row * p->out_row_stride;
        for (int64_t r = 0; r < p->tap_rows; r++) {
            const int64_t in_row = row * p->row_step + p->tap_row_start + r * p->tap_row_step;
            if (in_row < 0 || in_row >= p->rows) continue;
            const float *x_row = x + image * p->image_stride + in_row * p->row_stride;
            float *row_parts = parts + r * p->tap_cols * p->channels;
            int64_t c = 0;
            for (; c + VL <= count; c += VL) depthwise_gradient_row(p, VL, x_row + c, dy_row + c, row_parts + c);
            if (c < count) depthwise_gradient_row(p, count - c, x_row + c, dy_row + c, row_parts + c);
        }
    }
}
