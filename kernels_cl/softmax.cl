// Softmax and log-softmax over one axis of x[outer][axis][inner], and their gradients from the output.
//
//   softmax     y = exp(x - max) / sum exp(x - max)          dx = y * (dy - sum dy*y)
//   log         y = x - max - log sum exp(x - max)           dx = dy - exp(y) * sum dy
//
// *_rows (inner = 1): one work-group for rows_per_group rows, its items share a row.      *_columns: one work-item for VEC neighbouring columns.
//      x | a a a a a |  <- work-group                            x | c c c c |  each column top to bottom
//                                                                  | c c c c |
// LOG  0 softmax, 1 log-softmax.
#include "vectors.cl"
#include "work_group.cl"
#ifndef LOG
#define LOG 0
#endif

DEFINE_WORK_GROUP_REDUCTION(sum_group, COMBINE_SUM)
DEFINE_WORK_GROUP_REDUCTION(max_group, COMBINE_MAX)

#define FIRST (get_local_id(0) * VEC)
#define STEP (WORK_GROUP * VEC)

// Global size (blocks of rows * WORK_GROUP), local size (WORK_GROUP).
__kernel void softmax_rows(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    const int outer, const int axis, const int rows_per_group)
{
    __local float scratch[WORK_GROUP];
    const int first_row = get_group_id(0) * rows_per_group;
    const int last_row = min(first_row + rows_per_group, outer);
    for (int row = first_row; row < last_row; ++row) {
        __global const float *x_row = x + x_offset + row * axis;
        __global float *y_row = y + y_offset + row * axis;
        real highest = (real)(-INFINITY);
        for (int i = FIRST; i < axis; i += STEP)
            highest = maximum(highest, load_padded(x_row + i, axis - i, -INFINITY));
        const float top = max_group(highest, scratch);
        real sum = (real)(0.0f);
        for (int i = FIRST; i < axis; i += STEP)
            sum += exp(load_padded(x_row + i, axis - i, -INFINITY) - top);
        const float total = sum_group(sum, scratch);
#if LOG
        const float shift = log(total);
        for (int i = FIRST; i < axis; i += STEP)
            store_some(load_some(x_row + i, axis - i) - top - shift, y_row + i, axis - i);
#else
        const float scale = 1.0f / total;
        for (int i = FIRST; i < axis; i += STEP)
            store_some(exp(load_some(x_row + i, axis - i) - top) * scale, y_row + i, axis - i);
#endif
    }
}

__kernel void softmax_backward_rows(
    __global const float *y, const int y_offset,
    __global const float *dy, const int dy_offset,
    __global float *dx, const int dx_offset,
    const int outer, const int axis, const int rows_per_group)
{
    __local float scratch[WORK_GROUP];
    const int first_row = get_group_id(0) * rows_per_group;
    const int last_row = min(first_row + rows_per_group, outer);
    for (int row = first_row; row < last_row; ++row) {
        __global const float *y_row = y + y_offset + row * axis;
        __global const float *dy_row = dy + dy_offset + row * axis;
        __global float *dx_row = dx + dx_offset + row * axis;
        real sum = (real)(0.0f);
        for (int i = FIRST; i < axis; i += STEP) {
            const real slope = load_some(dy_row + i, axis - i);
#if LOG
            sum += slope;
#else
            sum += slope * load_some(y_row + i, axis - i);
#endif
        }
        const float total = sum_group(sum, scratch);
        for (int i = FIRST; i < axis; i += STEP) {
            const real value = load_some(y_row + i, axis - i), slope = load_some(dy_row + i, axis - i);
#if LOG
            store_some(slope - exp(value) * total, dx_row + i, axis - i);
#else
            store_some(value * (slope - total), dx_row + i, axis - i);
#endif
        }
    }
}

// Global size (ceil(inner/VEC), outer).
__kernel void softmax_columns(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    const int axis, const int inner)
{
    const int column = get_global_id(0) * VEC;
    const int lanes = min(inner - column, VEC);
    const int place = (int)get_global_id(1) * axis * inner + column;
    x += x_offset + place;
    y += y_offset + place;
    real top = (real)(-INFINITY);
    for (int i = 0; i < axis; ++i)
        top = maximum(top, load_some(x + i * inner, lanes));
    real total = (real)(0.0f);
    for (int i = 0; i < axis; ++i)
        total += exp(load_some(x + i * inner, lanes) - top);
#if LOG
    const real shift = log(total);
    for (int i = 0; i < axis; ++i)
        store_some(load_some(x + i * inner, lanes) - top - shift, y + i * inner, lanes);
#else
    const real scale = (real)(1.0f) / total;
    for (int i = 0; i < axis; ++i)
        store_some(exp(load_some(x + i * inner, lanes) - top) * scale, y + i * inner, lanes);
#endif
}

__kernel void softmax_backward_columns(
    __global const float *y, const int y_offset,
    __global const float *dy, const int dy_offset,
    __global float *dx, const int dx_offset,
    const int axis, const int inner)
{
    const int column = get_global_id(0) * VEC;
    const int lanes = min(inner - column, VEC);
    const int place = (int)get_global_id(1) * axis * inner + column;
    y += y_offset + place;
    dy += dy_offset + place;
    dx += dx_offset + place;
    real total = (real)(0.0f);
    for (int i = 0; i < axis; ++i) {
        const real slope = load_some(dy + i * inner, lanes);
#if LOG
        total += slope;
#else
        total += slope * load_some(y + i * inner, lanes);
#endif
    }
    for (int i = 0; i < axis; ++i) {
        const real value = load_some(y + i * inner, lanes), slope = load_some(dy + i * inner, lanes);
#if LOG
        store_some(slope - exp(value) * total, dx + i * inner, lanes);
#else
        store_some(value * (slope - total), dx + i * inner, lanes);
#endif
    }
}
