// Weight gradient of 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3) turned around (see winograd.cl for tiles and frequencies):
//
//   winograd_input               V = B^T d B       of x      v [tile][frequency][channels]
//   winograd_gradient_output     W = A e A^T       of dy     w [tile][frequency][outs]         e = 4x4 gradients, zero outside
//   conv_weight_gradient         U = sum over the tiles of a chunk of W V, frequencies as groups     u [chunk][frequency][outs][channels]
//   winograd_gradient_filters    dw = G^T (sum over chunks of U) G
//
//        dy  +---------+---------+
//            | 4 x 4   |         |  -> 36 frequencies a tile, as of the 6x6 inputs that it was computed from
//            +---------+---------+
//
// The chunks are added in order.  36 vectors do not fit the registers, so both directions of a transform go through private memory.
#include "vectors.cl"
#define FREQUENCIES 36

// A e for d0..d3; F(n, value) takes the results.
#define SPREAD_LINE(F) { \
    const real even = d0 + d2, odd = d1 + d3, far_even = d0 + 4.0f * d2, far_odd = 2.0f * d1 + 8.0f * d3; \
    F(0, d0) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, far_even + far_odd) \
    F(4, far_even - far_odd) \
    F(5, d3) \
}

// G^T u for d0..d5.
#define GATHER_LINE(F) { \
    const real near = (d1 + d2) * (1.0f / 6.0f), far = d3 + d4; \
    F(0, d0 * 0.25f - near + far * (1.0f / 24.0f)) \
    F(1, (d2 - d1) * (1.0f / 6.0f) + (d3 - d4) * (1.0f / 12.0f)) \
    F(2, far * (1.0f / 6.0f) - near + d5) \
}

// Work-item (block of channels_per_item outputs, tile of the chunk).
__kernel void winograd_gradient_output(
    __global const float *dy, const int dy_offset,
    __global float *w, const int w_offset,
    const int y_rows, const int y_columns, const int channels,
    const int tile_rows, const int tile_columns, const int first_tile, const int channels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int tile = first_tile + (int)get_global_id(1);
    const int line = tile / tile_columns, image = line / tile_rows;
    const int first_row = 4 * (line - image * tile_rows), first_column = 4 * (tile - line * tile_columns);
    const int rows = min(4, y_rows - first_row), columns = min(4, y_columns - first_column);
    dy += dy_offset + ((image * y_rows + first_row) * y_columns + first_column) * channels;
    w += w_offset + (int)get_global_id(1) * FREQUENCIES * channels;

    float half_done[24 * VEC];
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        for (int s = 0; s < 4; ++s) {
            __global const float *at = dy + s * channels + channel;
#define LOAD_GRADIENT(r) const real d##r = s < columns && r < rows ? load_some(at + r * y_columns * channels, lanes) : (real)(0.0f);
            EACH(4, LOAD_GRADIENT)
#define KEEP_SPREAD(n, value) store_private(value, half_done + (4 * n + s) * VEC);
            SPREAD_LINE(KEEP_SPREAD)
        }
        for (int n = 0; n < 6; ++n) {
#define LOAD_SPREAD(s) const real d##s = load_private(half_done + (4 * n + s) * VEC);
            EACH(4, LOAD_SPREAD)
#define STORE_SPREAD(k, value) store_some(value, w + (6 * n + k) * channels + channel, lanes);
            SPREAD_LINE(STORE_SPREAD)
        }
    }
}

// dw [outs][3][3][channels].  Work-item (block of channels_per_item channels, output).
__kernel void winograd_gradient_filters(
    __global const float *u, const int u_offset,
    __global float *dw, const int dw_offset,
    const int outs, const int channels, const int chunks, const int channels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int out = get_global_id(1);
    const int frequency_stride = outs * channels;
    u += u_offset + out * channels;
    dw += dw_offset + out * 9 * channels;

    float half_done[18 * VEC];
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        for (int s = 0; s < 6; ++s) {
#define START_SUM(r) real d##r = (real)(0.0f);
            EACH(6, START_SUM)
            for (int chunk = 0; chunk < chunks; ++chunk) {
                __global const float *at = u + (chunk * FREQUENCIES + s) * frequency_stride + channel;
#define ADD_CHUNK(r) d##r += load_some(at + 6 * r * frequency_stride, lanes);
                EACH(6, ADD_CHUNK)
            }
#define KEEP_GATHERED(n, value) store_private(value, half_done + (6 * n + s) * VEC);
            GATHER_LINE(KEEP_GATHERED)
        }
        for (int n = 0; n < 3; ++n) {
#define LOAD_GATHERED(s) const real d##s = load_private(half_done + (6 * n + s) * VEC);
            EACH(6, LOAD_GATHERED)
#define STORE_GATHERED(k, value) store_some(value, dw + (3 * n + k) * channels + channel, lanes);
            GATHER_LINE(STORE_GATHERED)
        }
    }
}
