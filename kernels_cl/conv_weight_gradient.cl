// Weight gradient of a convolution, register-blocked; with one tap, the matrix product of a transposed left side.
//
//   dw[o, t, i] = sum over images and grid pixels of dy[pixel, o] * x[source(pixel, t), i]
//
// Memory
//   x, taps    as in conv_igemm.cl (channel i of group g at g*reds + i)
//   dy         image*dy_image_stride + a*dy_row_stride + b*dy_column_stride + group*outs + o
//   parts      [part][groups*outs][tap][reds]: the sum over the pixels [part*pixels_per_part, (part+1)*pixels_per_part) of the flattened
//              images x grid_rows x grid_columns.  One part is dw itself; more are added in order by reduce.cl (`reduce_columns`).
//
// Work-item (tap + taps * block of channels, block of outputs + output blocks * group, part).
//
//                  PANEL = VEC*NV channels of x            for every pixel of the part whose source is inside the image:
//               +----------+----------+                      load NV vectors of x (contiguous),
//   output o    | sum0_0   | sum0_1   |                      broadcast dy[o..o+MO-1] (contiguous),
//   output o+1  | sum1_0   | sum1_1   |  named registers     MO*NV multiply-adds
//    ...        +----------+----------+
//
// A row of pixels outside the image is skipped, and the columns outside are cut off before the row starts: no condition inside.
// The last block of channels (outputs) starts earlier so that it is full, and stores only what its predecessor does not.
//
// MO  outputs of a register block; 1..14, at most outs.    NV  vectors of a block; 1 or 2.   VEC*NV at most reds.
//     Limits as in conv_igemm.cl.
#include "vectors.cl"
#include "register_block.cl"
#ifndef MO
#define MO 6
#endif
#define PANEL (VEC * NV)

__kernel void conv_weight_gradient(
    __global const float *x, const int x_offset,
    __global const float *dy, const int dy_offset,
    __global float *parts, const int parts_offset,
    __global const int *taps,
    const int images, const int grid_rows, const int grid_columns,
    const int row_step, const int column_step,
    const int x_rows, const int x_columns,
    const int x_image_stride, const int x_row_stride, const int x_column_stride,
    const int dy_image_stride, const int dy_row_stride, const int dy_column_stride,
    const int tap_count, const int reds, const int outs, const int groups, const int pixels_per_part)
{
    const int out_blocks = (outs + MO - 1) / MO;
    // Taps are the fastest index: the neighbours in time read the same slices of x and dy, which stay in the cache.
    const int own_red = (int)get_global_id(0) / tap_count * PANEL;
    const int tap = (int)get_global_id(0) - own_red / PANEL * tap_count;
    const int group = (int)get_global_id(1) / out_blocks;
    const int part = get_global_id(2);
    const int own_out = ((int)get_global_id(1) - group * out_blocks) * MO;
    const int first_red = min(own_red, reds - PANEL);
    const int first_out = min(own_out, outs - MO);
    const int tap_row = taps[2 * tap], tap_column = taps[2 * tap + 1];

    // Grid columns whose source column lies in [0, x_columns).
    const int low = tap_column >= 0 ? 0 : (-tap_column + column_step - 1) / column_step;
    const int high = tap_column >= x_columns ? 0 : (x_columns - 1 - tap_column) / column_step + 1;

    __global const float *x_block = x + x_offset + group * reds + first_red + tap_row * x_row_stride + tap_column * x_column_stride;
    __global const float *dy_block = dy + dy_offset + group * outs + first_out;

    EACH(MO, DECLARE_SUMS)

    int pixel = part * pixels_per_part;
    const int last_pixel = min(pixel + pixels_per_part, images * grid_rows * grid_columns);
    const int line = pixel / grid_columns;
    int b = pixel - line * grid_columns;
    int image = line / grid_rows;
    int a = line - image * grid_rows;
    while (pixel < last_pixel) {
        const int row_end = min(grid_columns, b + last_pixel - pixel);
        if ((uint)(a * row_step + tap_row) < (uint)x_rows) {
            const int first = max(b, low), last = min(row_end, high);
            __global const float *x_at = x_block + image * x_image_stride + a * row_step * x_row_stride + first * column_step * x_column_stride;
            __global const float *dy_at = dy_block + image * dy_image_stride + a * dy_row_stride + first * dy_column_stride;
            for (int column = first; column < last; ++column) {
#define LOAD_X(m, v) const real vector##v = load(x_at + v * VEC);
                EACH_VECTOR(LOAD_X, 0)
#define ADD_OUTPUT(m) ADD_TIMES(m, dy_at[m])
                EACH(MO, ADD_OUTPUT)
                x_at += column_step * x_column_stride;
                dy_at += dy_column_stride;
            }
        }
        pixel += row_end - b;
        b = 0;
        if (++a == grid_rows) { a = 0; ++image; }
    }

    float block[MO * PANEL];
#define KEEP(m, v) store_private(sum##m##_##v, block + m * PANEL + v * VEC);
#define KEEP_ROW(m) EACH_VECTOR(KEEP, m)
    EACH(MO, KEEP_ROW)

    const int skipped = own_red - first_red;
    __global float *result = parts + parts_offset + (((part * groups + group) * outs + first_out) * tap_count + tap) * reds + first_red;
    for (int m = own_out - first_out; m < MO; ++m) {
        __global float *row = result + m * tap_count * reds;
        if (skipped == 0) {
            for (int v = 0; v < PANEL; v += VEC)
                store(load_private(block + m * PANEL + v), row + v);
        } else {
            for (int lane = skipped; lane < PANEL; ++lane)
                row[lane] = block[m * PANEL + lane];
        }
    }
}
