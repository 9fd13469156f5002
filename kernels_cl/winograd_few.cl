// Products of Winograd's F(4x4, 3x3) for a few tiles, an image of 8x8 pixels: filters are transformed in registers on their way to being multiplied,
// since transformed ones would cost as much to read as to multiply. For CPUs with 32 registers. Inputs come from winograd_input of winograd.cl.
//
//   taps  [panel][chunk of CHUNK channels][tap][channel][VEC]     G g G^T, a row of frequencies at a time     v  [tile][frequency][channels]
//                               \________________________________________ x _________________________________/
//   m     [panel][frequency][tile][VEC]  --A^T M A-->  y
//
// Work-item: a panel of VEC outputs, for all tiles. What a chunk needs stays in a first-level cache: taps, inputs, and the sums of all frequencies, of
// which a row is in registers.  What is left of G without its factors costs additions only; the sums are multiplied by the factors.
//
// TILES       1..4; 6*TILES sums and a row of a filter fit 32 registers.
// CHANNELS, TILE_STRIDE    of v: channels, a multiple of CHUNK, and floats from a tile to the next. Known to the compiler, they are distances in its addresses.
// FETCH       1: the compiler has Clang's prefetch, for a CPU (OpenCL's own does nothing there).
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#include "winograd_tile.cl"
#include "winograd_transforms.cl"
#ifndef TILES
#define TILES 4
#endif
#ifndef CHANNELS
#define CHANNELS 512
#endif
#ifndef TILE_STRIDE
#define TILE_STRIDE (FREQUENCIES * CHANNELS)
#endif
#ifndef FETCH
#define FETCH 0
#endif
#define CHUNK 16

// Frequencies of a line of three taps: powers of the points 0, 1, -1, 2, -2, infinity; and the factors that make them G's.
#define POWERS_0(g0, g1, g2) (g0)
#define POWERS_1(g0, g1, g2) (((g0) + (g2)) + (g1))
#define POWERS_2(g0, g1, g2) (((g0) + (g2)) - (g1))
#define POWERS_3(g0, g1, g2) (((g0) + 4.0f * (g2)) + 2.0f * (g1))
#define POWERS_4(g0, g1, g2) (((g0) + 4.0f * (g2)) - 2.0f * (g1))
#define POWERS_5(g0, g1, g2) (g2)
#define FACTOR_0 0.25f
#define FACTOR_1 (-1.0f / 6.0f)
#define FACTOR_2 (-1.0f / 6.0f)
#define FACTOR_3 (1.0f / 24.0f)
#define FACTOR_4 (1.0f / 24.0f)
#define FACTOR_5 1.0f

#define EACH_COLUMN(F, t) F(t, 0) F(t, 1) F(t, 2) F(t, 3) F(t, 4) F(t, 5)
#define DECLARE_SUM(t, j) real sum##t##_##j = (real)(0.0f);
#define DECLARE_SUMS(t) EACH_COLUMN(DECLARE_SUM, t)
#define ADD_PRODUCT(t, j) sum##t##_##j = multiply_add((real)(inputs[t * TILE_STRIDE + j * CHANNELS + k]), filter##j, sum##t##_##j);
#define ADD_PRODUCTS(t) EACH_COLUMN(ADD_PRODUCT, t)
#define KEEP_SUM(t, j) { \
    __global float *sum = sums + (j * TILES + t) * VEC; \
    const real scaled = sum##t##_##j * (factor * FACTOR_##j); \
    store(load(sum) + scaled, sum); \
}
#define KEEP_SUMS(t) EACH_COLUMN(KEEP_SUM, t)

#if FETCH
#define fetch(p) __builtin_prefetch((const void *)(ulong)(p))
#else
#define fetch(p) ((void)0)
#endif

// A row of frequencies of a chunk of channels; each fetches some taps of the next chunk.
#define TAP(r, s) load(taps + ((3 * r + s) * CHUNK + k) * VEC)
#define MULTIPLY_ROW(row) { \
    __global const float *inputs = v + row * SIDE * CHANNELS + channel; \
    __global float *sums = m + row * SIDE * TILES * VEC; \
    const float factor = FACTOR_##row; \
    EACH(TILES, DECLARE_SUMS) \
    _Pragma("unroll 1") \
    for (int k = 0; k < CHUNK; ++k) { \
        const real half0 = POWERS_##row(TAP(0, 0), TAP(1, 0), TAP(2, 0)); \
        const real half1 = POWERS_##row(TAP(0, 1), TAP(1, 1), TAP(2, 1)); \
        const real half2 = POWERS_##row(TAP(0, 2), TAP(1, 2), TAP(2, 2)); \
        const real filter0 = POWERS_0(half0, half1, half2), filter1 = POWERS_1(half0, half1, half2), filter2 = POWERS_2(half0, half1, half2); \
        const real filter3 = POWERS_3(half0, half1, half2), filter4 = POWERS_4(half0, half1, half2), filter5 = POWERS_5(half0, half1, half2); \
        EACH(TILES, ADD_PRODUCTS) \
        fetch(taps + ((9 + row) * CHUNK + k) * VEC); \
        if (row < 3) \
            fetch(taps + ((15 + row) * CHUNK + k) * VEC); \
    } \
    EACH(TILES, KEEP_SUMS) \
}

__kernel void winograd_few(
    __global const float *taps, const int taps_offset,
    __global const float *v, const int v_offset,
    __global float *m, const int m_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    const int y_rows, const int y_columns, const int outs, const int tile_rows, const int tile_columns, const float alpha, const float beta)
{
    const int panel = get_global_id(0), out = panel * VEC, lanes = min(outs - out, VEC);
    taps += taps_offset + panel * 9 * CHANNELS * VEC;
    v += v_offset;
    m += m_offset + panel * FREQUENCIES * TILES * VEC;
    for (int sum = 0; sum < FREQUENCIES * TILES * VEC; sum += VEC)
        store((real)(0.0f), m + sum);
    for (int channel = 0; channel < CHANNELS; channel += CHUNK, taps += 9 * CHUNK * VEC) {
        MULTIPLY_ROW(0)
        MULTIPLY_ROW(1)
        MULTIPLY_ROW(2)
        MULTIPLY_ROW(3)
        MULTIPLY_ROW(4)
        MULTIPLY_ROW(5)
    }
    const real bias_lanes = bias_offset >= 0 ? load_some(bias + bias_offset + out, lanes) : (real)(0.0f);
    for (int t = 0; t < TILES; ++t)
        transform_output(m + t * VEC, TILES * VEC, bias_lanes, residual + residual_offset + out, residual_offset >= 0, y + y_offset + out,
                         corner_of(t, tile_rows, tile_columns), y_rows, y_columns, outs, lanes, alpha, beta);
}
