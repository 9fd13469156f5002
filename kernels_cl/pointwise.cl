// Elementwise operations: unary, its gradient, and binary with broadcasting and a fused activation.
//
// Flat kernels (unary, unary_backward): work-item g takes the vectors [g*span, (g+1)*span) of VEC floats, the last one
// also the count % VEC floats that fill no vector.
//
//      |--- span vectors ---|--- span vectors ---| ... |rest|      span is large on CPUs (few work-items, each streaming) and
//        work-item 0          work-item 1                          1 on GPUs (neighbours read neighbouring vectors)
//
// binary: the result is dense, [outer dimensions][inner]; the operands have a stride for each dimension, 0 where they are broadcast.
// Along the inner dimension an operand's stride is 1 or 0.  Work-item (item, block): vectors [item*span, ...) of the rows
// [block*rows_per_item, ...) of the flattened outer dimensions.
//
// ACTIVATION  the function (activation.cl); for binary the one applied to the result.
// BINARY      0 add, 1 sub, 2 mul, 3 div, 4 max, 5 min, 6 pow, 7 eq, 8 gt, 9 ge (comparisons give 1 or 0; max and min keep NaN), 10 keep (a where b is
//             not 0, else 0).
#include "vectors.cl"
#include "activation_derivative.cl"
#ifndef BINARY
#define BINARY 0
#endif

__kernel void unary(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    const int count, const int span, const float alpha, const float beta)
{
    const int first = get_global_id(0) * span * VEC;
    const int last = min(first + span * VEC, count);
    x += x_offset;
    y += y_offset;
    int i = first;
    for (; i + VEC <= last; i += VEC)
        store(activate(load(x + i), alpha, beta), y + i);
    if (i < last)
        store_some(activate(load_some(x + i, last - i), alpha, beta), y + i, last - i);
}

__kernel void unary_backward(
    __global const float *dy, const int dy_offset,
    __global const float *x, const int x_offset,
    __global float *dx, const int dx_offset,
    const int count, const int span, const float alpha, const float beta)
{
    const int first = get_global_id(0) * span * VEC;
    const int last = min(first + span * VEC, count);
    dy += dy_offset;
    x += x_offset;
    dx += dx_offset;
    int i = first;
    for (; i + VEC <= last; i += VEC)
        store(load(dy + i) * derivative(load(x + i), alpha, beta), dx + i);
    if (i < last)
        store_some(load_some(dy + i, last - i) * derivative(load_some(x + i, last - i), alpha, beta), dx + i, last - i);
}

inline real combine(const real a, const real b) {
    const real one = (real)(1.0f), zero = (real)(0.0f);
#if BINARY == 0
    return a + b;
#elif BINARY == 1
    return a - b;
#elif BINARY == 2
    return a * b;
#elif BINARY == 3
    return a / b;
#elif BINARY == 4
    return a != a ? a : a < b ? b : b != b ? b : a;
#elif BINARY == 5
    return a != a ? a : a > b ? b : b != b ? b : a;
#elif BINARY == 6
    return pow(a, b);
#elif BINARY == 7
    return a == b ? one : zero;
#elif BINARY == 8
    return a > b ? one : zero;
#elif BINARY == 9
    return a >= b ? one : zero;
#elif BINARY == 10
    return b != zero ? a : zero;
#else
#error "BINARY names no operation of pointwise.cl"
#endif
}

__kernel void binary(
    __global const float *a, const int a_offset,
    __global const float *b, const int b_offset,
    __global float *y, const int y_offset,
    __global const int *outer,      // [outer_rank][3]: extent, stride of a, stride of b; slowest dimension first
    const int outer_rank, const int rows, const int rows_per_item,
    const int inner, const int a_inner_stride, const int b_inner_stride, const int span,
    const float alpha, const float beta)
{
    const int first = get_global_id(0) * span * VEC;
    const int last = min(first + span * VEC, inner);
    const int first_row = get_global_id(1) * rows_per_item;
    const int last_row = min(first_row + rows_per_item, rows);
    for (int row = first_row; row < last_row; ++row) {
        int a_place = a_offset, b_place = b_offset, rest = row;
        for (int d = outer_rank - 1; d >= 0; --d) {
            const int extent = outer[3 * d];
            const int quotient = rest / extent, index = rest - quotient * extent;
            rest = quotient;
            a_place += index * outer[3 * d + 1];
            b_place += index * outer[3 * d + 2];
        }
        __global const float *a_row = a + a_place, *b_row = b + b_place;
        __global float *y_row = y + y_offset + row * inner;
        int i = first;
        if (a_inner_stride && b_inner_stride) {
            for (; i + VEC <= last; i += VEC)
                store(activate(combine(load(a_row + i), load(b_row + i)), alpha, beta), y_row + i);
        } else if (a_inner_stride) {
            const real b_value = (real)(b_row[0]);
            for (; i + VEC <= last; i += VEC)
                store(activate(combine(load(a_row + i), b_value), alpha, beta), y_row + i);
        } else {
            const real a_value = (real)(a_row[0]);
            for (; i + VEC <= last; i += VEC)
                store(activate(combine(a_value, b_inner_stride ? load(b_row + i) : (real)(b_row[0])), alpha, beta), y_row + i);
        }
        if (i < last) {
            const real a_value = a_inner_stride ? load_some(a_row + i, last - i) : (real)(a_row[0]);
            const real b_value = b_inner_stride ? load_some(b_row + i, last - i) : (real)(b_row[0]);
            store_some(activate(combine(a_value, b_value), alpha, beta), y_row + i, last - i);
        }
    }
}
