// Max pooling of x[n,h,w,c] and its gradient.
//
//   y[n,a,b,c] = maximum of x over the window of (a,b) without padding; indices its place row*w + column, the first of equals, the last NaN.
//   dx[n,row,column,c] = sum of dy over the windows that cover (row, column) and whose index says so: a gather, no atomics.
//
// Work-item (vector of VEC channels, block of pixels_per_item pixels of a row, n*row): the grid is y's forward, dx's backward.
//
//        x  . . . . .      window rows a*row_step - pad_top + r*row_dilation        y  a,b
//           . 3 1 . .  ->                                                               3    index of that 3
//           . 2 0 . .
#include "vectors.cl"

inline whole load_some_whole(__global const int *p, const int count) {
    if (count >= VEC)
        return load_whole(p);
    int lanes[VEC];
    for (int lane = 0; lane < VEC; ++lane)
        lanes[lane] = lane < count ? p[lane] : -1;
    return load_whole(lanes);
}

inline void store_some_whole(const whole value, __global int *p, const int count) {
    if (count >= VEC) {
        store_whole(value, p);
        return;
    }
    int lanes[VEC];
    store_whole(value, lanes);
    for (int lane = 0; lane < count; ++lane)
        p[lane] = lanes[lane];
}

__kernel void max_pool(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    __global int *indices, const int indices_offset,
    const int x_rows, const int x_columns, const int channels,
    const int y_rows, const int y_columns,
    const int kernel_rows, const int kernel_columns, const int row_step, const int column_step,
    const int pad_top, const int pad_left, const int row_dilation, const int column_dilation, const int pixels_per_item)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const int a = get_global_id(2) % y_rows;
    __global const float *image = x + x_offset + (int)get_global_id(2) / y_rows * x_rows * x_columns * channels + channel;
    const int place = (int)get_global_id(2) * y_columns * channels + channel;
    const int first = get_global_id(1) * pixels_per_item;
    const int last = min(first + pixels_per_item, y_columns);
    for (int b = first; b < last; ++b) {
        real best = (real)(-INFINITY);
        whole where = (whole)(-1);
        for (int r = 0; r < kernel_rows; ++r) {
            const int row = a * row_step - pad_top + r * row_dilation;
            if ((uint)row >= (uint)x_rows)
                continue;
            for (int s = 0; s < kernel_columns; ++s) {
                const int column = b * column_step - pad_left + s * column_dilation;
                if ((uint)column >= (uint)x_columns)
                    continue;
                const int index = row * x_columns + column;
                const real value = load_some(image + index * channels, lanes);
                // `where < 0` gives a window of -infinity the place of its first element.
                const whole better = value > best || value != value || where < (whole)(0);
                best = better ? value : best;
                where = better ? (whole)(index) : where;
            }
        }
        store_some(best, y + y_offset + place + b * channels, lanes);
        store_some_whole(where, indices + indices_offset + place + b * channels, lanes);
    }
}

__kernel void max_pool_backward(
    __global const float *dy, const int dy_offset,
    __global const int *indices, const int indices_offset,
    __global float *dx, const int dx_offset,
    const int x_rows, const int x_columns, const int channels,
    const int y_rows, const int y_columns,
    const int kernel_rows, const int kernel_columns, const int row_step, const int column_step,
    const int pad_top, const int pad_left, const int row_dilation, const int column_dilation, const int pixels_per_item)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const int row = get_global_id(2) % x_rows;
    const int image = (int)get_global_id(2) / x_rows * y_rows * y_columns * channels + channel;
    const int first = get_global_id(1) * pixels_per_item;
    const int last = min(first + pixels_per_item, x_columns);
    for (int column = first; column < last; ++column) {
        const whole here = (whole)(row * x_columns + column);
        real sum = (real)(0.0f);
        for (int r = 0; r < kernel_rows; ++r) {
            const int a_steps = row + pad_top - r * row_dilation;
            if (a_steps < 0 || a_steps % row_step || a_steps / row_step >= y_rows)
                continue;
            for (int s = 0; s < kernel_columns; ++s) {
                const int b_steps = column + pad_left - s * column_dilation;
                if (b_steps < 0 || b_steps % column_step || b_steps / column_step >= y_columns)
                    continue;
                const int place = image + (a_steps / row_step * y_columns + b_steps / column_step) * channels;
                const real slope = load_some(dy + dy_offset + place, lanes);
                sum += load_some_whole(indices + indices_offset + place, lanes) == here ? slope : (real)(0.0f);
            }
        }
        store_some(sum, dx + dx_offset + ((int)get_global_id(2) * x_columns + column) * channels + channel, lanes);
    }
}
