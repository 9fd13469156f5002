/* Winograd's F(4x4, 3x3) for 3x3 convolutions with stride 1 (see winograd.h).
 *
 *     task = tile_block tiles x panel_block panels
 *       transform the inputs of all tiles          V[frequency][channel / CHUNK][tile][CHUNK]
 *       for each panel
 *         for each frequency                        M[frequency][tile][panel_width] = V[frequency] x panel
 *         transform the products of each tile, epilogue, store
 *
 * The points are 0, 1, -1, 2, -2 and infinity. Both directions of a transform go through memory once (36 vectors do not
 * fit the registers). */
#include "winograd.h"
#include "conv_epilogue.h"
#include "isa.h"

/* ---- filters: U = G g G^T ---------------------------------------------------------------------------------------- */

/* G g for three vectors that lie `from` apart, written `to` apart (in vectors). */
ALWAYS_INLINE void filter_line(const vf *g, int64_t from, vf *u, int64_t to) {
    const vf g0 = g[0], g1 = g[from], g2 = g[2 * from];
    const vf even = (g0 + g2) * (1.0f / 6), odd = g1 * (1.0f / 6);
    const vf half = g0 * (1.0f / 24) + g2 * (1.0f / 6), rest = g1 * (1.0f / 12);
    u[0] = g0 * 0.25f;
    u[to] = -even - odd;
    u[2 * to] = odd - even;
    u[3 * to] = half + rest;
    u[4 * to] = half - rest;
    u[5 * to] = g2;
}

/* Filters are read in blocks of so many reds: what lies together in one direction is used before it leaves the cache. */
enum { FILTER_REDS = 16 };

void KERNEL(winograd_filters)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_filters_params *p = params;
    const int64_t width = p->panel_width, step = p->reds * width, lanes = min_i64(width, p->outs - task * width);
    const float *source = (const float *)buffers[0] + p->offset + task * width * p->out_stride;
    float *panel = (float *)buffers[1] + task * WINOGRAD_FREQUENCIES * step;
    float block[9][FILTER_REDS][NR];
    memset(block, 0, sizeof(block)); /* the lanes past outs stay zero */
    for (int64_t begin = 0; begin < p->reds; begin += FILTER_REDS) {
        const int64_t count = min_i64(FILTER_REDS, p->reds - begin);
        for (int64_t lane = 0; lane < lanes; lane++)
            for (int64_t tap = 0; tap < 9; tap++) {
                const float *g = source + lane * p->out_stride + begin * p->red_stride + tap / 3 * p->tap_row_stride +
                                 tap % 3 * p->tap_col_stride;
                for (int64_t i = 0; i < count; i++) block[tap][i][lane] = g[i * p->red_stride];
            }
        for (int64_t i = 0; i < count; i++)
            for (int64_t lane = 0; lane < width; lane += VL) {
                vf g[9], half[18], u[6];
                for (int tap = 0; tap < 9; tap++) g[tap] = vf_load(block[tap][i] + lane);
                for (int col = 0; col < 3; col++) filter_line(g + col, 3, half + col, 3);
                float *target = panel + (begin + i) * width + lane;
                for (int row = 0; row < 6; row++) {
                    filter_line(half + row * 3, 1, u, 1);
                    for (int col = 0; col < 6; col++) vf_store(target + (row * 6 + col) * step, u[col]);
                }
            }
    }
}

/* ---- inputs: V = B^T d B ------------------------------------------------------------------------------------------ */

/* B^T d for six vectors that lie `from` apart, written `to` apart (in vectors). */
ALWAYS_INLINE void input_line(const vf *d, int64_t from, vf *v, int64_t to) {
    const vf d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
    const vf even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, near = d4 - d2, far = 2.0f * (d3 - d1);
    v[0] = 4.0f * d0 - 5.0f * d2 + d4;
    v[to] = even + odd;
    v[2 * to] = even - odd;
    v[3 * to] = near + far;
    v[4 * to] = near - far;
    v[5 * to] = 4.0f * d1 - 5.0f * d3 + d5;
}

/* The images that tiles are taken from. */
struct winograd_input {
    int64_t rows, cols, stride; /* stride: floats from a pixel to the next */
    int64_t channels;           /* that are transformed */
};

/* Transforms one tile whose upper left input is (row, col) of `image`; frequency f of the channels from b * block on goes to
 * v[f * frequency_stride + b * block_stride]. block is a multiple of VL. */
static void transform_input(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                            int64_t frequency_stride, int64_t block, int64_t block_stride) {
    const int64_t channels = p->channels;
    const int inside = row >= 0 && col >= 0 && row + WINOGRAD_IN <= p->rows && col + WINOGRAD_IN <= p->cols;
    const float *corner = image + (row * p->cols + col) * p->stride;
    vf d[36], half[36], out[6];
    for (int64_t c = 0; c < channels; c += VL) {
        if (inside && c + VL <= channels) {
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 6; j++) d[i * 6 + j] = vf_load(corner + (i * p->cols + j) * p->stride + c);
        } else {
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 6; j++) {
                    const int there = row + i >= 0 && row + i < p->rows && col + j >= 0 && col + j < p->cols;
                    d[i * 6 + j] = there ? vf_load_until(corner + (i * p->cols + j) * p->stride, c, channels) : (vf){0};
                }
        }
        for (int j = 0; j < 6; j++) input_line(d + j, 6, half + j, 6);
        float *target = v + c / block * block_stride + c % block;
        for (int i = 0; i < 6; i++) {
            input_line(half + i * 6, 1, out, 1);
            for (int j = 0; j < 6; j++) vf_store(target + (i * 6 + j) * frequency_stride, out[j]);
        }
    }
}

/* ---- outputs: y = A^T M A ----------------------------------------------------------------------------------------- */

ALWAYS_INLINE void output_line(const vf *m, int64_t from, vf *y, int64_t to) {
    const vf m0 = m[0], m1 = m[from], m2 = m[2 * from], m3 = m[3 * from], m4 = m[4 * from], m5 = m[5 * from];
    const vf sum1 = m1 + m2, difference1 = m1 - m2, sum2 = m3 + m4, difference2 = m3 - m4;
    y[0] = m0 + sum1 + sum2;
    y[to] = difference1 + 2.0f * difference2;
    y[2 * to] = sum1 + 4.0f * sum2;
    y[3 * to] = difference1 + 8.0f * difference2 + m5;
}

/* Transforms one tile of products m[frequency * frequency_stride + lane] into the outputs from (row, col) on. */
static void transform_output(const struct winograd_params *p, const float *m, int64_t frequency_stride, int64_t lanes,
                             const float *bias, const float *residual, float *y, int64_t row, int64_t col) {
    const struct epilogue e = epilogue(p->activation, p->alpha, p->beta);
    const int64_t rows = min_i64(WINOGRAD_OUT, p->out_rows - row), cols = min_i64(WINOGRAD_OUT, p->out_cols - col);
    vf in[6], half[24], out[4];
    for (int64_t o = 0; o < lanes; o += VL) {
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < 6; i++) in[i] = vf_load(m + (i * 6 + j) * frequency_stride + o);
            output_line(in, 1, half + j, 6);
        }
        const vf added = bias ? vf_load_until(bias, o, lanes) : (vf){0};
        for (int64_t i = 0; i < rows; i++) {
            output_line(half + i * 6, 1, out, 1);
            for (int64_t j = 0; j < cols; j++) {
                const int64_t place = (i * p->out_cols + j) * p->outs;
                vf value = out[j] + added;
                if (residual) value += vf_load_until(residual + place, o, lanes);
                vf_store_until(y + place, finish(e, value), o, lanes);
            }
        }
    }
}

/* ---- the kernel ----------------------------------------------------------------------------------------------------- */

struct tile_place {
    int64_t image, row, col; /* of the first output */
};

static struct tile_place tile_at(const struct winograd_params *p, int64_t tile) {
    const int64_t across = ceil_div(p->out_cols, WINOGRAD_OUT), down = ceil_div(p->out_rows, WINOGRAD_OUT);
    return (struct tile_place){tile / (across * down), tile / across % down * WINOGRAD_OUT, tile % across * WINOGRAD_OUT};
}

void KERNEL(winograd)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_params *p = params;
    const int64_t all = winograd_tiles(p), tile_blocks = ceil_div(all, p->tile_block);
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t begin = task % tile_blocks * p->tile_block, count = min_i64(p->tile_block, all - begin);
    const int64_t panel_begin = task / tile_blocks * p->panel_block;
    const int64_t panel_end = min_i64(panels, panel_begin + p->panel_block);
    const int64_t row_floats = conv_round(p->channels, CHUNK), frequency_floats = count * row_floats;
    const int64_t groups = ceil_div(count, MR); /* of rows of the register tile */
    float *v = scratch, *m = v + WINOGRAD_FREQUENCIES * frequency_floats;
    const struct winograd_input input = {p->rows, p->cols, p->channels, p->channels};

    for (int64_t group = 0, first = 0; group < groups; group++) {
        const int64_t rows = tile_rows(count, groups, group);
        for (int64_t row = 0; row < rows; row++) {
            const struct tile_place place = tile_at(p, begin + first + row);
            const float *image = (const float *)buffers[0] + place.image * p->rows * p->cols * p->channels;
            transform_input(&input, image, place.row - p->pad_top, place.col - p->pad_left,
                            v + first * row_floats + row * CHUNK, frequency_floats, CHUNK, rows * CHUNK);
        }
        first += rows;
    }
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const int64_t out = panel * width, lanes = min_i64(width, p->outs - out);
        gemm_tile *const *sizes = tiles_pixels[ceil_div(lanes, VL)];
        const float *filters = (const float *)buffers[1] + panel * WINOGRAD_FREQUENCIES * p->channels * width;
        for (int64_t f = 0; f < WINOGRAD_FREQUENCIES; f++)
            for (int64_t group = 0, first = 0; group < groups; group++) {
                const int64_t rows = tile_rows(count, groups, group);
                sizes[rows](p->channels, v + f * frequency_floats + first * row_floats, filters + f * p->channels * width,
                            width, m + (f * count + first) * width, width, 0);
                first += rows;
            }
        const float *bias = buffers[2] ? (const float *)buffers[2] + out : NULL;
        for (int64_t tile = 0; tile < count; tile++) {
            const struct tile_place place = tile_at(p, begin + tile);
            const int64_t offset = ((place.image * p->out_rows + place.row) * p->out_cols + place.col) * p->outs + out;
            transform_output(p, m + tile * width, count * width, lanes, bias,
                             buffers[3] ? (const float *)buffers[3] + offset : NULL, (float *)buffers[4] + offset,
                             place.row, place.col);
        }
    }
}
