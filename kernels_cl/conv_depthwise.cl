// Depthwise convolution (every channel its own filter): forward, phases of the input gradient, and the weight gradient.
//
//   y[pixel, c] = activation( sum over taps t of x[source(pixel, t), c] * weights[t][c] + bias[c] + residual[pixel, c] )
//   dw[c][t]    = sum over images and pixels of dy[pixel, c] * x[source(pixel, t), c]
//
// Memory: x, y, bias, residual, taps as in conv_igemm.cl; weights [tap][channels]; parts [part][channels][tap], one part being dw.
//
// Forward work-item (block of channels, block of columns, image*grid_rows + row): `channels_per_item` channels (a multiple of VEC) of
// `columns_per_item` neighbouring pixels of a row.  Where every tap lies inside the image's columns, BLOCK pixels go together, so that a weight vector is loaded
// once for all and nothing is asked; the last such block starts earlier and stores only what is new.  The others go one by one.
//
//         edge |   BLOCK pixels      |   BLOCK pixels     | edge
//       +------+------+------+-------+--------------------+------+
//   c.. | one  | sum0 | sum1 | ...   |                    | one  |  VEC channels each, += x[source] * weights[t]
//       +------+------+------+-------+--------------------+------+
//
// BLOCK  pixels of a block; 1..12: with one weight vector they stay in registers.
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#ifndef BLOCK
#define BLOCK 8
#endif

__kernel void conv_depthwise(
    __global const float *x, const int x_offset,
    __global const float *weights, const int weights_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    __global const int *taps,
    const int grid_rows, const int grid_columns,
    const int row_step, const int column_step,
    const int x_rows, const int x_columns,
    const int x_image_stride, const int x_row_stride, const int x_column_stride,
    const int y_image_stride, const int y_row_stride, const int y_column_stride,
    const int tap_count, const int channels, const int channels_per_item, const int columns_per_item, const float alpha, const float beta)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int image = (int)get_global_id(2) / grid_rows;
    const int a = (int)get_global_id(2) - image * grid_rows;
    const int first = get_global_id(1) * columns_per_item;
    const int last = min(first + columns_per_item, grid_columns);
    const int step = column_step * x_column_stride;

    // Columns [inside, outside) whose taps all lie inside the image's columns.
    int inside = 0, outside = grid_columns;
    for (int t = 0; t < tap_count; ++t) {
        const int tap_column = taps[2 * t + 1];
        inside = max(inside, tap_column >= 0 ? 0 : (-tap_column + column_step - 1) / column_step);
        outside = min(outside, tap_column >= x_columns ? 0 : (x_columns - 1 - tap_column) / column_step + 1);
    }
    inside = max(inside, first);
    outside = min(outside, last);

    int start, count;
    for (int b = first; b < last; b = start + count) {
        // Pixels [start, start + count) are computed, those from b on are stored.
        const int together = b >= inside && b < outside && outside - inside >= BLOCK;
        start = together ? min(b, outside - BLOCK) : b;
        count = together ? BLOCK : 1;
        for (int channel = first_channel; channel < last_channel; channel += VEC) {
            const int lanes = min(last_channel - channel, VEC);
            __global const float *x_image = x + x_offset + image * x_image_stride + channel;
            __global const float *weight_lanes = weights + weights_offset + channel;
            const real bias_value = bias_offset >= 0 ? load_some(bias + bias_offset + channel, lanes) : (real)(0.0f);
            const int y_row = image * y_image_stride + a * y_row_stride + channel;
            float block[BLOCK * VEC];
            if (together && lanes == VEC) {
#define DECLARE_SUM(m) real sum##m = bias_value;
                EACH(BLOCK, DECLARE_SUM)
                for (int t = 0; t < tap_count; ++t) {
                    const int row = a * row_step + taps[2 * t];
                    if ((uint)row < (uint)x_rows) {
                        __global const float *at = x_image + row * x_row_stride + (start * column_step + taps[2 * t + 1]) * x_column_stride;
                        const real weight = load(weight_lanes + t * channels);
#define ADD(m) sum##m = multiply_add(load(at + m * step), weight, sum##m);
                        EACH(BLOCK, ADD)
                    }
                }
#define KEEP(m) store_private(sum##m, block + m * VEC);
                EACH(BLOCK, KEEP)
            } else {
                for (int m = 0; m < count; ++m) {
                    real sum = bias_value;
                    for (int t = 0; t < tap_count; ++t) {
                        const int row = a * row_step + taps[2 * t], column = (start + m) * column_step + taps[2 * t + 1];
                        if ((uint)row < (uint)x_rows && (uint)column < (uint)x_columns)
                            sum = multiply_add(load_some(x_image + row * x_row_stride + column * x_column_stride, lanes),
                                               load_some(weight_lanes + t * channels, lanes), sum);
                    }
                    store_private(sum, block + m * VEC);
                }
            }
            for (int m = b - start; m < count; ++m) {
                const int place = y_row + (start + m) * y_column_stride;
                real value = load_private(block + m * VEC);
                if (residual_offset >= 0)
                    value += load_some(residual + residual_offset + place, lanes);
                store_some(activate(value, alpha, beta), y + y_offset + place, lanes);
            }
        }
    }
}

// Work-item (vector of channels, tap, part): the pixels of the rows [part*rows_per_part, (part+1)*rows_per_part) of the flattened
// images x grid_rows.  The parts are added in order by reduce.cl.
__kernel void conv_depthwise_weight_gradient(
    __global const float *x, const int x_offset,
    __global const float *dy, const int dy_offset,
    __global float *parts, const int parts_offset,
    __global const int *taps,
    const int images, const int grid_rows, const int grid_columns,
    const int row_step, const int column_step,
    const int x_rows, const int x_columns,
    const int x_image_stride, const int x_row_stride, const int x_column_stride,
    const int dy_image_stride, const int dy_row_stride, const int dy_column_stride,
    const int tap_count, const int channels, const int rows_per_part)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const int tap = get_global_id(1);
    const int part = get_global_id(2);
    const int tap_row = taps[2 * tap], tap_column = taps[2 * tap + 1];
    const int low = tap_column >= 0 ? 0 : (-tap_column + column_step - 1) / column_step;
    const int high = min(grid_columns, tap_column >= x_columns ? 0 : (x_columns - 1 - tap_column) / column_step + 1);
    const int x_step = column_step * x_column_stride;

    x += x_offset + channel + tap_row * x_row_stride + tap_column * x_column_stride;
    dy += dy_offset + channel;
    real sum0 = (real)(0.0f), sum1 = (real)(0.0f);      // two chains hide the latency of the multiply-add
    const int last_row = min((part + 1) * rows_per_part, images * grid_rows);
    for (int row = part * rows_per_part; row < last_row; ++row) {
        const int image = row / grid_rows, a = row - image * grid_rows;
        if ((uint)(a * row_step + tap_row) >= (uint)x_rows)
            continue;
        __global const float *x_at = x + image * x_image_stride + a * row_step * x_row_stride;
        __global const float *dy_at = dy + image * dy_image_stride + a * dy_row_stride;
        int column = low;
        for (; column + 1 < high; column += 2) {
            sum0 = multiply_add(load_some(x_at + column * x_step, lanes), load_some(dy_at + column * dy_column_stride, lanes), sum0);
            sum1 = multiply_add(load_some(x_at + (column + 1) * x_step, lanes), load_some(dy_at + (column + 1) * dy_column_stride, lanes), sum1);
        }
        if (column < high)
            sum0 = multiply_add(load_some(x_at + column * x_step, lanes), load_some(dy_at + column * dy_column_stride, lanes), sum0);
    }
    float values[VEC];
    store_private(sum0 + sum1, values);
    for (int lane = 0; lane < lanes; ++lane)
        parts[parts_offset + (part * channels + channel + lane) * tap_count + tap] = values[lane];
}
