// Winograd's convolution F(TILE x TILE, 3x3) in one kernel, for CPUs and many tiles: what belongs to MR tiles is transformed, multiplied and transformed
// back by one core while it is in its caches.  Tiles and matrices: winograd_tile.cl; filters: winograd_filters of winograd.cl.
//
//   x --B^T d B-->  v [frequency][MR tiles][channels]  --filters, a panel of outputs-->  m [frequency][MR tiles][PANEL]  --A^T M A-->  y
//                   all channels, once                   for one panel after the other, all frequencies
//
// Work-item: `blocks_per_item` blocks of MR tiles, one after the other in the same scratch memory (scratch_stride floats for each work-item: v, where
// frequencies lie frequency_stride floats apart, then m).  A block's tiles behind the last one repeat that and are not stored.
//
//              panel: NV vectors of VEC outputs
//             +----------+----------+
//   tile 0    | sum0_0   | sum0_1   |   for one frequency: the sum over the channels i of v[tile][i] times vectors of panel[i], as in conv_igemm.cl
//    ...      |   ...    |   ...    |
//   tile MR-1 +----------+----------+
//
// TAPS 4: 7x7 taps and stride 2.  The reds are the channels of the input's four phases, whose filters have 4x4 taps or one less in a direction; such a filter
// is zero at the point infinity, the last frequency of a row or column, where only the full phases are multiplied: 169 of 784 multiplications.
//
// SUMMED  reds that are summed up before they join the others: the transform back multiplies the rounding errors of long sums.
// MR  tiles of a block; 1..14.    TILE, TAPS, NV, VEC, ACTIVATION: see winograd_tile.cl, register_block.cl, vectors.cl, activation.cl.
#include "vectors.cl"
#include "activation.cl"
#include "winograd_tile.cl"
#include "winograd_transforms.cl"
#include "register_block.cl"
#ifndef MR
#define MR 6
#endif
#ifndef SUMMED
#define SUMMED 128
#endif
#define PANEL (VEC * NV)

// Floats from a tile of v to the next, and the reds that are multiplied at a frequency: from FIRST_RED on, before LAST_RED.
#if TAPS == 4
#define RED_STRIDE PHASE_LANES
#define LAST_COLUMN(frequency) ((frequency) % SIDE == SIDE - 1)
#define LAST_ROW(frequency) ((frequency) / SIDE == SIDE - 1)
#define FIRST_RED(frequency) (LAST_COLUMN(frequency) ? reds / 4 : 0)
#define LAST_RED(frequency) (LAST_ROW(frequency) ? reds / 2 : LAST_COLUMN(frequency) ? 3 * reds / 4 : reds)
#else
#define RED_STRIDE reds
#define FIRST_RED(frequency) 0
#define LAST_RED(frequency) reds
#endif

__kernel void winograd_fused(
    __global const float *x, const int x_offset,
    __global const float *panels, const int panels_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    __global float *scratch, const int scratch_offset,
    const int x_rows, const int x_columns, const int reds, const int pad_top, const int pad_left,
    const int y_rows, const int y_columns, const int outs,
    const int tile_rows, const int tile_columns, const int tiles, const int blocks_per_item,
    const int scratch_stride, const int frequency_stride, const float alpha, const float beta)
{
    const int panel_count = (outs + PANEL - 1) / PANEL;
    const int first = (int)get_global_id(0) * blocks_per_item * MR;
    __global float *v = scratch + scratch_offset + (int)get_global_id(0) * scratch_stride;
    __global float *m = v + FREQUENCIES * frequency_stride;

#if TAPS == 4
    float pixels[FREQUENCIES * PHASE_LANES];
    for (int place = 0; place < FREQUENCIES * PHASE_LANES; ++place)
        pixels[place] = 0.0f;
#endif

    for (int block = first; block < min(first + blocks_per_item * MR, tiles); block += MR) {
        for (int t = 0; t < MR; ++t) {
            const corner_of_tile corner = corner_of(min(block + t, tiles - 1), tile_rows, tile_columns);
#if TAPS == 4
            transform_phases(x + x_offset, corner, pad_top, pad_left, x_rows, x_columns, reds / 4, pixels, v + t * RED_STRIDE, frequency_stride);
#else
            for (int channel = 0; channel < reds; channel += VEC)
                transform_input(x + x_offset + channel, corner, pad_top, pad_left, x_rows, x_columns, reds, min(reds - channel, VEC),
                                v + t * RED_STRIDE + channel, frequency_stride);
#endif
        }
        for (int panel = 0; panel < panel_count; ++panel) {
            for (int frequency = 0; frequency < FREQUENCIES; ++frequency) {
                EACH(MR, DECLARE_SUMS)
                const int first_red = FIRST_RED(frequency), last_red = LAST_RED(frequency);
                __global const float *weights = panels + panels_offset + ((frequency * panel_count + panel) * reds + first_red) * PANEL;
#define POINT(t) __global const float *v##t = v + frequency * frequency_stride + t * RED_STRIDE;
                EACH(MR, POINT)
                EACH(MR, DECLARE_TOTALS)
                for (int part = first_red; part < last_red; part += SUMMED) {
                    for (int i = part; i < min(part + SUMMED, last_red); ++i) {
#define LOAD_WEIGHT(t, n) const real vector##n = load(weights + n * VEC);
                        EACH_VECTOR(LOAD_WEIGHT, 0)
                        weights += PANEL;
#define ADD_TILE(t) ADD_TIMES(t, v##t[i])
                        EACH(MR, ADD_TILE)
                    }
                    EACH(MR, ADD_UP)
                }
                EACH(MR, TAKE_TOTALS)
#define KEEP(t, n) store(sum##t##_##n, m + (frequency * MR + t) * PANEL + n * VEC);
#define KEEP_TILE(t) EACH_VECTOR(KEEP, t)
                EACH(MR, KEEP_TILE)
            }
            for (int t = 0; t < min(MR, tiles - block); ++t) {
                const corner_of_tile corner = corner_of(block + t, tile_rows, tile_columns);
                for (int lane = 0; lane < PANEL; lane += VEC) {
                    const int out = panel * PANEL + lane, lanes = min(outs - out, VEC);
                    if (lanes > 0) {
                        const real bias_lanes = bias_offset >= 0 ? load_some(bias + bias_offset + out, lanes) : (real)(0.0f);
                        transform_output(m + t * PANEL + lane, MR * PANEL, bias_lanes, residual + residual_offset + out, residual_offset >= 0,
                                         y + y_offset + out, corner, y_rows, y_columns, outs, lanes, alpha, beta);
                    }
                }
            }
        }
    }
}
