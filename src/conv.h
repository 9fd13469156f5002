/* Parameters, buffers, task counts and scratch sizes of the convolution and GEMM kernels.
 *
 * One engine serves convolutions, their input gradients (transposed convolutions) and matrix products: the implicit
 * GEMM over taps. A tap is one position of the convolution kernel. For the output pixel (n, a, b) of a grid,
 *
 *     y[pixel, o] = sum over taps (r, s) and channels i of  x[n, row(a, r), col(b, s), i] * w[o, r, s, i]
 *     row(a, r) = a * row_step + tap_row_start + r * tap_row_step        (col alike)
 *
 * where positions outside of the rows and columns of x read zero.
 *
 *   forward convolution   row_step = stride, tap_row_start = -padding, tap_row_step = dilation, grid = output size
 *   input gradient        x is dy; one call per phase (residue class of rows and columns of dx modulo the stride):
 *                         row_step = 1, the taps that reach the phase, tap rows in either direction
 *   matrix product        y[m, n] = a[m, k] b[k, n]: one image of 1 x m pixels, one tap, k channels
 *
 * x is [image][row][col][channel] with explicit strides in floats; channels are contiguous. Group g reads the channels
 * from g * channels on and writes the outs from g * outs on. */
#ifndef PYCL_CNN_CONV_H
#define PYCL_CNN_CONV_H

#include <stdint.h>

/* How output pixels see x. The first members of every struct below that reads patches; Python names them flat. */
#define PATCH_MEMBERS                                                                                                  \
    int64_t images;         /* images of x, and of the grid */                                                         \
    int64_t rows, cols;     /* size of x; positions outside read zero */                                               \
    int64_t image_stride;   /* floats from an image of x to the next */                                                \
    int64_t row_stride;     /* floats from a row of x to the next */                                                   \
    int64_t col_stride;     /* floats from a column of x to the next; at least groups * channels */                    \
    int64_t groups;         /* groups of channels and outs */                                                          \
    int64_t channels;       /* channels of x in a group */                                                             \
    int64_t grid_rows, grid_cols;               /* output pixels of an image */                                        \
    int64_t row_step, col_step;                 /* rows (columns) of x from an output row (column) to the next */      \
    int64_t tap_rows, tap_cols;                 /* taps; either may be 0: the sum is then empty */                     \
    int64_t tap_row_start, tap_col_start;       /* row (column) of x that tap 0 of output row (column) 0 reads */      \
    int64_t tap_row_step, tap_col_step;         /* rows (columns) of x from a tap to the next; any sign */

struct patch_geometry {
    PATCH_MEMBERS
};

/* Where output pixels lie: pixel (n, a, b) at y + out_offset + n*out_image_stride + a*out_row_stride + b*out_col_stride.
 * A phase of an input gradient has out_row_stride = stride * (floats of a row of dx) and so on. */
#define OUTPUT_MEMBERS                                                                                                 \
    int64_t out_offset, out_image_stride, out_row_stride, out_col_stride;

/* y = act(sum + bias + residual); activation kinds are those of vec_math.h. */
#define ACTIVATION_MEMBERS                                                                                             \
    int64_t activation;                                                                                                \
    float alpha, beta;

/* ---- pack_panels: weights (or a matrix) -> panels of igemm -------------------------------------------------------
 * buffers: 0 source, 1 panels [groups][ceil(outs / panel_width)][tap_rows][tap_cols][reds][panel_width], 2 factors
 *          [groups*outs] or NULL
 * panels[g][p][r][s][i][lane] = source[offset + g*group_stride + (p*panel_width + lane)*out_stride
 *                                      + r*tap_row_stride + s*tap_col_stride + i*red_stride] times the factor of the out,
 *                               0 for lanes past outs
 * With `chunked` the reds are packed CHUNK at a time, of which there is a whole number: panels
 * [groups][ceil(outs / panel_width)][reds / CHUNK][tap_rows][tap_cols][CHUNK][panel_width].
 * tasks: groups * ceil(outs / panel_width);  scratch: none */
struct pack_panels_params {
    int64_t groups, outs, tap_rows, tap_cols, reds;
    int64_t panel_width; /* a multiple of the vector length, at most the full panel width of the instruction set; or 8 or 24 */
    int64_t offset, group_stride, out_stride, tap_row_stride, tap_col_stride, red_stride; /* floats, any sign */
    int64_t chunked;
};

/* ---- igemm ---------------------------------------------------------------------------------------------------------
 * buffers: 0 x, 1 panels (of pack_panels, reds = channels), 2 bias [groups*outs] or NULL, 3 residual (laid out as y) or
 *          NULL, 4 y
 * y and residual may be the same memory; y must not overlap x.
 * A task computes pixel_block output pixels by panel_block panels of one group.
 * tasks: igemm_tasks();  scratch: igemm_scratch_bytes() */
struct igemm_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t outs;            /* outputs of a group */
    int64_t panel_width;     /* as the weights were packed */
    int64_t pixel_block;     /* pixels of a task */
    int64_t panel_block;     /* panels of a task */
    int64_t reduction_block; /* summands (taps * channels) multiplied in one go; a multiple of CHUNK */
    ACTIVATION_MEMBERS
};

/* ---- conv_lines ----------------------------------------------------------------------------------------------------
 * The same sums as igemm, buffers alike, for x whose columns lie side by side (groups = 1, col_stride = channels,
 * tap_col_step = 1 unless there is one tap): the taps of a kernel row are then one run of floats in x.
 * A task computes line_block lines of the grid of one image by panel_block panels.
 * tasks: conv_lines_tasks();  scratch: conv_lines_scratch_bytes() */
struct conv_lines_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t outs;        /* outputs */
    int64_t panel_width; /* as the weights were packed */
    int64_t line_block;  /* lines of the grid of a task */
    int64_t panel_block; /* panels of a task */
    ACTIVATION_MEMBERS
};

/* ---- weight_gradient -----------------------------------------------------------------------------------------------
 * buffers: 0 x, 1 dy (described by the output members; out_offset included), 2 parts [parts][groups*outs][taps*channels]
 * parts[q][g*outs + o][t*channels + i] = sum over the q-th share of the pixels of dy[pixel, o] * x[source(pixel, t), i]
 * With parts = 1 buffer 2 is dw itself; otherwise sum_parts adds the parts up. A matrix product a^T b has dy = a, x = b.
 * A task computes out_block outs by red_block summand positions of one part and group.
 * tasks: weight_gradient_tasks();  scratch: weight_gradient_scratch_bytes() */
struct weight_gradient_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t outs;        /* outputs of a group */
    int64_t parts;       /* shares of the pixels; 1 .. pixel blocks */
    int64_t out_block;   /* outs of a task */
    int64_t red_block;   /* tap-channel positions of a task; a multiple of the full panel width */
    int64_t pixel_block; /* pixels copied and multiplied in one go */
};

/* ---- weight_gradient_lines --------------------------------------------------------------------------------------------
 * The same sums as weight_gradient, buffers alike, for x as conv_lines takes it; meant for few channels.
 * parts[q] is the sum over the q-th share of the grid lines of all images, taken line_block at a time.
 * tasks: parts;  scratch: weight_gradient_lines_scratch_bytes() */
struct weight_gradient_lines_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t outs;
    int64_t parts; /* shares of images * grid_rows */
    int64_t line_block;
};

/* ---- sum_parts: the second stage of the weight gradients -----------------------------------------------------------
 * buffers: 0 parts [parts][count], 1 sum [count];  tasks: ceil(count / SUM_PARTS_BLOCK);  scratch: none */
struct sum_parts_params {
    int64_t parts, count;
};

/* ---- spread_lines: input gradient for few channels, stride 1, no dilation ---------------------------------------------
 * buffers: 0 dy [images][grid_rows][grid_cols][outs], 1 panels (of pack_panels: its outs are the tap_cols * channels floats
 *          of a kernel row, its taps the kernel rows, its reds the outs), 2 dx [images][rows][cols][channels]
 * A task computes line_block lines of dx of all images.
 * tasks: spread_lines_tasks();  scratch: spread_lines_scratch_bytes() */
struct spread_lines_params {
    int64_t images, rows, cols, channels;
    int64_t grid_rows, grid_cols, outs;
    int64_t tap_rows, tap_cols, pad_top, pad_left;
    int64_t panel_width; /* as the weights were packed */
    int64_t line_block;
};

/* ---- depthwise: groups = channels = outs ---------------------------------------------------------------------------
 * buffers: 0 x, 1 weights [tap_rows][tap_cols][channels], 2 bias [channels] or NULL, 3 residual (laid out as y) or NULL,
 *          4 y
 * PATCH_MEMBERS with groups = 1 and channels = all of them. y and residual may be the same memory.
 * A task computes row_block grid rows of one image by channel_block channels.
 * tasks: depthwise_tasks();  scratch: depthwise_scratch_bytes() */
struct depthwise_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t row_block;
    int64_t channel_block; /* a multiple of the vector length, or channels */
    ACTIVATION_MEMBERS
};

/* ---- expanded_depthwise: a 1x1 convolution (the expansion) and the depthwise one that reads it ----------------------
 * buffers: 0 x [images][rows][cols][reds], 1 panels of the expansion (of pack_panels), 2 bias of the expansion [channels] or
 *          NULL, 3 depthwise weights [tap_rows][tap_cols][channels], 4 bias [channels] or NULL, 5 residual (laid out as y) or
 *          NULL, 6 y
 * PATCH_MEMBERS say how the depthwise convolution sees the expansion (groups = 1, channels = all of them);
 * the strides are those of x, whose pixels lie one behind the other; tap_row_step and tap_col_step are positive.
 * The expansion's activation is applied before the depthwise convolution, whose padding is zero nevertheless.
 * A task computes row_block grid rows of one image by channel_block channels, band_rows of them at a time, and keeps those
 * rows of its channels of the expansion that they see. y and residual may be the same memory; y must not overlap x.
 * tasks: expanded_depthwise_tasks();  scratch: expanded_depthwise_scratch_bytes() */
struct expanded_depthwise_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t reds;
    int64_t panel_width;   /* as the expansion's weights were packed */
    int64_t row_block;
    int64_t band_rows;     /* at most row_block */
    int64_t channel_block; /* a multiple of panel_width, or channels */
    int64_t expand_activation;
    float expand_alpha, expand_beta;
    ACTIVATION_MEMBERS
};

/* ---- depthwise_weight_gradient -------------------------------------------------------------------------------------
 * buffers: 0 x, 1 dy (described by the output members), 2 parts [parts][tap_rows*tap_cols][channels]
 * parts[q][t][c] = sum over the q-th share of the grid rows of all images of dy[pixel, c] * x[source(pixel, t), c]
 * tasks: depthwise_weight_gradient_tasks();  scratch: depthwise_weight_gradient_scratch_bytes() */
struct depthwise_weight_gradient_params {
    PATCH_MEMBERS
    OUTPUT_MEMBERS
    int64_t parts;         /* shares of images * grid_rows */
    int64_t channel_block; /* a multiple of the vector length, or channels */
};

/* ---- sizes ---------------------------------------------------------------------------------------------------------- */

enum {
    CHUNK = 16,             /* floats of a patch that lie together in the packed pixels of igemm: one cache line */
    TILE_FLOATS = 16 * 64,  /* room for a register tile of any instruction set */
    LINES = 16,             /* patches that are gathered in lines before they are cut into chunks */
    LINE_SLACK = 32,        /* floats: vectors may be written past the end of a line */
    SUM_PARTS_BLOCK = 4096, /* sums of a task of sum_parts */
};

static inline int64_t conv_blocks(int64_t count, int64_t block) { return (count + block - 1) / block; }
static inline int64_t conv_round(int64_t count, int64_t unit) { return conv_blocks(count, unit) * unit; }

static inline int64_t pack_panels_tasks(const struct pack_panels_params *p) {
    return p->groups * conv_blocks(p->outs, p->panel_width);
}

static inline int64_t igemm_tasks(const struct igemm_params *p) {
    int64_t pixels = p->images * p->grid_rows * p->grid_cols, panels = conv_blocks(p->outs, p->panel_width);
    return p->groups * conv_blocks(pixels, p->pixel_block) * conv_blocks(panels, p->panel_block);
}

/* Offsets of the pixels, their patches, lines, and sums: a tile, or all of the task's when the reduction is
 * blocked. */
static inline int64_t igemm_scratch_bytes(const struct igemm_params *p) {
    int64_t reds = p->tap_rows * p->tap_cols * p->channels;
    int64_t block = conv_round(reds < p->reduction_block ? reds : p->reduction_block, CHUNK);
    int64_t sums = reds > p->reduction_block ? p->pixel_block * p->panel_block * p->panel_width : TILE_FLOATS;
    return conv_round(8 * p->pixel_block, 64) + 4 * (p->pixel_block * block + LINES * (block + LINE_SLACK) + conv_round(sums, CHUNK));
}

static inline int64_t conv_lines_tasks(const struct conv_lines_params *p) {
    int64_t panels = conv_blocks(p->outs, p->panel_width);
    return p->images * conv_blocks(p->grid_rows, p->line_block) * conv_blocks(panels, p->panel_block);
}

/* Rows and columns of x that `lines` lines of the grid see. */
static inline int64_t band_rows(const struct patch_geometry *g, int64_t lines) {
    int64_t reach = (g->tap_rows - 1) * g->tap_row_step;
    return (lines - 1) * g->row_step + (reach < 0 ? -reach : reach) + 1;
}

static inline int64_t band_cols(const struct patch_geometry *g) { return (g->grid_cols - 1) * g->col_step + g->tap_cols; }

static inline int64_t band_floats(const struct patch_geometry *g, int64_t lines) {
    return conv_round(band_rows(g, lines) * band_cols(g) * g->channels, CHUNK);
}

/* Sums of a tile, and the rows of x with their padding. */
static inline int64_t conv_lines_scratch_bytes(const struct conv_lines_params *p) {
    return 4 * (TILE_FLOATS + band_floats((const struct patch_geometry *)p, p->line_block));
}

/* Sums, a line of dy, the rows of x with their padding; lines of sums and of dy are whole vectors of any instruction set. */
static inline int64_t weight_gradient_lines_scratch_bytes(const struct weight_gradient_lines_params *p) {
    int64_t reds = p->tap_rows * p->tap_cols * p->channels, width = conv_round(p->outs, CHUNK);
    return 4 * ((reds + p->grid_cols) * width + band_floats((const struct patch_geometry *)p, p->line_block));
}

static inline int64_t spread_lines_tasks(const struct spread_lines_params *p) {
    return conv_blocks(p->images * p->rows, p->line_block);
}

/* A line of dx with all that its pixels' runs reach around it. */
static inline int64_t spread_line_floats(const struct spread_lines_params *p) {
    int64_t reached = p->grid_cols - 1 + p->tap_cols, inside = p->pad_left + p->cols;
    return conv_round((reached > inside ? reached : inside) * p->channels, CHUNK);
}

static inline int64_t spread_lines_scratch_bytes(const struct spread_lines_params *p) {
    return 4 * (TILE_FLOATS + spread_line_floats(p));
}

static inline int64_t weight_gradient_tasks(const struct weight_gradient_params *p) {
    int64_t reds = p->tap_rows * p->tap_cols * p->channels;
    return p->groups * p->parts * conv_blocks(p->outs, p->out_block) * conv_blocks(reds, p->red_block);
}

/* Copied pixels of dy and of x, lines, and the sums. */
static inline int64_t weight_gradient_scratch_bytes(const struct weight_gradient_params *p) {
    int64_t dy = conv_round(p->pixel_block * p->out_block + LINE_SLACK, CHUNK), x = p->pixel_block * p->red_block;
    return 4 * (dy + x + LINES * (p->red_block + LINE_SLACK) + conv_round(p->out_block * p->red_block, CHUNK));
}

static inline int64_t sum_parts_tasks(const struct sum_parts_params *p) {
    return conv_blocks(p->count, SUM_PARTS_BLOCK);
}

static inline int64_t depthwise_tasks(const struct depthwise_params *p) {
    return p->images * conv_blocks(p->grid_rows, p->row_block) * conv_blocks(p->channels, p->channel_block);
}

/* A line of zeros that columns outside of x point to, and the table of those pointers: at most 16 a line. */
static inline int64_t depthwise_columns_bytes(int64_t channel_block, int64_t taps) {
    return 4 * (conv_round(channel_block, CHUNK) + LINE_SLACK) + 8 * 16 * taps;
}

/* Rows of x that two neighbouring grid rows see, with those between their taps: what is kept where they are normalised. */
static inline int64_t depthwise_kept_rows(const struct patch_geometry *g) {
    const int64_t reach = (g->tap_rows - 1) * g->tap_row_step;
    return (reach < 0 ? -reach : reach) + 1 + g->row_step;
}

static inline int64_t depthwise_kept_bytes(const struct patch_geometry *g, int64_t channel_block) {
    return 4 * depthwise_kept_rows(g) * g->cols * channel_block;
}

static inline int64_t depthwise_scratch_bytes(const struct depthwise_params *p) {
    return depthwise_columns_bytes(p->channel_block, p->tap_rows * p->tap_cols);
}

static inline int64_t expanded_depthwise_tasks(const struct expanded_depthwise_params *p) {
    return p->images * conv_blocks(p->grid_rows, p->row_block) * conv_blocks(p->channels, p->channel_block);
}

/* Rows of the expansion that a task keeps: those that band_rows grid rows see. */
static inline int64_t expanded_depthwise_kept(const struct expanded_depthwise_params *p) {
    int64_t rows = band_rows((const struct patch_geometry *)p, p->band_rows);
    return rows < p->rows ? rows : p->rows;
}

/* Columns of zeros that a row which is kept has on either side, so that no tap falls outside. */
static inline int64_t expanded_depthwise_left(const struct expanded_depthwise_params *p) {
    return p->tap_col_start < 0 ? -p->tap_col_start : 0;
}

static inline int64_t expanded_depthwise_right(const struct expanded_depthwise_params *p) {
    int64_t reach = (p->grid_cols - 1) * p->col_step + p->tap_col_start + (p->tap_cols - 1) * p->tap_col_step + 1;
    return reach > p->cols ? reach - p->cols : 0;
}

/* The sums of a tile, the rows that are kept, where their pixels lie, and the depthwise convolution's columns. */
static inline int64_t expanded_depthwise_scratch_bytes(const struct expanded_depthwise_params *p) {
    int64_t kept = expanded_depthwise_kept(p), cols = p->cols + expanded_depthwise_left(p) + expanded_depthwise_right(p);
    int64_t columns = depthwise_columns_bytes(p->channel_block, p->tap_rows * p->tap_cols);
    return 4 * (TILE_FLOATS + kept * cols * conv_round(p->channel_block, CHUNK)) + conv_round(8 * kept * p->cols, 64) + columns;
}

static inline int64_t depthwise_weight_gradient_tasks(const struct depthwise_weight_gradient_params *p) {
    return p->parts * conv_blocks(p->channels, p->channel_block);
}

static inline int64_t depthwise_weight_gradient_scratch_bytes(const struct depthwise_weight_gradient_params *p) {
    return depthwise_columns_bytes(p->channel_block, p->tap_rows * p->tap_cols);
}

static inline int64_t depthwise_normalised_scratch_bytes(const struct depthwise_params *p) {
    return depthwise_scratch_bytes(p) + depthwise_kept_bytes((const struct patch_geometry *)p, p->channel_block);
}

static inline int64_t depthwise_weight_gradient_normalised_scratch_bytes(const struct depthwise_weight_gradient_params *p) {
    return depthwise_weight_gradient_scratch_bytes(p) + depthwise_kept_bytes((const struct patch_geometry *)p, p->channel_block);
}

#endif
