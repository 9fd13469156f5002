/* Winograd's F(t x t, 3x3) for 3x3 convolutions with stride 1 (see winograd.h; the transforms are in winograd_tile.h).
 *
 *     task = tile_block tiles x panel_block panels
 *       transform the inputs of all tiles          V[register tile][channel / CHUNK][frequency][tile][CHUNK]
 *       for each panel
 *         for each row of frequencies
 *           transform the filters, unless they are     U[frequency][channel][panel_width]
 *           for each frequency in it                    M[tile][frequency][panel_width] = V[frequency] x U[frequency]
 *         transform the products of each tile, epilogue, store
 *
 * What a transform writes or reads at a time, the frequencies of a tile, lies together: V with a register tile, M by itself. */
#include "winograd.h"
#include "conv_epilogue.h"
#include "isa.h"

/* ---- what the transforms of all sizes share ------------------------------------------------------------------------- */

/* The images that tiles are taken from. */
struct winograd_input {
    int64_t rows, cols, stride; /* stride: floats from a pixel to the next */
    int64_t channels;           /* that are transformed */
};

/* Where the outputs of a tile go. */
struct winograd_output {
    float *y;
    const float *bias, *residual; /* or NULL; residual is laid out as y */
    int64_t row_stride, col_stride, lanes;
    struct epilogue end;
};

/* Floats from the channels that are transformed to those that are fetched. */
enum { FETCH_AHEAD = 32 };

#define TILE 2
#include "winograd_tile.h"
#undef TILE
#define TILE 4
#include "winograd_tile.h"
#undef TILE
#define TILE 6
#include "winograd_tile.h"
#undef TILE

struct winograd_transforms {
    void (*filters)(int64_t row, const float *taps, int64_t floats, float *u, int64_t stride);
    void (*input)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                  int64_t frequency_stride, int64_t block, int64_t block_stride);
    void (*output)(const float *m, int64_t frequency_stride, const struct winograd_output *out, int64_t rows, int64_t cols);
};

static const struct winograd_transforms winograd_transforms[] = {
    [2] = {transform_filters_2, transform_input_2, transform_output_2},
    [4] = {transform_filters_4, transform_input_4, transform_output_4},
    [6] = {transform_filters_6, transform_input_6, transform_output_6},
};

/* ---- the kernels ---------------------------------------------------------------------------------------------------- */

void KERNEL(winograd_filters)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_filters_params *p = params;
    const int64_t side = p->tile + 2, panel = task / side, row = task % side;
    winograd_transforms[p->tile].filters(row, (const float *)buffers[0] + panel * 9 * p->floats, p->floats,
                                         (float *)buffers[1] + task * side * p->floats, p->floats);
}

struct tile_place {
    int64_t image, row, col; /* of the first output */
};

static struct tile_place tile_at(const struct winograd_params *p, int64_t tile) {
    const int64_t across = ceil_div(p->out_cols, p->tile), down = ceil_div(p->out_rows, p->tile);
    return (struct tile_place){tile / (across * down), tile / across % down * p->tile, tile % across * p->tile};
}

/* Transforms the inputs of the tiles first..end-1 of those from `begin` on, `count` of which lie together in v. */
static void transform_tiles(const struct winograd_params *p, const float *x, const float *rest, int64_t begin, int64_t count,
                            int64_t first, int64_t end, float *v) {
    const int64_t frequencies = (p->tile + 2) * (p->tile + 2), groups = ceil_div(count, MR);
    const int64_t channels = p->first_channels, rest_channels = p->channels - channels, pixels = p->rows * p->cols;
    const struct winograd_input input = {p->rows, p->cols, channels, channels};
    const struct winograd_input rest_input = {p->rows, p->cols, rest_channels, rest_channels};
    for (int64_t group = 0, low = 0; group < groups; group++) {
        const int64_t rows = tile_rows(count, groups, group);
        for (int64_t t = max_i64(low, first); t < min_i64(low + rows, end); t++) {
            const struct tile_place place = tile_at(p, begin + t);
            const int64_t row = place.row - p->pad_top, col = place.col - p->pad_left, stride = rows * CHUNK;
            float *target = v + (t - low) * CHUNK;
            winograd_transforms[p->tile].input(&input, x + place.image * pixels * channels, row, col, target, stride, CHUNK,
                                               frequencies * stride);
            if (rest)
                winograd_transforms[p->tile].input(&rest_input, rest + place.image * pixels * rest_channels, row, col,
                                                   target + channels * frequencies * rows, stride, CHUNK, frequencies * stride);
        }
        low += rows;
        v += frequencies * rows * conv_round(p->channels, CHUNK);
    }
}

void KERNEL(winograd_inputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_params *p = params;
    const int64_t frequencies = (p->tile + 2) * (p->tile + 2), begin = task / p->tile_block * p->tile_block;
    const int64_t count = min_i64(p->tile_block, winograd_tiles(p) - begin);
    transform_tiles(p, buffers[0], buffers[2], begin, count, task - begin, task - begin + 1,
                    (float *)buffers[1] + frequencies * begin * conv_round(p->channels, CHUNK));
}

void KERNEL(winograd)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_params *p = params;
    const int64_t side = p->tile + 2, frequencies = side * side;
    const int64_t all = winograd_tiles(p), tile_blocks = ceil_div(all, p->tile_block);
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t begin = task % tile_blocks * p->tile_block, count = min_i64(p->tile_block, all - begin);
    const int64_t panel_begin = task / tile_blocks * p->panel_block;
    const int64_t panel_end = min_i64(panels, panel_begin + p->panel_block);
    const int64_t row_floats = conv_round(p->channels, CHUNK), groups = ceil_div(count, MR); /* of rows of the register tile */
    const int64_t m_stride = winograd_product_floats(p);
    const int64_t floats = p->channels * width; /* of a panel at one frequency */
    float *m = scratch, *u = m + p->tile_block * m_stride;
    float *v = u + winograd_filter_floats(p);
    if (p->transformed) v = (float *)buffers[5] + frequencies * begin * row_floats;
    else transform_tiles(p, buffers[0], buffers[6], begin, count, 0, count, v);

    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const int64_t out = panel * width, lanes = min_i64(width, p->outs - out);
        gemm_tile *const *sizes = tiles_pixels[ceil_div(lanes, VL)];
        for (int64_t row = 0; row < side; row++) {
            const float *filters = (const float *)buffers[1] + (panel * side + row) * side * floats;
            int64_t stride = floats;
            if (p->taps) {
                filters = u, stride = winograd_stride(floats);
                winograd_transforms[p->tile].filters(row, (const float *)buffers[1] + panel * 9 * floats, floats, u, stride);
            }
            for (int64_t col = 0; col < side; col++)
                for (int64_t f = row * side + col, group = 0, first = 0; group < groups; group++) {
                    const int64_t rows = tile_rows(count, groups, group);
                    sizes[rows](p->channels, v + frequencies * first * row_floats + f * rows * CHUNK, frequencies * rows * CHUNK,
                                filters + col * stride, width, m + first * m_stride + f * width, m_stride, 0);
                    first += rows;
                }
        }
        struct winograd_output target = {.bias = buffers[2] ? (const float *)buffers[2] + out : NULL,
                                         .row_stride = p->out_cols * p->outs, .col_stride = p->outs, .lanes = lanes,
                                         .end = epilogue(p->activation, p->alpha, p->beta)};
        for (int64_t tile = 0; tile < count; tile++) {
            const struct tile_place place = tile_at(p, begin + tile);
            const int64_t offset = ((place.image * p->out_rows + place.row) * p->out_cols + place.col) * p->outs + out;
            target.y = (float *)buffers[4] + offset;
            target.residual = buffers[3] ? (const float *)buffers[3] + offset : NULL;
            winograd_transforms[p->tile].output(m + tile * m_stride, width, &target, p->out_rows - place.row,
                                                p->out_cols - place.col);
        }
    }
}
