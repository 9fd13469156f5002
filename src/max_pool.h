/* Max pooling over x[n,h,w,c] with windows given by tables, so that ordinary and adaptive pooling are one. */
#ifndef PYCL_CNN_MAX_POOL_H
#define PYCL_CNN_MAX_POOL_H

#include "blocks.h"

/* max_pool  buffers: x[n,h,w,c], windows, y[n,oh,ow,c], indices[n,oh,ow,c] int32 or NULL.
 *   windows: int32 row_start[oh], row_end[oh], col_start[ow], col_end[ow], one after the other. Output pixel (a, b) covers
 *   the rows row_start[a], row_start[a] + row_dilation, ... below row_end[a], and columns likewise. Starts and ends are
 *   clipped to the image (a start that padding pushes out moves in by whole dilations).
 *   indices: row * w + column of the first largest element. NaN wins over all, the last NaN over other NaNs, as in PyTorch.
 * max_pool_backward  buffers: dy[n,oh,ow,c], indices, covers, dx[n,h,w,c].
 *   covers: int32 row_first[h], row_end[h], col_first[w], col_end[w]: the output rows row_first[i] .. row_end[i] - 1 are all
 *   those whose window may hold input row i (more are allowed: indices decide), and columns likewise.
 *   Every input pixel gathers from the windows over it, in order.
 * max_pool_normalised has the same parameters, and a table of normalise.h behind the buffers of max_pool.
 * No scratch. */
struct max_pool_params {
    int64_t n;
    int64_t h; /* input rows and columns */
    int64_t w;
    int64_t c;
    int64_t oh; /* output rows and columns */
    int64_t ow;
    int64_t row_dilation;
    int64_t col_dilation;
    int64_t rows_per_task; /* output rows; going backward input rows */
    int64_t channel_block; /* channels in a task */
};

static inline int64_t max_pool_tasks(const struct max_pool_params *p) {
    return blocks_of(p->n * p->oh, p->rows_per_task) * blocks_of(p->c, p->channel_block);
}
static inline int64_t max_pool_backward_tasks(const struct max_pool_params *p) {
    return blocks_of(p->n * p->h, p->rows_per_task) * blocks_of(p->c, p->channel_block);
}

#endif
