// Transforms of Winograd's minimal filtering F(TILE x TILE, 3x3) for 3x3 convolutions with stride 1: less than half of the
// multiplications. See winograd_tile.cl for TILE, its matrices and the number of frequencies, SIDE = TILE + 2 at a side.
//
//   winograd_filters   g, 3x3            -> U = G g G^T       panels [frequency][panel][reds][width], as of pack.cl
//   winograd_input     d, SIDE^2 of x    -> V = B^T d B       v [tile][frequency][channels], tiles tile_stride floats apart
//   conv_igemm         M = V U, frequencies as groups         m [tile][frequency][outs], likewise
//   winograd_output    M                 -> y = A^T M A, TILE^2, with bias, residual and activation
//
//        x                            y                    tiles of y do not overlap, those of x by two rows and columns;
//      +---+---------+---+         +---------+---------+   tile (p, q) of an image reads x from row TILE*p - pad_top and
//      | t | i   l   | e |         |         |         |   column TILE*q - pad_left on; outside x is zero
//      |   | 0       |   | tile 1  | tile 0  | tile 1  |
//      +---+---------+---+         +---------+---------+
//
// A chunk of tiles, from first_tile on, is transformed, multiplied and transformed back before the next, so that v and m stay in a
// cache.  Work-item of input and output: (block of channels_per_item channels, tile of the chunk); a tile's vectors do not fit the registers,
// so both directions of a transform go through private memory.
//
// REDS        that winograd_filters gathers at once, a multiple of 4. It writes a row of frequencies after the other: the memory of all of them is too much
//             for a first-level cache.
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#include "winograd_tile.cl"
#include "winograd_transforms.cl"
#ifndef REDS
#define REDS 4
#endif

// Filter (out, i) has its tap (r, s) at source[source_offset + out*out_stride + i*red_stride + r*tap_row_stride + s*tap_column_stride].
// Work-item (block of reds_per_item reds, panel): width is a multiple of VEC.
__kernel void winograd_filters(
    __global const float *source, const int source_offset,
    __global float *panels, const int panels_offset,
    const int outs, const int reds, const int width,
    const int out_stride, const int red_stride, const int tap_row_stride, const int tap_column_stride, const int reds_per_item)
{
    const int panel = get_global_id(1), panel_count = (outs + width - 1) / width;
    const int first = get_global_id(0) * reds_per_item;
    const int last = min(first + reds_per_item, reds);
    const int vectors = width / VEC;

    float gathered[REDS * 9 * VEC], half_done[REDS * 3 * SIDE * VEC];
    for (int work = 0; work < (last - first + REDS - 1) / REDS * vectors; ++work) {
        const int i = first + work / vectors * REDS, first_lane = work % vectors * VEC;
        const int count = min(REDS, last - i);
        const int lanes = outs - panel * width - first_lane;
        __global const float *from = source + source_offset + (panel * width + first_lane) * out_stride + i * red_stride;
        __global float *result = panels + panels_offset + (panel * reds + i) * width + first_lane;
        if (lanes < VEC)
            for (int place = 0; place < count * 9 * VEC; ++place)
                gathered[place] = 0.0f;
        for (int tap = 0; tap < 9; ++tap) {
            __global const float *at = from + tap / 3 * tap_row_stride + tap % 3 * tap_column_stride;
            __private float *to = gathered + tap * VEC;
            int red = 0;
#if VEC >= 4
            for (; red_stride == 1 && red + 4 <= count && lanes >= VEC; red += 4) {
                __private float *quad = to + red * 9 * VEC;
                for (int lane = 0; lane < VEC; lane += 4) {
                    __global const float *line = at + red + lane * out_stride;
                    const float4 a = load_quad(line), b = load_quad(line + out_stride), c = load_quad(line + 2 * out_stride), d = load_quad(line + 3 * out_stride);
                    store_quad_private((float4)(a.s0, b.s0, c.s0, d.s0), quad + lane);
                    store_quad_private((float4)(a.s1, b.s1, c.s1, d.s1), quad + 9 * VEC + lane);
                    store_quad_private((float4)(a.s2, b.s2, c.s2, d.s2), quad + 18 * VEC + lane);
                    store_quad_private((float4)(a.s3, b.s3, c.s3, d.s3), quad + 27 * VEC + lane);
                }
            }
#endif
            for (; red < count; ++red) {
                if (out_stride == 1)
                    store_private(load_some(at + red * red_stride, lanes), to + red * 9 * VEC);
                else
                    for (int lane = 0; lane < min(lanes, VEC); ++lane)
                        to[red * 9 * VEC + lane] = at[red * red_stride + lane * out_stride];
            }
        }
        for (int red = 0; red < count; ++red) {
            for (int s = 0; s < 3; ++s) {
#define LOAD_ROW(r) const real d##r = load_private(gathered + (9 * red + 3 * r + s) * VEC);
                EACH(3, LOAD_ROW)
                AT_POINTS(3)
#define KEEP_ROW(n) store_private(filter_scale(n) * r##n, half_done + (3 * (SIDE * red + n) + s) * VEC);
                EACH(SIDE, KEEP_ROW)
            }
        }
        for (int n = 0; n < SIDE; ++n) {
            for (int red = 0; red < count; ++red) {
#define LOAD_COLUMN(r) const real d##r = load_private(half_done + (3 * (SIDE * red + n) + r) * VEC);
                EACH(3, LOAD_COLUMN)
                AT_POINTS(3)
#define STORE_FREQUENCY(k) store(filter_scale(k) * r##k, result + ((SIDE * n + k) * panel_count * reds + red) * width);
                EACH(SIDE, STORE_FREQUENCY)
            }
        }
    }
}

__kernel void winograd_input(
    __global const float *x, const int x_offset,
    __global float *v, const int v_offset,
    const int x_rows, const int x_columns, const int channels, const int tile_stride,
    const int tile_rows, const int tile_columns, const int pad_top, const int pad_left,
    const int first_tile, const int channels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const corner_of_tile corner = corner_of(first_tile + (int)get_global_id(1), tile_rows, tile_columns);
    v += v_offset + (int)get_global_id(1) * tile_stride;
    for (int channel = first_channel; channel < last_channel; channel += VEC)
        transform_input(x + x_offset + channel, corner, pad_top, pad_left, x_rows, x_columns, channels, min(last_channel - channel, VEC), v + channel, channels);
}

__kernel void winograd_output(
    __global const float *m, const int m_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    const int y_rows, const int y_columns, const int channels, const int tile_stride,
    const int tile_rows, const int tile_columns,
    const int first_tile, const int channels_per_item, const float alpha, const float beta)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const corner_of_tile corner = corner_of(first_tile + (int)get_global_id(1), tile_rows, tile_columns);
    m += m_offset + (int)get_global_id(1) * tile_stride;
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        const real bias_lanes = bias_offset >= 0 ? load_some(bias + bias_offset + channel, lanes) : (real)(0.0f);
        transform_output(m + channel, channels, bias_lanes, residual + residual_offset + channel, residual_offset >= 0, y + y_offset + channel, corner,
                         y_rows, y_columns, channels, lanes, alpha, beta);
    }
}
