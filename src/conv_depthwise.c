/* depthwise: y[pixel, c] = epilogue(sum over taps of x[source(pixel, t), c] * w[t][c]), and its weight gradient.
 *
 * The vector runs along the channels. A tile of COLS output pixels shares its loads of x and w (depthwise_tile.h); the
 * pixels of x that it touches are found once for all channels, and those outside of x point to a line of zeros. */
#include "conv.h"
#include "isa.h"
#include "vec_math.h"

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

/* Pointers to the pixels of x that output columns b .. b+cols-1 of a grid row see, line by line. */
static void depthwise_columns(const struct depthwise_params *p, const struct depthwise_variant *variant, const float *x,
                              const float *zeros, int64_t row, int64_t b, int64_t cols, const float **columns) {
    const int single = variant->taps == 1;
    const int64_t inputs = (cols - 1) * variant->stride + variant->taps;
    const int64_t lines_per_row = single ? p->tap_cols : 1, step = single ? p->col_step : 1;
    for (int64_t r = 0; r < p->tap_rows; r++) {
        const int64_t in_row = row * p->row_step + p->tap_row_start + r * p->tap_row_step;
        const int inside = in_row >= 0 && in_row < p->rows;
        for (int64_t s = 0; s < lines_per_row; s++) {
            int64_t col = b * p->col_step + p->tap_col_start + s * p->tap_col_step;
            for (int64_t j = 0; j < inputs; j++, col += step)
                *columns++ = inside && col >= 0 && col < p->cols ? x + in_row * p->row_stride + col * p->col_stride : zeros;
        }
    }
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
    const float *weights = (const float *)buffers[1] + channel;
    const float *bias = buffers[2] ? (const float *)buffers[2] + channel : NULL;
    const float *residual = buffers[3];

    float *zeros = scratch;
    const int64_t zeros_floats = conv_round(p->channel_block, CHUNK) + LINE_SLACK;
    memset(zeros, 0, (size_t)zeros_floats * sizeof(float));
    const float **columns = (const float **)(zeros + zeros_floats);

    const struct depthwise_variant *variant = depthwise_choose(p);
    const int64_t lines = p->tap_rows * (variant->taps == 1 ? p->tap_cols : 1);
    const int64_t tiles = ceil_div(p->grid_cols, DEPTHWISE_COLS);
    for (int64_t row = row_begin; row < row_end; row++)
        for (int64_t tile = 0, col = 0; tile < tiles; tile++) {
            const int64_t cols = tile_rows(p->grid_cols, tiles, tile);
            const int64_t offset = channel + p->out_offset + image * p->out_image_stride + row * p->out_row_stride +
                                   col * p->out_col_stride;
            depthwise_columns(p, variant, x, zeros, row, col, cols, columns);
            variant->tiles[cols](p, count, columns, lines, weights, bias, residual ? residual + offset : NULL,
                                 (float *)buffers[4] + offset);
            col += cols;
        }
}

/* The taps of one kernel row that dw sums over one grid row, for the vector of channels at `x` and `dy`. */
static inline __attribute__((always_inline)) void depthwise_gradient_row(
    const struct depthwise_weight_gradient_params *p, int64_t lanes, const float *x, const float *dy, float *parts) {
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
