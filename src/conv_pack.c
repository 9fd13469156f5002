/* Packs weights, or a matrix, into the panels that the GEMM micro-kernel streams (layout in conv.h). */
#include "conv.h"
#include "isa.h"
#include "vec_basic.h"

typedef float pack_quad __attribute__((vector_size(16)));
typedef pack_quad pack_quad_unaligned __attribute__((aligned(4), may_alias));

#if defined(__clang__)
#define QUAD_LANES(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define QUAD_LANES(a, b, i, j, k, l) __builtin_shuffle(a, b, (__attribute__((vector_size(16))) int){i, j, k, l})
#endif

/* 4 x 4 floats, rows to columns. */
ALWAYS_INLINE void transpose_quads(const float *source, int64_t source_stride, float *target, int64_t target_stride) {
#define ROW(i) (*(const pack_quad_unaligned *)(source + (i) * source_stride))
    const pack_quad a = ROW(0), b = ROW(1), c = ROW(2), d = ROW(3);
#undef ROW
    const pack_quad ab_low = QUAD_LANES(a, b, 0, 4, 1, 5), ab_high = QUAD_LANES(a, b, 2, 6, 3, 7);
    const pack_quad cd_low = QUAD_LANES(c, d, 0, 4, 1, 5), cd_high = QUAD_LANES(c, d, 2, 6, 3, 7);
#define COLUMN(i) (*(pack_quad_unaligned *)(target + (i) * target_stride))
    COLUMN(0) = QUAD_LANES(ab_low, cd_low, 0, 1, 4, 5);
    COLUMN(1) = QUAD_LANES(ab_low, cd_low, 2, 3, 6, 7);
    COLUMN(2) = QUAD_LANES(ab_high, cd_high, 0, 1, 4, 5);
    COLUMN(3) = QUAD_LANES(ab_high, cd_high, 2, 3, 6, 7);
#undef COLUMN
}

/* Weights come from memory, in more streams than the processor foresees: floats of a line, and lines of outs side by side, from what is
 * packed to what is fetched. */
enum { LINE_AHEAD = 64, OUTS_AHEAD = 24 };

/* `lanes` contiguous lines of `count` floats each become columns of the panel's rows. */
static void pack_lines(const float *source, int64_t out_stride, int64_t lanes, int64_t count, float *target,
                       int64_t width) {
    int64_t lane = 0;
    for (; lane + 4 <= lanes; lane += 4) {
        const float *line = source + lane * out_stride;
        int64_t i = 0;
        for (; i + CHUNK <= count; i += CHUNK) {
            for (int64_t next = 0; next < 4; next++) __builtin_prefetch(line + next * out_stride + i + LINE_AHEAD);
            for (int64_t quad = i; quad < i + CHUNK; quad += 4)
                transpose_quads(line + quad, out_stride, target + quad * width + lane, width);
        }
        for (; i + 4 <= count; i += 4) transpose_quads(line + i, out_stride, target + i * width + lane, width);
        for (; i < count; i++)
            for (int64_t next = 0; next < 4; next++) target[i * width + lane + next] = line[next * out_stride + i];
    }
    for (; lane < lanes; lane++)
        for (int64_t i = 0; i < count; i++) target[i * width + lane] = source[lane * out_stride + i];
}

/* Lines are read in blocks, so that the rows of the panel that they are spread over stay in the L1 cache. */
enum { PACK_BLOCK = 64 };

/* One tap of a panel. */
static void pack_tap(const struct pack_panels_params *p, const float *source, int64_t lanes, float *target) {
    const int64_t width = p->panel_width;
    if (p->out_stride == 1) {
        for (int64_t i = 0; i < p->reds; i++, source += p->red_stride, target += width)
            for (int64_t lane = 0; lane < width; lane += VL) {
                __builtin_prefetch(source + OUTS_AHEAD * p->red_stride + lane);
                vf_store_until(target, lane < lanes ? vf_load_until(source, lane, lanes) : (vf){0}, lane, width);
            }
        return;
    }
    for (int64_t begin = 0; begin < p->reds; begin += PACK_BLOCK, target += PACK_BLOCK * width) {
        const int64_t count = min_i64(PACK_BLOCK, p->reds - begin);
        const float *block = source + begin * p->red_stride;
        if (p->red_stride == 1)
            pack_lines(block, p->out_stride, lanes, count, target, width);
        else
            for (int64_t lane = 0; lane < lanes; lane++)
                for (int64_t i = 0; i < count; i++)
                    target[i * width + lane] = block[lane * p->out_stride + i * p->red_stride];
        for (int64_t i = 0; i < count; i++)
            for (int64_t lane = lanes; lane < width; lane++) target[i * width + lane] = 0;
    }
}

/* Rows of `width` floats that are transposed in one go, in the L1 cache. */
enum { PACK_ROWS = 256 };

/* Whether filters lie one behind the other, and the taps of each channel side by side, as [outs][reds][taps]. */
static int taps_lie_together(const struct pack_panels_params *p) {
    const int64_t taps = p->tap_rows * p->tap_cols;
    return taps > 1 && taps <= PACK_ROWS && p->red_stride == taps && p->tap_row_stride == p->tap_cols && p->tap_col_stride == 1;
}

/* All taps of a panel of such filters: every float of them is read once. */
static void pack_filters(const struct pack_panels_params *p, const float *source, int64_t lanes, float *target) {
    const int64_t width = p->panel_width, taps = p->tap_rows * p->tap_cols, most = PACK_ROWS / taps;
    float block[PACK_ROWS * NR];
    memset(block, 0, sizeof(block)); /* the lanes past outs stay zero */
    for (int64_t begin = 0; begin < p->reds; begin += most) {
        const int64_t count = min_i64(most, p->reds - begin);
        pack_lines(source + begin * taps, p->out_stride, lanes, count * taps, block, width);
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = 0; i < count; i++)
                memcpy(target + (tap * p->reds + begin + i) * width, block + (i * taps + tap) * width, (size_t)width * sizeof(float));
    }
}

static void scale_rows(float *target, int64_t rows, int64_t width, const float *factors, int64_t lanes) {
    for (int64_t lane = 0; lane < lanes; lane += VL) {
        const vf factor = vf_load_until(factors, lane, lanes);
        for (int64_t row = 0; row < rows; row++) {
            float *at = target + row * width;
            vf_store_until(at, vf_load_until(at, lane, width) * factor, lane, width);
        }
    }
}

/* The taps of p->reds of a panel. */
static void pack_reds(const struct pack_panels_params *p, const float *source, int64_t lanes, float *target) {
    if (taps_lie_together(p)) {
        pack_filters(p, source, lanes, target);
        return;
    }
    for (int64_t tap = 0; tap < p->tap_rows * p->tap_cols; tap++)
        pack_tap(p, source + tap / p->tap_cols * p->tap_row_stride + tap % p->tap_cols * p->tap_col_stride, lanes,
                 target + tap * p->reds * p->panel_width);
}

void KERNEL(pack_panels)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct pack_panels_params *p = params;
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width), taps = p->tap_rows * p->tap_cols;
    const int64_t group = task / panels, panel = task % panels;
    const int64_t lanes = min_i64(width, p->outs - panel * width);
    const float *source = (const float *)buffers[0] + p->offset + group * p->group_stride + panel * width * p->out_stride;
    const float *factors = buffers[2];
    float *target = (float *)buffers[1] + task * taps * p->reds * width;
    struct pack_panels_params part = *p;
    if (p->chunked) part.reds = CHUNK;
    for (int64_t red = 0; red < p->reds; red += part.reds) pack_reds(&part, source + red * p->red_stride, lanes, target + red * taps * width);
    if (factors) scale_rows(target, taps * p->reds, width, factors + group * p->outs + panel * width, lanes);
}
