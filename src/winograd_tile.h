/* Template of the transforms of F(TILE x TILE, 3x3), included once for each TILE of 2, 4 and 6 by winograd.c.
 *
 * Points: 0, 1, -1, infinity; from 4x4 on also 2, -2; for 6x6 also 1/2, -1/2. With points in pairs of either sign, the rows of
 * B^T come in pairs that share an even and an odd part, and so do those of A^T by parity. A two-dimensional transform is
 * done pair by pair: the pair's lines stay in registers between the two directions, and nothing but the inputs is read
 * more than once. */
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

/* The two lines of frequencies of a pair, for VL channels. Frequency f goes to v[f * frequency_stride]. */
ALWAYS_INLINE void NAME(input_lines)(const int pair, const float *d, int64_t row_stride, int64_t col_stride, float *v,
                                     int64_t frequency_stride) {
    vf line[2][IN], column[IN];
    UNROLL(8)
    for (int j = 0; j < IN; j++) {
        UNROLL(8)
        for (int i = 0; i < IN; i++) column[i] = vf_load(d + i * row_stride + j * col_stride);
        NAME(input_pair)(pair, column, &line[0][j], &line[1][j]);
    }
    UNROLL(2)
    for (int high = 0; high < 2; high++) {
        float *target = v + (pair ? 2 * pair - 1 + high : high * (IN - 1)) * IN * frequency_stride;
        UNROLL(4)
        for (int across = 0; across < PAIRS; across++) {
            vf first, second;
            NAME(input_pair)(across, line[high], &first, &second);
            vf_store(target + (across ? 2 * across - 1 : 0) * frequency_stride, first);
            vf_store(target + (across ? 2 * across : IN - 1) * frequency_stride, second);
        }
    }
}

/* Transforms one tile whose upper left input is (row, col) of `image`; frequency f of the channels from b * block on goes to
 * v[f * frequency_stride + b * block_stride]. block is a multiple of VL. */
static void NAME(transform_input)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                                  int64_t frequency_stride, int64_t block, int64_t block_stride) {
    const int inside = row >= 0 && col >= 0 && row + IN <= p->rows && col + IN <= p->cols;
    const float *corner = image + (row * p->cols + col) * p->stride;
    vf padded[IN * IN];
    for (int64_t c = 0; c < p->channels; c += VL) {
        const float *d = corner + c;
        int64_t row_stride = p->cols * p->stride, col_stride = p->stride;
        if (!inside || c + VL > p->channels) {
            for (int i = 0; i < IN; i++)
                for (int j = 0; j < IN; j++) {
                    const int there = row + i >= 0 && row + i < p->rows && col + j >= 0 && col + j < p->cols;
                    padded[i * IN + j] =
                        there ? vf_load_until(corner + (i * p->cols + j) * p->stride, c, p->channels) : (vf){0};
                }
            d = (const float *)padded, row_stride = IN * VL, col_stride = VL;
        }
        float *target = v + c / block * block_stride + c % block;
        NAME(input_lines)(0, d, row_stride, col_stride, target, frequency_stride);
        NAME(input_lines)(1, d, row_stride, col_stride, target, frequency_stride);
        if (PAIRS > 2) NAME(input_lines)(2, d, row_stride, col_stride, target, frequency_stride);
        if (PAIRS > 3) NAME(input_lines)(3, d, row_stride, col_stride, target, frequency_stride);
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

/* Rows odd, odd + 2, ... of a tile of outputs: those of VL outs, in whole vectors. */
ALWAYS_INLINE void NAME(output_lines)(const int odd, const float *m, int64_t frequency_stride, vf bias, const float *residual,
                                      vf low, vf high, float *y, int64_t row_stride, int64_t col_stride) {
    vf line[TILE / 2][IN], column[IN], sums[TILE / 2];
    UNROLL(8)
    for (int j = 0; j < IN; j++) {
        UNROLL(8)
        for (int i = 0; i < IN; i++) column[i] = vf_load(m + (i * IN + j) * frequency_stride);
        NAME(output_rows)(odd, column, sums);
        UNROLL(3)
        for (int i = 0; i < TILE / 2; i++) line[i][j] = sums[i];
    }
    UNROLL(3)
    for (int i = 0; i < TILE / 2; i++) {
        UNROLL(2)
        for (int across = 0; across < 2; across++) {
            NAME(output_rows)(across, line[i], sums);
            UNROLL(3)
            for (int j = 0; j < TILE / 2; j++) {
                const int64_t place = (2 * i + odd) * row_stride + (2 * j + across) * col_stride;
                vf value = sums[j] + bias;
                if (residual) value += vf_load(residual + place);
                vf_store(y + place, vf_min(high, vf_max(low, value)));
            }
        }
    }
}

/* Transforms one tile of products m[frequency * frequency_stride + lane] into the outputs from (row, col) on. */
static void NAME(transform_output)(const float *m, int64_t frequency_stride, const struct winograd_output *target, int64_t rows,
                                   int64_t cols) {
    const struct winograd_output out = *target;
    const int64_t row_stride = out.row_stride, col_stride = out.col_stride;
    const vf low = vf_set1(out.end.low), high = vf_set1(out.end.high), infinity = vf_set1(__builtin_inff());
    const int whole = rows >= TILE && cols >= TILE && out.end.clips;
    for (int64_t o = 0; o < out.lanes; o += VL, m += VL) {
        float *y = out.y + o;
        const float *residual = out.residual ? out.residual + o : NULL;
        const vf bias = out.bias ? vf_load_until(out.bias, o, out.lanes) : (vf){0};
        if (whole && o + VL <= out.lanes && residual) {
            NAME(output_lines)(0, m, frequency_stride, bias, residual, low, high, y, row_stride, col_stride);
            NAME(output_lines)(1, m, frequency_stride, bias, residual, low, high, y, row_stride, col_stride);
        } else if (whole && o + VL <= out.lanes) {
            NAME(output_lines)(0, m, frequency_stride, bias, NULL, low, high, y, row_stride, col_stride);
            NAME(output_lines)(1, m, frequency_stride, bias, NULL, low, high, y, row_stride, col_stride);
        } else {
            vf sums[TILE * TILE];
            NAME(output_lines)(0, m, frequency_stride, bias, NULL, -infinity, infinity, (float *)sums, TILE * VL, VL);
            NAME(output_lines)(1, m, frequency_stride, bias, NULL, -infinity, infinity, (float *)sums, TILE * VL, VL);
            output_part(&out, sums, TILE, min_i64(rows, TILE), min_i64(cols, TILE), o);
        }
    }
}

#undef IN
#undef PAIRS
#undef NAME_PASTE
#undef NAME_EXPAND
#undef NAME
