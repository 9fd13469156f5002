/* The GEMM micro-kernels of every size (see gemm_tile.h), in tables by rows and vectors. */
#include "conv.h"
#include "isa.h"
#include "vec_basic.h"

#if VL == 16
/* Half a vector, for the few outs that it is enough for. */
typedef float vh __attribute__((vector_size(2 * VL)));
typedef vh vh_unaligned __attribute__((aligned(4), may_alias));

static inline vh vh_load(const float *source) { return *(const vh_unaligned *)source; }
static inline void vh_store(float *target, vh value) { *(vh_unaligned *)target = value; }
static inline vh vh_set1(float value) { return value - (vh){0}; }
static inline vh vh_max(vh a, vh b) { return (vh)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vh vh_min(vh a, vh b) { return (vh)_mm256_min_ps((__m256)a, (__m256)b); }
static inline __mmask8 vh_lanes_until(int64_t i, int64_t end) {
    return (__mmask8)(end <= i ? 0 : end - i < 8 ? (1 << (end - i)) - 1 : 255); /* a panel of 24 may have 8 outs in use */
}
static inline vh vh_load_until(const float *x, int64_t i, int64_t end) {
    return (vh)_mm256_maskz_loadu_ps(vh_lanes_until(i, end), x + i);
}
static inline void vh_store_until(float *y, vh value, int64_t i, int64_t end) {
    _mm256_mask_storeu_ps(y + i, vh_lanes_until(i, end), (__m256)value);
}
#endif

/* a_stride: from a chunk of pixels to the next, or from a column to the next. */
typedef void gemm_tile(int64_t reds, const float *a, int64_t a_stride, int far, const float *panel, int64_t panel_stride,
                               float *sums, int64_t sums_stride, int accumulate);
typedef void gemm_columns_tile(int64_t reds, const float *a, int64_t a_stride, const float *panel, int64_t panel_stride,
                               float *sums, int64_t sums_stride, int accumulate, const float *next, int64_t next_stride);

/* Where the rows of some tiles lie: float k of segment s of row r of tile t is
 * a[t * tile_stride + s * segment_stride + (k / CHUNK) * chunk_stride + k % CHUNK + r * row_stride]. */
struct tile_rows {
    int64_t tiles, tile_stride;
    int64_t row_stride, chunk_stride;
    int64_t segments, segment_length, segment_stride;
    const float *next; /* the rows that are fetched from memory meanwhile, next_stride apart; or NULL: those behind the tile's */
    int64_t next_stride;
};

/* Where the sums of the tiles, one row behind the other, come from and go to. */
struct tile_end {
    float *sums; /* so far, and from now on unless there is y */
    int64_t sums_stride;
    int accumulate;
    float *y; /* or NULL: max(low, min(high, sums + bias + residual)) go here, row r at offsets[r] */
    const int64_t *offsets;
    const float *bias, *residual; /* or NULL; residual is laid out as y */
    int64_t lanes;                /* floats of a row of y */
    float low, high;
};

typedef void gemm_rows_tile(const struct tile_rows *rows, const float *a, const float *panel, int64_t panel_stride,
                            const struct tile_end *end);

#define ROWS_1(M) M(0)
#define ROWS_2(M) ROWS_1(M) M(1)
#define ROWS_3(M) ROWS_2(M) M(2)
#define ROWS_4(M) ROWS_3(M) M(3)
#define ROWS_5(M) ROWS_4(M) M(4)
#define ROWS_6(M) ROWS_5(M) M(5)
#define ROWS_7(M) ROWS_6(M) M(6)
#define ROWS_8(M) ROWS_7(M) M(7)
#define ROWS_9(M) ROWS_8(M) M(8)
#define ROWS_10(M) ROWS_9(M) M(9)
#define ROWS_11(M) ROWS_10(M) M(10)
#define ROWS_12(M) ROWS_11(M) M(11)
#define ROWS_13(M) ROWS_12(M) M(12)
#define ROWS_14(M) ROWS_13(M) M(13)
#define VECTORS_1(M, r) M(r, 0)
#define VECTORS_2(M, r) VECTORS_1(M, r) M(r, 1)
#define VECTORS_3(M, r) VECTORS_2(M, r) M(r, 2)
#define VECTORS_4(M, r) VECTORS_3(M, r) M(r, 3)

#define VECTORS 1
#include "gemm_tile_rows.h"
#undef VECTORS
#define VECTORS 2
#include "gemm_tile_rows.h"
#undef VECTORS
#if NV > 2
#define VECTORS 3
#include "gemm_tile_rows.h"
#undef VECTORS
#define VECTORS 4
#include "gemm_tile_rows.h"
#undef VECTORS
#endif

#if VL == 16
#define TILE_HALF
#define VECTORS 1
#include "gemm_tile_rows.h"
#undef VECTORS
#define VECTORS 3
#include "gemm_tile_rows.h"
#undef VECTORS
#undef TILE_HALF
#endif

#define TILES_6(layout, v)                                                                                             \
    0, tile_##layout##_1x##v, tile_##layout##_2x##v, tile_##layout##_3x##v, tile_##layout##_4x##v,                     \
        tile_##layout##_5x##v, tile_##layout##_6x##v
#define TILES_9(layout, v)                                                                                             \
    TILES_6(layout, v), tile_##layout##_7x##v, tile_##layout##_8x##v, tile_##layout##_9x##v
#define TILES_14(layout, v)                                                                                            \
    TILES_9(layout, v), tile_##layout##_10x##v, tile_##layout##_11x##v, tile_##layout##_12x##v,                        \
        tile_##layout##_13x##v, tile_##layout##_14x##v
#if MR == 14
#define TILES TILES_14
#else
#define TILES TILES_6
#endif

/* [vectors][rows] */
static gemm_tile *const tiles_pixels[NV + 1][MR + 1] = {
    [1] = {TILES(pixels, 1)},
    [2] = {TILES(pixels, 2)},
#if NV > 2
    [3] = {TILES(pixels, 3)},
    [4] = {TILES(pixels, 4)},
#endif
};
static gemm_columns_tile *const tiles_columns[NV + 1][MR + 1] = {
    [1] = {TILES(columns, 1)},
    [2] = {TILES(columns, 2)},
#if NV > 2
    [3] = {TILES(columns, 3)},
    [4] = {TILES(columns, 4)},
#endif
};

static gemm_rows_tile *const tiles_rows[NV + 1][MR + 1] = {
    [1] = {TILES(rows, 1)},
    [2] = {TILES(rows, 2)},
#if NV > 2
    [3] = {TILES(rows, 3)},
    [4] = {TILES(rows, 4)},
#endif
};

#if VL == 16
static gemm_rows_tile *const tiles_rows_half[MR + 1] = {TILES(rows, 1h)};
static gemm_rows_tile *const tiles_rows_three_halves[] = {TILES_9(rows, 3h)};
static gemm_columns_tile *const tiles_columns_half[MR + 1] = {TILES(columns, 1h)};
#endif

/* Rows of a full tile for a panel of `width` floats a row. */
static inline int64_t most_rows(int64_t width) { return VL == 16 && width == VL + VL / 2 ? 9 : MR; }

/* The tiles for a panel of `width` floats a row, of which `lanes` are in use. */
static inline gemm_rows_tile *const *rows_tiles(int64_t width, int64_t lanes) {
#if VL == 16
    if (width < VL) return tiles_rows_half;
    if (width == VL + VL / 2) return tiles_rows_three_halves;
#endif
    (void)width;
    return tiles_rows[ceil_div(lanes, VL)];
}

/* The same for a panel of `lanes` floats in columns. */
static inline gemm_columns_tile *const *columns_tiles(int64_t lanes) {
#if VL == 16
    if (2 * lanes <= VL) return tiles_columns_half;
#endif
    return tiles_columns[ceil_div(lanes, VL)];
}

/* Rows of the tile-th of `tiles` tiles when `count` rows are shared out evenly; the larger ones come first. */
static inline int64_t tile_rows(int64_t count, int64_t tiles, int64_t tile) {
    return count / tiles + (tile < count % tiles);
}

/* Tiles from the tile-th on that have as many rows as that. */
static inline int64_t tiles_alike(int64_t count, int64_t tiles, int64_t tile) {
    return (tile < count % tiles ? count % tiles : tiles) - tile;
}
