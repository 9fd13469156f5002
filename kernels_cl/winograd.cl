// Transforms of Winograd's minimal filtering F(4x4, 3x3) for 3x3 convolutions with stride 1: a quarter of the multiplications
// (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016, section 4.3; points 0, 1, -1, 2, -2, infinity).
//
//   winograd_filters   g, 3x3       -> U = G g G^T       36 frequencies       panels [frequency][panel][reds][width], as of pack.cl
//   winograd_input     d, 6x6 of x  -> V = B^T d B       v [tile][frequency][channels]
//   conv_igemm         M = V U, frequencies as groups    m [tile][frequency][outs]
//   winograd_output    M            -> y = A^T M A, 4x4, with bias, residual and activation
//
//        x                            y                    tiles of y do not overlap, those of x by two rows and columns;
//      +---+---------+---+         +---------+---------+   tile (p, q) of an image reads x from row 4p - pad_top and
//      | t | i   l   | e |         |         |         |   column 4q - pad_left on; outside x is zero
//      |   | 0       |   | tile 1  | tile 0  | tile 1  |
//      +---+---------+---+         +---------+---------+
//
// A chunk of tiles, from first_tile on, is transformed, multiplied and transformed back before the next, so that v and m stay in a
// cache.  Work-item of input and output: (block of channels_per_item channels, tile of the chunk); 36 vectors do not fit the registers,
// so both directions of a transform go through private memory.
//
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation.cl"
#define FREQUENCIES 36

// B^T d for d0..d5; F(n, value) takes the results.
#define INPUT_LINE(F) { \
    const real even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, near = d4 - d2, far = 2.0f * (d3 - d1); \
    F(0, 4.0f * d0 - 5.0f * d2 + d4) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, near + far) \
    F(4, near - far) \
    F(5, 4.0f * d1 - 5.0f * d3 + d5) \
}

// A^T m for d0..d5.
#define OUTPUT_LINE(F) { \
    const real sum1 = d1 + d2, difference1 = d1 - d2, sum2 = d3 + d4, difference2 = d3 - d4; \
    F(0, d0 + sum1 + sum2) \
    F(1, difference1 + 2.0f * difference2) \
    F(2, sum1 + 4.0f * sum2) \
    F(3, difference1 + 8.0f * difference2 + d5) \
}

// G g for g0, g1, g2.
#define FILTER_LINE(F) { \
    const real even = (g0 + g2) * (1.0f / 6.0f), odd = g1 * (1.0f / 6.0f); \
    const real half_even = g0 * (1.0f / 24.0f) + g2 * (1.0f / 6.0f), half_odd = g1 * (1.0f / 12.0f); \
    F(0, g0 * 0.25f) \
    F(1, -even - odd) \
    F(2, odd - even) \
    F(3, half_even + half_odd) \
    F(4, half_even - half_odd) \
    F(5, g2) \
}

// Filter (out, i) has its tap (r, s) at source[source_offset + out*out_stride + i*red_stride + r*tap_row_stride + s*tap_column_stride].
// Work-item (block of reds_per_item reds, panel): width is a multiple of VEC.
__kernel void winograd_filters(
    __global const float *source, const int source_offset,
    __global float *panels, const int panels_offset,
    const int outs, const int reds, const int width,
    const int out_stride, const int red_stride, const int tap_row_stride, const int tap_column_stride, const int reds_per_item)
{
    const int panel = get_global_id(1), panel_count = (outs + width - 1) / width;
    const int first = get_global_id(0) * reds_per_item;
    const int last = min(first + reds_per_item, reds);
    const int vectors = width / VEC;

    // Filters of four reds: [red][tap][lane].
    float gathered[4 * 9 * VEC], half_done[18 * VEC];
    for (int work = 0; work < (last - first + 3) / 4 * vectors; ++work) {
        const int i = first + work / vectors * 4, first_lane = work % vectors * VEC;
        const int count = min(4, last - i);
        const int lanes = outs - panel * width - first_lane;
        __global const float *from = source + source_offset + (panel * width + first_lane) * out_stride + i * red_stride;
        __global float *result = panels + panels_offset + (panel * reds + i) * width + first_lane;
        if (lanes < VEC)
            for (int place = 0; place < 4 * 9 * VEC; ++place)
                gathered[place] = 0.0f;
        for (int tap = 0; tap < 9; ++tap) {
            __global const float *at = from + tap / 3 * tap_row_stride + tap % 3 * tap_column_stride;
            __private float *to = gathered + tap * VEC;
#if VEC >= 4
            if (red_stride == 1 && count == 4 && lanes >= VEC) {
                for (int lane = 0; lane < VEC; lane += 4) {
                    __global const float *line = at + lane * out_stride;
                    const float4 a = load_quad(line), b = load_quad(line + out_stride), c = load_quad(line + 2 * out_stride), d = load_quad(line + 3 * out_stride);
                    store_quad_private((float4)(a.s0, b.s0, c.s0, d.s0), to + lane);
                    store_quad_private((float4)(a.s1, b.s1, c.s1, d.s1), to + 9 * VEC + lane);
                    store_quad_private((float4)(a.s2, b.s2, c.s2, d.s2), to + 18 * VEC + lane);
                    store_quad_private((float4)(a.s3, b.s3, c.s3, d.s3), to + 27 * VEC + lane);
                }
                continue;
            }
#endif
            for (int red = 0; red < count; ++red) {
                if (out_stride == 1)
                    store_private(load_some(at + red * red_stride, lanes), to + red * 9 * VEC);
                else
                    for (int lane = 0; lane < min(lanes, VEC); ++lane)
                        to[red * 9 * VEC + lane] = at[red * red_stride + lane * out_stride];
            }
        }
        for (int red = 0; red < count; ++red) {
            for (int s = 0; s < 3; ++s) {
#define LOAD_ROW(r) const real g##r = load_private(gathered + (9 * red + 3 * r + s) * VEC);
                EACH(3, LOAD_ROW)
#define KEEP_ROW(n, value) store_private(value, half_done + (3 * n + s) * VEC);
                FILTER_LINE(KEEP_ROW)
            }
            for (int n = 0; n < 6; ++n) {
#define LOAD_COLUMN(r) const real g##r = load_private(half_done + (3 * n + r) * VEC);
                EACH(3, LOAD_COLUMN)
#define STORE_FREQUENCY(k, value) store(value, result + ((6 * n + k) * panel_count * reds + red) * width);
                FILTER_LINE(STORE_FREQUENCY)
            }
        }
    }
}

__kernel void winograd_input(
    __global const float *x, const int x_offset,
    __global float *v, const int v_offset,
    const int x_rows, const int x_columns, const int channels,
    const int tile_rows, const int tile_columns, const int pad_top, const int pad_left,
    const int first_tile, const int channels_per_item)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int tile = first_tile + (int)get_global_id(1);
    const int line = tile / tile_columns, image = line / tile_rows;
    const int first_row = 4 * (line - image * tile_rows) - pad_top, first_column = 4 * (tile - line * tile_columns) - pad_left;
    const int row_stride = x_columns * channels;
    const int inside = first_row >= 0 && first_row + 6 <= x_rows && first_column >= 0 && first_column + 6 <= x_columns;
    x += x_offset + (image * x_rows + first_row) * row_stride + first_column * channels;
    v += v_offset + (int)get_global_id(1) * FREQUENCIES * channels;

    float half_done[FREQUENCIES * VEC];
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        for (int s = 0; s < 6; ++s) {
            __global const float *at = x + s * channels + channel;
            real d0, d1, d2, d3, d4, d5;
            if (inside && lanes == VEC) {
#define LOAD_INSIDE(r) d##r = load(at + r * row_stride);
                EACH(6, LOAD_INSIDE)
            } else {
#define LOAD_CHECKED(r) \
                if ((uint)(first_row + r) < (uint)x_rows && (uint)(first_column + s) < (uint)x_columns) \
                    d##r = load_some(at + r * row_stride, lanes); \
                else \
                    d##r = (real)(0.0f);
                EACH(6, LOAD_CHECKED)
            }
#define KEEP_INPUT(n, value) store_private(value, half_done + (6 * n + s) * VEC);
            INPUT_LINE(KEEP_INPUT)
        }
        for (int n = 0; n < 6; ++n) {
#define LOAD_LINE(s) const real d##s = load_private(half_done + (6 * n + s) * VEC);
            EACH(6, LOAD_LINE)
#define STORE_INPUT(k, value) store_some(value, v + (6 * n + k) * channels + channel, lanes);
            INPUT_LINE(STORE_INPUT)
        }
    }
}

__kernel void winograd_output(
    __global const float *m, const int m_offset,
    __global const float *bias, const int bias_offset,
    __global const float *residual, const int residual_offset,
    __global float *y, const int y_offset,
    const int y_rows, const int y_columns, const int channels,
    const int tile_rows, const int tile_columns,
    const int first_tile, const int channels_per_item, const float alpha, const float beta)
{
    const int first_channel = get_global_id(0) * channels_per_item;
    const int last_channel = min(first_channel + channels_per_item, channels);
    const int tile = first_tile + (int)get_global_id(1);
    const int line = tile / tile_columns, image = line / tile_rows;
    const int first_row = 4 * (line - image * tile_rows), first_column = 4 * (tile - line * tile_columns);
    const int rows = min(4, y_rows - first_row), columns = min(4, y_columns - first_column);
    const int corner = ((image * y_rows + first_row) * y_columns + first_column) * channels;
    m += m_offset + (int)get_global_id(1) * FREQUENCIES * channels;

    float half_done[24 * VEC], results[4 * VEC];
    for (int channel = first_channel; channel < last_channel; channel += VEC) {
        const int lanes = min(last_channel - channel, VEC);
        const real bias_value = bias_offset >= 0 ? load_some(bias + bias_offset + channel, lanes) : (real)(0.0f);
        for (int s = 0; s < 6; ++s) {
#define LOAD_PRODUCT(r) const real d##r = load_some(m + (6 * r + s) * channels + channel, lanes);
            EACH(6, LOAD_PRODUCT)
#define KEEP_OUTPUT(n, value) store_private(value, half_done + (6 * n + s) * VEC);
            OUTPUT_LINE(KEEP_OUTPUT)
        }
        for (int n = 0; n < rows; ++n) {
            EACH(6, LOAD_LINE)
#define KEEP_RESULT(k, value) store_private(value, results + k * VEC);
            OUTPUT_LINE(KEEP_RESULT)
            for (int k = 0; k < columns; ++k) {
                const int place = corner + (n * y_columns + k) * channels + channel;
                real value = load_private(results + k * VEC) + bias_value;
                if (residual_offset >= 0)
                    value += load_some(residual + residual_offset + place, lanes);
                store_some(activate(value, alpha, beta), y + y_offset + place, lanes);
            }
        }
    }
}
