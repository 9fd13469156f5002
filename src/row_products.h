/* A few rows times a matrix whose rows are read where they lie: y[m][n] = act(a[m] . b[n] + bias[n] + residual[m][n]).
 *
 * What a dense layer does with a batch of one to four. Nothing is packed, so the matrix may be the model's own array; every float
 * of it is read once, which is all the time it takes. */
#ifndef PYCL_CNN_ROW_PRODUCTS_H
#define PYCL_CNN_ROW_PRODUCTS_H

#include "blocks.h"

/* buffers: 0 a [rows][reds], 1 b [outs][reds], 2 bias [outs] or NULL, 3 residual [rows][outs] or NULL, 4 y [rows][outs]
 * y and residual may be the same memory. A task computes out_block outs of all rows. No scratch. */
struct row_products_params {
    int64_t rows; /* 1 .. ROW_PRODUCTS_ROWS */
    int64_t outs, reds;
    int64_t out_block; /* a multiple of 16 */
    int64_t activation;
    float alpha, beta;
};

enum { ROW_PRODUCTS_ROWS = 4 };

static inline int64_t row_products_tasks(const struct row_products_params *p) { return blocks_of(p->outs, p->out_block); }

#endif
