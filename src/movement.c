/* Moving elements (movement.h). Everything moves as 4-byte words, so integers and NaNs keep their bits. */
#include "movement.h"
#include "vec_basic.h"

/* ---- strided copy --------------------------------------------------------------------------------------------- */

/* One run along the last dimension. */
static void copy_run(int32_t *dst, int64_t dst_stride, const int32_t *src, int64_t src_stride, int64_t count) {
    if (dst_stride == 1 && src_stride == 1) {
        if (count >= 2 * VL) {
            memcpy(dst, src, (size_t)count * sizeof(int32_t));
            return;
        }
        for (int64_t i = 0; i < count; i++) dst[i] = src[i];
    } else if (dst_stride == 1 && src_stride == 0) {
        const vi value = vi_set1(*src);
        int64_t i = 0;
        for (; i + VL <= count; i += VL) vi_store(dst + i, value);
        for (; i < count; i++) dst[i] = *src;
    } else {
        for (int64_t i = 0; i < count; i++) dst[i * dst_stride] = src[i * src_stride];
    }
}

void KERNEL(strided_copy)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct strided_copy_params *p = params;
    const int64_t last = p->rank - 1, row = p->shape[last];
    const int64_t end = min_i64(p->size, (task + 1) * MOVEMENT_ITEMS);
    int64_t i = task * MOVEMENT_ITEMS;
    int64_t coordinate[6], src = p->src_offset, dst = p->dst_offset;
    for (int64_t d = last, rest = i; d >= 0; d--) {
        coordinate[d] = rest % p->shape[d];
        rest /= p->shape[d];
        src += coordinate[d] * p->src_stride[d];
        dst += coordinate[d] * p->dst_stride[d];
    }
    while (i < end) {
        const int64_t count = min_i64(row - coordinate[last], end - i);
        copy_run((int32_t *)buffers[1] + dst, p->dst_stride[last], (const int32_t *)buffers[0] + src,
                 p->src_stride[last], count);
        i += count;
        /* Forward by `count`: a row's end carries into the dimensions before it. */
        coordinate[last] += count;
        src += count * p->src_stride[last];
        dst += count * p->dst_stride[last];
        for (int64_t d = last; d > 0 && coordinate[d] == p->shape[d]; d--) {
            coordinate[d] = 0;
            coordinate[d - 1]++;
            src += p->src_stride[d - 1] - p->shape[d] * p->src_stride[d];
            dst += p->dst_stride[d - 1] - p->shape[d] * p->dst_stride[d];
        }
    }
}

/* ---- transpose ------------------------------------------------------------------------------------------------ */

typedef int32_t quad __attribute__((vector_size(16)));
typedef quad quad_unaligned __attribute__((aligned(4), may_alias));

ALWAYS_INLINE quad quad_load(const int32_t *source) { return *(const quad_unaligned *)source; }
ALWAYS_INLINE void quad_store(int32_t *target, quad value) { *(quad_unaligned *)target = value; }

/* A 4 x 4 square. */
ALWAYS_INLINE void transpose_square(const int32_t *src, int64_t src_stride, int32_t *dst, int64_t dst_stride) {
    quad row0 = quad_load(src), row1 = quad_load(src + src_stride);
    quad row2 = quad_load(src + 2 * src_stride), row3 = quad_load(src + 3 * src_stride);
    quad low01 = __builtin_shufflevector(row0, row1, 0, 4, 1, 5), high01 = __builtin_shufflevector(row0, row1, 2, 6, 3, 7);
    quad low23 = __builtin_shufflevector(row2, row3, 0, 4, 1, 5), high23 = __builtin_shufflevector(row2, row3, 2, 6, 3, 7);
    quad_store(dst, __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
    quad_store(dst + dst_stride, __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
    quad_store(dst + 2 * dst_stride, __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
    quad_store(dst + 3 * dst_stride, __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
}

static void transpose_scalar(const int32_t *src, int64_t src_stride, int32_t *dst, int64_t dst_stride, int64_t rows,
                             int64_t cols) {
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++) dst[j * dst_stride + i] = src[i * src_stride + j];
}

/* Any block: strips of 16 columns, so that whole cache lines of src are used while they are near. */
static void transpose_block(const int32_t *src, int64_t src_stride, int32_t *dst, int64_t dst_stride, int64_t rows,
                            int64_t cols) {
    const int64_t square_rows = rows - rows % 4, square_cols = cols - cols % 4;
    for (int64_t strip = 0; strip < square_cols; strip += 16) {
        const int64_t end = min_i64(square_cols, strip + 16);
        for (int64_t i = 0; i < square_rows; i += 4)
            for (int64_t j = strip; j < end; j += 4)
                transpose_square(src + i * src_stride + j, src_stride, dst + j * dst_stride + i, dst_stride);
    }
    transpose_scalar(src + square_cols, src_stride, dst + square_cols * dst_stride, dst_stride, rows, cols - square_cols);
    transpose_scalar(src + square_rows * src_stride, src_stride, dst + square_rows, dst_stride, rows - square_rows,
                     square_cols);
}

/* Three planes to pixels of three: a0 a1 .. | b0 b1 .. | c0 c1 .. -> a0 b0 c0 a1 b1 c1 .. */
static void interleave3(const int32_t *src, int64_t src_stride, int32_t *dst, int64_t cols) {
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
        quad a = quad_load(src + j), b = quad_load(src + src_stride + j), c = quad_load(src + 2 * src_stride + j);
        quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), bc = __builtin_shufflevector(b, c, 1, 5, 2, 6);
        quad ca = __builtin_shufflevector(c, a, 2, 7, 3, 3), cb = __builtin_shufflevector(b, c, 3, 7, 3, 7);
        quad_store(dst + 3 * j, __builtin_shufflevector(ab, c, 0, 1, 4, 2));
        quad_store(dst + 3 * j + 4, __builtin_shufflevector(bc, a, 0, 1, 6, 2));
        quad_store(dst + 3 * j + 8, __builtin_shufflevector(ca, cb, 0, 1, 4, 5));
    }
    transpose_scalar(src + j, src_stride, dst + 3 * j, 3, 3, cols - j);
}

/* Pixels of three to three planes. */
static void deinterleave3(const int32_t *src, int32_t *dst, int64_t dst_stride, int64_t rows) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
        /* a0 b0 c0 a1 | b1 c1 a2 b2 | c2 a3 b3 c3 */
        quad first = quad_load(src + 3 * i), second = quad_load(src + 3 * i + 4), third = quad_load(src + 3 * i + 8);
        quad a = __builtin_shufflevector(first, second, 0, 3, 6, 6), b = __builtin_shufflevector(first, second, 1, 4, 7, 7);
        quad c = __builtin_shufflevector(first, second, 2, 5, 5, 5);
        quad_store(dst + i, __builtin_shufflevector(a, third, 0, 1, 2, 5));
        quad_store(dst + dst_stride + i, __builtin_shufflevector(b, third, 0, 1, 2, 6));
        quad_store(dst + 2 * dst_stride + i, __builtin_shufflevector(c, third, 0, 1, 4, 7));
    }
    transpose_scalar(src + 3 * i, 3, dst + i, dst_stride, rows - i, 3);
}

void KERNEL(transpose)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct transpose_params *p = params;
    const int64_t col_blocks = ceil_div(p->cols, p->col_block), row_blocks = ceil_div(p->rows, p->row_block);
    const int64_t col = task % col_blocks * p->col_block;
    const int64_t row = task / col_blocks % row_blocks * p->row_block;
    const int64_t batch = task / col_blocks / row_blocks;
    const int64_t rows = min_i64(p->row_block, p->rows - row), cols = min_i64(p->col_block, p->cols - col);
    const int32_t *src = (const int32_t *)buffers[0] + batch * p->src_batch_stride + row * p->src_row_stride + col;
    int32_t *dst = (int32_t *)buffers[1] + batch * p->dst_batch_stride + col * p->dst_row_stride + row;
    if (rows == 3 && p->dst_row_stride == 3) interleave3(src, p->src_row_stride, dst, cols);
    else if (cols == 3 && p->src_row_stride == 3) deinterleave3(src, dst, p->dst_row_stride, rows);
    else transpose_block(src, p->src_row_stride, dst, p->dst_row_stride, rows, cols);
}

/* ---- fill ----------------------------------------------------------------------------------------------------- */

void KERNEL(fill)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct fill_params *p = params;
    const int64_t end = min_i64(p->size, (task + 1) * MOVEMENT_ITEMS);
    const vf value = (vf)vi_set1((int32_t)p->bits);
    float *dst = buffers[0];
    int64_t i = task * MOVEMENT_ITEMS;
    for (; i + VL <= end; i += VL) vf_store(dst + i, value);
    if (i < end) vf_store_first(dst + i, value, end - i);
}
