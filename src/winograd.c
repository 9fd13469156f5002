/* Winograd's F(t x t, r x r) for convolutions with stride 1 and 2 (see winograd.h; the transforms are in winograd_tile.h).
 *
 *     task = tile_block tiles x panel_block panels
 *       transform the inputs of all tiles          V[register tile][phase, channel / CHUNK][frequency][tile][CHUNK]
 *       for each panel
 *         for each row of frequencies
 *           transform the filters, unless they are     U[frequency][phase][channel][panel_width], or are in registers (winograd_few.h)
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
    int64_t step;               /* pixels from a pixel of a tile to the next */
};

/* Taps (row, col) of filters at taps[row * row_stride + col * col_stride]; those past rows and cols are zero. */
struct winograd_taps {
    const float *taps;
    int64_t rows, cols, row_stride, col_stride;
    int64_t floats; /* filters */
};

/* Where the outputs of a tile go. */
struct winograd_output {
    float *y;
    const float *bias, *residual; /* or NULL; residual is laid out as y */
    int64_t row_stride, col_stride, lanes;
    int64_t top, bottom, left, right; /* the rows and columns of the tile that are stored */
    struct epilogue end;
};

/* Floats from the channels that are transformed to those that are fetched. */
enum { FETCH_AHEAD = 32 };

/* How many of position, position + step, ... are negative, for steps of 1 and 2. */
static int64_t inside_from(int64_t position, int64_t step) { return position >= 0 ? 0 : (step - 1 - position) >> (step - 1); }

/* The row and column of x that a phase begins with, in the order of winograd.h. */
static const struct phase_place {
    int64_t row, col;
} phase_places[] = {{0, 1}, {0, 0}, {1, 0}, {1, 1}};

/* That of a stride of 1 is the whole, and the second phase begins where the tile does. */
enum { FULL_PHASE = 1 };

static struct phase_place phase_at(const struct winograd_form *f, int64_t phase) { return phase_places[f->step == 1 ? FULL_PHASE : phase]; }

/* A tile of side x side pixels of CHUNK floats each with the channels of all phases, up to 4 of each; zero outside of the image. */
static void gather_phases(const struct winograd_input *p, const float *image, int64_t row, int64_t col, int64_t side, float *pixels) {
    const int64_t row_floats = p->cols * p->stride, channels = p->channels, bottom = row + 2 * side, right = col + 2 * side;
    /* Four floats are copied, of which the next phase overwrites those that are too many. */
    const int inside = row >= 0 && col >= 0 && right <= p->cols && (bottom < p->rows || (bottom == p->rows && right + 4 <= p->cols));
    if (!inside) memset(pixels, 0, (size_t)(side * side * CHUNK) * sizeof(float));
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++, pixels += CHUNK) {
            const float *source = image + (row + 2 * i) * row_floats + (col + 2 * j) * p->stride;
            if (inside) {
                memcpy(pixels, source + p->stride, 16);
                memcpy(pixels + channels, source, 16);
                memcpy(pixels + 2 * channels, source + row_floats, 16);
                memcpy(pixels + 3 * channels, source + row_floats + p->stride, 16);
                continue;
            }
            for (int phase = 0; phase < 4; phase++) {
                const struct phase_place at = phase_places[phase];
                const int64_t x_row = row + 2 * i + at.row, x_col = col + 2 * j + at.col;
                if (x_row < 0 || x_row >= p->rows || x_col < 0 || x_col >= p->cols) continue;
                for (int64_t c = 0; c < channels; c++) pixels[phase * channels + c] = image[x_row * row_floats + x_col * p->stride + c];
            }
        }
}

#define TAPS 3
#define TILE 2
#include "winograd_tile.h"
#undef TILE
#define TILE 4
#include "winograd_tile.h"
#undef TILE
#define TILE 6
#include "winograd_tile.h"
#undef TILE
#define TILE 7
#include "winograd_tile.h"
#undef TILE
#undef TAPS
#define TAPS 2
#define TILE 2
#include "winograd_tile.h"
#undef TILE
#define TILE 4
#include "winograd_tile.h"
#undef TILE
#define TILE 7
#include "winograd_tile.h"
#undef TILE
#undef TAPS
#define TAPS 4
#define TILE 4
#include "winograd_tile.h"
#undef TILE
#define TILE 6
#include "winograd_tile.h"
#undef TILE
#undef TAPS

/* [tiles] of F(4x4, 3x3). */
static void (*const winograd_few[])(int64_t row, const float *taps, const float *v, float *m, int64_t m_stride, int accumulate) = {
    NULL,
#if FEW_TILES
    few_4x3_1, few_4x3_2, few_4x3_3, few_4x3_4,
#endif
};

struct winograd_transforms {
    void (*filters)(int64_t row, const struct winograd_taps *p, float *u, int64_t stride, float *last);
    void (*input)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                  int64_t frequency_stride, int64_t block, int64_t block_stride);
    void (*phases)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                   int64_t frequency_stride, int64_t block, int64_t block_stride);
    void (*output)(const float *m, int64_t frequency_stride, const struct winograd_output *out);
    void (*gradient)(const float *dy, int64_t row_stride, int64_t outs, int64_t end, int64_t down, int64_t across, int64_t rows,
                     float *z, int64_t frequency_stride);
    void (*filter_gradient)(const float *u, int64_t frequency_stride, vf *taps);
};

#define EVERY(size) .filters = transform_filters_##size, .input = transform_input_##size, .output = transform_output_##size
#define OF_PHASES(size) .phases = transform_phases_##size
#define OF_GRADIENT(size) .gradient = transform_gradient_##size, .filter_gradient = transform_filter_gradient_##size

/* [taps][tile] */
static const struct winograd_transforms winograd_transforms[5][8] = {
    [2][2] = {EVERY(2x2), OF_PHASES(2x2)},
    [2][4] = {EVERY(4x2), OF_PHASES(4x2), OF_GRADIENT(4x2)},
    [2][7] = {EVERY(7x2), OF_PHASES(7x2), OF_GRADIENT(7x2)},
    [3][2] = {EVERY(2x3), OF_PHASES(2x3)},
    [3][4] = {EVERY(4x3), OF_PHASES(4x3), OF_GRADIENT(4x3)},
    [3][6] = {EVERY(6x3), OF_GRADIENT(6x3)},
    [3][7] = {EVERY(7x3), OF_GRADIENT(7x3)},
    [4][4] = {EVERY(4x4), OF_PHASES(4x4), OF_GRADIENT(4x4)},
    [4][6] = {EVERY(6x4), OF_PHASES(6x4), OF_GRADIENT(6x4)},
};

static const struct winograd_transforms *transforms_of(const struct winograd_form *f) {
    return &winograd_transforms[winograd_taps(f)][f->tile];
}

/* ---- the kernels ---------------------------------------------------------------------------------------------------- */

/* A row of frequencies of a panel's filters, `floats` for each phase; a column's are `stride` floats apart. */
static void transform_row(const struct winograd_form *f, int64_t row, const float *taps, int64_t floats, float *u, int64_t stride) {
    const int64_t last = winograd_side(f) - 1, kernel = f->kernel;
    const struct winograd_phases inner = winograd_phases(f, row, 0), outer = winograd_phases(f, row, last);
    for (int64_t phase = inner.first; phase < inner.first + inner.count; phase++) {
        const struct phase_place at = phase_at(f, phase);
        const struct winograd_taps source = {.taps = taps + (at.row * kernel + at.col) * floats, .floats = floats,
                                             .rows = conv_blocks(kernel - f->short_rows - at.row, f->step),
                                             .cols = conv_blocks(kernel - f->short_cols - at.col, f->step),
                                             .row_stride = f->step * (kernel - f->short_cols) * floats, .col_stride = f->step * floats};
        const int ends = phase >= outer.first && phase < outer.first + outer.count;
        transforms_of(f)->filters(row, &source, u + (phase - inner.first) * floats, stride,
                                  ends ? u + last * stride + (phase - outer.first) * floats : NULL);
    }
}

void KERNEL(winograd_filters)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_filters_params *p = params;
    const struct winograd_form *f = params;
    const int64_t side = winograd_side(f), panel = task / side, row = task % side;
    float *target = (float *)buffers[1] + (panel * winograd_products(f) + row * winograd_row_products(f, 0)) * p->floats;
    transform_row(f, row, (const float *)buffers[0] + panel * winograd_filter_taps(f) * p->floats, p->floats, target,
                  winograd_phases(f, row, 0).count * p->floats);
}

struct tile_place {
    int64_t image, row, col; /* of the first output */
};

static struct tile_place tile_at(const struct winograd_params *p, int64_t tile) {
    const int64_t across = ceil_div(p->grid_cols, p->tile), down = ceil_div(p->grid_rows, p->tile);
    return (struct tile_place){tile / (across * down), tile / across % down * p->tile, tile % across * p->tile};
}

/* Transforms the inputs of the tiles first..end-1 of those from `begin` on, `count` of which lie together in v. */
static void transform_tiles(const struct winograd_params *p, const float *x, const float *rest, int64_t begin, int64_t count,
                            int64_t first, int64_t end, float *v) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const struct winograd_transforms *transforms = transforms_of(f);
    const int64_t frequencies = winograd_side(f) * winograd_side(f), groups = ceil_div(count, MR);
    const int64_t channels = p->first_channels, rest_channels = p->channels - channels, pixels = p->rows * p->cols;
    const struct winograd_input input = {p->rows, p->cols, channels, channels, p->step};
    const struct winograd_input rest_input = {p->rows, p->cols, rest_channels, rest_channels, p->step};
    for (int64_t group = 0, low = 0; group < groups; group++) {
        const int64_t rows = tile_rows(count, groups, group), stride = rows * CHUNK;
        for (int64_t t = max_i64(low, first); t < min_i64(low + rows, end); t++) {
            const struct tile_place place = tile_at(p, begin + t);
            const int64_t row = place.row * p->step - p->pad_top, col = place.col * p->step - p->pad_left;
            const float *image = x + place.image * pixels * channels;
            float *target = v + (t - low) * CHUNK;
            if (winograd_phases_share(f, channels)) {
                transforms->phases(&input, image, row, col, target, stride, CHUNK, 0);
                continue;
            }
            for (int phase = 0; phase < p->step * p->step; phase++, target += conv_round(channels, CHUNK) * frequencies * rows) {
                const struct phase_place at = phase_at(f, phase);
                transforms->input(&input, image, row + at.row, col + at.col, target, stride, CHUNK, frequencies * stride);
            }
            if (rest)
                transforms->input(&rest_input, rest + place.image * pixels * rest_channels, row, col, target, stride, CHUNK,
                                  frequencies * stride);
        }
        low += rows;
        v += rows * winograd_input_floats(p);
    }
}

void KERNEL(winograd_inputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_params *p = params;
    const int64_t begin = task / p->tile_block * p->tile_block, count = min_i64(p->tile_block, winograd_tiles(p) - begin);
    transform_tiles(p, buffers[0], buffers[2], begin, count, task - begin, task - begin + 1,
                    (float *)buffers[1] + begin * winograd_input_floats(p));
}

/* Products that are summed up before they join the others: the longer a sum, the larger its rounding errors, which A^T multiplies. */
enum { SUMMED = 128 };

/* The products of a panel at one frequency, of all phases, for the tiles of a task. */
static void multiply_frequency(const struct winograd_params *p, int64_t row, int64_t col, int64_t count, const float *v,
                               const float *filters, gemm_tile *const *sizes, float *m) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const struct winograd_phases phases = winograd_phases(f, row, col);
    const int64_t side = winograd_side(f), frequencies = side * side, frequency = row * side + col, width = p->panel_width;
    const int64_t m_stride = winograd_product_floats(p), groups = ceil_div(count, MR), floats = winograd_input_floats(p);
    /* Phases whose channels lie side by side are one product; so is none, which is zero. */
    const int shared = winograd_phases_share(f, p->channels), joined = shared || p->channels % CHUNK == 0 || phases.count == 0;
    const int far = p->transformed && count > MR; /* more than a second-level cache may hold */
    const int64_t calls = joined ? 1 : phases.count, reds = joined ? phases.count * p->channels : p->channels;
    m += frequency * width;
    for (int64_t group = 0; group < groups; group++) {
        const int64_t rows = tile_rows(count, groups, group);
        const float *a = v + frequency * rows * CHUNK;
        a += shared ? phases.first * p->channels : phases.first * conv_round(p->channels, CHUNK) * frequencies * rows;
        for (int64_t call = 0; call < calls; call++) {
            const float *inputs = a + call * conv_round(p->channels, CHUNK) * frequencies * rows;
            const float *panel = filters + call * p->channels * width;
            int64_t red = 0;
            do {
                const int64_t some = min_i64(SUMMED, reds - red);
                sizes[rows](some, inputs + red * frequencies * rows, frequencies * rows * CHUNK, far, panel + red * width, width, m, m_stride,
                            call > 0 || red > 0);
            } while ((red += SUMMED) < reds);
        }
        v += rows * floats, m += rows * m_stride;
    }
}

/* The products of a panel at all frequencies for few tiles. */
static void multiply_few(const struct winograd_params *p, int64_t count, const float *v, const float *taps, float *m) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const int64_t side = winograd_side(f), chunk = side * side * count * CHUNK;
    for (int64_t c = 0; c < p->channels; c += CHUNK, v += chunk, taps += winograd_filter_taps(f) * CHUNK * VL)
        for (int64_t row = 0; row < side; row++)
            winograd_few[count](row, taps, v + row * side * count * CHUNK, m + row * side * VL, winograd_product_floats(p), c > 0);
}

/* The products of a panel at all frequencies for the tiles of a task. */
static void multiply_panel(const struct winograd_params *p, const float *panels, int64_t panel, int64_t count, const float *v, float *u,
                           float *m) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const int64_t side = winograd_side(f), width = p->panel_width, floats = p->channels * width;
    const float *taps = panels + panel * winograd_filter_taps(f) * floats, *filters = panels + panel * winograd_products(f) * floats;
    if (p->few) {
        multiply_few(p, count, v, taps, m);
        return;
    }
    gemm_tile *const *sizes = tiles_pixels[ceil_div(min_i64(width, p->outs - panel * width), VL)];
    for (int64_t row = 0; row < side; row++, filters += winograd_row_products(f, 0) * floats) {
        const float *row_filters = filters;
        int64_t stride = winograd_phases(f, row, 0).count * floats;
        if (p->taps) {
            row_filters = u, stride = winograd_stride(stride);
            transform_row(f, row, taps, floats, u, stride);
        }
        for (int64_t col = 0; col < side; col++) multiply_frequency(p, row, col, count, v, row_filters + col * stride, sizes, m);
    }
}

void KERNEL(winograd)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_params *p = params;
    const struct winograd_form *f = params;
    const int64_t all = winograd_tiles(p), tile_blocks = ceil_div(all, p->tile_block);
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t begin = task % tile_blocks * p->tile_block, count = min_i64(p->tile_block, all - begin);
    const int64_t panel_begin = task / tile_blocks * p->panel_block;
    const int64_t panel_end = min_i64(panels, panel_begin + p->panel_block);
    const int64_t m_stride = winograd_product_floats(p);
    float *m = scratch, *u = m + p->tile_block * m_stride;
    float *v = u + winograd_filter_floats(p);
    if (p->transformed) v = (float *)buffers[5] + begin * winograd_input_floats(p);
    else transform_tiles(p, buffers[0], buffers[6], begin, count, 0, count, v);

    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const int64_t out = panel * width, lanes = min_i64(width, p->outs - out);
        multiply_panel(p, buffers[1], panel, count, v, u, m);
        struct winograd_output target = {.bias = buffers[2] ? (const float *)buffers[2] + out : NULL,
                                         .row_stride = p->out_step * p->out_cols * p->outs, .col_stride = p->out_step * p->outs,
                                         .lanes = lanes,
                                         .end = epilogue(p->activation, p->alpha, p->beta)};
        for (int64_t tile = 0; tile < count; tile++) {
            const struct tile_place place = tile_at(p, begin + tile);
            const int64_t y_row = p->out_top + p->out_step * place.row, y_col = p->out_left + p->out_step * place.col;
            const int64_t offset = ((place.image * p->out_rows + y_row) * p->out_cols + y_col) * p->outs + out;
            target.top = inside_from(y_row, p->out_step), target.bottom = min_i64(p->tile, inside_from(y_row - p->out_rows, p->out_step));
            target.left = inside_from(y_col, p->out_step), target.right = min_i64(p->tile, inside_from(y_col - p->out_cols, p->out_step));
            target.y = (float *)buffers[4] + offset;
            target.residual = buffers[3] ? (const float *)buffers[3] + offset : NULL;
            transforms_of(f)->output(m + tile * m_stride, width, &target);
        }
    }
}
