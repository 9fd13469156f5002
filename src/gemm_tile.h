/* Template of the GEMM micro-kernel: a register tile of ROWS rows by VECTORS vectors, included once per size by
 * gemm_tile.c. Defines tile_pixels_<ROWS>x<VECTORS> and tile_columns_<ROWS>x<VECTORS>:
 *
 *     sums[row * sums_stride + lane] (+)= sum over k < reds of  a(row, k) * panel[k * panel_stride + lane]
 *
 *                   panel  k=0 [ v0 | v1 ]     ROWS * VECTORS accumulators stay in registers; a step loads VECTORS
 *     a  k=0 1 2 ..        k=1 [ v0 | v1 ]     vectors of the panel and broadcasts ROWS floats of a.
 *     row 0  . . .  ->     [s0_0 | s0_1]
 *     row 1  . . .  ->     [s1_0 | s1_1]
 *
 * pixels:  a is [k / CHUNK][row][CHUNK], as igemm reads patches: one base pointer, constant distances.
 * columns: a is [k][row], as weight_gradient copies dy.
 *
 * The accumulators have names, because the compilers keep an array of vectors in memory. */

#define TILE_PASTE(layout, rows, vectors) tile_##layout##_##rows##x##vectors
#define TILE_NAME(layout, rows, vectors) TILE_PASTE(layout, rows, vectors)
#define LIST_PASTE(list, count) list##count
#define LIST(list, count) LIST_PASTE(list, count)
#define EACH_ROW(M) LIST(ROWS_, ROWS)(M)
#define EACH_VECTOR(M, r) LIST(VECTORS_, VECTORS)(M, r)

#define ZERO(r, v) vf s##r##_##v = {0};
#define ZERO_ROW(r) EACH_VECTOR(ZERO, r)
#define LOAD_PANEL(r, v) const vf b##v = vf_load(panel + v * VL);
#define MULTIPLY(r, v) s##r##_##v += x * b##v;
#define STEP_ROW(r)                                                                                                    \
    {                                                                                                                  \
        const vf x = vf_set1(A(r));                                                                                    \
        EACH_VECTOR(MULTIPLY, r)                                                                                       \
    }
#define STEP                                                                                                           \
    {                                                                                                                  \
        EACH_VECTOR(LOAD_PANEL, 0)                                                                                     \
        EACH_ROW(STEP_ROW)                                                                                             \
        panel += panel_stride;                                                                                         \
    }
#define ADD_STORED(r, v) s##r##_##v += vf_load(sums + r * sums_stride + v * VL);
#define ADD_STORED_ROW(r) EACH_VECTOR(ADD_STORED, r)
#define STORE(r, v) vf_store(sums + r * sums_stride + v * VL, s##r##_##v);
#define STORE_ROW(r) EACH_VECTOR(STORE, r)
#define FINISH                                                                                                         \
    if (accumulate) { EACH_ROW(ADD_STORED_ROW) }                                                                       \
    EACH_ROW(STORE_ROW)

static void TILE_NAME(pixels, ROWS, VECTORS)(int64_t reds, const float *a, const float *panel, int64_t panel_stride,
                                             float *sums, int64_t sums_stride, int accumulate) {
    EACH_ROW(ZERO_ROW)
#define A(r) a[r * CHUNK + k]
    for (; reds >= CHUNK; reds -= CHUNK, a += ROWS * CHUNK) {
        UNROLL(2)
        for (int64_t k = 0; k < CHUNK; k++) STEP
    }
    for (int64_t k = 0; k < reds; k++) STEP
#undef A
    FINISH
}

static void TILE_NAME(columns, ROWS, VECTORS)(int64_t reds, const float *a, const float *panel, int64_t panel_stride,
                                              float *sums, int64_t sums_stride, int accumulate) {
    EACH_ROW(ZERO_ROW)
#define A(r) a[r]
    UNROLL(2)
    for (int64_t k = 0; k < reds; k++, a += ROWS) STEP
#undef A
    FINISH
}

#undef TILE_PASTE
#undef TILE_NAME
#undef LIST_PASTE
#undef LIST
#undef EACH_ROW
#undef EACH_VECTOR
#undef ZERO
#undef ZERO_ROW
#undef LOAD_PANEL
#undef MULTIPLY
#undef STEP_ROW
#undef STEP
#undef ADD_STORED
#undef ADD_STORED_ROW
#undef STORE
#undef STORE_ROW
#undef FINISH
