/* Template of the GEMM micro-kernel: a register tile of ROWS rows by VECTORS vectors, included once per size by
 * gemm_tile.c. Defines tile_pixels_<ROWS>x<VECTORS>, tile_columns_<ROWS>x<VECTORS> and tile_rows_<ROWS>x<VECTORS>:
 *
 *     sums[row * sums_stride + lane] (+)= sum over k < reds of  a(row, k) * panel[k * panel_stride + lane]
 *
 *                   panel  k=0 [ v0 | v1 ]     ROWS * VECTORS accumulators stay in registers; a step loads VECTORS
 *     a  k=0 1 2 ..        k=1 [ v0 | v1 ]     vectors of the panel and broadcasts ROWS floats of a.
 *     row 0  . . .  ->     [s0_0 | s0_1]
 *     row 1  . . .  ->     [s1_0 | s1_1]
 *
 * pixels:  a is [row][CHUNK] for each CHUNK of k, chunk_stride apart: one base pointer, constant distances. With `far` the next chunk is
 *          fetched meanwhile.
 * columns: a is [k][a_stride], as weight_gradient sees dy; what is fetched meanwhile is next[k * next_stride].
 * rows:    a lies as struct tile_rows says, in x itself or copied; every third row has a pointer, the others are one or
 *          two strides away. The sums may end in y, through bias, residual and clip, without a detour through memory. A call
 *          does several tiles: what begins and ends a call would cost as much as a dozen steps of each.
 *
 * The accumulators have names, because the compilers keep an array of vectors in memory.
 *
 * With TILE_HALF set, the vectors are half as wide (AVX-512 only, no pixels, names end in h): processors multiply two of
 * those in the time of a whole one, so up to half as many outs take half the time. Three of them, for 24 outs, are for rows only, and
 * for up to 9: 27 accumulators + 3 panel vectors + 1 broadcast of 32 registers. */

#ifdef TILE_HALF
#define TV vh
#define TL (VL / 2)
#define TV_(name) vh_##name
#define TILE_PASTE(layout, rows, vectors) tile_##layout##_##rows##x##vectors##h
#else
#define TV vf
#define TL VL
#define TV_(name) vf_##name
#define TILE_PASTE(layout, rows, vectors) tile_##layout##_##rows##x##vectors
#endif
#define TILE_NAME(layout, rows, vectors) TILE_PASTE(layout, rows, vectors)
#define LIST_PASTE(list, count) list##count
#define LIST(list, count) LIST_PASTE(list, count)
#define EACH_ROW(M) LIST(ROWS_, ROWS)(M)
#define EACH_VECTOR(M, r) LIST(VECTORS_, VECTORS)(M, r)

#define ZERO(r, v) TV s##r##_##v = {0};
#define ZERO_ROW(r) EACH_VECTOR(ZERO, r)
#define LOAD_PANEL(r, v) const TV b##v = TV_(load)(panel + v * TL);
#define FETCH_PANEL(r, v) __builtin_prefetch(AHEAD + v * TL, 0, AHEAD_LOCALITY);
#define AHEAD (panel + PANEL_AHEAD)
#define AHEAD_LOCALITY 2 /* to the second-level cache, which waits for more lines at a time than the first */
#define MULTIPLY(r, v) s##r##_##v += x * b##v;
#define STEP_ROW(r)                                                                                                    \
    {                                                                                                                  \
        const TV x = TV_(set1)(A(r));                                                                                    \
        EACH_VECTOR(MULTIPLY, r)                                                                                       \
    }
#define STEP                                                                                                           \
    {                                                                                                                  \
        EACH_VECTOR(LOAD_PANEL, 0)                                                                                     \
        EACH_VECTOR(FETCH_PANEL, 0)                                                                                    \
        EACH_ROW(STEP_ROW)                                                                                             \
        panel += panel_stride;                                                                                         \
    }
#define ADD_STORED(r, v) s##r##_##v += TV_(load)(sums + r * sums_stride + v * TL);
#define ADD_STORED_ROW(r) EACH_VECTOR(ADD_STORED, r)
#define STORE(r, v) TV_(store)(sums + r * sums_stride + v * TL, s##r##_##v);
#define STORE_ROW(r) EACH_VECTOR(STORE, r)
#define FINISH                                                                                                         \
    if (accumulate) { EACH_ROW(ADD_STORED_ROW) }                                                                       \
    EACH_ROW(STORE_ROW)

#define FETCH_CHUNK(r) __builtin_prefetch(a + chunk_stride + r * CHUNK);
#ifndef TILE_HALF
static void TILE_NAME(pixels, ROWS, VECTORS)(int64_t reds, const float *a, int64_t chunk_stride, int far, const float *panel,
                                             int64_t panel_stride, float *sums, int64_t sums_stride, int accumulate) {
    EACH_ROW(ZERO_ROW)
#define A(r) a[r * CHUNK + k]
    for (; reds >= CHUNK; reds -= CHUNK, a += chunk_stride) {
        if (far) { EACH_ROW(FETCH_CHUNK) }
        UNROLL(2)
        for (int64_t k = 0; k < CHUNK; k++) STEP
    }
    for (int64_t k = 0; k < reds; k++) STEP
#undef A
    FINISH
}
#endif

#if !defined(TILE_HALF) || VECTORS < 3
static void TILE_NAME(columns, ROWS, VECTORS)(int64_t reds, const float *a, int64_t a_stride, const float *panel,
                                              int64_t panel_stride, float *sums, int64_t sums_stride, int accumulate,
                                              const float *next, int64_t next_stride) {
    EACH_ROW(ZERO_ROW)
#undef AHEAD
#undef AHEAD_LOCALITY
#define A(r) a[r]
#define AHEAD next
#define AHEAD_LOCALITY 3
    UNROLL(2)
    for (int64_t k = 0; k < reds; k++, a += a_stride, next += next_stride) STEP
#undef A
#undef AHEAD
#undef AHEAD_LOCALITY
#define AHEAD (panel + PANEL_AHEAD)
#define AHEAD_LOCALITY 2
    FINISH
}
#endif

#define FETCH(r)                                                                                                       \
    __builtin_prefetch(row, 0, AHEAD_LOCALITY);                                                                        \
    row += next_stride;
/* What the next tile reads may still be in memory, and 14 lines are too many for the processor to foresee. */
#define FETCH_NEXT                                                                                                     \
    {                                                                                                                  \
        const float *row = next;                                                                                       \
        EACH_ROW(FETCH)                                                                                                \
        next += next_chunk;                                                                                            \
    }
#define LOAD_BIAS(r, v) const TV bias##v = y && end->bias ? TV_(load_until)(end->bias, v * TL, lanes) : (TV){0};
#define START_BIAS(r, v) TV s##r##_##v = bias##v;
#define START_BIAS_ROW(r) EACH_VECTOR(START_BIAS, r)
#define ADD_RESIDUAL(r, v) s##r##_##v += TV_(load_until)(residual + offsets[r], v * TL, lanes);
#define RAISE(r, v) s##r##_##v = TV_(max)(TV_(set1)(low), s##r##_##v);
#define LOWER(r, v) s##r##_##v = TV_(min)(TV_(set1)(high), s##r##_##v);
#define STORE_END(r, v) TV_(store)(y + offsets[r] + v * TL, s##r##_##v);
#define STORE_LANES(r, v) TV_(store_until)(y + offsets[r], s##r##_##v, v * TL, lanes);

/* The rows come to their ends part by part: while some are stored, others are multiplied. All stores at once would fill the
 * processor's queues, and the next tile's multiply-adds would wait. The accumulators of a part are enough not to wait for one another. */
#define PARTS (ROWS * VECTORS < 16 ? 1 : ROWS * VECTORS < 24 ? 2 : 3)
#define IF_IN_PART(r, DO) if ((r) * PARTS / ROWS == part) { DO }
#define STEP_PART(r) IF_IN_PART(r, STEP_ROW(r))
#define ADD_STORED_PART(r) IF_IN_PART(r, EACH_VECTOR(ADD_STORED, r))
#define STORE_PART(r) IF_IN_PART(r, EACH_VECTOR(STORE, r))
#define ADD_RESIDUAL_PART(r) IF_IN_PART(r, EACH_VECTOR(ADD_RESIDUAL, r))
#define RAISE_PART(r) IF_IN_PART(r, EACH_VECTOR(RAISE, r))
#define LOWER_PART(r) IF_IN_PART(r, EACH_VECTOR(LOWER, r))
#define STORE_END_PART(r) IF_IN_PART(r, EACH_VECTOR(STORE_END, r))
#define STORE_LANES_PART(r) IF_IN_PART(r, EACH_VECTOR(STORE_LANES, r))
#define END_PART(number)                                                                                               \
    if (number < PARTS) {                                                                                              \
        enum { part = number };                                                                                        \
        const float *panel = end_of_panel;                                                                             \
        UNROLL(2)                                                                                                      \
        for (int64_t k = 0; k < last; k++, panel += panel_stride) {                                                    \
            EACH_VECTOR(LOAD_PANEL, 0)                                                                                 \
            if (part == 0) { EACH_VECTOR(FETCH_PANEL, 0) }                                                             \
            EACH_ROW(STEP_PART)                                                                                        \
        }                                                                                                              \
        if (end->accumulate) { EACH_ROW(ADD_STORED_PART) }                                                             \
        if (!y) {                                                                                                      \
            EACH_ROW(STORE_PART)                                                                                       \
        } else {                                                                                                       \
            if (residual) { EACH_ROW(ADD_RESIDUAL_PART) }                                                              \
            if (low > -__builtin_inff()) { EACH_ROW(RAISE_PART) }                                                      \
            if (high < __builtin_inff()) { EACH_ROW(LOWER_PART) }                                                      \
            if (lanes == VECTORS * TL) {                                                                               \
                EACH_ROW(STORE_END_PART)                                                                               \
            } else {                                                                                                   \
                EACH_ROW(STORE_LANES_PART)                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }

#define FETCH_END(r, v)                                                                                                \
    __builtin_prefetch(y + offsets[r] + v * TL, 1);                                                                    \
    if (residual) __builtin_prefetch(residual + offsets[r] + v * TL);
#define FETCH_ENDS                                                                                                     \
    for (const int64_t last = min_i64(ROWS, fetched + share); fetched < last; fetched++) { EACH_VECTOR(FETCH_END, fetched) }

static void TILE_NAME(rows, ROWS, VECTORS)(const struct tile_rows *rows, const float *first, const float *whole_panel,
                                           int64_t panel_stride, const struct tile_end *end) {
    const int64_t stride = rows->row_stride, chunk_stride = rows->chunk_stride;
    const int64_t next_stride = rows->next ? rows->next_stride : stride, next_chunk = rows->next ? CHUNK : chunk_stride;
    const int64_t sums_stride = end->sums_stride, lanes = end->lanes;
    const int64_t *offsets = end->offsets;
    const float *residual = end->residual;
    const float low = end->low, high = end->high;
    float *sums = end->sums, *y = end->y;
    /* Stores wait for their lines one by one. These come while there is work, some with every chunk: the processor waits for so many
     * lines at a time, and others would wait for that. */
    const int64_t chunks = rows->segments * (rows->segment_length / CHUNK), share = y ? ceil_div(ROWS, max_i64(1, chunks)) : 0;
    const int64_t last = rows->segments && rows->segment_length ? (rows->segment_length - 1) % CHUNK + 1 : 0; /* reds that are left for the parts */
    for (int64_t tile = 0; tile < rows->tiles; tile++, offsets += ROWS, sums += ROWS * sums_stride) {
        int64_t fetched = 0;
        if (chunks < 2) FETCH_ENDS
        EACH_VECTOR(LOAD_BIAS, 0)
        EACH_ROW(START_BIAS_ROW)
        const float *a = first + tile * rows->tile_stride, *panel = whole_panel;
        const float *row0 = a, *row3 = a, *row6 = a, *row9 = a, *row12 = a, *next = a;
#define A(r) ((r) < 3 ? row0 : (r) < 6 ? row3 : (r) < 9 ? row6 : (r) < 12 ? row9 : row12)[(r) % 3 * stride + k]
        for (int64_t segment = 0; segment < rows->segments; segment++, a += rows->segment_stride) {
            row0 = a, row3 = a + 3 * stride, row6 = a + 6 * stride, row9 = a + 9 * stride, row12 = a + 12 * stride;
            next = rows->next ? rows->next : a + ROWS * stride;
            int64_t reds = segment + 1 < rows->segments ? rows->segment_length : rows->segment_length - last;
            for (; reds >= CHUNK; reds -= CHUNK) {
                UNROLL(4)
                for (int64_t k = 0; k < CHUNK; k++) STEP
                FETCH_NEXT
                FETCH_ENDS
                row0 += chunk_stride, row3 += chunk_stride, row6 += chunk_stride, row9 += chunk_stride, row12 += chunk_stride;
            }
            for (int64_t k = 0; k < reds; k++) STEP
        }
        if (last == CHUNK) FETCH_NEXT
        const float *end_of_panel = panel;
        END_PART(0)
        END_PART(1)
        END_PART(2)
#undef A
    }
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
#undef FETCH_PANEL
#undef AHEAD
#undef AHEAD_LOCALITY
#undef MULTIPLY
#undef STEP_ROW
#undef STEP
#undef ADD_STORED
#undef ADD_STORED_ROW
#undef STORE
#undef STORE_ROW
#undef FINISH
#undef FETCH
#undef FETCH_NEXT
#undef FETCH_CHUNK
#undef FETCH_END
#undef FETCH_ENDS
#undef LOAD_BIAS
#undef START_BIAS
#undef START_BIAS_ROW
#undef ADD_RESIDUAL
#undef RAISE
#undef LOWER
#undef STORE_END
#undef STORE_LANES
#undef PARTS
#undef IF_IN_PART
#undef STEP_PART
#undef ADD_STORED_PART
#undef STORE_PART
#undef ADD_RESIDUAL_PART
#undef RAISE_PART
#undef LOWER_PART
#undef STORE_END_PART
#undef STORE_LANES_PART
#undef END_PART
#undef TV
#undef TL
#undef TV_
