/* Template of the transforms of F(TILE x TILE, 3x3), included once for each TILE of 2, 4 and 6 by winograd.c.
 *
 * Points: 0, 1, -1, infinity; from 4x4 on also 2, -2; for 6x6 also 1/2, -1/2. With points in pairs of either sign, the rows of
 * B^T come in pairs that share an even and an odd part, and so do those of A^T by parity. A two-dimensional transform is
 * done in one direction and then in the other, with its half in the first-level cache: a line in registers at a time, so that there
 * are few addresses at once, and what comes from far is read once. */
#define IN (TILE + 2)
#define PAIRS (IN / 2)
#define NAME_PASTE(name, tile) name##_##tile
#define NAME_EXPAND(name, tile) NAME_PASTE(name, tile)
#define NAME(name) NAME_EXPAND(name, TILE)

/* ---- filters: U = G g G^T ---------------------------------------------------------------------------------------- */

/* G g for three vectors that lie `from` apart, written `to` apart (in vectors). */
ALWAYS_INLINE void NAME(filter_line)(const vf *g, int64_t from, vf *u, int64_t to) {
    const vf g0 = g[0], g1 = g[from], g2 = g[2 * from];
#if TILE == 2
    const vf even = (g0 + g2) * 0.5f, odd = g1 * 0.5f;
    u[0] = g0;
    u[to] = even + odd;
    u[2 * to] = even - odd;
#elif TILE == 4
    const vf even = (g0 + g2) * (1.0f / 6), odd = g1 * (1.0f / 6);
    const vf half = g0 * (1.0f / 24) + g2 * (1.0f / 6), rest = g1 * (1.0f / 12);
    u[0] = g0 * 0.25f;
    u[to] = -even - odd;
    u[2 * to] = odd - even;
    u[3 * to] = half + rest;
    u[4 * to] = half - rest;
#else
    const vf even = (g0 + g2) * (2.0f / 9), odd = g1 * (2.0f / 9);
    const vf even2 = g0 * (1.0f / 90) + g2 * (2.0f / 45), odd2 = g1 * (1.0f / 45);
    const vf half = g0 * (32.0f / 45) + g2 * (8.0f / 45), rest = g1 * (16.0f / 45);
    u[0] = g0;
    u[to] = -even - odd;
    u[2 * to] = odd - even;
    u[3 * to] = even2 + odd2;
    u[4 * to] = even2 - odd2;
    u[5 * to] = half + rest;
    u[6 * to] = half - rest;
#endif
    u[(IN - 1) * to] = g2;
}

/* One row of the frequencies of `floats` filters: that in column `col` goes to u[col * stride]. Tap t is at taps[t * floats]. */
ALWAYS_INLINE void NAME(filter_row)(const int row, const float *taps, int64_t floats, float *u, int64_t stride) {
    for (int64_t i = 0; i < floats; i += VL) {
        vf column[3], line[IN], half[3];
        for (int col = 0; col < 3; col++) {
            for (int tap = 0; tap < 3; tap++) column[tap] = vf_load(taps + (tap * 3 + col) * floats + i);
            NAME(filter_line)(column, 1, line, 1);
            half[col] = line[row]; /* the others are not computed */
        }
        NAME(filter_line)(half, 1, line, 1);
        for (int col = 0; col < IN; col++) vf_store(u + col * stride + i, line[col]);
    }
}

static void NAME(transform_filters)(int64_t row, const float *taps, int64_t floats, float *u, int64_t stride) {
    switch (row) {
    case 0: NAME(filter_row)(0, taps, floats, u, stride); break;
    case 1: NAME(filter_row)(1, taps, floats, u, stride); break;
    case 2: NAME(filter_row)(2, taps, floats, u, stride); break;
    case 3: NAME(filter_row)(3, taps, floats, u, stride); break;
#if TILE > 2
    case 4: NAME(filter_row)(4, taps, floats, u, stride); break;
    case 5: NAME(filter_row)(5, taps, floats, u, stride); break;
#endif
#if TILE > 4
    case 6: NAME(filter_row)(6, taps, floats, u, stride); break;
    case 7: NAME(filter_row)(7, taps, floats, u, stride); break;
#endif
    }
}

/* ---- inputs: V = B^T d B ------------------------------------------------------------------------------------------ */

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

/* Transforms one tile whose upper left input is (row, col) of `image`; frequency f of the channels from b * block on goes to
 * v[f * frequency_stride + b * block_stride]. block is a multiple of VL. */
static void NAME(transform_input)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                                  int64_t frequency_stride, int64_t block, int64_t block_stride) {
    /* The part of the tile that lies inside of the image. */
    const int64_t top = max_i64(0, -row), bottom = min_i64(IN, p->rows - row);
    const int64_t left = max_i64(0, -col), right = min_i64(IN, p->cols - col);
    const int inside = top == 0 && left == 0 && bottom == IN && right == IN;
    const float *corner = image + (row * p->cols + col) * p->stride;
    vf padded[IN * IN], half[IN * IN], line[IN], sums[IN];
    if (!inside) memset(padded, 0, sizeof(padded));
    for (int64_t c = 0; c < p->channels; c += VL) {
        const float *d = corner + c;
        int64_t row_stride = p->cols * p->stride, col_stride = p->stride;
        /* Where the next channels are, or the next tile's first; what this tile shares with that is here already. */
        const int64_t next = c + FETCH_AHEAD < p->channels ? FETCH_AHEAD : FETCH_AHEAD - p->channels + TILE * p->stride;
        const float *ahead = d + next + 2 * col_stride;
        const int64_t ahead_row = row_stride, ahead_col = col_stride;
        if (!inside || c + VL > p->channels) {
            for (int64_t i = top; i < bottom; i++)
                for (int64_t j = left; j < right; j++)
                    padded[i * IN + j] = vf_load_until(corner + i * row_stride + j * col_stride, c, p->channels);
            d = (const float *)padded, row_stride = IN * VL, col_stride = VL;
        }
        UNROLL(1)
        for (int j = 0; j < IN; j++, d += col_stride) {
            UNROLL(8)
            for (int i = 0; i < IN; i++) line[i] = vf_load(d + i * row_stride);
            NAME(input_line)(line, sums);
            UNROLL(8)
            for (int i = 0; i < IN; i++) half[i * IN + j] = sums[i];
        }
        float *target = v + c / block * block_stride + c % block;
        UNROLL(1)
        for (int i = 0; i < IN; i++, target += IN * frequency_stride, ahead += ahead_row) {
            UNROLL(6)
            for (int j = 0; j < TILE; j++) __builtin_prefetch(ahead + j * ahead_col, 0, 2);
            NAME(input_line)(half + i * IN, sums);
            UNROLL(8)
            for (int j = 0; j < IN; j++) vf_store(target + j * frequency_stride, sums[j]);
        }
    }
}

/* ---- outputs: y = A^T M A ----------------------------------------------------------------------------------------- */

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

/* Transforms one tile of products m[frequency * frequency_stride + lane] into the outputs from (row, col) on, of which `rows` and
 * `cols` are inside of y. */
static void NAME(transform_output)(const float *m, int64_t frequency_stride, const struct winograd_output *target, int64_t rows,
                                   int64_t cols) {
    const struct winograd_output out = *target;
    const int64_t row_stride = out.row_stride, col_stride = out.col_stride;
    const vf low = vf_set1(out.end.low), high = vf_set1(out.end.high);
    vf half[TILE * IN], line[IN], sums[TILE];
    rows = min_i64(rows, TILE), cols = min_i64(cols, TILE);
    for (int64_t o = 0; o < out.lanes; o += VL, m += VL) {
        const float *column = m;
        UNROLL(1)
        for (int j = 0; j < IN; j++, column += frequency_stride) {
            UNROLL(8)
            for (int i = 0; i < IN; i++) line[i] = vf_load(column + i * IN * frequency_stride);
            NAME(output_line)(line, sums);
            UNROLL(6)
            for (int i = 0; i < TILE; i++) half[i * IN + j] = sums[i];
        }
        const vf bias = out.bias ? vf_load_until(out.bias, o, out.lanes) : (vf){0};
        const int whole = cols == TILE && o + VL <= out.lanes && out.end.clips;
        UNROLL(1)
        for (int64_t i = 0; i < rows; i++) {
            float *y = out.y + i * row_stride;
            const float *residual = out.residual ? out.residual + i * row_stride : NULL;
            NAME(output_line)(half + i * IN, sums);
            UNROLL(6)
            for (int j = 0; j < TILE; j++) sums[j] += bias;
            if (!whole) {
                for (int64_t j = 0; j < cols; j++) {
                    if (residual) sums[j] += vf_load_until(residual + j * col_stride, o, out.lanes);
                    vf_store_until(y + j * col_stride, finish(out.end, sums[j]), o, out.lanes);
                }
                continue;
            }
            if (residual) {
                UNROLL(6)
                for (int j = 0; j < TILE; j++) sums[j] += vf_load(residual + j * col_stride + o);
            }
            UNROLL(6)
            for (int j = 0; j < TILE; j++) { /* Stores wait for their lines one by one: those of the next tile come meanwhile. */
                __builtin_prefetch(y + (TILE + j) * col_stride + o, 1);
                vf_store(y + j * col_stride + o, vf_min(high, vf_max(low, sums[j])));
            }
        }
    }
}

#undef IN
#undef PAIRS
#undef NAME_PASTE
#undef NAME_EXPAND
#undef NAME
