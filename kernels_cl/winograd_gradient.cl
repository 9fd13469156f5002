// Weight gradient of 3x3 convolutions with stride 1 by Winograd's F(TILE x TILE, 3x3) turned around (see winograd_tile.cl for TILE and the matrices):
//
//   winograd_input               V = B^T d B       of x      v [tile][frequency][channels]                                (winograd.cl)
//   winograd_gradient_output     W = A e A^T       of dy     w [tile][frequency][outs]         e = TILE^2 gradients, zero outside
//   conv_weight_gradient         U = sum over the tiles of a chunk of W V, frequencies as groups     u [chunk][frequency][outs][channels]
//   winograd_gradient_filters    dw = G^T (sum over chunks of U) G
//
//        dy  +-------------+-------------+
//            | TILE x TILE |             |  -> SIDE^2 frequencies a tile, as of the SIDE^2 inputs that it was computed from
//            +-------------+-------------+
//
// The chunks are added in order.  A tile's vectors do not fit the registers, so both directions of a transform go through private memory.
//
// VECTORS  of channels that winograd_gradient_filters has at once: it reads a column of frequencies after the other, since the memory of all of them is too
//          much for a first-level cache.
#include "vectors.cl"
#include "winograd_tile.cl"
#ifndef VECTORS
#define VECTORS 1
#endif

// Work-item (block of channels_per_item outputs, tile of the chunk).
__kernel void winograd_gradient_output(
    __global const float *dy, const int dy_offset,
    __global float *w, const int w_offset,
    const int y_rows, const int y_columns, const int channels, const int tile_stride,
    const int tile_rows, const int tile_columns, const int first_tile, const int channels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const corner_of_tile corner = corner_of(first_tile + (int)get_global_id(1), tile_rows, tile_columns);
    const int rows = min(TILE, y_rows - corner.row), columns = min(TILE, y_columns - corner.column);
    dy += dy_offset + ((corner.image * y_rows + corner.row) * y_columns + corner.column) * channels;
    w += w_offset + (int)get_global_id(1) * tile_stride;

    float half_done[TILE * SIDE * VEC];
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        for (int s = 0; s < TILE; ++s) {
            __global const float *at = dy + s * channels + channel;
#define LOAD_GRADIENT(r) const real d##r = s < columns && r < rows ? load_some(at + r * y_columns * channels, lanes) : (real)(0.0f);
            EACH(TILE, LOAD_GRADIENT)
            AT_POINTS(TILE)
#define KEEP_SPREAD(n) store_private(r##n, half_done + (TILE * n + s) * VEC);
            EACH(SIDE, KEEP_SPREAD)
        }
        for (int n = 0; n < SIDE; ++n) {
#define LOAD_SPREAD(s) const real d##s = load_private(half_done + (TILE * n + s) * VEC);
            EACH(TILE, LOAD_SPREAD)
            AT_POINTS(TILE)
#define STORE_SPREAD(k) store_some(r##k, w + (SIDE * n + k) * channels + channel, lanes);
            EACH(SIDE, STORE_SPREAD)
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

    float half_done[VECTORS * 3 * SIDE * VEC];
    for (int block = first_channel; block < last_channel; block += VECTORS * VEC) {
        const int vectors = min(VECTORS, (last_channel - block + VEC - 1) / VEC);
        for (int s = 0; s < SIDE; ++s) {
            for (int vector = 0; vector < vectors; ++vector) {
                const int channel = block + vector * VEC, lanes = min(last_channel - channel, VEC);
#define START_SUM(r) real sum_of##r = (real)(0.0f);
                EACH(SIDE, START_SUM)
                for (int chunk = 0; chunk < chunks; ++chunk) {
                    __global const float *at = u + (chunk * FREQUENCIES + s) * frequency_stride + channel;
#define ADD_CHUNK(r) sum_of##r += load_some(at + SIDE * r * frequency_stride, lanes);
                    EACH(SIDE, ADD_CHUNK)
                }
#define SCALE_SUM(r) const real d##r = filter_scale(r) * sum_of##r;
                EACH(SIDE, SCALE_SUM)
                FROM_POINTS(3)
#define KEEP_GATHERED(n) store_private(r##n, half_done + ((3 * vector + n) * SIDE + s) * VEC);
                EACH(3, KEEP_GATHERED)
            }
        }
        for (int vector = 0; vector < vectors; ++vector) {
            const int channel = block + vector * VEC, lanes = min(last_channel - channel, VEC);
            for (int n = 0; n < 3; ++n) {
#define LOAD_GATHERED(s) const real d##s = filter_scale(s) * load_private(half_done + ((3 * vector + n) * SIDE + s) * VEC);
                EACH(SIDE, LOAD_GATHERED)
                FROM_POINTS(3)
#define STORE_GATHERED(k) store_some(r##k, dw + (3 * n + k) * channels + channel, lanes);
                EACH(3, STORE_GATHERED)
            }
        }
    }
}
