// Products of Winograd's F(4x4, 3x3) for a few tiles, an image of 8x8 pixels: filters are transformed in registers on their way to being multiplied,
// since transformed ones would cost as much to read as to multiply. For CPUs with 32 registers. Inputs come from winograd_input of winograd.cl.
//
//   taps  [panel][chunk of CHUNK channels][tap][channel][VEC]     G g G^T, a row of frequencies at a time     v  [tile][frequency][channels]
//                               \________________________________________ x _________________________________/
//   m     [panel][frequency][tile][VEC]  --A^T M A-->  y
//
// Work-item: a panel of VEC outputs, for all tiles. What a chunk needs stays in a first-level cache: taps, inputs, and the sums of all frequencies, of
// which a row is in registers.  What is left of G without its factors costs additions more than multiplications; the sums are multiplied by the factors.
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

#define EACH_COLUMN(F, t) F(t, 0) F(t, 1) F(t, 2) F(t, 3) F(t, 4) F(t, 5)
#define DECLARE_SUM(t, j) real sum##t##_##j = (real)(0.0f);
#define DECLARE_SUMS(t) EACH_COLUMN(DECLARE_SUM, t)
#define ADD_PRODUCT(t, j) sum##t##_##j = multiply_add((real)(inputs[t * TILE_STRIDE + j * CHANNELS + k]), r##j, sum##t##_##j);
#define ADD_PRODUCTS(t) EACH_COLUMN(ADD_PRODUCT, t)
#define KEEP_SUM(t, j) { \
    __global float *sum = sums + (j * TILES + t) * VEC; \
    const real scaled = sum##t##_##j * (factor * filter_scale(j)); \
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
#define HALF(s, row) \
    real half##s; \
    { \
        const real d0 = TAP(0, s), d1 = TAP(1, s), d2 = TAP(2, s); \
        AT_POINTS(3) \
        half##s = r##row; \
    }
#define MULTIPLY_ROW(row) { \
    __global const float *inputs = v + row * SIDE * CHANNELS + channel; \
    __global float *sums = m + row * SIDE * TILES * VEC; \
    const float factor = filter_scale(row); \
    EACH(TILES, DECLARE_SUMS) \
    _Pragma("unroll 1") \
    for (int k = 0; k < CHUNK; ++k) { \
        HALF(0, row) \
        HALF(1, row) \
        HALF(2, row) \
        const real d0 = half0, d1 = half1, d2 = half2; \
        AT_POINTS(3) \
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
