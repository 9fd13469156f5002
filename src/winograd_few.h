/* Template of products with filters that are transformed in registers, on their way to being multiplied: for COUNT tiles of
 * F(TILE x TILE, TAPS x TAPS), so few that writing and reading transformed filters would take as long as multiplying them.
 * Included by winograd_tile.h for each number of tiles up to FEW_TILES.
 *
 *     M[tile][row, column] (+)= sum over CHUNK channels of  V[row, column][tile][channel] * (G g G^T)[row, column][channel]
 *
 * A call does one row of frequencies: COUNT * IN sums stay in registers. The taps, the inputs and the sums of all rows are a
 * chunk's, which the first-level cache holds. G has additions more than multiplications, which processors do beside those. */
#define FEW_PASTE(name, tiles) name##_##tiles
#define FEW_EXPAND(name, tiles) FEW_PASTE(name, tiles)
#define FEW(name) FEW_EXPAND(NAME(name), COUNT)

#define COUNTS_1(M, j) M(0, j)
#define COUNTS_2(M, j) COUNTS_1(M, j) M(1, j)
#define COUNTS_3(M, j) COUNTS_2(M, j) M(2, j)
#define COUNTS_4(M, j) COUNTS_3(M, j) M(3, j)
#define LIST_PASTE(list, count) list##count
#define LIST(list, count) LIST_PASTE(list, count)
#define EACH_TILE(M, j) LIST(COUNTS_, COUNT)(M, j)
#define EACH_COLUMN(M) EACH_TILE(M, 0) EACH_TILE(M, 1) EACH_TILE(M, 2) EACH_TILE(M, 3) EACH_TILE(M, 4) EACH_TILE(M, 5)

#define ZERO(t, j) vf s##t##_##j = {0};
#define MULTIPLY(t, j) s##t##_##j += line[j] * vf_set1(v[(j * COUNT + t) * CHUNK + k]);
#define ADD_UP(t, j)                                                                                                   \
    {                                                                                                                  \
        float *sum = m + t * m_stride + j * VL;                                                                        \
        vf_store(sum, accumulate ? vf_load(sum) + s##t##_##j : s##t##_##j);                                            \
    }

/* taps: [tap row][tap column][CHUNK][VL], behind them the next chunk's; v and m: of the first column. */
ALWAYS_INLINE void FEW(few_row)(const int row, const float *taps, const float *v, float *m, int64_t m_stride, int accumulate) {
    EACH_COLUMN(ZERO)
    UNROLL(2)
    for (int64_t k = 0; k < CHUNK; k++, taps += VL) {
        vf column[TAPS], line[IN], half[TAPS];
        for (int col = 0; col < TAPS; col++) {
            for (int tap = 0; tap < TAPS; tap++) column[tap] = vf_load(taps + (tap * TAPS + col) * CHUNK * VL);
            NAME(filter_line)(column, line);
            half[col] = line[row]; /* the others are not computed */
        }
        for (int tap = row; tap < TAPS * TAPS; tap += IN) /* each row fetches some of what comes from memory next */
            __builtin_prefetch(taps + (TAPS * TAPS + tap) * CHUNK * VL, 0, 2);
        NAME(filter_line)(half, line);
        EACH_COLUMN(MULTIPLY)
    }
    EACH_COLUMN(ADD_UP)
}

static void FEW(few)(int64_t row, const float *taps, const float *v, float *m, int64_t m_stride, int accumulate) {
    switch (row) {
    case 0: FEW(few_row)(0, taps, v, m, m_stride, accumulate); break;
    case 1: FEW(few_row)(1, taps, v, m, m_stride, accumulate); break;
    case 2: FEW(few_row)(2, taps, v, m, m_stride, accumulate); break;
    case 3: FEW(few_row)(3, taps, v, m, m_stride, accumulate); break;
    case 4: FEW(few_row)(4, taps, v, m, m_stride, accumulate); break;
    case 5: FEW(few_row)(5, taps, v, m, m_stride, accumulate); break;
    }
}

#undef FEW_PASTE
#undef FEW_EXPAND
#undef FEW
#undef COUNTS_1
#undef COUNTS_2
#undef COUNTS_3
#undef COUNTS_4
#undef LIST_PASTE
#undef LIST
#undef EACH_TILE
#undef EACH_COLUMN
#undef ZERO
#undef MULTIPLY
#undef ADD_UP
