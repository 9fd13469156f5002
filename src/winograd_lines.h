/* Template of the transforms of a line of F(TILE, TAPS), by points: the matrices G, B^T and A^T of winograd.h times a line of vectors.
 *
 * Toom and Cook's matrices for PAIRS pairs of points a, -a, infinity and, where IN is even, 0. With P the product of (x^2 - b^2) over all
 * pairs but that of a, P' = P (x^2 - a^2), and N = 2 a P(a^2), with the point 0 times a:
 *
 *                at +-a                                           at 0, the first            at infinity, the last
 *     G g        sum of the taps (+-a)^u                          the first tap              the last tap
 *     B^T d      coefficients of (x +- a) P; times x with 0       coefficients of P'         of P'; times x with 0
 *     A^T m      (+-a)^row / (+-N) in every row; / N with 0       1 / P'(0) in the first     1 in the last row
 *
 * The divisors are often part of G; here filters cost least, which tasks transform again and again. With points in pairs of either sign,
 * the rows of B^T come in pairs that share an even and an odd part, and so do those of A^T by parity. */
#define ZERO (IN % 2 == 0)
#define PAIRS ((IN - 1) / 2)
#if IN < 5
#define POINTS {1}
#elif IN == 5
#define POINTS {1, 0.5f}
#elif IN == 6
#define POINTS {1, 2}
#elif IN < 9
#define POINTS {1, 2, 0.5f}
#else /* Of all sixteenths those whose rounding errors are smallest, or close to it: two to three times those of three pairs and 0. */
#define POINTS {0.25f, 0.625f, 1.125f, 2.25f}
#endif

static const float NAME(points)[] = POINTS;
#define POINT(pair) NAME(points)[(pair) % PAIRS]
#define SQUARE(pair) (POINT(pair) * POINT(pair))

ALWAYS_INLINE float NAME(power)(const int pair, const int exponent) {
    float power = 1;
    UNROLL(8)
    for (int i = 0; i < exponent; i++) power *= POINT(pair);
    return power;
}

/* The product of (at - their square) over all pairs from `first` on but this one. */
ALWAYS_INLINE float NAME(product)(const int first, const float at) {
    float product = 1;
    UNROLL(4)
    for (int pair = first; pair < first + PAIRS - 1; pair++) product *= at - SQUARE(pair);
    return product;
}

/* 1 / N of a pair, for the point a. */
ALWAYS_INLINE float NAME(factor)(const int pair) {
    const float a = POINT(pair), factor = 1 / (2 * a * NAME(product)(pair + 1, a * a));
    return ZERO ? factor / a : factor;
}

/* 1 / P'(0). */
ALWAYS_INLINE float NAME(factor_of_zero)(void) { return 1 / (NAME(product)(1, 0) * -SQUARE(0)); }

/* The even and the odd part of the polynomial of count vectors at a point, times a factor. */
ALWAYS_INLINE void NAME(at_pair)(const int pair, const float factor, const int count, const vf *x, vf *even, vf *odd) {
    *even = factor * x[0], *odd = factor * POINT(pair) * x[1];
    UNROLL(8)
    for (int i = 2; i < count; i++) *(i % 2 ? odd : even) += factor * NAME(power)(pair, i) * x[i];
}

/* G g of a line of TAPS vectors. */
ALWAYS_INLINE void NAME(filter_line)(const vf *g, vf *u) {
    if (ZERO) u[0] = g[0];
    u[IN - 1] = g[TAPS - 1];
    UNROLL(4)
    for (int pair = 0; pair < PAIRS; pair++) {
        vf even, odd;
        NAME(at_pair)(pair, 1, TAPS, g, &even, &odd);
        u[ZERO + 2 * pair] = even + odd, u[ZERO + 2 * pair + 1] = even - odd;
    }
}

/* d[0], d[2], ... times the coefficients of the product over the other pairs of (y - their square). */
ALWAYS_INLINE vf NAME(without)(const int pair, const vf *d) {
#if PAIRS == 1
    (void)pair;
    return d[0];
#elif PAIRS == 2
    return d[2] - SQUARE(pair + 1) * d[0];
#else
    const float a = SQUARE(pair + 1), b = SQUARE(pair + 2);
#if PAIRS == 3
    return d[4] - (a + b) * d[2] + a * b * d[0];
#else
    const float c = SQUARE(pair + 3);
    return d[6] - (a + b + c) * d[4] + (a * b + a * c + b * c) * d[2] - a * b * c * d[0];
#endif
#endif
}

/* B^T d of a line of IN vectors. */
ALWAYS_INLINE void NAME(input_line)(const vf *d, vf *v) {
    if (ZERO) v[0] = NAME(without)(0, d + 2) - SQUARE(0) * NAME(without)(0, d);
    d += ZERO;
    v[IN - 1] = NAME(without)(0, d + 2) - SQUARE(0) * NAME(without)(0, d);
    UNROLL(4)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf even = POINT(pair) * NAME(without)(pair, d), odd = NAME(without)(pair, d + 1);
        v[ZERO + 2 * pair] = odd + even;
        v[ZERO + 2 * pair + 1] = odd - even;
    }
}

/* A^T m of a line of IN vectors. */
ALWAYS_INLINE void NAME(output_line)(const vf *m, vf *y) {
    vf terms[2][PAIRS]; /* of even and of odd rows */
    UNROLL(4)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf plus = m[ZERO + 2 * pair], minus = m[ZERO + 2 * pair + 1];
        terms[!ZERO][pair] = plus + minus, terms[ZERO][pair] = plus - minus;
    }
    UNROLL(8)
    for (int row = 0; row < TILE; row++) {
        y[row] = NAME(factor)(0) * NAME(power)(0, row) * terms[row % 2][0];
        UNROLL(4)
        for (int pair = 1; pair < PAIRS; pair++) y[row] += NAME(factor)(pair) * NAME(power)(pair, row) * terms[row % 2][pair];
    }
    if (ZERO) y[0] += NAME(factor_of_zero)() * m[0];
    y[TILE - 1] += m[IN - 1];
}

#if GRADIENT
/* A dy of a line of TILE vectors: the adjoint of output_line. */
ALWAYS_INLINE void NAME(gradient_line)(const vf *y, vf *z) {
    if (ZERO) z[0] = NAME(factor_of_zero)() * y[0];
    z[IN - 1] = y[TILE - 1];
    UNROLL(4)
    for (int pair = 0; pair < PAIRS; pair++) {
        vf even, odd;
        NAME(at_pair)(pair, NAME(factor)(pair), TILE, y, &even, &odd);
        z[ZERO + 2 * pair] = even + odd, z[ZERO + 2 * pair + 1] = ZERO ? even - odd : odd - even;
    }
}

/* G^T u of a line of IN vectors, written `to` apart (in vectors): the adjoint of filter_line. */
ALWAYS_INLINE void NAME(filter_gradient_line)(const vf *u, vf *g, int64_t to) {
    vf taps[TAPS];
    UNROLL(4)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf plus = u[ZERO + 2 * pair], minus = u[ZERO + 2 * pair + 1];
        UNROLL(4)
        for (int tap = 0; tap < TAPS; tap++) {
            const vf term = NAME(power)(pair, tap) * (tap % 2 ? plus - minus : plus + minus);
            taps[tap] = pair == 0 ? term : taps[tap] + term;
        }
    }
    if (ZERO) taps[0] += u[0];
    taps[TAPS - 1] += u[IN - 1];
    UNROLL(4)
    for (int tap = 0; tap < TAPS; tap++) g[tap * to] = taps[tap];
}
#endif

#undef ZERO
#undef PAIRS
#undef POINTS
#undef POINT
#undef SQUARE
