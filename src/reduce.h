/* Reductions along one axis of x[outer, reduce, inner]. */
#ifndef PYCL_CNN_REDUCE_H
#define PYCL_CNN_REDUCE_H

#include "blocks.h"

/* Widest stretch of columns that one task reduces. */
#define REDUCE_COLUMNS 512

enum reduce_kind {
    REDUCE_SUM = 0, /* with divisor = reduce: the mean */
    REDUCE_MAX = 1, /* NaN where any element is NaN */
    REDUCE_MIN = 2,
    REDUCE_PROD = 3,
};

/* reduce  buffers: x[outer, reduce, inner], y[parts, outer, inner].
 * The axis is cut into `parts`, each reduced on its own; a second call over the parts as [1, parts, outer * inner]
 * finishes. One part is the whole answer. Sums are added in blocks of blocks, so that the error grows like the
 * logarithm of the length.
 *
 *     outer block, columns of inner block         one task: `outer_block` times [part of reduce] x [inner_block]
 *
 * No scratch. */
struct reduce_params {
    int64_t outer;       /* slices before the axis */
    int64_t reduce;      /* length of the axis */
    int64_t inner;       /* elements after the axis */
    int64_t parts;       /* pieces of the axis, 1 .. reduce */
    int64_t outer_block; /* slices in a task */
    int64_t inner_block; /* columns in a task, 1 .. REDUCE_COLUMNS */
    int64_t kind;        /* enum reduce_kind */
    float divisor;       /* y is divided by it; 1 for none */
};

static inline int64_t reduce_tasks(const struct reduce_params *p) {
    return p->parts * blocks_of(p->outer, p->outer_block) * blocks_of(p->inner, p->inner_block);
}

#endif
