/* Template of the transforms of F(TILE x TILE, TAPS x TAPS), included once for each pair of them by winograd.c.
 *
 * A two-dimensional transform is done in one direction and then in the other, with its half in the first-level cache: a line in
 * registers at a time, so that there are few addresses at once, and what comes from far is read once. */
#define IN (TILE + TAPS - 1)
#define GRADIENT (TILE > 2) /* tiles that weight gradients have */
#define PHASES (TAPS != 3 || TILE < 6) /* and strides of 2 */
#define NAME_PASTE(name, tile, taps) name##_##tile##x##taps
#define NAME_EXPAND(name, tile, taps) NAME_PASTE(name, tile, taps)
#define NAME(name) NAME_EXPAND(name, TILE, TAPS)
#include "winograd_lines.h"

/* ---- filters: U = G g G^T ---------------------------------------------------------------------------------------- */

/* One row of the frequencies of filters: that in column `col` goes to u[col * stride], that in the last one to `last` unless it is NULL. */
ALWAYS_INLINE void NAME(filter_row)(const int row, const struct winograd_taps *p, float *u, int64_t stride, float *last) {
    const int whole = p->rows == TAPS && p->cols == TAPS;
    for (int64_t i = 0; i < p->floats; i += VL) {
        vf column[TAPS], line[IN], half[TAPS];
        for (int col = 0; col < TAPS; col++) {
            for (int tap = 0; tap < TAPS; tap++) {
                const float *from = p->taps + tap * p->row_stride + col * p->col_stride + i;
                column[tap] = whole || (tap < p->rows && col < p->cols) ? vf_load(from) : (vf){0};
            }
            NAME(filter_line)(column, line);
            half[col] = line[row]; /* the others are not computed */
        }
        NAME(filter_line)(half, line);
        for (int col = 0; col < IN - 1; col++) vf_store(u + col * stride + i, line[col]);
        if (last) vf_store(last + i, line[IN - 1]);
    }
}

static void NAME(transform_filters)(int64_t row, const struct winograd_taps *p, float *u, int64_t stride, float *last) {
    switch (row) {
    case 0: NAME(filter_row)(0, p, u, stride, last); break;
    case 1: NAME(filter_row)(1, p, u, stride, last); break;
    case 2: NAME(filter_row)(2, p, u, stride, last); break;
#if IN > 3
    case 3: NAME(filter_row)(3, p, u, stride, last); break;
#endif
#if IN > 4
    case 4: NAME(filter_row)(4, p, u, stride, last); break;
#endif
#if IN > 5
    case 5: NAME(filter_row)(5, p, u, stride, last); break;
#endif
#if IN > 6
    case 6: NAME(filter_row)(6, p, u, stride, last); break;
#endif
#if IN > 7
    case 7: NAME(filter_row)(7, p, u, stride, last); break;
#endif
#if IN > 8
    case 8: NAME(filter_row)(8, p, u, stride, last); break;
#endif
    }
}

#if TILE == 4 && TAPS == 3 && FEW_TILES
#define COUNT 1
#include "winograd_few.h"
#undef COUNT
#define COUNT 2
#include "winograd_few.h"
#undef COUNT
#define COUNT 3
#include "winograd_few.h"
#undef COUNT
#define COUNT 4
#include "winograd_few.h"
#undef COUNT
#endif

/* ---- inputs: V = B^T d B ------------------------------------------------------------------------------------------ */

/* A vector of all pixels of a tile, d[i * row_stride + j * col_stride]; frequency f goes to target[f * frequency_stride]. What the
 * next one reads, at `ahead`, is fetched meanwhile. */
ALWAYS_INLINE void NAME(input_plane)(const float *d, int64_t row_stride, int64_t col_stride, float *target, int64_t frequency_stride,
                                     const float *ahead, int64_t ahead_row, int64_t ahead_col) {
    vf half[IN * IN], line[IN], sums[IN];
    UNROLL(1)
    for (int j = 0; j < IN; j++, d += col_stride) {
        UNROLL(9)
        for (int i = 0; i < IN; i++) line[i] = vf_load(d + i * row_stride);
        NAME(input_line)(line, sums);
        UNROLL(9)
        for (int i = 0; i < IN; i++) half[i * IN + j] = sums[i];
    }
    UNROLL(1)
    for (int i = 0; i < IN; i++, target += IN * frequency_stride, ahead += ahead_row) {
        UNROLL(9)
        for (int j = 0; j < TILE; j++) __builtin_prefetch(ahead + j * ahead_col, 0, 2);
        NAME(input_line)(half + i * IN, sums);
        UNROLL(9)
        for (int j = 0; j < IN; j++) vf_store(target + j * frequency_stride, sums[j]);
    }
}

/* Transforms one tile whose upper left input is (row, col) of `image`; frequency f of the channels from b * block on goes to
 * v[f * frequency_stride + b * block_stride]. block is a multiple of VL. */
static void NAME(transform_input)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                                  int64_t frequency_stride, int64_t block, int64_t block_stride) {
    /* The part of the tile that lies inside of the image. */
    const int64_t top = inside_from(row, p->step), bottom = min_i64(IN, inside_from(row - p->rows, p->step));
    const int64_t left = inside_from(col, p->step), right = min_i64(IN, inside_from(col - p->cols, p->step));
    const int inside = top == 0 && left == 0 && bottom == IN && right == IN;
    const float *corner = image + (row * p->cols + col) * p->stride;
    const int64_t image_row = p->step * p->cols * p->stride, image_col = p->step * p->stride;
    vf padded[IN * IN];
    if (!inside) memset(padded, 0, sizeof(padded));
    for (int64_t c = 0; c < p->channels; c += VL) {
        float *target = v + c / block * block_stride + c % block;
        /* Where the next channels are, or the next tile's first; what this tile shares with that is here already. */
        const int64_t next = c + FETCH_AHEAD < p->channels ? FETCH_AHEAD : FETCH_AHEAD - p->channels + TILE * image_col;
        const float *ahead = corner + c + next + (TAPS - 1) * image_col;
        const float *d = corner + c;
        int64_t row_stride = image_row, col_stride = image_col;
        if (!inside || c + VL > p->channels) {
            for (int64_t i = top; i < bottom; i++)
                for (int64_t j = left; j < right; j++)
                    padded[i * IN + j] = vf_load_until(corner + i * image_row + j * image_col, c, p->channels);
            d = (const float *)padded, row_stride = IN * VL, col_stride = VL;
        }
        NAME(input_plane)(d, row_stride, col_stride, target, frequency_stride, ahead, image_row, image_col);
    }
}

#if PHASES
/* The same for all phases of a stride of 2 at once, of few channels: pixels of a line of CHUNK floats. */
static void NAME(transform_phases)(const struct winograd_input *p, const float *image, int64_t row, int64_t col, float *v,
                                   int64_t frequency_stride, int64_t block, int64_t block_stride) {
    float pixels[IN * IN * CHUNK];
    gather_phases(p, image, row, col, IN, pixels);
    for (int64_t c = 0; c < 4 * p->channels; c += VL)
        NAME(input_plane)(pixels + c, IN * CHUNK, CHUNK, v + c / block * block_stride + c % block, frequency_stride, pixels + c,
                          IN * CHUNK, CHUNK);
}
#endif

/* ---- outputs: y = A^T M A ----------------------------------------------------------------------------------------- */

/* Transforms one tile of products m[frequency * frequency_stride + lane]. */
static void NAME(transform_output)(const float *m, int64_t frequency_stride, const struct winograd_output *target) {
    const struct winograd_output out = *target;
    const int64_t row_stride = out.row_stride, col_stride = out.col_stride;
    const vf low = vf_set1(out.end.low), high = vf_set1(out.end.high);
    vf half[TILE * IN], line[IN], sums[TILE];
    for (int64_t o = 0; o < out.lanes; o += VL, m += VL) {
        const float *column = m;
        UNROLL(1)
        for (int j = 0; j < IN; j++, column += frequency_stride) {
            UNROLL(9)
            for (int i = 0; i < IN; i++) line[i] = vf_load(column + i * IN * frequency_stride);
            NAME(output_line)(line, sums);
            UNROLL(9)
            for (int i = 0; i < TILE; i++) half[i * IN + j] = sums[i];
        }
        const vf bias = out.bias ? vf_load_until(out.bias, o, out.lanes) : (vf){0};
        const int whole = out.left == 0 && out.right == TILE && o + VL <= out.lanes && out.end.clips;
        UNROLL(1)
        for (int64_t i = out.top; i < out.bottom; i++) {
            float *y = out.y + i * row_stride;
            const float *residual = out.residual ? out.residual + i * row_stride : NULL;
            NAME(output_line)(half + i * IN, sums);
            UNROLL(9)
            for (int j = 0; j < TILE; j++) sums[j] += bias;
            if (!whole) {
                for (int64_t j = out.left; j < out.right; j++) {
                    if (residual) sums[j] += vf_load_until(residual + j * col_stride, o, out.lanes);
                    vf_store_until(y + j * col_stride, finish(out.end, sums[j]), o, out.lanes);
                }
                continue;
            }
            if (residual) {
                UNROLL(9)
                for (int j = 0; j < TILE; j++) sums[j] += vf_load(residual + j * col_stride + o);
            }
            UNROLL(9)
            for (int j = 0; j < TILE; j++) { /* Stores wait for their lines one by one: those of the next tile come meanwhile. */
                __builtin_prefetch(y + (TILE + j) * col_stride + o, 1);
                vf_store(y + j * col_stride + o, vf_min(high, vf_max(low, sums[j])));
            }
        }
    }
}

#if GRADIENT
/* ---- the weight gradient: Z = A dy A^T, dw = G^T U G -------------------------------------------------------------------- */

/* Transforms `rows` outs of a tile of dy, of which down x across pixels are inside, row_stride and outs floats apart; frequency f
 * goes to z[f * frequency_stride]. Whole vectors are written. */
static void NAME(transform_gradient)(const float *dy, int64_t row_stride, int64_t outs, int64_t end, int64_t down, int64_t across,
                                     int64_t rows, float *z, int64_t frequency_stride) {
    const int inside = down == TILE && across == TILE;
    vf padded[TILE * TILE], half[IN * TILE], line[TILE], sums[IN];
    if (!inside) memset(padded, 0, sizeof(padded));
    for (int64_t o = 0; o < rows; o += VL) {
        const float *d = dy + o;
        int64_t d_row = row_stride, d_col = outs;
        if (!inside || o + VL > end) {
            for (int64_t i = 0; i < down; i++)
                for (int64_t j = 0; j < across; j++) padded[i * TILE + j] = vf_load_until(dy + i * row_stride + j * outs, o, end);
            d = (const float *)padded, d_row = TILE * VL, d_col = VL;
        }
        UNROLL(1)
        for (int j = 0; j < TILE; j++, d += d_col) {
            UNROLL(9)
            for (int i = 0; i < TILE; i++) line[i] = vf_load(d + i * d_row);
            NAME(gradient_line)(line, sums);
            UNROLL(9)
            for (int i = 0; i < IN; i++) half[i * TILE + j] = sums[i];
        }
        const float *ahead = dy + TILE * outs + o; /* the next tile's, which lie in lines apart that no processor foresees */
        float *target = z + o;
        UNROLL(1)
        for (int i = 0; i < IN; i++, target += IN * frequency_stride, ahead += row_stride) {
            if (i < TILE) {
                UNROLL(9)
                for (int j = 0; j < TILE; j++) __builtin_prefetch(ahead + j * outs);
            }
            NAME(gradient_line)(half + i * TILE, sums);
            UNROLL(9)
            for (int j = 0; j < IN; j++) vf_store(target + j * frequency_stride, sums[j]);
        }
    }
}

/* A vector of each tap from a vector of each frequency. */
static void NAME(transform_filter_gradient)(const float *u, int64_t frequency_stride, vf *taps) {
    vf line[IN], half[TAPS * IN];
    UNROLL(1)
    for (int i = 0; i < IN; i++, u += IN * frequency_stride) {
        UNROLL(9)
        for (int j = 0; j < IN; j++) line[j] = vf_load(u + j * frequency_stride);
        NAME(filter_gradient_line)(line, half + i, IN);
    }
    UNROLL(4)
    for (int j = 0; j < TAPS; j++) NAME(filter_gradient_line)(half + j * IN, taps + j, TAPS);
}
#endif

#undef IN
#undef GRADIENT
#undef PHASES
#undef NAME_PASTE
#undef NAME_EXPAND
#undef NAME
