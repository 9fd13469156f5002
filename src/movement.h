/* Moving elements: strided copies, transposes of matrices, fills. */
#ifndef PYCL_CNN_MOVEMENT_H
#define PYCL_CNN_MOVEMENT_H

#include "blocks.h"

/* Elements in a task of strided_copy and fill. */
#define MOVEMENT_ITEMS 16384

/* strided_copy  dst[dst_offset + sum i_k * dst_stride[k]] = src[src_offset + sum i_k * src_stride[k]]
 * buffers: src, dst (4-byte elements of any type, not overlapping). Strides in elements, of any sign; a source stride 0
 * repeats. Order the dimensions so that the last is contiguous in dst, and merge those that lie behind one another in
 * both: long contiguous last dimensions are fast.
 * No scratch. */
struct strided_copy_params {
    int64_t size;     /* elements copied */
    int64_t rank;     /* dimensions, 1 .. 6 */
    int64_t shape[6];
    int64_t dst_stride[6];
    int64_t src_stride[6];
    int64_t dst_offset; /* of the first element */
    int64_t src_offset;
};

/* transpose  dst[b * dst_batch_stride + j * dst_row_stride + i] = src[b * src_batch_stride + i * src_row_stride + j]
 * for i < rows, j < cols, b < batch: NCHW to NHWC is rows = c, cols = h * w, and back rows = h * w, cols = c.
 * buffers: src, dst (4-byte elements, not overlapping).
 * No scratch. Blocks should be multiples of 16, or the whole length. */
struct transpose_params {
    int64_t batch;
    int64_t rows; /* of src */
    int64_t cols;
    int64_t src_batch_stride; /* elements */
    int64_t src_row_stride;
    int64_t dst_batch_stride;
    int64_t dst_row_stride;
    int64_t row_block; /* part of the matrix in a task */
    int64_t col_block;
};

/* fill  dst[i] = the element with these bits; buffers: dst (4-byte elements of any type); no scratch. */
struct fill_params {
    int64_t size;
    int64_t bits; /* of the element, as an int32 */
};

static inline int64_t strided_copy_tasks(const struct strided_copy_params *p) {
    return blocks_of(p->size, MOVEMENT_ITEMS);
}
static inline int64_t transpose_tasks(const struct transpose_params *p) {
    return p->batch * blocks_of(p->rows, p->row_block) * blocks_of(p->cols, p->col_block);
}
static inline int64_t fill_tasks(const struct fill_params *p) {
    return blocks_of(p->size, MOVEMENT_ITEMS);
}

#endif
