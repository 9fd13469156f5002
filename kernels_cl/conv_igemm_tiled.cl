// Implicit GEMM over taps through local memory: the sum of conv_igemm.cl for devices with many small cores and coalesced memory (GPUs).
// Memory layout, taps and arguments are those of conv_igemm.cl (without `zeros` and `blocks_per_item`); panels have PANEL lanes.
//
// A work-group computes TILE pixels x PANEL outputs, a work-item MR pixels x NV vectors of VEC outputs.  STEP channels of one tap at a time:
//
//      x_tile [STEP][TILE + 4]       w_tile [STEP][PANEL]           sums of work-item (column, line)
//      loaded as vectors of           as it lies in the             pixels  line*MR .. +MR
//      channels, kept transposed      panel                         outputs column*VEC .. +VEC (and + PANEL/NV for the next vector)
//      +-----------------+           +-----------------+
//   i  | p0 p1 p2 ...    |        i  | o0 o1 o2 ...    |     ->     named registers sum<m>_<v>
//      +-----------------+           +-----------------+
//
// Global size (panels*COLUMNS, ceil(pixels/TILE)*LINES, groups), local size (COLUMNS, LINES, 1).
//
// COLUMNS, LINES  work-items along outputs and pixels; powers of two, COLUMNS*LINES a multiple of STEP/VEC, at most the device's work-group.
// MR, NV          as in conv_igemm.cl; MR*NV*VEC sums stay in registers: 32 (small layers) to 64.   MR a multiple of 4 at best.
// STEP            channels in local memory; a multiple of VEC.  BUFFERS*STEP*(TILE + PANEL + 4)*4 bytes of local memory, two work-groups a core at least.
// BUFFERS         1, or 2: the next step is loaded while one is multiplied, and there is one barrier a step instead of two.
// ACTIVATION      kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#include "register_block.cl"
#include "local_steps.cl"
#ifndef MR
#define MR 4
#endif
#define TILE (MR * LINES)
#define TILE_STRIDE (TILE + 4)      // keeps vectors aligned and spreads the transposed stores over the banks
#define PANEL (VEC * NV * COLUMNS)
#define VECTORS (STEP / VEC)        // vectors of channels of one pixel
#define LOADS ((TILE * VECTORS + ITEMS - 1) / ITEMS)

__kernel __attribute__((reqd_work_group_size(COLUMNS, LINES, 1)))
void conv_igemm_tiled(
    __global const float *x, const int x_offset,
    __global const float *panels, const int panels_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    __global const int *taps,
    const int images, const int grid_rows, const int grid_columns,
    const int row_step, const int column_step,
    const int x_rows, const int x_columns,
    const int x_image_stride, const int x_row_stride, const int x_column_stride,
    const int y_image_stride, const int y_row_stride, const int y_column_stride,
    const int tap_count, const int reds, const int outs, const float alpha, const float beta)
{
    __local float x_tile[BUFFERS * STEP * TILE_STRIDE];
    __local float w_tile[BUFFERS * STEP * PANEL];
    const int item = get_local_id(1) * COLUMNS + get_local_id(0);
    const int panel = get_group_id(0);
    const int group = get_global_id(2);
    const int pixels = images * grid_rows * grid_columns;
    const int first_pixel = get_group_id(1) * TILE;
    const int group_panels = (outs + PANEL - 1) / PANEL;

    __global const float *x_group = x + x_offset + group * reds;
    __global const float *weights = panels + panels_offset + (group * group_panels + panel) * (tap_count * reds * PANEL);

    // The pixels this item loads: vector `item % VECTORS` of the channels of pixels item/VECTORS, + ITEMS/VECTORS, ...
    const int vector = (item % VECTORS) * VEC;
    int row[LOADS], column[LOADS], source[LOADS];
    for (int n = 0; n < LOADS; ++n) {
        const int in_tile = item / VECTORS + n * (ITEMS / VECTORS);
        const int pixel = first_pixel + in_tile;
        const int line = pixel / grid_columns, image = line / grid_rows;
        const int a = line - image * grid_rows, b = pixel - line * grid_columns;
        row[n] = in_tile < TILE && pixel < pixels ? a * row_step : INT_MIN / 2;
        column[n] = b * column_step;
        source[n] = image * x_image_stride + a * row_step * x_row_stride + b * column_step * x_column_stride;
    }

    EACH(MR, DECLARE_SUMS)

    const int steps_of_tap = (reds + STEP - 1) / STEP, step_count = tap_count * steps_of_tap;

    // Channels first .. +STEP of tap t into one of the buffers, and the weights beside them.
#define LOAD_STEP(step) { \
        const int t = (step) / steps_of_tap, first = ((step) - t * steps_of_tap) * STEP; \
        const int steps = min(reds - first, STEP); \
        const int tap_row = taps[2 * t], tap_column = taps[2 * t + 1]; \
        __global const float *x_tap = x_group + tap_row * x_row_stride + tap_column * x_column_stride; \
        __local float *x_to = x_tile + ((step) % BUFFERS) * (STEP * TILE_STRIDE), *w_to = w_tile + ((step) % BUFFERS) * (STEP * PANEL); \
        for (int n = 0; n < LOADS; ++n) { \
            const int in_tile = item / VECTORS + n * (ITEMS / VECTORS); \
            if (in_tile < TILE) { \
                const int inside = (uint)(row[n] + tap_row) < (uint)x_rows && (uint)(column[n] + tap_column) < (uint)x_columns; \
                float lanes[VEC]; \
                store_private(inside && vector < steps ? load_some(x_tap + source[n] + first + vector, steps - vector) : (real)(0.0f), lanes); \
                for (int lane = 0; lane < VEC; ++lane) \
                    x_to[(vector + lane) * TILE_STRIDE + in_tile] = lanes[lane]; \
            } \
        } \
        __global const float *w_from = weights + (t * reds + first) * PANEL; \
        for (int place = item * VEC; place < steps * PANEL; place += ITEMS * VEC) \
            store_local(load(w_from + place), w_to + place); \
    }

    BEGIN_STEPS(step_count)
    for (int step = 0; step < step_count; ++step) {
        BRING_STEP(step, step_count)
        const int steps = min(reds - step % steps_of_tap * STEP, STEP);
        __local const float *x_line = x_tile + (step % BUFFERS) * (STEP * TILE_STRIDE) + get_local_id(1) * MR;
        __local const float *w_line = w_tile + (step % BUFFERS) * (STEP * PANEL) + get_local_id(0) * VEC;
        for (int i = 0; i < steps; ++i) {
#define LOAD_WEIGHT(m, v) const real vector##v = load_local(w_line + v * (PANEL / NV));
            EACH_VECTOR(LOAD_WEIGHT, 0)
#define ADD_PIXEL(m) ADD_TIMES(m, x_line[m])
            EACH(MR, ADD_PIXEL)
            x_line += TILE_STRIDE;
            w_line += PANEL;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

#define FINISH_VECTOR(m, v) { \
        const int out = panel * PANEL + v * (PANEL / NV) + (int)get_local_id(0) * VEC; \
        if (out < outs) { \
            const int place = group * outs + out; \
            real value = sum##m##_##v; \
            if (bias_offset >= 0) \
                value += load_some(bias + bias_offset + place, outs - out); \
            if (residual_offset >= 0) \
                value += load_some(residual + residual_offset + destination + place, outs - out); \
            store_some(activate(value, alpha, beta), y + y_offset + destination + place, outs - out); \
        } \
    }
#define FINISH(m) { \
        const int pixel = first_pixel + (int)get_local_id(1) * MR + m; \
        if (pixel < pixels) { \
            const int line = pixel / grid_columns, image = line / grid_rows; \
            const int destination = image * y_image_stride + (line - image * grid_rows) * y_row_stride + (pixel - line * grid_columns) * y_column_stride; \
            EACH_VECTOR(FINISH_VECTOR, m) \
        } \
    }
    EACH(MR, FINISH)
}
