/* Rows times the rows of a matrix (row_products.h).
 *
 *     task = out_block outs, all rows of a
 *       for each DOT_LINES lines of b             a line is read once, and multiplied by all rows of a
 *         sum[row][line] += a[row] * b[line]  vectors along the reds; their lanes are added at the end */
#include "row_products.h"
#include "conv_epilogue.h"
#include "isa.h"

/* Lines of b that are read together, and floats of each from what is multiplied to what is fetched. */
enum { DOT_LINES = 4, DOT_AHEAD = 256 };

/* sums[row * VL + line] of `lines` lines of b. */
ALWAYS_INLINE void dot_products(const int rows, const int lines, const float *a, const float *b, int64_t reds, float *sums) {
    vf total[ROW_PRODUCTS_ROWS][DOT_LINES];
    UNROLL(4)
    for (int row = 0; row < rows; row++)
        UNROLL(4)
        for (int line = 0; line < lines; line++) total[row][line] = (vf){0};
    int64_t k = 0;
    for (; k + VL <= reds; k += VL) {
        vf x[ROW_PRODUCTS_ROWS];
        UNROLL(4)
        for (int row = 0; row < rows; row++) x[row] = vf_load(a + row * reds + k);
        UNROLL(4)
        for (int line = 0; line < lines; line++) {
            const vf w = vf_load(b + line * reds + k);
            __builtin_prefetch(b + line * reds + k + DOT_AHEAD);
            UNROLL(4)
            for (int row = 0; row < rows; row++) total[row][line] += x[row] * w;
        }
    }
    if (k < reds)
        for (int line = 0; line < lines; line++) {
            const vf w = vf_load_first(b + line * reds + k, reds - k);
            for (int row = 0; row < rows; row++) total[row][line] += vf_load_first(a + row * reds + k, reds - k) * w;
        }
    for (int row = 0; row < rows; row++)
        for (int line = 0; line < lines; line++) sums[row * VL + line] = vf_sum(total[row][line]);
}

/* VL outs, or the last `outs` of them. */
ALWAYS_INLINE void vector_of_outs(const int rows, const float *a, const float *b, int64_t reds, int64_t outs, float *sums) {
    int64_t out = 0;
    for (; out + DOT_LINES <= outs; out += DOT_LINES) dot_products(rows, DOT_LINES, a, b + out * reds, reds, sums + out);
    for (; out < outs; out++) dot_products(rows, 1, a, b + out * reds, reds, sums + out);
}

void KERNEL(row_products)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct row_products_params *p = params;
    const float *a = buffers[0], *bias = buffers[2], *residual = buffers[3];
    float *y = buffers[4];
    const struct epilogue end_of_store = epilogue(p->activation, p->alpha, p->beta);
    const int64_t end = min_i64(p->outs, (task + 1) * p->out_block);
    for (int64_t out = task * p->out_block; out < end; out += VL) {
        const float *b = (const float *)buffers[1] + out * p->reds;
        float sums[ROW_PRODUCTS_ROWS * VL];
        switch (p->rows) {
        case 1: vector_of_outs(1, a, b, p->reds, min_i64(VL, end - out), sums); break;
        case 2: vector_of_outs(2, a, b, p->reds, min_i64(VL, end - out), sums); break;
        case 3: vector_of_outs(3, a, b, p->reds, min_i64(VL, end - out), sums); break;
        default: vector_of_outs(4, a, b, p->reds, min_i64(VL, end - out), sums);
        }
        for (int64_t row = 0; row < p->rows; row++) {
            vf value = vf_load_until(sums + row * VL - out, out, end);
            if (bias) value += vf_load_until(bias, out, end);
            if (residual) value += vf_load_until(residual + row * p->outs, out, end);
            vf_store_until(y + row * p->outs, finish(end_of_store, value), out, end);
        }
    }
}
