// Reductions of x[outer][red][inner] over red, in parts: the result is [outer][part][inner], part p covering the elements
// [p*reds_per_part, (p+1)*reds_per_part) in a fixed order.  A second call over the parts finishes; one part is the result.
// Means pass scale = 1/count in the last call (1 otherwise).
//
//   reduce_rows (inner = 1): one work-group a part and group of rows      reduce_columns: one work-item VECTORS*VEC*span columns
//      x | r r r r r r |-> part 0 ... part P-1                               x | c c c c |   top to bottom
//                                                                              | c c c c |
// VECTORS    vectors that reduce_columns takes side by side; 1..4: longer pieces of a row, independent sums; 1 on GPUs.
// REDUCTION  0 sum, 2 max, 3 min, 4 prod (max and min keep NaN).
#include "vectors.cl"
#include "work_group.cl"
#ifndef VECTORS
#define VECTORS 1
#endif
#ifndef REDUCTION
#define REDUCTION 0
#endif
#if REDUCTION == 0
#define START 0.0f
#define COMBINE(a, b) COMBINE_SUM(a, b)
#elif REDUCTION == 2
#define START -INFINITY
#define COMBINE(a, b) COMBINE_MAX(a, b)
#elif REDUCTION == 3
#define START INFINITY
#define COMBINE(a, b) COMBINE_MIN(a, b)
#elif REDUCTION == 4
#define START 1.0f
#define COMBINE(a, b) COMBINE_PROD(a, b)
#else
#error "REDUCTION names no reduction of reduce.cl"
#endif

// The same on vectors.
inline real combine(const real a, const real b) {
#if REDUCTION == 2
    return maximum(a, b);
#elif REDUCTION == 3
    return minimum(a, b);
#else
    return COMBINE(a, b);
#endif
}

DEFINE_WORK_GROUP_REDUCTION(combine_group, COMBINE)

// Work-group (part, block of rows): global size (parts*WORK_GROUP, blocks), local size (WORK_GROUP, 1).
__kernel void reduce_rows(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    const int outer, const int reds, const int parts, const int reds_per_part, const int rows_per_group, const float scale)
{
    __local float scratch[WORK_GROUP];
    const int part = get_group_id(0);
    const int first = part * reds_per_part;
    const int last = min(first + reds_per_part, reds);
    const int first_row = get_group_id(1) * rows_per_group;
    const int last_row = min(first_row + rows_per_group, outer);
    for (int row = first_row; row < last_row; ++row) {
        __global const float *x_row = x + x_offset + row * reds;
        real value0 = (real)(START), value1 = (real)(START);
        int i = first + get_local_id(0) * VEC;
        for (; i + WORK_GROUP * VEC + VEC <= last; i += 2 * WORK_GROUP * VEC) {
            value0 = combine(value0, load(x_row + i));
            value1 = combine(value1, load(x_row + i + WORK_GROUP * VEC));
        }
        for (; i + VEC <= last; i += WORK_GROUP * VEC)
            value0 = combine(value0, load(x_row + i));
        if (i < last)
            value1 = combine(value1, load_padded(x_row + i, last - i, START));
        const float result = combine_group(combine(value0, value1), scratch);
        if (get_local_id(0) == 0)
            y[y_offset + row * parts + part] = result * scale;
    }
}

// Work-item (block of span*VECTORS*VEC columns, part, outer).
__kernel void reduce_columns(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    const int reds, const int inner, const int parts, const int reds_per_part, const int span, const float scale)
{
    const int part = get_global_id(1);
    const int first = part * reds_per_part;
    const int last = min(first + reds_per_part, reds);
    const int block = span * VECTORS * VEC;
    const int last_column = min(((int)get_global_id(0) + 1) * block, inner);
    for (int column = get_global_id(0) * block; column < last_column; column += VECTORS * VEC) {
        const int left = inner - column;
        __global const float *at = x + x_offset + ((int)get_global_id(2) * reds + first) * inner + column;
        __global float *result = y + y_offset + ((int)get_global_id(2) * parts + part) * inner + column;
#define DECLARE_VALUE(v) real value##v = (real)(START);
        EACH(VECTORS, DECLARE_VALUE)
        for (int i = first; i < last; ++i) {
#define ADD_ROW(v) value##v = combine(value##v, load_some(at + v * VEC, left - v * VEC));
            EACH(VECTORS, ADD_ROW)
            at += inner;
        }
#define KEEP_VALUE(v) store_some(value##v * scale, result + v * VEC, left - v * VEC);
        EACH(VECTORS, KEEP_VALUE)
    }
}
