/* Winograd's minimal filtering F(4x4, 3x3) for 3x3 convolutions with stride 1: a quarter of the multiplications
 * (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016; transforms of section 4.3).
 *
 *     tile of 6x6 inputs  d -> V = B^T d B     36 frequencies
 *     filter of 3x3       g -> U = G g G^T     36 frequencies, once for each filter
 *     for each frequency  M = V U              a matrix product over the channels, for all tiles of a task at once
 *     tile of 4x4 outputs y = A^T M A
 *
 * Neighbouring tiles overlap by two rows and columns of the input; positions outside read zero. Everything of a task
 * stays in the core's second-level cache but the filters, which stream. */
#ifndef PYCL_CNN_WINOGRAD_H
#define PYCL_CNN_WINOGRAD_H

#include "conv.h"

enum { WINOGRAD_OUT = 4, WINOGRAD_IN = 6, WINOGRAD_FREQUENCIES = 36 };

/* winograd_filters  filters -> panels of winograd
 * buffers: 0 source, 1 panels [panel][frequency][reds][panel_width], zero for lanes past outs
 * Filter (o, i) has tap (r, s) at source[offset + o*out_stride + i*red_stride + r*tap_row_stride + s*tap_col_stride].
 * tasks: winograd_filters_tasks(); no scratch */
struct winograd_filters_params {
    int64_t outs, reds;
    int64_t panel_width;
    int64_t offset, out_stride, red_stride, tap_row_stride, tap_col_stride; /* floats, any sign */
};

/* winograd  y = act(conv(x, filters) + bias + residual)
 * buffers: 0 x [images][rows][cols][channels], 1 panels (of winograd_filters), 2 bias [outs] or NULL, 3 residual (laid out
 *          as y) or NULL, 4 y [images][out_rows][out_cols][outs]. y and residual may be the same memory.
 * A task computes tile_block tiles by panel_block panels.
 * tasks: winograd_tasks(); scratch: winograd_scratch_bytes() */
struct winograd_params {
    int64_t images, rows, cols, channels;
    int64_t out_rows, out_cols, outs;
    int64_t pad_top, pad_left; /* output (0, 0) reads the input from (-pad_top, -pad_left) on */
    int64_t panel_width, tile_block, panel_block;
    ACTIVATION_MEMBERS
};

/* winograd_gradient  dw = correlation of x with dy
 * buffers: 0 x [images][rows][cols][channels], 1 dy [images][out_rows][out_cols][outs], 2 parts [parts][outs][3][3][channels]
 * parts[q] is the sum over the q-th share of the tiles; one part is dw itself, more are added by sum_parts.
 * A task computes out_block outs by channel_block channels of one part.
 * tasks: winograd_gradient_tasks(); scratch: winograd_gradient_scratch_bytes() */
struct winograd_gradient_params {
    int64_t images, rows, cols, channels;
    int64_t out_rows, out_cols, outs;
    int64_t pad_top, pad_left;
    int64_t parts;         /* shares of the tiles, 1 .. tiles */
    int64_t out_block;     /* outs of a task; a multiple of the vector length */
    int64_t channel_block; /* channels of a task; a multiple of the vector length */
    int64_t tile_block;    /* tiles transformed and multiplied in one go */
};

static inline int64_t winograd_filters_tasks(const struct winograd_filters_params *p) {
    return conv_blocks(p->outs, p->panel_width);
}

static inline int64_t winograd_tiles(const struct winograd_params *p) {
    return p->images * conv_blocks(p->out_rows, WINOGRAD_OUT) * conv_blocks(p->out_cols, WINOGRAD_OUT);
}

static inline int64_t winograd_tasks(const struct winograd_params *p) {
    return conv_blocks(winograd_tiles(p), p->tile_block) *
           conv_blocks(conv_blocks(p->outs, p->panel_width), p->panel_block);
}

/* Transformed inputs of the task, and the products of one panel. */
static inline int64_t winograd_scratch_bytes(const struct winograd_params *p) {
    return 4 * WINOGRAD_FREQUENCIES * p->tile_block * (conv_round(p->channels, CHUNK) + p->panel_width);
}

static inline int64_t winograd_gradient_tasks(const struct winograd_gradient_params *p) {
    return p->parts * conv_blocks(p->outs, p->out_block) * conv_blocks(p->channels, p->channel_block);
}

/* Transformed inputs and gradients of tile_block tiles, the block of U, and the gradients of one tile. */
static inline int64_t winograd_gradient_scratch_bytes(const struct winograd_gradient_params *p) {
    return 4 * (WINOGRAD_FREQUENCIES * (p->tile_block * (p->channel_block + p->out_block) + 16 * p->out_block +
                                        p->out_block * p->channel_block + p->out_block) +
                64);
}

#endif
