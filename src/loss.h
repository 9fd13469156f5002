/* Cross entropy of logits against class labels, row by row, and its gradient. */
#ifndef PYCL_CNN_LOSS_H
#define PYCL_CNN_LOSS_H

#include "blocks.h"

/* With p = softmax(logits), s = label_smoothing and C classes:
 *     loss = -(1 - s) * log p[label] - s/C * sum(log p);   dlogits = dloss * (p - (1 - s) * onehot(label) - s/C)
 * A row whose label is ignore_index has loss 0 and gradient 0; one whose label is no class has loss NaN, gradient 0.
 *
 * cross_entropy           buffers: logits[rows, classes], labels[rows] int32, loss[rows]
 * cross_entropy_backward  buffers: logits, labels, dloss[rows], dlogits[rows, classes]; dlogits may be logits
 * No scratch. */
struct cross_entropy_params {
    int64_t rows;
    int64_t classes;
    int64_t rows_per_task;
    int64_t ignore_index;
    float label_smoothing;
};

static inline int64_t cross_entropy_tasks(const struct cross_entropy_params *p) {
    return blocks_of(p->rows, p->rows_per_task);
}

/* label_mask  y[i] = 0 where labels[i] is ignore_index, else 1. buffers: labels[size] int32, y[size]. No scratch. */
struct label_mask_params {
    int64_t size;
    int64_t ignore_index;
};

/* Labels of a task. */
#define LABEL_MASK_ITEMS 16384

static inline int64_t label_mask_tasks(const struct label_mask_params *p) {
    return blocks_of(p->size, LABEL_MASK_ITEMS);
}

#endif
