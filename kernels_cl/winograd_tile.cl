// Tiles of Winograd's minimal filtering F(TILE x TILE, TAPS x TAPS) and its matrices, line by line and by points, shared by the kernels of Winograd's method
// (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016, section 4; the matrices are Toom and Cook's, as in src/winograd_lines.h).
//
// The points are PAIRS pairs a, -a, then 0 where SIDE is even, then infinity; each has a frequency, in this order. With V the powers of the points, where
// infinity has the last only, with P the product of (x^2 - b^2) over all pairs but that of a, and S the factors of filter_scale():
//
//   A = V, TILE columns      G = S V, TAPS columns      B^T: coefficients of (x +- a) P at +-a, and of (x^2 - a^2) P at 0 and infinity; where
//                                                       0 is a point, times x but at 0 itself
//
//   AT_POINTS(n)     V d      r0, r1, ... r(SIDE-1)  of d0, d1, ... d(n-1)      n: TILE or TAPS.  Each declares its results r0, r1, ...
//   FROM_POINTS(n)   V^T d    r0, r1, ... r(n-1)     of d0, d1, ... d(SIDE-1)   as constants of the block that it stands in.  Points in pairs
//   INPUT_LINE       B^T d    r0, r1, ... r(SIDE-1)  of d0, d1, ... d(SIDE-1)   of either sign share even and odd parts.
//
// TILE  outputs of a tile at a side; 2, 4, 6 or 7: 4/9, 1/4, 16/81, 9/49 of the multiplications of the direct method.  With more points float32 loses too much.
// TAPS  of a filter at a side: 3, or 4 with TILE 4: a phase of a 7x7 convolution with stride 2 (winograd_fused.cl), whose filters the host transforms.
#ifndef TILE
#define TILE 4
#endif
#ifndef TAPS
#define TAPS 3
#endif

#if TILE + TAPS == 5
#define SIDE 4
#define PAIRS 1
#define ZERO 2
#define INFINITE 3
#elif TILE + TAPS == 7
#define SIDE 6
#define PAIRS 2
#define ZERO 4
#define INFINITE 5
#elif TILE + TAPS == 8
#define SIDE 7
#define PAIRS 3
#define INFINITE 6
#elif TILE + TAPS == 9
#define SIDE 8
#define PAIRS 3
#define ZERO 6
#define INFINITE 7
#else
#define SIDE 9
#define PAIRS 4
#define INFINITE 8
#endif
#define FREQUENCIES (SIDE * SIDE)

#if PAIRS < 4
#define POINT_0 1.0f
#define POINT_1 2.0f
#define POINT_2 0.5f
#else  // Of all sixteenths those whose rounding errors are smallest, or close to it: two to three times those of three pairs and 0.
#define POINT_0 0.25f
#define POINT_1 0.625f
#define POINT_2 1.125f
#define POINT_3 2.25f
#endif
#define SQUARE_0 (POINT_0 * POINT_0)
#define SQUARE_1 (POINT_1 * POINT_1)
#define SQUARE_2 (POINT_2 * POINT_2)
#define SQUARE_3 (POINT_3 * POINT_3)

// F(n, pair, frequency of a, frequency of -a, a, squares of the other pairs) for each pair; POLYNOMIAL: x0, x1, ... times the coefficients of the product of
// (y - square) over these squares, which is P for y = x^2; TERMS: a sum over the pairs.
#define EACH_PAIR_1(F, n) F(n, 0, 0, 1, POINT_0, SQUARE_1, SQUARE_2, SQUARE_3)
#define EACH_PAIR_2(F, n) EACH_PAIR_1(F, n) F(n, 1, 2, 3, POINT_1, SQUARE_0, SQUARE_2, SQUARE_3)
#define EACH_PAIR_3(F, n) EACH_PAIR_2(F, n) F(n, 2, 4, 5, POINT_2, SQUARE_0, SQUARE_1, SQUARE_3)
#define EACH_PAIR_4(F, n) EACH_PAIR_3(F, n) F(n, 3, 6, 7, POINT_3, SQUARE_0, SQUARE_1, SQUARE_2)
#if PAIRS == 1
#define EACH_PAIR(F, n) EACH_PAIR_1(F, n)
#define POLYNOMIAL(b, c, e, x0, x1, x2, x3) (x0)
#define TERMS(row) TERM(row, 0)
#elif PAIRS == 2
#define EACH_PAIR(F, n) EACH_PAIR_2(F, n)
#define POLYNOMIAL(b, c, e, x0, x1, x2, x3) (x1 - b * x0)
#define TERMS(row) TERM(row, 0) + TERM(row, 1)
#elif PAIRS == 3
#define EACH_PAIR(F, n) EACH_PAIR_3(F, n)
#define POLYNOMIAL(b, c, e, x0, x1, x2, x3) (x2 - (b + c) * x1 + b * c * x0)
#define TERMS(row) TERM(row, 0) + TERM(row, 1) + TERM(row, 2)
#else
#define EACH_PAIR(F, n) EACH_PAIR_4(F, n)
#define POLYNOMIAL(b, c, e, x0, x1, x2, x3) (x3 - (b + c + e) * x2 + (b * c + b * e + c * e) * x1 - b * c * e * x0)
#define TERMS(row) TERM(row, 0) + TERM(row, 1) + TERM(row, 2) + TERM(row, 3)
#endif
#define WITHOUT_0(x0, x1, x2, x3) POLYNOMIAL(SQUARE_1, SQUARE_2, SQUARE_3, x0, x1, x2, x3)

#ifdef ZERO
#define INPUT_PAIR(n, pair, plus, minus, a, b, c, e) \
    const real even##pair = a * POLYNOMIAL(b, c, e, d1, d3, d5, d7), odd##pair = POLYNOMIAL(b, c, e, d2, d4, d6, d8); \
    const real r##plus = odd##pair + even##pair, r##minus = odd##pair - even##pair;
#define INPUT_LINE \
    EACH_PAIR(INPUT_PAIR, SIDE) \
    const real JOIN(r, ZERO) = WITHOUT_0(d2, d4, d6, d8) - SQUARE_0 * WITHOUT_0(d0, d2, d4, d6); \
    const real JOIN(r, INFINITE) = WITHOUT_0(d3, d5, d7, d9) - SQUARE_0 * WITHOUT_0(d1, d3, d5, d7);
#define AT_ZERO const real JOIN(r, ZERO) = d0;
#define PLUS_ZERO + JOIN(d, ZERO)
#else
#define INPUT_PAIR(n, pair, plus, minus, a, b, c, e) \
    const real even##pair = a * POLYNOMIAL(b, c, e, d0, d2, d4, d6), odd##pair = POLYNOMIAL(b, c, e, d1, d3, d5, d7); \
    const real r##plus = odd##pair + even##pair, r##minus = odd##pair - even##pair;
#define INPUT_LINE \
    EACH_PAIR(INPUT_PAIR, SIDE) \
    const real JOIN(r, INFINITE) = WITHOUT_0(d2, d4, d6, d8) - SQUARE_0 * WITHOUT_0(d0, d2, d4, d6);
#define AT_ZERO
#define PLUS_ZERO
#endif

// Sums of d0, d2, ... and d1, d3, ... of n values, times powers of a square.
#define EVEN_2(square) d0
#define EVEN_3(square) (d0 + square * d2)
#define EVEN_4(square) EVEN_3(square)
#define EVEN_6(square) (d0 + square * d2 + square * square * d4)
#define EVEN_7(square) (d0 + square * d2 + square * square * d4 + square * square * square * d6)
#define ODD_2(square) d1
#define ODD_3(square) d1
#define ODD_4(square) (d1 + square * d3)
#define ODD_6(square) (d1 + square * d3 + square * square * d5)
#define ODD_7(square) ODD_6(square)
#define LAST_OF_2 1
#define LAST_OF_3 2
#define LAST_OF_4 3
#define LAST_OF_6 5
#define LAST_OF_7 6

#define AT_PAIR(n, pair, plus, minus, a, b, c, e) \
    const real even##pair = JOIN(EVEN_, n)((a * a)), odd##pair = a * JOIN(ODD_, n)((a * a)); \
    const real r##plus = even##pair + odd##pair, r##minus = even##pair - odd##pair;
#define AT_POINTS(n) EACH_PAIR(AT_PAIR, n) AT_ZERO const real JOIN(r, INFINITE) = JOIN(d, JOIN(LAST_OF_, n));

#define POWER_0(pair) 1.0f
#define POWER_1(pair) POINT_##pair
#define POWER_2(pair) (POINT_##pair * POINT_##pair)
#define POWER_3(pair) (POWER_2(pair) * POINT_##pair)
#define POWER_4(pair) (POWER_2(pair) * POWER_2(pair))
#define POWER_5(pair) (POWER_4(pair) * POINT_##pair)
#define POWER_6(pair) (POWER_4(pair) * POWER_2(pair))
#define TERM(row, pair) POWER_##row(pair) * ((row) % 2 ? difference##pair : sum##pair)
#define FROM_PAIR(n, pair, plus, minus, a, b, c, e) const real sum##pair = d##plus + d##minus, difference##pair = d##plus - d##minus;
#define FROM_ROW(row) const real r##row = TERMS(row);
#define ROWS_FROM_1_BEFORE_1
#define ROWS_FROM_1_BEFORE_2 FROM_ROW(1)
#define ROWS_FROM_1_BEFORE_3 FROM_ROW(1) FROM_ROW(2)
#define ROWS_FROM_1_BEFORE_5 ROWS_FROM_1_BEFORE_3 FROM_ROW(3) FROM_ROW(4)
#define ROWS_FROM_1_BEFORE_6 ROWS_FROM_1_BEFORE_5 FROM_ROW(5)
#define LAST_ROW_OF(row) const real JOIN(r, row) = TERMS(row) + JOIN(d, INFINITE);
#define FROM_POINTS(n) \
    EACH_PAIR(FROM_PAIR, n) \
    const real r0 = TERMS(0) PLUS_ZERO; \
    JOIN(ROWS_FROM_1_BEFORE_, JOIN(LAST_OF_, n)) \
    LAST_ROW_OF(JOIN(LAST_OF_, n))

// What makes the powers of a frequency's point its row of G.
inline float filter_scale(const int frequency) {
#ifdef ZERO
#define SIGN(negative, a) (1.0f / a)
    if (frequency == ZERO)
        return -1.0f / (SQUARE_0 * POLYNOMIAL(SQUARE_1, SQUARE_2, SQUARE_3, 1.0f, 0.0f, 0.0f, 0.0f));
#else
#define SIGN(negative, a) (negative ? -1.0f : 1.0f)
#endif
#define PAIR_SCALE(n, pair, plus, minus, a, b, c, e) \
    if (frequency / 2 == pair) \
        return SIGN(frequency % 2, a) / (2.0f * a * POLYNOMIAL(b, c, e, 1.0f, (a * a), (a * a * a * a), (a * a * a * a * a * a)));
    EACH_PAIR(PAIR_SCALE, SIDE)
    return 1.0f;
}

// Image, row and column of a tile's first output.
typedef struct { int image, row, column; } corner_of_tile;

inline corner_of_tile corner_of(const int tile, const int tile_rows, const int tile_columns) {
    const int line = tile / tile_columns, image = line / tile_rows;
    const corner_of_tile corner = {image, TILE * (line - image * tile_rows), TILE * (tile - line * tile_columns)};
    return corner;
}
