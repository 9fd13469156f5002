/* The weight gradient of 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3), turned around (see winograd.h).
 *
 *     task = group_block groups of group_rows outs x channel_block channels, a share of the tiles
 *       for each tile_block tiles, unless all are transformed before
 *         transform the inputs          V[frequency][panel of channels][tile][NR]  B^T d B
 *         transform the gradients       Z[frequency][group of outs][tile][rows]    A dy A^T
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

struct gradient_tiles {
    int64_t across, down, all; /* tiles of an image, of all images */
};

static struct gradient_tiles gradient_tiles(const struct winograd_gradient_params *p) {
    const int64_t across = ceil_div(p->out_cols, WINOGRAD_OUT), down = ceil_div(p->out_rows, WINOGRAD_OUT);
    return (struct gradient_tiles){across, down, p->images * across * down};
}

/* The tiles of a part: `first` and, behind the last, `end`. */
static struct range {
    int64_t first, end;
} part_range(const struct winograd_gradient_params *p, int64_t part) {
    const int64_t all = gradient_tiles(p).all, share = ceil_div(all, p->parts);
    return (struct range){min_i64(all, part * share), min_i64(all, (part + 1) * share)};
}

/* Inputs of `count` tiles, `channels` channels from `channel` on, to v[frequency * stride + panel * panel_stride + tile * NR]. */
static void transform_inputs(const struct winograd_gradient_params *p, const float *x, int64_t channel, int64_t channels,
                             int64_t first, int64_t count, float *v, int64_t stride, int64_t panel_stride) {
    const struct gradient_tiles tiles = gradient_tiles(p);
    const struct winograd_input input = {p->rows, p->cols, p->channels, channels, 1};
    for (int64_t t = 0; t < count; t++) {
        const int64_t tile = first + t, image = tile / (tiles.across * tiles.down);
        const int64_t row = tile / tiles.across % tiles.down * WINOGRAD_OUT, col = tile % tiles.across * WINOGRAD_OUT;
        transform_input_4x3(&input, x + image * p->rows * p->cols * p->channels + channel, row - p->pad_top, col - p->pad_left,
                          v + t * NR, stride, NR, panel_stride);
    }
}

/* Gradients of `count` tiles, `rows` outs from `out` on, to z[frequency * stride + tile * rows]. Whole vectors: what is written past the
 * rows is the next tile's place, written later, or slack. */
static void transform_gradients(const struct winograd_gradient_params *p, const float *dy, int64_t out, int64_t rows,
                                int64_t first, int64_t count, float *z, int64_t stride) {
    const struct gradient_tiles tiles = gradient_tiles(p);
    vf d[16], half[24], line[6];
    for (int64_t t = 0; t < count; t++, z += rows) {
        const int64_t tile = first + t, image = tile / (tiles.across * tiles.down);
        const int64_t row = tile / tiles.across % tiles.down * WINOGRAD_OUT, col = tile % tiles.across * WINOGRAD_OUT;
        const int64_t bottom = min_i64(WINOGRAD_OUT, p->out_rows - row), right = min_i64(WINOGRAD_OUT, p->out_cols - col);
        const float *corner = dy + ((image * p->out_rows + row) * p->out_cols + col) * p->outs + out;
        if (bottom < WINOGRAD_OUT || right < WINOGRAD_OUT) memset(d, 0, sizeof(d));
        for (int64_t o = 0; o < rows; o += VL) {
            for (int64_t i = 0; i < bottom; i++)
                for (int64_t j = 0; j < right; j++)
                    d[i * 4 + j] = vf_load_until(corner + (i * p->out_cols + j) * p->outs, o, p->outs - out);
            UNROLL(4)
            for (int j = 0; j < 4; j++) gradient_line(d + j, 4, half + j, 4);
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                gradient_line(half + i * 4, 1, line, 1);
                UNROLL(6)
                for (int j = 0; j < 6; j++) vf_store(z + (i * 6 + j) * stride + o, line[j]);
            }
        }
    }
}

void KERNEL(winograd_gradient_inputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_gradient_params *p = params;
    transform_inputs(p, buffers[0], 0, p->channels, task, 1, (float *)buffers[1] + task * NR, winograd_gradient_inputs_stride(p),
                     gradient_tiles(p).all * NR);
}

void KERNEL(winograd_gradient_outputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_gradient_params *p = params;
    const int64_t group = task / p->parts, part = task % p->parts, out = group * p->group_rows;
    const struct range tiles = part_range(p, part);
    transform_gradients(p, buffers[0], out, min_i64(p->group_rows, p->outs - out), tiles.first, tiles.end - tiles.first,
                        (float *)buffers[1] + group * winograd_gradient_group(p) + tiles.first * p->group_rows + part * GRADIENT_SLACK,
                        winograd_gradient_outputs_stride(p));
}

/* dw = G^T U G for each out and channel. */
static void gradient_filters(const struct winograd_gradient_params *p, const float *u, int64_t stride, int64_t outs,
                             int64_t channels, float *dw) {
    for (int64_t o = 0; o < outs; o++)
        for (int64_t c = 0; c < channels; c += VL) {
            vf in[36], half[18], g[3];
            for (int f = 0; f < 36; f++) in[f] = vf_load(u + f * stride + o * p->channel_block + c);
            for (int j = 0; j < 6; j++) filter_gradient_line(in + j, 6, half + j, 6);
            for (int i = 0; i < 3; i++) {
                filter_gradient_line(half + i * 6, 1, g, 1);
                for (int j = 0; j < 3; j++) vf_store_until(dw + (o * 9 + i * 3 + j) * p->channels, g[j], c, channels);
            }
        }
}

void KERNEL(winograd_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_gradient_params *p = params;
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), out_block = p->group_block * p->group_rows;
    const int64_t out_blocks = ceil_div(p->outs, out_block), part = task / channel_blocks / out_blocks;
    const int64_t channel = task % channel_blocks * p->channel_block, out = task / channel_blocks % out_blocks * out_block;
    const int64_t channels = min_i64(p->channel_block, p->channels - channel), outs = min_i64(out_block, p->outs - out);
    const struct range tiles = part_range(p, part);

    const int64_t u_stride = winograd_stride(out_block * p->channel_block);
    float *u = scratch, *v = u + WINOGRAD_FREQUENCIES * u_stride, *z;
    int64_t v_stride, v_panel, z_stride, z_group, step;
    if (p->transformed) {
        v_stride = winograd_gradient_inputs_stride(p), v_panel = gradient_tiles(p).all * NR;
        z_stride = winograd_gradient_outputs_stride(p), z_group = winograd_gradient_group(p);
        v = (float *)buffers[3] + channel / NR * v_panel + tiles.first * NR;
        z = (float *)buffers[4] + out / p->group_rows * z_group + tiles.first * p->group_rows + part * GRADIENT_SLACK;
        step = max_i64(1, tiles.end - tiles.first);
    } else {
        v_stride = winograd_stride(p->tile_block * p->channel_block), v_panel = p->tile_block * NR;
        z_group = p->tile_block * p->group_rows + GRADIENT_SLACK, z_stride = winograd_stride(p->group_block * z_group);
        z = v + WINOGRAD_FREQUENCIES * v_stride;
        step = p->tile_block;
    }
    if (tiles.first == tiles.end) memset(u, 0, (size_t)(WINOGRAD_FREQUENCIES * u_stride) * sizeof(float));
    for (int64_t first = tiles.first; first < tiles.end; first += step) {
        const int64_t count = min_i64(step, tiles.end - first);
        if (!p->transformed) {
            transform_inputs(p, buffers[0], channel, channels, first, count, v, v_stride, v_panel);
            for (int64_t o = 0; o < outs; o += p->group_rows)
                transform_gradients(p, buffers[1], out + o, min_i64(p->group_rows, outs - o), first, count,
                                    z + o / p->group_rows * z_group, z_stride);
        }
        for (int64_t f = 0; f < WINOGRAD_FREQUENCIES; f++)
            for (int64_t lane = 0; lane < channels; lane += NR) {
                gemm_tile *const *sizes = columns_tiles(min_i64(NR, channels - lane));
                for (int64_t o = 0; o < outs; o += p->group_rows) {
                    const int64_t rows = min_i64(p->group_rows, outs - o);
                    sizes[rows](count, z + f * z_stride + o / p->group_rows * z_group, rows, v + f * v_stride + lane / NR * v_panel, NR,
                                u + f * u_stride + o * p->channel_block + lane, p->channel_block, first > tiles.first);
                }
            }
    }
    gradient_filters(p, u, u_stride, outs, channels, (float *)buffers[2] + (part * p->outs + out) * 9 * p->channels + channel);
}
