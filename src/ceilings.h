/* What the processor can do at most: loops to be timed, one task for each thread. See pycl_cnn/backends/cpu/ceilings.py. */
#ifndef PYCL_CNN_CEILINGS_H
#define PYCL_CNN_CEILINGS_H

#include <stdint.h>

/* Vector multiply-adds that do not depend on each other: more than latency times units, and they fit the registers. */
#define CEILING_CHAINS 12

/* multiply_adds  rounds * CEILING_CHAINS * vector length multiply-adds in registers, in each task.
 * buffers: y[tasks], which takes a result, so that none is left out.
 * No scratch. */
struct multiply_adds_params {
    int64_t tasks, rounds;
};

/* copies  y[i] = x[i] for the elements of the task, `rounds` times.
 * buffers: x[tasks * items], y[tasks * items]
 * No scratch. */
struct copies_params {
    int64_t tasks, items, rounds;
};

static inline int64_t multiply_adds_tasks(const struct multiply_adds_params *p) { return p->tasks; }
static inline int64_t copies_tasks(const struct copies_params *p) { return p->tasks; }

#endif
