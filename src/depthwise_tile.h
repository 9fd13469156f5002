/* Template of the depthwise micro-kernel: COLS neighbouring output pixels of one row, all channels of the task. Included
 * by conv_depthwise.c once for each (TAPS, STRIDE, COLS); defines depthwise_<TAPS>_<STRIDE>_<COLS>.
 *
 *     columns   lines x INPUTS pointers to the pixels of x (or to zeros), one line of pointers for each line of TAPS taps
 *     TAPS = 3, STRIDE = 1, COLS = 4, one line:      x0 x1 x2 x3 x4 x5
 *                                         y0 <- w    0  1  2
 *                                         y1 <- w       0  1  2         every x is loaded once,
 *                                         y2 <- w          0  1  2      every w once
 *                                         y3 <- w             0  1  2
 *
 * TAPS = 1 with STRIDE = 1 serves all other kernels: every tap is a line of its own. */

#define INPUTS ((COLS - 1) * STRIDE + TAPS)
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
    for (int64_t line = 0; line < lines; line++, columns += INPUTS, w += TAPS * channels) {
#pragma GCC unroll 32
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

#undef INPUTS
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
#undef COLS
