/* Dropout with a counter-based random generator: the same numbers on every device, in any order. */
#ifndef PYCL_CNN_DROPOUT_H
#define PYCL_CNN_DROPOUT_H

#include "blocks.h"

/* Elements in a task: a multiple of what one pass of the generator gives. */
#define DROPOUT_ITEMS 16384

/* dropout  y[i] = x[i] / keep where the random number of element i is large enough, else 0.
 * Random number: word i % 4 of Philox4x32-10 with key (seed, stream) and counter (i / 4, step, 0, 0); its upper 24 bits
 * are compared with the threshold.
 * buffers: x[size], rng[2] int32 (seed, step), y[size]; y may be x.
 * No scratch. */
struct dropout_params {
    int64_t size;
    int64_t stream;    /* tells the dropouts of a graph apart; 32 bits */
    int64_t threshold; /* ceil(p * 2^24) for the probability p of a zero */
    float keep;        /* 1 - p */
};

static inline int64_t dropout_tasks(const struct dropout_params *p) {
    return blocks_of(p->size, DROPOUT_ITEMS);
}

#endif
