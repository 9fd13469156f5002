// Separable linear gather along rows and columns: average pooling of every kind, nearest and bilinear resizing, and their gradients.
//
//   y[n,a,b,:] = sum over i in rows of a, j in columns of b:  row_weight[i] * column_weight[j] * x[n, row_index[i], column_index[j], :]
//
// The tables are sparse matrices by rows (CSR): entries starts[a] .. starts[a+1]-1 of index[] and weight[] belong to output a.
// Work-item (block of channels_per_item channels (a multiple of VEC), block of columns_per_item columns, n*y_rows + a).
//
//      x   . . . .            a takes rows {1, 2} with weights {1/2, 1/2}, b takes columns {0, 1}:
//          o o . .     ->     y[a,b] = 1/4 of each o
//          o o . .
#include "vectors.cl"

__kernel void resample(
    __global const float *x, const int x_offset,
    __global float *y, const int y_offset,
    __global const int *row_starts, __global const int *row_index, __global const float *row_weight,
    __global const int *column_starts, __global const int *column_index, __global const float *column_weight,
    const int x_rows, const int x_columns, const int channels,
    const int y_rows, const int y_columns, const int channels_per_item, const int columns_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int image_number = (int)get_global_id(2) / y_rows, a = (int)get_global_id(2) - image_number * y_rows;
    __global const float *image = x + x_offset + image_number * x_rows * x_columns * channels;
    __global float *y_row = y + y_offset + (int)get_global_id(2) * y_columns * channels;
    const int first_row = row_starts[a], last_row = row_starts[a + 1];
    const int first = get_global_id(1) * columns_per_item;
    const int last = min(first + columns_per_item, y_columns);
    for (int b = first; b < last; ++b) {
        const int first_column = column_starts[b], last_column = column_starts[b + 1];
        for (int channel = first_channel; channel < last_channel; channel += VEC) {
            const int lanes = min(last_channel - channel, VEC);
            real sum = (real)(0.0f);
            for (int i = first_row; i < last_row; ++i) {
                __global const float *x_row = image + row_index[i] * x_columns * channels + channel;
                real row_sum = (real)(0.0f);
                for (int j = first_column; j < last_column; ++j)
                    row_sum = multiply_add(load_some(x_row + column_index[j] * channels, lanes), (real)(column_weight[j]), row_sum);
                sum = multiply_add(row_sum, (real)(row_weight[i]), sum);
            }
            store_some(sum, y_row + b * channels + channel, lanes);
        }
    }
}
