/* How many blocks of a size cover a count: the arithmetic of task counts. */
#ifndef PYCL_CNN_BLOCKS_H
#define PYCL_CNN_BLOCKS_H

#include <stdint.h>

static inline int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

#endif
