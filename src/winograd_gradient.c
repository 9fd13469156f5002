/* The weight gradient of 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3), turned around (see winograd.h).
 *
 *     task = out_block outs x channel_block channels, a share of the tiles
 *       for each tile_block tiles
 *         transform the inputs          V[frequency][tile][channel_block]          B^T d B
 *         transform the gradients       Z[frequency][rows of outs][tile][rows]     A dy A^T
 *         for each frequency            U[frequency][out][channel] += Z^T V        a sum of outer products
 *       dw = G^T U G                    one transform for each out and channel
 *
 * The block of U stays in the second-level cache for the whole share. */
#include "isa.h"
#include "winograd.h"

/* A dy for four vectors that lie `from` apart, written `to` apart (in vectors): the adjoint of output_line. */
ALWAYS_INLINE void gradient_line(const vf *y, int64_t from, vf *z, int64_t to) {
    const vf y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
    const vf even = y0 + y2, odd = y1 + y3, even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
    z[0] = y0;
    z[to] = even + odd;
    z[2 * to] = even - odd;
    z[3 * to] = even2 + odd2;
    z[4 * to] = even2 - odd2;
    z[5 * to] = y3;
}

/* G^T u for six vectors: the adjoint of filter_line. */
ALWAYS_INLINE void filter_gradient_line(const vf *u, int64_t from, vf *g, int64_t to) {
    const vf u0 = u[0], u1 = u[from], u2 = u[2 * from], u3 = u[3 * from], u4 = u[4 * from], u5 = u[5 * from];
    const vf near = (u1 + u2) * (1.0f / 6), far = u3 + u4;
    g[0] = u0 * 0.25f - near + far * (1.0f / 24);
    g[to] = (u2 - u1) * (1.0f / 6) + (u3 - u4) * (1.0f / 12);
    g[2 * to] = u5 - near + far * (1.0f / 6);
}

/* Transforms the gradients of one tile: frequency f of out o goes to z[f * out_block + o]; zeros past the outs. */
static void transform_gradient(const struct winograd_gradient_params *p, const float *dy, int64_t row, int64_t col,
                               int64_t outs, float *z) {
    const int64_t rows = min_i64(WINOGRAD_OUT, p->out_rows - row), cols = min_i64(WINOGRAD_OUT, p->out_cols - col);
    vf d[16], half[24], out[6];
    for (int64_t o = 0; o < outs; o += VL) {
        for (int64_t i = 0; i < 4; i++)
            for (int64_t j = 0; j < 4; j++)
                d[i * 4 + j] = i < rows && j < cols ? vf_load_until(dy + (i * p->out_cols + j) * p->outs, o, outs) : (vf){0};
        for (int j = 0; j < 4; j++) gradient_line(d + j, 4, half + j, 4);
        for (int i = 0; i < 6; i++) {
            gradient_line(half + i * 4, 1, out, 1);
            for (int j = 0; j < 6; j++) vf_store(z + (i * 6 + j) * p->out_block + o, out[j]);
        }
    }
}

void KERNEL(winograd_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_gradient_params *p = params;
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), out_blocks = ceil_div(p->outs, p->out_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t out = task / channel_blocks % out_blocks * p->out_block;
    const int64_t part = task / channel_blocks / out_blocks;
    const int64_t channels = min_i64(p->channel_block, p->channels - channel), outs = min_i64(p->out_block, p->outs - out);
    const int64_t across = ceil_div(p->out_cols, WINOGRAD_OUT), down = ceil_div(p->out_rows, WINOGRAD_OUT);
    const int64_t all = p->images * across * down, share = ceil_div(all, p->parts);
    const int64_t begin = min_i64(all, part * share), end = min_i64(all, begin + share);
    const int64_t width = p->channel_block, groups = ceil_div(outs, MR), slack = conv_round(VL, CHUNK);

    float *v = scratch;                                                    /* [frequency][tile][width] */
    float *z = v + WINOGRAD_FREQUENCIES * p->tile_block * width;           /* [frequency][group][tile][rows] and slack */
    const int64_t z_floats = p->out_block * p->tile_block + ceil_div(p->out_block, MR) * slack;
    float *u = z + WINOGRAD_FREQUENCIES * z_floats;                        /* [frequency][out][width] */
    float *line = u + WINOGRAD_FREQUENCIES * p->out_block * width;         /* gradients of one tile */
    const struct winograd_input input = {p->rows, p->cols, p->channels, channels};

    memset(u, 0, (size_t)(WINOGRAD_FREQUENCIES * p->out_block * width) * sizeof(float));
    for (int64_t first = begin; first < end; first += p->tile_block) {
        const int64_t count = min_i64(p->tile_block, end - first);
        for (int64_t t = 0; t < count; t++) {
            const int64_t tile = first + t, image = tile / (across * down);
            const int64_t row = tile / across % down * WINOGRAD_OUT, col = tile % across * WINOGRAD_OUT;
            const float *x = (const float *)buffers[0] + image * p->rows * p->cols * p->channels + channel;
            transform_input_4(&input, x, row - p->pad_top, col - p->pad_left, v + t * width, p->tile_block * width, VL, VL);
            const float *dy = (const float *)buffers[1] + ((image * p->out_rows + row) * p->out_cols + col) * p->outs + out;
            transform_gradient(p, dy, row, col, outs, line);
            for (int64_t f = 0; f < WINOGRAD_FREQUENCIES; f++)
                for (int64_t group = 0, o = 0; group < groups; group++) {
                    const int64_t rows = tile_rows(outs, groups, group);
                    float *target = z + f * z_floats + o * p->tile_block + group * slack + t * rows;
                    /* Whole vectors: what is written past the rows is the next tile's place, written later, or slack. */
                    for (int64_t r = 0; r < rows; r += VL) vf_store(target + r, vf_load(line + f * p->out_block + o + r));
                    o += rows;
                }
        }
        for (int64_t f = 0; f < WINOGRAD_FREQUENCIES; f++)
            for (int64_t lane = 0; lane < channels; lane += NR) {
                gemm_tile *const *sizes = tiles_columns[ceil_div(min_i64(NR, channels - lane), VL)];
                for (int64_t group = 0, o = 0; group < groups; group++) {
                    const int64_t rows = tile_rows(outs, groups, group);
                    sizes[rows](count, z + f * z_floats + o * p->tile_block + group * slack, rows,
                                v + f * p->tile_block * width + lane, width, u + (f * p->out_block + o) * width + lane, width, 1);
                    o += rows;
                }
            }
    }

    float *dw = (float *)buffers[2] + (part * p->outs + out) * 9 * p->channels + channel;
    for (int64_t o = 0; o < outs; o++)
        for (int64_t c = 0; c < channels; c += VL) {
            vf in[36], half[18], g[3];
            for (int f = 0; f < 36; f++) in[f] = vf_load(u + (f * p->out_block + o) * width + c);
            for (int j = 0; j < 6; j++) filter_gradient_line(in + j, 6, half + j, 6);
            for (int i = 0; i < 3; i++) {
                filter_gradient_line(half + i * 6, 1, g, 1);
                for (int j = 0; j < 3; j++)
                    vf_store_until(dw + (o * 9 + i * 3 + j) * p->channels, g[j], c, channels);
            }
        }
}
