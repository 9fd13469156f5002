// Implicit GEMM over taps, register-blocked: forward convolution, one phase of an input gradient (transposed convolution),
// grouped versions of both, and matmul.  For devices whose cores have wide vector registers and caches (CPUs); no local memory.
//
//   y[pixel, o] = activation( sum over taps t, channels i of x[source(pixel, t), i] * panel[o, t, i] + bias[o] + residual[pixel, o] )
//
// Memory
//   x         floats at image*x_image_stride + row*x_row_stride + column*x_column_stride + group*reds + i, row in [0, x_rows), column
//             in [0, x_columns); every other place reads as zero
//   panels    [group][panel][tap][reds][PANEL]: the weights of PANEL = VEC*NV neighbouring outputs, in reading order (pack.cl)
//   taps      int [taps][2]: (row, column) added to a pixel's origin (grid row * row_step, grid column * column_step)
//   zeros     at least `reds` zeros: what a pixel outside the image points at, so that the inner loop has no condition
//   y         destination of grid pixel (image, a, b): y_offset + image*y_image_stride + a*y_row_stride + b*y_column_stride + group*outs + o
//   bias      [groups*outs], absent when bias_offset < 0;  residual: strides of y, absent when residual_offset < 0
//
// Work-item (item, panel, group): `blocks_per_item` consecutive blocks of MR pixels of the flattened images x grid_rows x
// grid_columns, all outputs of one panel.  Local size 1 on a CPU: one work-item fills a core's vector units.  GPUs without fast local memory run
// several neighbouring blocks as a work-group; items behind the last block have nothing to do.
//
//              panel: NV vectors of VEC outputs               One step of the inner loop, for one (tap, i):
//             +----------+----------+                           load NV weight vectors (contiguous),
//   pixel 0   | sum0_0   | sum0_1   |                           broadcast x[i] of each of the MR pixels,
//   pixel 1   | sum1_0   | sum1_1   |  named registers          MR*NV multiply-adds.
//    ...      |   ...    |   ...    |
//   pixel MR-1+----------+----------+
//
// MR  pixels of a register block; 1..16.  MR*NV accumulators + NV weights + 1 must fit the register file (32 with AVX-512 and Arm,
//     16 with AVX2), and at least 8..10 accumulators are needed to hide the latency of a multiply-add.
// NV  vectors of a panel; 1..3.
// UNROLL  steps of the inner loop written out; 1..4, more would not fit the cache of decoded instructions.
// SUMMED  products that are summed up before they join the others; 0: all of them.
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#include "register_block.cl"
#ifndef MR
#define MR 6
#endif
#ifndef UNROLL
#define UNROLL 1
#endif
#ifndef SUMMED
#define SUMMED 0
#endif
#define PANEL (VEC * NV)

__kernel void conv_igemm(
    __global const float *x, const int x_offset,
    __global const float *panels, const int panels_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    __global const int *taps, __global const float *zeros,
    const int images, const int grid_rows, const int grid_columns,
    const int row_step, const int column_step,
    const int x_rows, const int x_columns,
    const int x_image_stride, const int x_row_stride, const int x_column_stride,
    const int y_image_stride, const int y_row_stride, const int y_column_stride,
    const int tap_count, const int reds, const int outs,
    const int blocks_per_item, const float alpha, const float beta)
{
    const int panel = get_global_id(1);
    const int group = get_global_id(2);
    const int first_out = panel * PANEL;
    const int lanes = min(outs - first_out, PANEL);
    const int pixels = images * grid_rows * grid_columns;
    const int group_panels = (outs + PANEL - 1) / PANEL;

    __global const float *x_group = x + x_offset + group * reds;
    __global const float *panel_start = panels + panels_offset + (group * group_panels + panel) * (tap_count * reds * PANEL);
    const int place = group * outs + first_out;

    float bias_lanes[PANEL];
    for (int lane = 0; lane < PANEL; ++lane)
        bias_lanes[lane] = bias_offset >= 0 && lane < lanes ? bias[bias_offset + place + lane] : 0.0f;

    const int first_block = get_global_id(0) * blocks_per_item;
    const int last_pixel = min((first_block + blocks_per_item) * MR, pixels);
    int pixel = first_block * MR;
    const int line = pixel / grid_columns;      // remainders by subtraction: one division each, and simulators know it
    int b = pixel - line * grid_columns;
    int image = line / grid_rows;
    int a = line - image * grid_rows;
    for (; pixel < last_pixel; pixel += MR) {
        // Origins of the MR pixels.  A pixel past the end gets a row outside every image: it reads zeros and is not stored.
        int row[MR], column[MR], source[MR], destination[MR];
        for (int m = 0; m < MR; ++m) {
            const int inside = pixel + m < pixels;
            row[m] = inside ? a * row_step : INT_MIN / 2;
            column[m] = b * column_step;
            source[m] = image * x_image_stride + a * row_step * x_row_stride + b * column_step * x_column_stride;
            destination[m] = image * y_image_stride + a * y_row_stride + b * y_column_stride;
            ++b;
            if (b == grid_columns) { b = 0; ++a; }
            if (a == grid_rows) { a = 0; ++image; }
        }

        EACH(MR, DECLARE_SUMS)
#if SUMMED
        EACH(MR, DECLARE_TOTALS)
#endif

        __global const float *weights = panel_start;
        for (int t = 0; t < tap_count; ++t) {
            const int tap_row = taps[2 * t], tap_column = taps[2 * t + 1];
            __global const float *x_tap = x_group + tap_row * x_row_stride + tap_column * x_column_stride;
#define POINT(m) \
            __global const float *x##m = (uint)(row[m] + tap_row) < (uint)x_rows && (uint)(column[m] + tap_column) < (uint)x_columns \
                                         ? x_tap + source[m] : zeros;
            EACH(MR, POINT)

            for (int first = 0; first < reds; first += SUMMED ? SUMMED : reds) {
                const int last = SUMMED ? min(first + SUMMED, reds) : reds;
#pragma unroll UNROLL
                for (int i = first; i < last; ++i) {
#define LOAD_WEIGHT(m, v) const real vector##v = load(weights + v * VEC);
                    EACH_VECTOR(LOAD_WEIGHT, 0)
                    weights += PANEL;
#define ADD_PIXEL(m) ADD_TIMES(m, x##m[i])
                    EACH(MR, ADD_PIXEL)
                }
#if SUMMED
                EACH(MR, ADD_UP)
#endif
            }
        }
#if SUMMED
        EACH(MR, TAKE_TOTALS)
#endif

        const int rows = min(MR, pixels - pixel);
#if ACTIVATION <= 3
        // Cheap activations are compiled for every vector of the block.
        if (rows == MR && lanes == PANEL) {
            __global float *result = y + y_offset + place;
            if (residual_offset >= 0) {
                __global const float *added = residual + residual_offset + place;
#define ADD_RESIDUAL(m, v) sum##m##_##v += load(added + destination[m] + v * VEC);
#define ADD_RESIDUALS(m) EACH_VECTOR(ADD_RESIDUAL, m)
                EACH(MR, ADD_RESIDUALS)
            }
#define LOAD_BIAS(m, v) const real bias##v = load_private(bias_lanes + v * VEC);
            EACH_VECTOR(LOAD_BIAS, 0)
#define FINISH(m, v) store(activate(sum##m##_##v + bias##v, alpha, beta), result + destination[m] + v * VEC);
#define FINISH_ROW(m) EACH_VECTOR(FINISH, m)
            EACH(MR, FINISH_ROW)
            continue;
        }
#endif
        // The block passes through private memory once, so that the epilogue is compiled once and not MR times.
        float block[MR * PANEL];
#define KEEP(m, v) store_private(sum##m##_##v, block + m * PANEL + v * VEC);
#define KEEP_ROW(m) EACH_VECTOR(KEEP, m)
        EACH(MR, KEEP_ROW)

        for (int m = 0; m < rows; ++m) {
            float residual_lanes[PANEL];
            __global const float *added = residual + residual_offset + place + destination[m];
            __global float *result = y + y_offset + place + destination[m];
            for (int v = 0; v < PANEL; v += VEC) {
                real value = load_private(block + m * PANEL + v) + load_private(bias_lanes + v);
                if (v + VEC <= lanes) {
                    if (residual_offset >= 0)
                        value += load(added + v);
                    store(activate(value, alpha, beta), result + v);
                } else if (v < lanes) {
                    if (residual_offset >= 0) {
                        for (int lane = 0; lane < VEC; ++lane)
                            residual_lanes[lane] = v + lane < lanes ? added[v + lane] : 0.0f;
                        value += load_private(residual_lanes);
                    }
                    store_private(activate(value, alpha, beta), residual_lanes);
                    for (int lane = 0; v + lane < lanes; ++lane)
                        result[v + lane] = residual_lanes[lane];
                }
            }
        }
    }
}
