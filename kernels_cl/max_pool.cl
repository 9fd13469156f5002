// Max pooling of x[n,h,w,c] and its gradient.  Windows come in tables, so that regular and adaptive pooling are one.
//
//   y[n,a,b,c] = maximum of x over the window of (a,b); indices its place row*w + column, the first of equals, the last NaN.
//   dx[n,row,column,c] = sum of dy over the windows that cover (row, column) and whose index says so: a gather, no atomics.
//
// windows  int [2*y_rows + 2*y_columns]: first and end row of every window row, first and end column of every window column,
//          inside the image; positions go up by the dilation.
// covers   int [2*x_rows + 2*x_columns]: first and end window row that may cover a row, the same for columns (more are
//          allowed: the indices decide).
// INDICES  0 where nobody asks for the indices (then they are bound to any buffer), 1 otherwise.
//
// Work-item (block of channels_per_item channels (a multiple of VEC), block of pixels_per_item pixels of a row, n*row): the grid is y's forward, dx's backward.
//
//        x  . . . . .      window of (a, b): rows windows[a] ..            y  a,b
//           . 3 1 . .  ->  below windows[y_rows + a], columns alike           3    index of that 3
//           . 2 0 . .
#include "vectors.cl"
#ifndef INDICES
#define INDICES 1
#endif

inline whole load_some_whole(__global const int *p, const int count) {
    if (count >= VEC)
        return load_whole(p);
    int lanes[VEC];
    for (int lane = 0; lane < VEC; ++lane)
        lanes[lane] = lane < count ? p[lane] : -1;
    return ((__private const whole_in_memory *)lanes)->lanes;
}

inline void store_some_whole(const whole value, __global int *p, const int count) {
    if (count >= VEC) {
        store_whole(value, p);
        return;
    }
    int lanes[VEC];
    ((__private whole_in_memory *)lanes)->lanes = value;
    for (int lane = 0; lane < count; ++lane)
        p[lane] = lanes[lane];
}

__kernel void max_pool(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    __global int *indices, const int indices_offset,
    __global const int *windows,
    const int x_rows, const int x_columns, const int channels,
    const int y_rows, const int y_columns,
    const int row_dilation, const int column_dilation, const int channels_per_item, const int pixels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int image_number = (int)get_global_id(2) / y_rows, a = (int)get_global_id(2) - image_number * y_rows;
    __global const float *image = x + x_offset + image_number * x_rows * x_columns * channels;
    const int place = (int)get_global_id(2) * y_columns * channels;
    const int first_row = windows[a], end_row = windows[y_rows + a];
    const int first = get_global_id(1) * pixels_per_item;
    const int last = min(first + pixels_per_item, y_columns);
    for (int b = first; b < last; ++b) {
        const int first_column = windows[2 * y_rows + b], end_column = windows[2 * y_rows + y_columns + b];
        for (int channel = first_channel; channel < last_channel; channel += VEC) {
            const int lanes = min(last_channel - channel, VEC);
            real best = (real)(-INFINITY);
            whole where = (whole)(first_row * x_columns + first_column);      // of a window of -infinity
            for (int row = first_row; row < end_row; row += row_dilation) {
                for (int column = first_column; column < end_column; column += column_dilation) {
                    const int index = row * x_columns + column;
                    const real value = load_some(image + index * channels + channel, lanes);
                    const whole better = (value > best) | (value != value);
                    best = better ? value : best;
#if INDICES
                    where = better ? (whole)(index) : where;
#endif
                }
            }
            store_some(best, y + y_offset + place + b * channels + channel, lanes);
#if INDICES
            store_some_whole(where, indices + indices_offset + place + b * channels + channel, lanes);
#endif
        }
    }
}

__kernel void max_pool_backward(
    __global const float *dy, const int dy_offset,
    __global const int *indices, const int indices_offset,
    __global float *dx, const int dx_offset,
    __global const int *covers,
    const int x_rows, const int x_columns, const int channels,
    const int y_rows, const int y_columns, const int channels_per_item, const int pixels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int image_number = (int)get_global_id(2) / x_rows, row = (int)get_global_id(2) - image_number * x_rows;
    const int image = image_number * y_rows * y_columns * channels;
    const int first_a = covers[row], end_a = covers[x_rows + row];
    const int first = get_global_id(1) * pixels_per_item;
    const int last = min(first + pixels_per_item, x_columns);
    for (int column = first; column < last; ++column) {
        const whole here = (whole)(row * x_columns + column);
        const int first_b = covers[2 * x_rows + column], end_b = covers[2 * x_rows + x_columns + column];
        for (int channel = first_channel; channel < last_channel; channel += VEC) {
            const int lanes = min(last_channel - channel, VEC);
            real sum = (real)(0.0f);
            for (int a = first_a; a < end_a; ++a) {
                for (int b = first_b; b < end_b; ++b) {
                    const int place = image + (a * y_columns + b) * channels + channel;
                    const real slope = load_some(dy + dy_offset + place, lanes);
                    sum += load_some_whole(indices + indices_offset + place, lanes) == here ? slope : (real)(0.0f);
                }
            }
            store_some(sum, dx + dx_offset + ((int)get_global_id(2) * x_columns + column) * channels + channel, lanes);
        }
    }
}
