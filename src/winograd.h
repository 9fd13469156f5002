/* Winograd's minimal filtering F(t x t, r x r) for convolutions with stride 1 or 2 (Lavin and Gray, "Fast algorithms for convolutional
 * neural networks", 2016). 3x3 and stride 1: tiles of t = 2, 4, 6 or 7 outputs a side, 4/9, 1/4, 16/81 or 9/49 of the multiplications.
 *
 *     tile of (t+2)^2 inputs  d -> V = B^T d B     (t+2)^2 frequencies
 *     filter of 3x3           g -> U = G g G^T     as many, once for each filter
 *     for each frequency      M = V U              a matrix product over the channels, for all tiles of a task at once
 *     tile of t^2 outputs     y = A^T M A
 *
 * Neighbouring tiles overlap by two rows and columns of the input; positions outside read zero.
 *
 * Many tiles: a task transforms its own inputs, and everything of it stays in the core's second-level cache but the filters,
 * which stream. Few tiles of many channels: the inputs are transformed first, by winograd_inputs, and the tasks share out the
 * filters, so that these are read once. Transformed they are 16/9, 4, 64/9 or 9 times as large. Where they would take up much memory, or
 * every run has its own, a task transforms those of a panel a row of frequencies at a time, when it needs them, and the result stays
 * in its cache. For up to 4 tiles of 4x4, an image of 8x8 pixels, they are transformed in registers.
 *
 * Stride 2: the input has 4 phases, x[2i + a, 2j + b], and the convolution is the sum of one with stride 1 for each, of every second
 * tap. All phases are transformed and summed up in the products, whose reds are the channels of all phases:
 *
 *     taps of a kernel of 3      0 1 2         phase 0: taps 0 and 2 of r = 2        phase 1: tap 1, and a zero
 *
 * The filter of a phase with a tap too few is zero at the point infinity, the last frequency of a row or column: there only the full
 * phases are multiplied. For kernels of 3 these are (2t + 1)^2 products instead of (3t)^2: 25/36, 9/16 and 25/49 with tiles of 2, 4 and 7;
 * for kernels of 7 (r = 4) 169/784 and 289/1764 with tiles of 4 and 6. Phases are in an order in which those of every frequency are neighbours:
 * short columns, full, short rows, short both.
 *
 * The input gradient for a stride of 2 has phases of the output, dx[2i + a, 2j + b]: convolutions with stride 1 of one transformed dy,
 * with every second tap turned around, again with a zero for a tap too few. */
#ifndef PYCL_CNN_WINOGRAD_H
#define PYCL_CNN_WINOGRAD_H

#include "conv.h"

/* Taps r and tiles t of F(t x t, r x r): 3 and 2, 4, 6, 7; 2 and 2, 4, 7; 4 and 4, 6. Stride 1: kernels of r; stride 2: kernels of 2r - 1 and
 * 2r, those of 5 and 6 with tiles of 2 and 4 only. Weight gradients have tiles of 4 and more. */
#define WINOGRAD_MEMBERS                                                                                               \
    int64_t tile;   /* outputs a side */                                                                               \
    int64_t kernel; /* taps a side */                                                                                  \
    int64_t step;   /* the stride */                                                                                   \
    int64_t short_rows, short_cols; /* of stride 1: whether there is a tap less, which counts as zero */

struct winograd_form {
    WINOGRAD_MEMBERS
};

/* winograd_filters  panels of pack_panels -> panels of winograd
 * buffers: 0 taps [panel][tap rows][tap cols][channels][panel_width], 1 [panel][frequency][phase][channels][panel_width]
 * A task makes a row of the frequencies of a panel.
 * tasks: winograd_filters_tasks(); no scratch */
struct winograd_filters_params {
    WINOGRAD_MEMBERS
    int64_t panels;
    int64_t floats; /* channels * panel_width */
};

/* winograd  y = act(conv(x, filters) + bias + residual)
 * buffers: 0 x [images][rows][cols][channels], 1 panels (of winograd_filters, or with `taps` and `few` of pack_panels), 2 bias [outs] or
 *          NULL, 3 residual (laid out as y) or NULL, 4 y [images][out_rows][out_cols][outs], 5 transformed inputs, of
 *          winograd_inputs with the same params, or NULL, 6 the channels of x from first_channels on, laid out as x, or NULL.
 *          y and residual may be the same memory.
 * A task computes tile_block tiles by panel_block panels. With `few`, which F(4x4, 3x3) with stride 1 has, there are at most FEW_TILES tiles,
 * panels are VL wide and packed in chunks of CHUNK channels, of which there is a whole number, and there is buffer 5.
 * tasks: winograd_tasks(); scratch: winograd_scratch_bytes() */
struct winograd_params {
    WINOGRAD_MEMBERS
    int64_t images, rows, cols, channels;
    int64_t first_channels; /* of x, if the others are in buffer 6: a multiple of CHUNK; else all */
    int64_t out_rows, out_cols, outs;
    int64_t grid_rows, grid_cols; /* outputs that tiles cover */
    int64_t pad_top, pad_left;    /* output (0, 0) of the grid reads the input from (-pad_top, -pad_left) on */
    int64_t out_step;             /* rows (columns) of y from an output of the grid to the next */
    int64_t out_top, out_left;    /* where output (0, 0) of the grid lies in y; outputs outside of y are dropped */
    int64_t panel_width, tile_block, panel_block;
    int64_t transformed; /* whether there is buffer 5 */
    int64_t taps;        /* whether tasks transform the filters, a row of frequencies at a time */
    int64_t few;         /* whether tasks transform them in registers (winograd_few.h) */
    ACTIVATION_MEMBERS
};

/* winograd_inputs  the transformed inputs of winograd
 * buffers: 0 x, 1 V [block of tile_block tiles][register tile][phase, channel / CHUNK][frequency][tile][CHUNK], 2 further channels or NULL
 * tasks: winograd_tiles(); no scratch; params: struct winograd_params */

/* winograd_gradient  dw = correlation of x with dy
 * buffers: 0 x [images][rows][cols][channels], 1 dy [images][out_rows][out_cols][outs], 2 parts [parts][outs][kernel][kernel][channels],
 *          3 and 4 what winograd_gradient_inputs and winograd_gradient_outputs wrote with the same params, or NULL
 * parts[q] is the sum over the q-th share of the tiles; one part is dw itself, more are added by sum_parts.
 * A task computes group_block groups of outs by channel_block channels of one phase and one part. Where phases share a chunk they are
 * one phase of four times the channels.
 * tasks: winograd_gradient_tasks(); scratch: winograd_gradient_scratch_bytes() */
struct winograd_gradient_params {
    WINOGRAD_MEMBERS
    int64_t images, rows, cols, channels;
    int64_t out_rows, out_cols, outs;
    int64_t pad_top, pad_left;
    int64_t parts;         /* shares of the tiles, 1 .. tiles */
    int64_t group_rows;    /* outs of a group: rows of the register tile, at most */
    int64_t group_width;   /* group_rows in whole vectors, which are written */
    int64_t panel_width;   /* channels of a panel of V */
    int64_t group_block;   /* groups of a task */
    int64_t channel_block; /* channels of a task; a multiple of the panel width */
    int64_t tile_block;    /* tiles that a task transforms, unless all are before, and multiplies in one go */
    int64_t transformed;   /* whether there are buffers 3 and 4: where several tasks would transform the same */
};

/* winograd_gradient_inputs   buffers: 0 x, 1 V [phase][panel of channels][frequency][tile][panel width]; tasks: winograd_gradient_tiles()
 * winograd_gradient_outputs  buffers: 0 dy, 1 Z [group of outs][frequency][tile][group width]; tasks: winograd_gradient_groups() * parts
 * No scratch; params: struct winograd_gradient_params */

/* Taps a side that a phase has at most: r of F(t, r). */
static inline int64_t winograd_taps(const struct winograd_form *f) { return conv_blocks(f->kernel, f->step); }

/* Taps of a packed filter. */
static inline int64_t winograd_filter_taps(const struct winograd_form *f) {
    return (f->kernel - f->short_rows) * (f->kernel - f->short_cols);
}

/* Frequencies of a row or column of a tile. */
static inline int64_t winograd_side(const struct winograd_form *f) { return f->tile + winograd_taps(f) - 1; }

/* The phases that are multiplied at a frequency: `count` from `first` on. */
struct winograd_phases {
    int64_t first, count;
};

static inline struct winograd_phases winograd_phases(const struct winograd_form *f, int64_t row, int64_t col) {
    const int64_t last = winograd_side(f) - 1;
    if (f->step == 1) return (struct winograd_phases){0, !(f->short_rows && row == last) && !(f->short_cols && col == last)};
    if (f->kernel % 2 == 0 || (row < last && col < last)) return (struct winograd_phases){0, 4};
    if (row < last) return (struct winograd_phases){1, 2};
    return col < last ? (struct winograd_phases){0, 2} : (struct winograd_phases){1, 1};
}

/* Pairs of phase and frequency in a row of frequencies. */
static inline int64_t winograd_row_products(const struct winograd_form *f, int64_t row) {
    return (winograd_side(f) - 1) * winograd_phases(f, row, 0).count + winograd_phases(f, row, winograd_side(f) - 1).count;
}

/* Pairs of phase and frequency: products of a tile for each channel and out. */
static inline int64_t winograd_products(const struct winograd_form *f) {
    return (winograd_side(f) - 1) * winograd_row_products(f, 0) + winograd_row_products(f, winograd_side(f) - 1);
}

/* Whether the phases have so few channels that they share a chunk. */
static inline int winograd_phases_share(const struct winograd_form *f, int64_t channels) {
    return f->step == 2 && 4 * channels <= CHUNK;
}

/* Floats that the reds of all phases take up for a tile at a frequency. */
static inline int64_t winograd_depth(const struct winograd_form *f, int64_t channels) {
    return winograd_phases_share(f, channels) ? CHUNK : f->step * f->step * conv_round(channels, CHUNK);
}

static inline int64_t winograd_filters_tasks(const struct winograd_filters_params *p) {
    return p->panels * winograd_side((const struct winograd_form *)p);
}

static inline int64_t winograd_tiles(const struct winograd_params *p) {
    return p->images * conv_blocks(p->grid_rows, p->tile) * conv_blocks(p->grid_cols, p->tile);
}

static inline int64_t winograd_tasks(const struct winograd_params *p) {
    return conv_blocks(winograd_tiles(p), p->tile_block) *
           conv_blocks(conv_blocks(p->outs, p->panel_width), p->panel_block);
}

/* Floats from a frequency of a panel's filters to the next, where the task transforms them: an odd number of cache lines, for those
 * of all frequencies that are written at once are to lie in different sets of the first-level cache. */
static inline int64_t winograd_stride(int64_t floats) { return conv_round(floats, CHUNK) | CHUNK; }

/* Floats of a row of frequencies of a panel's filters, where the task transforms them. */
static inline int64_t winograd_filter_floats(const struct winograd_params *p) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    return p->taps ? winograd_side(f) * winograd_stride(f->step * f->step * p->channels * p->panel_width) : 0;
}

/* Floats from the products of a tile to the next tile's: an odd number of cache lines, for the same reason. */
static inline int64_t winograd_product_floats(const struct winograd_params *p) {
    const int64_t side = winograd_side((const struct winograd_form *)p);
    return winograd_stride(side * side * p->panel_width);
}

/* Floats of the transformed inputs of a tile. */
static inline int64_t winograd_input_floats(const struct winograd_params *p) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    return winograd_side(f) * winograd_side(f) * winograd_depth(f, p->channels);
}

/* The products of one panel, its filters, and the transformed inputs of the task unless they are in a buffer. */
static inline int64_t winograd_scratch_bytes(const struct winograd_params *p) {
    const int64_t inputs = p->transformed ? 0 : winograd_input_floats(p);
    return 4 * (p->tile_block * (winograd_product_floats(p) + inputs) + winograd_filter_floats(p));
}

/* Transformed inputs of all tiles. */
static inline int64_t winograd_inputs_bytes(const struct winograd_params *p) {
    return 4 * winograd_tiles(p) * winograd_input_floats(p);
}

static inline int64_t winograd_gradient_tiles(const struct winograd_gradient_params *p) {
    return p->images * conv_blocks(p->out_rows, p->tile) * conv_blocks(p->out_cols, p->tile);
}

/* Phases that are tasks of their own, and the channels of each. */
static inline int64_t winograd_gradient_phases(const struct winograd_gradient_params *p) {
    return winograd_phases_share((const struct winograd_form *)p, p->channels) ? 1 : p->step * p->step;
}

static inline int64_t winograd_gradient_channels(const struct winograd_gradient_params *p) {
    return winograd_phases_share((const struct winograd_form *)p, p->channels) ? 4 * p->channels : p->channels;
}

static inline int64_t winograd_gradient_frequencies(const struct winograd_gradient_params *p) {
    const int64_t side = winograd_side((const struct winograd_form *)p);
    return side * side;
}

static inline int64_t winograd_gradient_groups(const struct winograd_gradient_params *p) {
    return conv_blocks(p->outs, p->group_rows);
}

static inline int64_t winograd_gradient_tasks(const struct winograd_gradient_params *p) {
    return p->parts * conv_blocks(winograd_gradient_groups(p), p->group_block) * winograd_gradient_phases(p) *
           conv_blocks(winograd_gradient_channels(p), p->channel_block);
}

/* Floats from a frequency to the next of V and of Z for so many tiles: of all, or of a task. Frequencies of a panel and of a group are
 * neighbours, so that a tile's lie in few pages. */
static inline int64_t winograd_gradient_inputs_stride(const struct winograd_gradient_params *p, int64_t tiles) {
    return winograd_stride(tiles * p->panel_width);
}

static inline int64_t winograd_gradient_outputs_stride(const struct winograd_gradient_params *p, int64_t tiles) {
    return winograd_stride(tiles * p->group_width);
}

/* Floats from an out to the next of U. */
static inline int64_t winograd_gradient_out_stride(const struct winograd_gradient_params *p) {
    return winograd_stride(winograd_gradient_frequencies(p) * p->channel_block);
}

/* Floats of so many panels of V and groups of Z. */
static inline int64_t winograd_gradient_inputs(const struct winograd_gradient_params *p, int64_t tiles, int64_t panels) {
    return panels * winograd_gradient_frequencies(p) * winograd_gradient_inputs_stride(p, tiles);
}

static inline int64_t winograd_gradient_outputs(const struct winograd_gradient_params *p, int64_t tiles, int64_t groups) {
    return groups * winograd_gradient_frequencies(p) * winograd_gradient_outputs_stride(p, tiles);
}

/* Panels of V of a phase. */
static inline int64_t winograd_gradient_panels(const struct winograd_gradient_params *p) {
    return conv_blocks(winograd_gradient_channels(p), p->panel_width);
}

/* The block of U and, unless they are in buffers, V and Z of tile_block tiles. */
static inline int64_t winograd_gradient_scratch_bytes(const struct winograd_gradient_params *p) {
    const int64_t inputs = winograd_gradient_inputs(p, p->tile_block, p->channel_block / p->panel_width);
    const int64_t outputs = winograd_gradient_outputs(p, p->tile_block, p->group_block);
    return 4 * (p->group_block * p->group_rows * winograd_gradient_out_stride(p) + (p->transformed ? 0 : inputs + outputs));
}

#endif
