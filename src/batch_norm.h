/* Batch normalisation in training: statistics over the rows of x[rows, c], normalisation with an activation, and the
 * gradients. */
#ifndef PYCL_CNN_BATCH_NORM_H
#define PYCL_CNN_BATCH_NORM_H

#include "blocks.h"

/* Channels at once in the partial kernels, and channels in a task of the finalize kernels. */
#define BATCH_NORM_CHANNELS 256

/* Forward is three calls, backward is three; all take this struct. partial: float workspace [parts][2][c].
 *
 * batch_norm_statistics         x -> partial: each part's mean, less its first row, and sum of squared deviations.
 *                               buffers: x, partial
 * batch_norm_finalize           combines the parts, one half and the other (Chan's formula); updates the running statistics in place
 *                               (unbiased variance). buffers: partial, x, mean[c], rstd[c], running_mean[c] or NULL,
 *                               running_var[c] or NULL
 * batch_norm_normalise          y = activation((x - mean) * rstd * gamma + beta); y may be x.
 *                               buffers: x, gamma[c] or NULL, beta[c] or NULL, mean, rstd, y
 *
 * Where the readers of y normalise as they read, there is no y, and the third call is
 * batch_norm_normaliser         the table of normalise.h, for an activation that is a clip (none, relu, clip).
 *                               buffers: gamma[c] or NULL, beta[c] or NULL, mean, rstd, table[NORMALISER_ROWS][c]
 *
 * With dz = dy * activation'(gamma * xhat + beta), recomputed from x, and xhat = (x - mean) * rstd:
 * batch_norm_backward_partial   each part's sums of dz and dz * xhat. buffers: x, dy, gamma, beta, mean, rstd, partial
 * batch_norm_backward_finalize  adds the parts in order. buffers: partial, dgamma[c], dbeta[c]
 * batch_norm_backward_input     dx = gamma * rstd * (dz - dbeta / rows - xhat * dgamma / rows); dx may be dy or x.
 *                               buffers: x, dy, gamma, beta, mean, rstd, dgamma, dbeta, dx
 * No scratch. */
struct batch_norm_params {
    int64_t rows;
    int64_t c;
    int64_t image_rows;    /* rows that are cut into parts by themselves; rows is a multiple of it */
    int64_t part_rows;     /* rows of a part; an image's last one may have fewer */
    int64_t near;          /* whether batch_norm_statistics reads what the same thread has just written: tasks follow those that did */
    int64_t rows_per_task; /* rows in a task of normalise and backward_input */
    int64_t activation;    /* enum activation */
    float alpha;           /* the activation's parameters */
    float beta;
    float eps;
    float momentum; /* weight of the new statistics in the running ones */
};

/* Tasks of the two kernels that write partial, one for each part; of the finalize kernels; and of the remaining two. */
static inline int64_t batch_norm_parts(const struct batch_norm_params *p) {
    return p->rows / p->image_rows * blocks_of(p->image_rows, p->part_rows);
}
static inline int64_t batch_norm_finalize_tasks(const struct batch_norm_params *p) {
    return blocks_of(p->c, BATCH_NORM_CHANNELS);
}
static inline int64_t batch_norm_rows_tasks(const struct batch_norm_params *p) {
    return blocks_of(p->rows, p->rows_per_task);
}

#endif
