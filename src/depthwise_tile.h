/* Template of the depthwise micro-kernels: COLS neighbouring output pixels of one row, all channels of the task. Included
 * by conv_depthwise.c once for each (TAPS, STRIDE, COLS); defines depthwise_<TAPS>_<STRIDE>_<COLS> and, for the gradient
 * of the weights, depthwise_gradient_<TAPS>_<STRIDE>_<COLS>.
 *
 *     columns   lines of LINE pointers to the pixels of x (or to zeros), one for each line of TAPS taps; INPUTS of a line are
 *               in use, all of them where COLS is DEPTHWISE_COLS
 *     TAPS = 3, STRIDE = 1, COLS = 4, one line:      x0 x1 x2 x3 x4 x5
 *                                         y0 <- w    0  1  2
 *                                         y1 <- w       0  1  2         every x is loaded once,
 *                                         y2 <- w          0  1  2      every w once
 *                                         y3 <- w             0  1  2
 *
 * depthwise_pair and depthwise_gradient_pair (TAPS = 3) do the same for two rows at once.
 *
 * TAPS = 1 with STRIDE = 1 serves all other kernels: every tap is a line of its own. */

#define INPUTS ((COLS - 1) * STRIDE + TAPS)
#define LINE ((DEPTHWISE_COLS - 1) * STRIDE + TAPS)
#define PASTE(name, taps, stride, cols) name##_##taps##_##stride##_##cols
#define NAME(name, taps, stride, cols) PASTE(name, taps, stride, cols)
#define LIST_PASTE(count) COLS_##count
#define LIST(count) LIST_PASTE(count)
#define EACH_COL(M) LIST(COLS)(M)

#define START(t) vf sum##t = bias ? LOAD(bias + c) : (vf){0};
#define USE(t)                                                                                                         \
    if (j >= t * STRIDE && j - t * STRIDE < TAPS) sum##t += x * LOAD(w + (j - t * STRIDE) * channels);
#define ADD_RESIDUAL(t) sum##t += LOAD(residual + t * col_stride + c);
#define FINISH(t)                                                                                                      \
    sum##t = finish(e, sum##t);                                                                                        \
    if (lanes == VL)                                                                                                   \
        vf_store(y + t * col_stride + c, sum##t);                                                                      \
    else                                                                                                               \
        vf_store_first(y + t * col_stride + c, sum##t, lanes);
#define LOAD(source) (lanes == VL ? vf_load(source) : vf_load_first(source, lanes))

ALWAYS_INLINE void NAME(depthwise_lanes, TAPS, STRIDE, COLS)(
    struct epilogue e, int64_t lanes, int64_t c, int64_t channels, const float *const *columns, int64_t lines,
    const float *weights, const float *bias, const float *residual, float *y, int64_t col_stride) {
    const float *w = weights + c;
    (void)col_stride;
    EACH_COL(START)
    for (int64_t line = 0; line < lines; line++, columns += LINE, w += TAPS * channels) {
        UNROLL(32)
        for (int64_t j = 0; j < INPUTS; j++) {
            const vf x = LOAD(columns[j] + c);
            EACH_COL(USE)
        }
    }
    if (residual) { EACH_COL(ADD_RESIDUAL) }
    EACH_COL(FINISH)
}

static void NAME(depthwise, TAPS, STRIDE, COLS)(const struct depthwise_params *p, int64_t count,
                                                const float *const *columns, int64_t lines, const float *weights,
                                                const float *bias, const float *residual, float *y) {
    const struct epilogue e = epilogue(p->activation, p->alpha, p->beta);
    const int64_t channels = p->channels, stride = p->out_col_stride;
    int64_t c = 0;
    for (; c + VL <= count; c += VL)
        NAME(depthwise_lanes, TAPS, STRIDE, COLS)(e, VL, c, channels, columns, lines, weights, bias, residual, y, stride);
    if (c < count)
        NAME(depthwise_lanes, TAPS, STRIDE, COLS)
        (e, count - c, c, channels, columns, lines, weights, bias, residual, y, stride);
}

/* Two rows of outputs, of a kernel with TAPS rows, at once: TAPS + STRIDE lines of pixels; where a row is outside of x,
 * its line points to zeros. An x in the middle serves both rows, and every w is loaded once for both. */
#define USE_ROW(row, t)                                                                                                \
    if (i >= row * STRIDE && i - row * STRIDE < TAPS && j >= t * STRIDE && j - t * STRIDE < TAPS)                      \
        sum##row##_##t += x * LOAD(w + ((i - row * STRIDE) * TAPS + j - t * STRIDE) * channels);
#define START_PAIR(t) vf sum0_##t = bias ? LOAD(bias + c) : (vf){0}, sum1_##t = sum0_##t;
#define USE_PAIR(t) USE_ROW(0, t) USE_ROW(1, t)
#define ADD_RESIDUAL_PAIR(t)                                                                                           \
    sum0_##t += LOAD(residual + t * col_stride + c);                                                                   \
    sum1_##t += LOAD(residual + row_stride + t * col_stride + c);
#define FETCH_PAIR(t)                                                                                                  \
    __builtin_prefetch(y + (t + COLS) * col_stride + c, 1);                                                            \
    __builtin_prefetch(y + row_stride + (t + COLS) * col_stride + c, 1);
#define STORE_PAIR(t)                                                                                                  \
    vf_store_lanes(y + t * col_stride + c, finish(e, sum0_##t), lanes);                                                \
    vf_store_lanes(y + row_stride + t * col_stride + c, finish(e, sum1_##t), lanes);

#if TAPS == 3
ALWAYS_INLINE void NAME(depthwise_pair_lanes, TAPS, STRIDE, COLS)(
    struct epilogue e, int64_t lanes, int64_t c, int64_t channels, const float *const *columns, const float *weights,
    const float *bias, const float *residual, float *y, int64_t row_stride, int64_t col_stride) {
    const float *w = weights + c;
    EACH_COL(FETCH_PAIR) /* where the next tile goes to may belong to another core */
    EACH_COL(START_PAIR)
    UNROLL(8)
    for (int64_t i = 0; i < TAPS + STRIDE; i++) {
        UNROLL(16)
        for (int64_t j = 0; j < INPUTS; j++) {
            const vf x = LOAD(columns[i * LINE + j] + c);
            EACH_COL(USE_PAIR)
        }
    }
    if (residual) { EACH_COL(ADD_RESIDUAL_PAIR) }
    EACH_COL(STORE_PAIR)
}

static void NAME(depthwise_pair, TAPS, STRIDE, COLS)(const struct depthwise_params *p, int64_t count,
                                                     const float *const *columns, int64_t lines, const float *weights,
                                                     const float *bias, const float *residual, float *y) {
    (void)lines;
    const struct epilogue e = epilogue(p->activation, p->alpha, p->beta);
    const int64_t channels = p->channels, row = p->out_row_stride, col = p->out_col_stride;
    int64_t c = 0;
    for (; c + VL <= count; c += VL)
        NAME(depthwise_pair_lanes, TAPS, STRIDE, COLS)(e, VL, c, channels, columns, weights, bias, residual, y, row, col);
    if (c < count)
        NAME(depthwise_pair_lanes, TAPS, STRIDE, COLS)
        (e, count - c, c, channels, columns, weights, bias, residual, y, row, col);
}
#endif

#define LOAD_DY(t) const vf dy##t = LOAD(dy + t * col_stride + c);
#define START_TAP(s) vf tap##s = s < TAPS ? LOAD(part + s * channels) : (vf){0};
#define GIVE_TAP(t, s)                                                                                                 \
    if (s < TAPS && j - t * STRIDE == s) tap##s += x * dy##t;
#define GIVE(t) GIVE_TAP(t, 0) GIVE_TAP(t, 1) GIVE_TAP(t, 2) GIVE_TAP(t, 3) GIVE_TAP(t, 4)
#define STORE_TAP(s)                                                                                                   \
    if (s < TAPS && lanes == VL) vf_store(part + s * channels, tap##s);                                                \
    if (s < TAPS && lanes < VL) vf_store_first(part + s * channels, tap##s, lanes);
#define EACH_TAP(M) M(0) M(1) M(2) M(3) M(4)

ALWAYS_INLINE void NAME(depthwise_gradient_lanes, TAPS, STRIDE, COLS)(
    int64_t lanes, int64_t c, int64_t channels, const float *const *columns, int64_t lines, const float *dy,
    int64_t col_stride, float *parts) {
    float *part = parts + c;
    (void)col_stride;
    EACH_COL(LOAD_DY)
    for (int64_t line = 0; line < lines; line++, columns += LINE, part += TAPS * channels) {
        EACH_TAP(START_TAP)
        UNROLL(32)
        for (int64_t j = 0; j < INPUTS; j++) {
            const vf x = LOAD(columns[j] + c);
            EACH_COL(GIVE)
        }
        EACH_TAP(STORE_TAP)
    }
}

/* parts[line][tap][channels] += x * dy, the columns of the tile added one after the other. */
static void NAME(depthwise_gradient, TAPS, STRIDE, COLS)(int64_t count, int64_t channels, const float *const *columns,
                                                         int64_t lines, const float *dy, int64_t col_stride,
                                                         float *parts) {
    int64_t c = 0;
    for (; c + VL <= count; c += VL)
        NAME(depthwise_gradient_lanes, TAPS, STRIDE, COLS)(VL, c, channels, columns, lines, dy, col_stride, parts);
    if (c < count)
        NAME(depthwise_gradient_lanes, TAPS, STRIDE, COLS)(count - c, c, channels, columns, lines, dy, col_stride, parts);
}

/* Two rows of dy at once, as depthwise_pair: all nine taps stay in registers meanwhile. */
#define LOAD_DY_PAIR(t) const vf dy0_##t = LOAD(dy + t * col_stride + c), dy1_##t = LOAD(dy + row_stride + t * col_stride + c);
#define GIVE_ROW(row, t, r, s)                                                                                         \
    if (i - row * STRIDE == r && j - t * STRIDE == s) tap##r##_##s += x * dy##row##_##t;
#define GIVE_ROW_LINE(row, t, r) GIVE_ROW(row, t, r, 0) GIVE_ROW(row, t, r, 1) GIVE_ROW(row, t, r, 2)
#define GIVE_ROW_TAPS(row, t) GIVE_ROW_LINE(row, t, 0) GIVE_ROW_LINE(row, t, 1) GIVE_ROW_LINE(row, t, 2)
#define GIVE_PAIR(t) GIVE_ROW_TAPS(0, t) GIVE_ROW_TAPS(1, t)
#define START_TAPS(r)                                                                                                  \
    vf tap##r##_0 = LOAD(part + 3 * r * channels), tap##r##_1 = LOAD(part + (3 * r + 1) * channels),                   \
       tap##r##_2 = LOAD(part + (3 * r + 2) * channels);
#define STORE_TAPS(r)                                                                                                  \
    vf_store_lanes(part + 3 * r * channels, tap##r##_0, lanes);                                                        \
    vf_store_lanes(part + (3 * r + 1) * channels, tap##r##_1, lanes);                                                  \
    vf_store_lanes(part + (3 * r + 2) * channels, tap##r##_2, lanes);

#if TAPS == 3
ALWAYS_INLINE void NAME(depthwise_gradient_pair_lanes, TAPS, STRIDE, COLS)(
    int64_t lanes, int64_t c, int64_t channels, const float *const *columns, const float *dy, int64_t row_stride,
    int64_t col_stride, float *parts) {
    float *part = parts + c;
    (void)col_stride;
    EACH_COL(LOAD_DY_PAIR)
    START_TAPS(0) START_TAPS(1) START_TAPS(2)
    UNROLL(8)
    for (int64_t i = 0; i < TAPS + STRIDE; i++) {
        UNROLL(16)
        for (int64_t j = 0; j < INPUTS; j++) {
            const vf x = LOAD(columns[i * LINE + j] + c);
            EACH_COL(GIVE_PAIR)
        }
    }
    STORE_TAPS(0) STORE_TAPS(1) STORE_TAPS(2)
}

static void NAME(depthwise_gradient_pair, TAPS, STRIDE, COLS)(int64_t count, int64_t channels,
                                                              const float *const *columns, const float *dy,
                                                              int64_t row_stride, int64_t col_stride, float *parts) {
    int64_t c = 0;
    for (; c + VL <= count; c += VL)
        NAME(depthwise_gradient_pair_lanes, TAPS, STRIDE, COLS)(VL, c, channels, columns, dy, row_stride, col_stride, parts);
    if (c < count)
        NAME(depthwise_gradient_pair_lanes, TAPS, STRIDE, COLS)
        (count - c, c, channels, columns, dy, row_stride, col_stride, parts);
}
#endif

#undef LOAD_DY_PAIR
#undef GIVE_ROW
#undef GIVE_ROW_LINE
#undef GIVE_ROW_TAPS
#undef GIVE_PAIR
#undef START_TAPS
#undef STORE_TAPS
#undef INPUTS
#undef LINE
#undef PASTE
#undef NAME
#undef LIST_PASTE
#undef LIST
#undef EACH_COL
#undef START
#undef USE
#undef ADD_RESIDUAL
#undef FINISH
#undef LOAD
#undef USE_ROW
#undef START_PAIR
#undef USE_PAIR
#undef ADD_RESIDUAL_PAIR
#undef FETCH_PAIR
#undef STORE_PAIR
#undef LOAD_DY
#undef START_TAP
#undef GIVE_TAP
#undef GIVE
#undef STORE_TAP
#undef EACH_TAP
#undef COLS
