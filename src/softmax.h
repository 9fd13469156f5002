/* Softmax and its logarithm along one axis of x[outer, axis, inner], and their gradients. */
#ifndef PYCL_CNN_SOFTMAX_H
#define PYCL_CNN_SOFTMAX_H

#include "blocks.h"

/* Widest stretch of columns (inner > 1) that one task works on. */
#define SOFTMAX_COLUMNS 256

/* softmax           buffers: x, y; y may be x.
 * softmax_backward  buffers: y (softmax's output), dy, dx; dx may be dy or y.
 *                   softmax: dx = y * (dy - sum(dy * y)); logarithm: dx = dy - exp(y) * sum(dy).
 * No scratch. */
struct softmax_params {
    int64_t outer;       /* slices before the axis */
    int64_t axis;        /* length of the axis */
    int64_t inner;       /* elements after the axis */
    int64_t outer_block; /* slices in a task */
    int64_t inner_block; /* columns in a task, 1 .. SOFTMAX_COLUMNS */
    int64_t log;         /* 0: softmax, 1: its logarithm */
};

static inline int64_t softmax_tasks(const struct softmax_params *p) {
    return blocks_of(p->outer, p->outer_block) * blocks_of(p->inner, p->inner_block);
}

#endif
