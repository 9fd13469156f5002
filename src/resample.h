/* Separable linear resampling of x[n,h,w,c]: average pooling of every kind, nearest and bilinear upsampling, and with
 * transposed tables the gradients of all of them. */
#ifndef PYCL_CNN_RESAMPLE_H
#define PYCL_CNN_RESAMPLE_H

#include "blocks.h"

/* resample  y[image, a, b, :] = sum over i, j of row_weight[i] * col_weight[j] * x[image, row_index[i], col_index[j], :]
 * with i in row_start[a] .. row_start[a + 1] - 1 and j in col_start[b] .. col_start[b + 1] - 1 (CSR matrices, one an axis).
 * buffers: x[n,h,w,c], row_start[oh + 1] int32, row_index int32, row_weight, col_start[ow + 1] int32, col_index int32,
 *          col_weight, y[n,oh,ow,c].
 * No scratch. */
struct resample_params {
    int64_t n;
    int64_t h; /* input rows and columns */
    int64_t w;
    int64_t c;
    int64_t oh; /* output rows and columns */
    int64_t ow;
    int64_t rows_per_task; /* output rows */
    int64_t channel_block; /* channels in a task */
};

static inline int64_t resample_tasks(const struct resample_params *p) {
    return blocks_of(p->n * p->oh, p->rows_per_task) * blocks_of(p->c, p->channel_block);
}

#endif
