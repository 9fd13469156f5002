/* The order in which reductions combine their elements: along a contiguous row, and down columns.
 *
 * Along a row: four vector accumulators over a block, blocks added up, lanes folded at the end. Down columns: bundles of
 * eight rows are added pairwise, sixteen bundles make a block, blocks are added up; the accumulators of all columns stay
 * in the first-level cache while rows stream by. So the error of a sum grows like the logarithm of its length. */
#ifndef PYCL_CNN_REDUCE_TREE_H
#define PYCL_CNN_REDUCE_TREE_H

#include "reduce.h"
#include "vec_basic.h"

ALWAYS_INLINE float reduce_identity(int64_t kind) {
    switch (kind) {
    case REDUCE_MAX: return -__builtin_inff();
    case REDUCE_MIN: return __builtin_inff();
    case REDUCE_PROD: return 1.0f;
    default: return 0.0f;
    }
}

ALWAYS_INLINE vf reduce_combine(int64_t kind, vf a, vf b) {
    switch (kind) {
    case REDUCE_MAX: return vf_maximum(a, b);
    case REDUCE_MIN: return vf_minimum(a, b);
    case REDUCE_PROD: return a * b;
    default: return a + b;
    }
}

/* A vector of which only `count` lanes exist: the others become the identity. */
ALWAYS_INLINE vf reduce_load_first(int64_t kind, const float *x, int64_t count) {
    return vf_select(vi_first_lanes(count), vf_load_first(x, count), vf_set1(reduce_identity(kind)));
}

/* All lanes to one number, in pairs. */
ALWAYS_INLINE float reduce_lanes(int64_t kind, vf x) {
    if (VL > 8) x = reduce_combine(kind, x, VF_ROTATE(x, 8));
    if (VL > 4) x = reduce_combine(kind, x, VF_ROTATE(x, 4));
    x = reduce_combine(kind, x, VF_ROTATE(x, 2));
    x = reduce_combine(kind, x, VF_ROTATE(x, 1));
    return x[0];
}

/* ---- along a row ---------------------------------------------------------------------------------------------- */

/* Vectors that are accumulated before they are added to the total. */
#define REDUCE_ROW_BLOCK 128

ALWAYS_INLINE float reduce_row(int64_t kind, const float *x, int64_t count) {
    const vf identity = vf_set1(reduce_identity(kind));
    vf total = identity;
    int64_t i = 0;
    while (i + 4 * VL <= count) {
        const int64_t end = min_i64(count - 4 * VL, i + (REDUCE_ROW_BLOCK - 4) * VL);
        vf sum0 = vf_load(x + i), sum1 = vf_load(x + i + VL);
        vf sum2 = vf_load(x + i + 2 * VL), sum3 = vf_load(x + i + 3 * VL);
        for (i += 4 * VL; i <= end; i += 4 * VL) {
            sum0 = reduce_combine(kind, sum0, vf_load(x + i));
            sum1 = reduce_combine(kind, sum1, vf_load(x + i + VL));
            sum2 = reduce_combine(kind, sum2, vf_load(x + i + 2 * VL));
            sum3 = reduce_combine(kind, sum3, vf_load(x + i + 3 * VL));
        }
        vf block = reduce_combine(kind, reduce_combine(kind, sum0, sum1), reduce_combine(kind, sum2, sum3));
        total = reduce_combine(kind, total, block);
    }
    vf rest = identity;
    for (; i + VL <= count; i += VL) rest = reduce_combine(kind, rest, vf_load(x + i));
    if (i < count) rest = reduce_combine(kind, rest, reduce_load_first(kind, x + i, count - i));
    return reduce_lanes(kind, reduce_combine(kind, total, rest));
}

/* ---- down columns --------------------------------------------------------------------------------------------- */

#define REDUCE_BUNDLE 8
#define REDUCE_BLOCK_ROWS 128

/* The bundle's rows added pairwise; `count` lanes of each. */
ALWAYS_INLINE vf reduce_bundle(int64_t kind, const float *x, int64_t stride, int64_t count) {
    vf row[REDUCE_BUNDLE];
    for (int r = 0; r < REDUCE_BUNDLE; r++)
        row[r] = count == VL ? vf_load(x + r * stride) : vf_load_first(x + r * stride, count);
    return reduce_combine(
        kind, reduce_combine(kind, reduce_combine(kind, row[0], row[1]), reduce_combine(kind, row[2], row[3])),
        reduce_combine(kind, reduce_combine(kind, row[4], row[5]), reduce_combine(kind, row[6], row[7])));
}

/* result[c] = reduction of x[r * stride + c] over the rows; result has room for `columns` rounded up to VL. */
ALWAYS_INLINE void reduce_columns(int64_t kind, const float *x, int64_t rows, int64_t stride, int64_t columns,
                                  float *result) {
    float block[REDUCE_COLUMNS + VL];
    const vf identity = vf_set1(reduce_identity(kind));
    const int64_t whole = columns - columns % VL;
    for (int64_t c = 0; c < columns; c += VL) vf_store(result + c, identity);
    for (int64_t begin = 0; begin < rows; begin += REDUCE_BLOCK_ROWS) {
        const int64_t end = min_i64(rows, begin + REDUCE_BLOCK_ROWS);
        for (int64_t c = 0; c < columns; c += VL) vf_store(block + c, identity);
        int64_t r = begin;
        for (; r + REDUCE_BUNDLE <= end; r += REDUCE_BUNDLE) {
            const float *rows_x = x + r * stride;
            int64_t c = 0;
            for (; c < whole; c += VL)
                vf_store(block + c, reduce_combine(kind, vf_load(block + c), reduce_bundle(kind, rows_x + c, stride, VL)));
            if (c < columns) {
                vf last = reduce_bundle(kind, rows_x + c, stride, columns - c);
                vf_store(block + c, reduce_combine(kind, vf_load(block + c), last));
            }
        }
        for (; r < end; r++) {
            int64_t c = 0;
            for (; c < whole; c += VL)
                vf_store(block + c, reduce_combine(kind, vf_load(block + c), vf_load(x + r * stride + c)));
            if (c < columns) {
                vf last = vf_load_first(x + r * stride + c, columns - c);
                vf_store(block + c, reduce_combine(kind, vf_load(block + c), last));
            }
        }
        for (int64_t c = 0; c < columns; c += VL)
            vf_store(result + c, reduce_combine(kind, vf_load(result + c), vf_load(block + c)));
    }
}

#endif
