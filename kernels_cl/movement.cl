// Data movement: strided copy (transpose, slice, flip, concat, pad, expand), tiled transpose, fill.
//
// Arrays are seen through int32 bits, so that labels and indices move as they are and a NaN keeps its payload.
//
// TILE  edge of the square tile of transpose; 8, 16 or 32.  On a GPU (LOCAL_MEMORY 1) a work-group of TILE x TILE/4 items moves one tile through local
//       memory, so that both sides are coalesced; on a CPU one work-item moves one tile that fits the first-level cache.
#include "builtins.cl"

// As in vectors.cl, for bits.
typedef struct __attribute__((packed, aligned(4))) { int8 lanes; } eight;
typedef struct __attribute__((packed, aligned(4))) { int4 lanes; } quad;
#define load_quad(p) (((__global const quad *)(p))->lanes)
#define store_quad(v, p) (((__global quad *)(p))->lanes = (v))

#ifndef TILE
#define TILE 16
#endif
#ifndef LOCAL_MEMORY
#define LOCAL_MEMORY 0
#endif

// y[y_offset + sum index_d*y_stride_d] = x[x_offset + sum index_d*x_stride_d]
// Strides of any sign; x's may be 0 (expand).  The last dimension is given apart: `inner` elements with strides x_inner, y_inner.
// Work-item (item, block): elements [item*span, ...) of the rows [block*rows_per_item, ...) of the flattened outer dimensions.
__kernel void copy(
    __global const int *x, const int x_offset,
    __global int *y, const int y_offset,
    __global const int *outer,      // [outer_rank][3]: extent, stride of x, stride of y; slowest dimension first
    const int outer_rank, const int rows, const int rows_per_item,
    const int inner, const int x_inner, const int y_inner, const int span)
{
    const int first = get_global_id(0) * span;
    const int last = min(first + span, inner);
    const int first_row = get_global_id(1) * rows_per_item;
    const int last_row = min(first_row + rows_per_item, rows);
    for (int row = first_row; row < last_row; ++row) {
        int x_place = x_offset, y_place = y_offset, rest = row;
        for (int d = outer_rank - 1; d >= 0; --d) {
            const int extent = outer[3 * d];
            const int quotient = rest / extent, index = rest - quotient * extent;
            rest = quotient;
            x_place += index * outer[3 * d + 1];
            y_place += index * outer[3 * d + 2];
        }
        int i = first;
        if (x_inner == 1 && y_inner == 1)
            for (; i + 8 <= last; i += 8)
                *(__global eight *)(y + y_place + i) = *(__global const eight *)(x + x_place + i);
        for (; i < last; ++i)
            y[y_place + i * y_inner] = x[x_place + i * x_inner];
    }
}

// y[batch][column][row] = x[batch][row][column]; the batches of x and y are dense.
//
//    x  +-----+-----+         y  +---+---+---+      a tile of TILE x TILE is read along x's rows and
//       | A   | B   |            | A'| C'| E'|      written along y's rows
//       +-----+-----+            +---+---+---+
//       | C   | D   |            | B'| D'| F'|
//       +-----+-----+            +---+---+---+
// Work-group (column tile, row tile, batch); local size (1,1,1), or (TILE, TILE/4, 1) with LOCAL_MEMORY.
__kernel void transpose(
    __global const int *x, const int x_offset,
    __global int *y, const int y_offset,
    const int rows, const int columns)
{
    const int first_column = get_group_id(0) * TILE;
    const int first_row = get_group_id(1) * TILE;
    const int batch = get_group_id(2);
    x += x_offset + batch * rows * columns;
    y += y_offset + batch * rows * columns;
#if LOCAL_MEMORY
    __local int tile[TILE][TILE + 1];           // one more column: reading a column touches every bank
    const int across = get_local_id(0);
    for (int down = get_local_id(1); down < TILE; down += TILE / 4)
        if (first_row + down < rows && first_column + across < columns)
            tile[down][across] = x[(first_row + down) * columns + first_column + across];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int down = get_local_id(1); down < TILE; down += TILE / 4)
        if (first_column + down < columns && first_row + across < rows)
            y[(first_column + down) * rows + first_row + across] = tile[across][down];
#else
    const int last_row = min(first_row + TILE, rows), last_column = min(first_column + TILE, columns);
    if (last_row - first_row == TILE && last_column - first_column == TILE) {
        for (int row = first_row; row < last_row; row += 4)
            for (int column = first_column; column < last_column; column += 4) {
                __global const int *from = x + row * columns + column;
                __global int *to = y + column * rows + row;
                const int4 a = load_quad(from), b = load_quad(from + columns), c = load_quad(from + 2 * columns), d = load_quad(from + 3 * columns);
                store_quad((int4)(a.s0, b.s0, c.s0, d.s0), to);
                store_quad((int4)(a.s1, b.s1, c.s1, d.s1), to + rows);
                store_quad((int4)(a.s2, b.s2, c.s2, d.s2), to + 2 * rows);
                store_quad((int4)(a.s3, b.s3, c.s3, d.s3), to + 3 * rows);
            }
        return;
    }
    for (int column = first_column; column < last_column; ++column)
        for (int row = first_row; row < last_row; ++row)
            y[column * rows + row] = x[row * columns + column];
#endif
}

// y[y_offset + i] = value; work-item g fills [g*span, (g+1)*span).
__kernel void fill(__global int *y, const int y_offset, const int count, const int value, const int span)
{
    const int first = get_global_id(0) * span;
    const int last = min(first + span, count);
    int i = first;
    for (; i + 8 <= last; i += 8)
        ((__global eight *)(y + y_offset + i))->lanes = (int8)(value);
    for (; i < last; ++i)
        y[y_offset + i] = value;
}
