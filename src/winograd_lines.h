/* Template of the transforms of a line of F(TILE, TAPS), by points: the matrices G, B^T and A^T of winograd.h times a line of vectors.
 *
 * 3 taps: the points 0, 1, -1, infinity; from tiles of 4 on also 2, -2; for tiles of 6 also 1/2, -1/2. Other numbers of taps (of
 * phases of strided convolutions): pairs a, -a of POINTS and infinity; the last frequency is that of infinity. With points in pairs
 * of either sign, the rows of B^T come in pairs that share an even and an odd part, and so do those of A^T by parity. */
#if TAPS == 3
#define PAIRS (IN / 2)

/* The factor of a frequency's row of G; what is left of G are the powers of its point. */
ALWAYS_INLINE float NAME(filter_scale)(const int frequency) {
#if TILE == 2
    return frequency == 0 || frequency == IN - 1 ? 1 : 0.5f;
#elif TILE == 4
    return frequency == 0 ? 0.25f : frequency < 3 ? -1.0f / 6 : frequency < 5 ? 1.0f / 24 : 1;
#else
    return frequency == 0 || frequency == IN - 1 ? 1 : frequency < 3 ? -2.0f / 9 : frequency < 5 ? 1.0f / 90 : 8.0f / 45;
#endif
}

/* Powers of the points times g, for three vectors that lie `from` apart, written `to` apart (in vectors). */
ALWAYS_INLINE void NAME(filter_powers)(const vf *g, int64_t from, vf *u, int64_t to) {
    const vf g0 = g[0], g1 = g[from], g2 = g[2 * from], even = g0 + g2;
    u[0] = g0;
    u[to] = even + g1;
    u[2 * to] = even - g1;
#if TILE > 2
    const vf even2 = g0 + 4.0f * g2;
    u[3 * to] = even2 + 2.0f * g1;
    u[4 * to] = even2 - 2.0f * g1;
#endif
#if TILE > 4
    const vf half = 4.0f * g0 + g2;
    u[5 * to] = half + 2.0f * g1;
    u[6 * to] = half - 2.0f * g1;
#endif
    u[(IN - 1) * to] = g2;
}

/* Rows 2*pair - 1 and 2*pair of B^T d; pair 0: the first and the last row. */
ALWAYS_INLINE void NAME(input_pair)(const int pair, const vf *d, vf *low, vf *high) {
#if TILE == 2
    if (pair == 0) {
        *low = d[0] - d[2];
        *high = d[3] - d[1];
        return;
    }
    const vf even = d[2], odd = d[1];
#elif TILE == 4
    if (pair == 0) {
        *low = 4.0f * d[0] - 5.0f * d[2] + d[4];
        *high = 4.0f * d[1] - 5.0f * d[3] + d[5];
        return;
    }
    const vf even = pair == 1 ? d[4] - 4.0f * d[2] : d[4] - d[2];
    const vf odd = pair == 1 ? d[3] - 4.0f * d[1] : 2.0f * (d[3] - d[1]);
#else
    if (pair == 0) {
        *low = d[0] - d[6] + 5.25f * (d[4] - d[2]);
        *high = d[7] - d[1] + 5.25f * (d[3] - d[5]);
        return;
    }
    const vf even = pair == 1   ? d[2] + d[6] - 4.25f * d[4]
                    : pair == 2 ? d[6] + 0.25f * d[2] - 1.25f * d[4]
                                : d[6] + 4.0f * d[2] - 5.0f * d[4];
    const vf odd = pair == 1   ? d[1] + d[5] - 4.25f * d[3]
                   : pair == 2 ? 0.5f * d[1] - 2.5f * d[3] + 2.0f * d[5]
                               : 2.0f * d[1] - 2.5f * d[3] + 0.5f * d[5];
#endif
    *low = even + odd;
    *high = even - odd;
}

/* B^T d of a line of IN vectors. */
ALWAYS_INLINE void NAME(input_line)(const vf *d, vf *v) {
    NAME(input_pair)(0, d, &v[0], &v[IN - 1]);
    UNROLL(4)
    for (int pair = 1; pair < PAIRS; pair++) NAME(input_pair)(pair, d, &v[2 * pair - 1], &v[2 * pair]);
}

/* Rows odd, odd + 2, ... of A^T m. */
ALWAYS_INLINE void NAME(output_rows)(const int odd, const vf *m, vf *y) {
    const vf one = odd ? m[1] - m[2] : m[1] + m[2];
#if TILE == 2
    y[0] = odd ? one + m[3] : m[0] + one;
#elif TILE == 4
    const vf two = odd ? m[3] - m[4] : m[3] + m[4];
    y[0] = odd ? one + 2.0f * two : m[0] + one + two;
    y[1] = odd ? one + 8.0f * two + m[5] : one + 4.0f * two;
#else
    const vf two = odd ? m[3] - m[4] : m[3] + m[4], half = odd ? m[5] - m[6] : m[5] + m[6];
    y[0] = odd ? one + 2.0f * two + 0.5f * half : m[0] + one + two + half;
    y[1] = odd ? one + 8.0f * two + 0.125f * half : one + 4.0f * two + 0.25f * half;
    y[2] = odd ? one + 32.0f * two + 0.03125f * half + m[7] : one + 16.0f * two + 0.0625f * half;
#endif
}

/* A^T m of a line of IN vectors. */
ALWAYS_INLINE void NAME(output_line)(const vf *m, vf *y) {
    vf even[TILE / 2], odd[TILE / 2];
    NAME(output_rows)(0, m, even);
    NAME(output_rows)(1, m, odd);
    UNROLL(3)
    for (int i = 0; i < TILE / 2; i++) y[2 * i] = even[i], y[2 * i + 1] = odd[i];
}

#if TILE == 4
/* A dy for four vectors that lie `from` apart, written `to` apart (in vectors): the adjoint of output_line. */
ALWAYS_INLINE void NAME(gradient_line)(const vf *y, int64_t from, vf *z, int64_t to) {
    const vf y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
    const vf even = y0 + y2, odd = y1 + y3, even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
    z[0] = y0;
    z[to] = even + odd;
    z[2 * to] = even - odd;
    z[3 * to] = even2 + odd2;
    z[4 * to] = even2 - odd2;
    z[5 * to] = y3;
}

/* G^T u for six vectors: the adjoint of filter_line. */
ALWAYS_INLINE void NAME(filter_gradient_line)(const vf *u, int64_t from, vf *g, int64_t to) {
    const vf u0 = u[0], u1 = u[from], u2 = u[2 * from], u3 = u[3 * from], u4 = u[4 * from], u5 = u[5 * from];
    const vf near = (u1 + u2) * (1.0f / 6), far = u3 + u4;
    g[0] = u0 * 0.25f - near + far * (1.0f / 24);
    g[to] = (u2 - u1) * (1.0f / 6) + (u3 - u4) * (1.0f / 12);
    g[2 * to] = u5 - near + far * (1.0f / 6);
}
#endif

#undef PAIRS
#else /* ---- from POINTS ------------------------------------------------------------------------------------------------ */

/* Toom and Cook's matrices for the points +-a, +-b, +-c and infinity, with N = 2 a (a^2 - b^2) (a^2 - c^2):
 *     G g     (+-a)^u / (+-N) summed over the taps u; at infinity the last tap
 *     B^T d   the coefficients of (x +- a) (x^2 - b^2) (x^2 - c^2); at infinity of the product over all pairs
 *     A^T m   (+-a)^row; infinity is in the last row only */
#define PAIRS ((IN - 1) / 2)

static const float NAME(points)[] = POINTS;
#define POINT(pair) NAME(points)[(pair) % PAIRS]
#define SQUARE(pair) (POINT(pair) * POINT(pair))

/* The product over the other pairs of (at - their square). */
ALWAYS_INLINE float NAME(others)(const int pair, const float at) {
    float product = 1;
    for (int k = 1; k < PAIRS; k++) product *= at - SQUARE(pair + k);
    return product;
}

ALWAYS_INLINE float NAME(filter_scale)(const int frequency) {
    const float a = POINT(frequency / 2);
    return frequency == IN - 1 ? 1 : (frequency % 2 ? -1 : 1) / (2 * a * NAME(others)(frequency / 2, a * a));
}

ALWAYS_INLINE void NAME(filter_powers)(const vf *g, int64_t from, vf *u, int64_t to) {
    UNROLL(3)
    for (int pair = 0; pair < PAIRS; pair++) {
        const float a = POINT(pair);
        vf even = g[0], odd = a * g[from];
#if TAPS == 4
        even += (a * a) * g[2 * from], odd += (a * a * a) * g[3 * from];
#endif
        u[2 * pair * to] = even + odd;
        u[(2 * pair + 1) * to] = even - odd;
    }
    u[(IN - 1) * to] = g[(TAPS - 1) * from];
}

/* d[0], d[2], ... times the coefficients of the product over the other pairs of (y - their square). */
ALWAYS_INLINE vf NAME(without)(const int pair, const vf *d) {
#if IN == 3
    (void)pair;
    return d[0];
#elif IN == 5
    return d[2] - SQUARE(pair + 1) * d[0];
#else
    return d[4] - (SQUARE(pair + 1) + SQUARE(pair + 2)) * d[2] + SQUARE(pair + 1) * SQUARE(pair + 2) * d[0];
#endif
}

ALWAYS_INLINE void NAME(input_line)(const vf *d, vf *v) {
    UNROLL(3)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf even = POINT(pair) * NAME(without)(pair, d), odd = NAME(without)(pair, d + 1);
        v[2 * pair] = odd + even;
        v[2 * pair + 1] = odd - even;
    }
    v[IN - 1] = NAME(without)(0, d + 2) - SQUARE(0) * NAME(without)(0, d);
}

ALWAYS_INLINE void NAME(output_line)(const vf *m, vf *y) {
    vf even = {0}, odd = {0}, even2 = {0}, odd2 = {0};
    UNROLL(3)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf sum = m[2 * pair] + m[2 * pair + 1], difference = m[2 * pair] - m[2 * pair + 1];
        even += sum, odd += POINT(pair) * difference;
        even2 += SQUARE(pair) * sum, odd2 += POINT(pair) * SQUARE(pair) * difference;
    }
    y[0] = even;
#if TILE == 2
    y[1] = odd + m[IN - 1];
#else
    y[1] = odd, y[2] = even2;
    y[3] = odd2 + m[IN - 1];
#endif
}

#if TILE == 4
/* A dy for four vectors that lie `from` apart, written `to` apart (in vectors): the adjoint of output_line. */
ALWAYS_INLINE void NAME(gradient_line)(const vf *y, int64_t from, vf *z, int64_t to) {
    const vf y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
    UNROLL(3)
    for (int pair = 0; pair < PAIRS; pair++) {
        const vf even = y0 + SQUARE(pair) * y2, odd = POINT(pair) * (y1 + SQUARE(pair) * y3);
        z[2 * pair * to] = even + odd;
        z[(2 * pair + 1) * to] = even - odd;
    }
    z[(IN - 1) * to] = y3;
}

/* G^T u for IN vectors: the adjoint of filter_line. */
ALWAYS_INLINE void NAME(filter_gradient_line)(const vf *u, int64_t from, vf *g, int64_t to) {
    vf taps[4] = {{0}, {0}, {0}, {0}};
    UNROLL(3)
    for (int pair = 0; pair < PAIRS; pair++) {
        const float a = POINT(pair), scale = 1 / (2 * a * NAME(others)(pair, a * a));
        const vf plus = u[2 * pair * from], minus = u[(2 * pair + 1) * from];
        taps[0] += scale * (plus - minus), taps[1] += a * scale * (plus + minus);
        taps[2] += a * a * scale * (plus - minus), taps[3] += a * a * a * scale * (plus + minus);
    }
    taps[TAPS - 1] += u[(IN - 1) * from];
    for (int tap = 0; tap < TAPS; tap++) g[tap * to] = taps[tap];
}
#endif

#undef PAIRS
#undef POINT
#undef SQUARE
#endif

/* G g. */
ALWAYS_INLINE void NAME(filter_line)(const vf *g, int64_t from, vf *u, int64_t to) {
    NAME(filter_powers)(g, from, u, to);
    UNROLL(8)
    for (int frequency = 0; frequency < IN; frequency++) u[frequency * to] *= NAME(filter_scale)(frequency);
}
