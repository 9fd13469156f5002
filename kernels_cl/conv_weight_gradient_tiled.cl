// Weight gradient through local memory: the sum of conv_weight_gradient.cl for devices with many small cores (GPUs).
// Memory layout, taps, parts and arguments are those of conv_weight_gradient.cl.
//
// A work-group computes TILE outputs x PANEL channels of one tap, a work-item MO outputs x NV vectors of VEC channels.  STEP pixels at a time:
//
//        dy_tile [STEP][TILE]          x_tile [STEP][PANEL]
//   pixel | o0 o1 o2 ...    |     pixel | c0 c1 c2 ...    |    both as they lie in memory: coalesced, nothing is transposed;
//         +-----------------+           +-----------------+    a pixel whose source is outside the image is a row of zeros
//
// Global size (taps*channel blocks*COLUMNS, taps fastest, groups*output blocks*LINES, parts), local size (COLUMNS, LINES, 1).
//
// COLUMNS, LINES, MO (as MR), NV, STEP, BUFFERS: see conv_igemm_tiled.cl; BUFFERS*STEP*(TILE + PANEL)*4 bytes of local memory.
// TILE is a multiple of VEC.
#include "vectors.cl"
#include "register_block.cl"
#include "local_steps.cl"
#ifndef MO
#define MO 4
#endif
#define TILE (MO * LINES)
#define PANEL (VEC * NV * COLUMNS)

__kernel __attribute__((reqd_work_group_size(COLUMNS, LINES, 1)))
void conv_weight_gradient_tiled(
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
    __local float x_tile[BUFFERS * STEP * PANEL];
    __local float dy_tile[BUFFERS * STEP * TILE];
    const int item = get_local_id(1) * COLUMNS + get_local_id(0);
    const int out_blocks = (outs + TILE - 1) / TILE;
    const int red_block = (int)get_group_id(0) / tap_count;
    const int tap = (int)get_group_id(0) - red_block * tap_count;
    const int group = (int)get_group_id(1) / out_blocks;
    const int part = get_global_id(2);
    const int first_red = red_block * PANEL;
    const int first_out = ((int)get_group_id(1) - group * out_blocks) * TILE;
    const int tap_row = taps[2 * tap], tap_column = taps[2 * tap + 1];

    x += x_offset + group * reds + tap_row * x_row_stride + tap_column * x_column_stride;
    dy += dy_offset + group * outs;

    EACH(MO, DECLARE_SUMS)

    const int first_pixel = part * pixels_per_part, last_pixel = min(first_pixel + pixels_per_part, images * grid_rows * grid_columns);
    const int step_count = (last_pixel - first_pixel + STEP - 1) / STEP;

    // STEP pixels into one of the buffers.
#define LOAD_STEP(step) { \
        const int first = first_pixel + (step) * STEP; \
        __local float *x_to = x_tile + ((step) % BUFFERS) * (STEP * PANEL), *dy_to = dy_tile + ((step) % BUFFERS) * (STEP * TILE); \
        for (int place = item * VEC; place < STEP * PANEL; place += ITEMS * VEC) { \
            const int pixel = first + place / PANEL, red = first_red + place % PANEL; \
            const int line = pixel / grid_columns, image = line / grid_rows; \
            const int a = line - image * grid_rows, b = pixel - line * grid_columns; \
            const int inside = pixel < last_pixel && red < reds \
                               && (uint)(a * row_step + tap_row) < (uint)x_rows && (uint)(b * column_step + tap_column) < (uint)x_columns; \
            const int source = image * x_image_stride + a * row_step * x_row_stride + b * column_step * x_column_stride + red; \
            store_local(inside ? load_some(x + source, reds - red) : (real)(0.0f), x_to + place); \
        } \
        for (int place = item * VEC; place < STEP * TILE; place += ITEMS * VEC) { \
            const int pixel = first + place / TILE, out = first_out + place % TILE; \
            const int line = pixel / grid_columns, image = line / grid_rows; \
            const int source = image * dy_image_stride + (line - image * grid_rows) * dy_row_stride + (pixel - line * grid_columns) * dy_column_stride + out; \
            store_local(pixel < last_pixel && out < outs ? load_some(dy + source, outs - out) : (real)(0.0f), dy_to + place); \
        } \
    }

    BEGIN_STEPS(step_count)
    for (int step = 0; step < step_count; ++step) {
        BRING_STEP(step, step_count)
        __local const float *x_line = x_tile + (step % BUFFERS) * (STEP * PANEL) + get_local_id(0) * VEC;
        __local const float *dy_line = dy_tile + (step % BUFFERS) * (STEP * TILE) + get_local_id(1) * MO;
        for (int i = 0; i < STEP; ++i) {
#define LOAD_X(m, v) const real vector##v = load_local(x_line + v * (PANEL / NV));
            EACH_VECTOR(LOAD_X, 0)
#define ADD_OUTPUT(m) ADD_TIMES(m, dy_line[m])
            EACH(MO, ADD_OUTPUT)
            x_line += PANEL;
            dy_line += TILE;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    __global float *result = parts + parts_offset + ((part * groups + group) * outs * tap_count + tap) * reds;
#define KEEP_VECTOR(m, v) { \
        const int red = first_red + v * (PANEL / NV) + (int)get_local_id(0) * VEC; \
        if (red < reds) \
            store_some(sum##m##_##v, result + out * tap_count * reds + red, reds - red); \
    }
#define KEEP(m) { \
        const int out = first_out + (int)get_local_id(1) * MO + m; \
        if (out < outs) { \
            EACH_VECTOR(KEEP_VECTOR, m) \
        } \
    }
    EACH(MO, KEEP)
}
