/* The weight gradient of convolutions with stride 1 and 2 by Winograd's F(t x t, r x r), turned around (see winograd.h).
 *
 *     task = group_block groups of group_rows outs x channel_block channels of a phase, a share of the tiles
 *       for each tile_block tiles, unless all are transformed before
 *         transform the inputs          V[panel of channels][frequency][tile][NR]  B^T d B
 *         transform the gradients       Z[group of outs][frequency][tile][rows]    A dy A^T
 *         for each frequency            U[out][frequency][channel] += Z^T V        a sum of outer products
 *       dw = G^T U G                    one transform for each out and channel
 *
 * The block of U stays in the second-level cache for the whole share, or most of it. */
#include "isa.h"
#include "winograd.h"

struct gradient_tiles {
    int64_t across, down, all; /* tiles of an image, of all images */
};

static struct gradient_tiles gradient_tiles(const struct winograd_gradient_params *p) {
    const int64_t across = ceil_div(p->out_cols, p->tile), down = ceil_div(p->out_rows, p->tile);
    return (struct gradient_tiles){across, down, p->images * across * down};
}

/* The tiles of a part: `first` and, behind the last, `end`. */
static struct range {
    int64_t first, end;
} part_range(const struct winograd_gradient_params *p, int64_t part) {
    const int64_t all = gradient_tiles(p).all, share = ceil_div(all, p->parts);
    return (struct range){min_i64(all, part * share), min_i64(all, (part + 1) * share)};
}

/* Inputs of `count` tiles, `channels` channels of a phase from `channel` on, to v[panel * panel_stride + frequency * stride + tile * NR]. */
static void transform_inputs(const struct winograd_gradient_params *p, const float *x, int64_t phase, int64_t channel, int64_t channels,
                             int64_t first, int64_t count, float *v, int64_t stride, int64_t panel_stride) {
    const struct gradient_tiles tiles = gradient_tiles(p);
    const struct winograd_transforms *transforms = transforms_of((const struct winograd_form *)p);
    const int shared = winograd_phases_share((const struct winograd_form *)p, p->channels);
    const struct phase_place at = phase_at((const struct winograd_form *)p, shared ? FULL_PHASE : phase);
    const struct winograd_input input = {p->rows, p->cols, p->channels, shared ? p->channels : channels, p->step};
    for (int64_t t = 0; t < count; t++, v += NR) {
        const int64_t tile = first + t, image = tile / (tiles.across * tiles.down);
        const int64_t row = tile / tiles.across % tiles.down * p->tile, col = tile % tiles.across * p->tile;
        (shared ? transforms->phases : transforms->input)(&input, x + image * p->rows * p->cols * p->channels + channel,
                                                          row * p->step - p->pad_top + at.row, col * p->step - p->pad_left + at.col, v,
                                                          stride, NR, panel_stride);
    }
}

/* Gradients of `count` tiles, `rows` outs from `out` on, to z[frequency * stride + tile * group_width], in whole vectors. */
static void transform_gradients(const struct winograd_gradient_params *p, const float *dy, int64_t out, int64_t rows,
                                int64_t first, int64_t count, float *z, int64_t stride) {
    const struct gradient_tiles tiles = gradient_tiles(p);
    for (int64_t t = 0; t < count; t++, z += p->group_width) {
        const int64_t tile = first + t, image = tile / (tiles.across * tiles.down);
        const int64_t row = tile / tiles.across % tiles.down * p->tile, col = tile % tiles.across * p->tile;
        transforms_of((const struct winograd_form *)p)
            ->gradient(dy + ((image * p->out_rows + row) * p->out_cols + col) * p->outs + out, p->out_cols * p->outs, p->outs,
                       p->outs - out, min_i64(p->tile, p->out_rows - row), min_i64(p->tile, p->out_cols - col), rows, z, stride);
    }
}

void KERNEL(winograd_gradient_inputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_gradient_params *p = params;
    const int64_t tiles = gradient_tiles(p).all, panels = winograd_gradient_panels(p);
    for (int64_t phase = 0; phase < winograd_gradient_phases(p); phase++)
        transform_inputs(p, buffers[0], phase, 0, winograd_gradient_channels(p), task, 1,
                         (float *)buffers[1] + winograd_gradient_inputs(p, tiles, phase * panels) + task * NR,
                         winograd_gradient_inputs_stride(p, tiles), winograd_gradient_inputs(p, tiles, 1));
}

void KERNEL(winograd_gradient_outputs)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct winograd_gradient_params *p = params;
    const int64_t group = task / p->parts, out = group * p->group_rows, tiles = gradient_tiles(p).all;
    const struct range share = part_range(p, task % p->parts);
    transform_gradients(p, buffers[0], out, min_i64(p->group_rows, p->outs - out), share.first, share.end - share.first,
                        (float *)buffers[1] + winograd_gradient_outputs(p, tiles, group) + share.first * p->group_width,
                        winograd_gradient_outputs_stride(p, tiles));
}

/* dw = G^T U G for each out and channel of a phase: its taps of dw, the first out and channel of which is at dw. */
static void gradient_filters(const struct winograd_gradient_params *p, const float *u, int64_t phase, int64_t outs, int64_t channels,
                             float *dw) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const struct phase_place at = phase_at(f, phase);
    const int64_t kernel = p->kernel, step = p->step, side = winograd_taps(f);
    vf taps[16];
    for (int64_t o = 0; o < outs; o++, u += winograd_gradient_out_stride(p), dw += kernel * kernel * p->channels)
        for (int64_t c = 0; c < channels; c += VL) {
            transforms_of(f)->filter_gradient(u + c, p->channel_block, taps);
            for (int64_t row = at.row; row < kernel; row += step)
                for (int64_t col = at.col; col < kernel; col += step)
                    vf_store_until(dw + (row * kernel + col) * p->channels, taps[row / step * side + col / step], c, channels);
        }
}

/* The same where the phases' channels are lanes side by side. */
static void gradient_shared_filters(const struct winograd_gradient_params *p, const float *u, int64_t outs, float *dw) {
    const struct winograd_form *f = (const struct winograd_form *)p;
    const int64_t kernel = p->kernel, side = winograd_taps(f);
    vf taps[16];
    for (int64_t o = 0; o < outs; o++, u += winograd_gradient_out_stride(p), dw += kernel * kernel * p->channels)
        for (int64_t c = 0; c < 4 * p->channels; c += VL) {
            transforms_of(f)->filter_gradient(u + c, p->channel_block, taps);
            for (int64_t lane = 0; lane < min_i64(VL, 4 * p->channels - c); lane++) {
                const struct phase_place at = phase_at(f, (c + lane) / p->channels);
                for (int64_t row = at.row; row < kernel; row += 2)
                    for (int64_t col = at.col; col < kernel; col += 2)
                        dw[(row * kernel + col) * p->channels + (c + lane) % p->channels] = taps[row / 2 * side + col / 2][lane];
            }
        }
}

void KERNEL(winograd_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct winograd_gradient_params *p = params;
    const struct winograd_form *f = params;
    const int64_t all_channels = winograd_gradient_channels(p), phases = winograd_gradient_phases(p);
    const int64_t channel_blocks = ceil_div(all_channels, p->channel_block), out_block = p->group_block * p->group_rows;
    const int64_t columns = phases * channel_blocks, out_blocks = ceil_div(p->outs, out_block), part = task / columns / out_blocks;
    const int64_t phase = task % columns / channel_blocks, channel = task % channel_blocks * p->channel_block;
    const int64_t out = task / columns % out_blocks * out_block;
    const int64_t channels = min_i64(p->channel_block, all_channels - channel), outs = min_i64(out_block, p->outs - out);
    const struct range tiles = part_range(p, part);

    const int64_t side = winograd_side(f), frequencies = side * side, u_stride = winograd_gradient_out_stride(p);
    const int64_t together = p->transformed ? gradient_tiles(p).all : p->tile_block; /* tiles that lie together */
    const int64_t v_stride = winograd_gradient_inputs_stride(p, together), v_panel = winograd_gradient_inputs(p, together, 1);
    const int64_t z_stride = winograd_gradient_outputs_stride(p, together), z_group = winograd_gradient_outputs(p, together, 1);
    float *u = scratch, *v = u + p->group_block * p->group_rows * u_stride, *z = v + p->channel_block / NR * v_panel;
    if (p->transformed) {
        v = (float *)buffers[3] + (phase * winograd_gradient_panels(p) + channel / NR) * v_panel + tiles.first * NR;
        z = (float *)buffers[4] + out / p->group_rows * z_group + tiles.first * p->group_width;
    }
    if (tiles.first == tiles.end) memset(u, 0, (size_t)(outs * u_stride) * sizeof(float));
    for (int64_t first = tiles.first; first < tiles.end; first += p->tile_block) {
        const int64_t count = min_i64(p->tile_block, tiles.end - first);
        if (!p->transformed) {
            transform_inputs(p, buffers[0], phase, channel, channels, first, count, v, v_stride, v_panel);
            for (int64_t o = 0; o < outs; o += p->group_rows)
                transform_gradients(p, buffers[1], out + o, min_i64(p->group_rows, outs - o), first, count,
                                    z + o / p->group_rows * z_group, z_stride);
        }
        for (int64_t frequency = 0; frequency < frequencies; frequency++) {
            const struct winograd_phases full = winograd_phases(f, frequency / side, frequency % side);
            if (phases > 1 && (phase < full.first || phase >= full.first + full.count)) continue;
            for (int64_t lane = 0; lane < channels; lane += NR) {
                gemm_columns_tile *const *sizes = columns_tiles(min_i64(NR, channels - lane));
                for (int64_t o = 0; o < outs; o += p->group_rows) {
                    const float *panel = v + lane / NR * v_panel + frequency * v_stride;
                    sizes[min_i64(p->group_rows, outs - o)](count, z + o / p->group_rows * z_group + frequency * z_stride, p->group_width,
                                                            panel, NR, u + o * u_stride + frequency * p->channel_block + lane, u_stride,
                                                            first > tiles.first, panel + PANEL_AHEAD, NR);
                }
            }
        }
        if (p->transformed) v += count * NR, z += count * p->group_width;
    }
    float *dw = (float *)buffers[2] + (part * p->outs + out) * p->kernel * p->kernel * p->channels + channel;
    if (winograd_phases_share(f, p->channels)) gradient_shared_filters(p, u, outs, dw);
    else gradient_filters(p, u, phase, outs, channels, dw);
}
