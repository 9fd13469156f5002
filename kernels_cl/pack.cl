// Packs a strided matrix (or a stack of them, one a tap and group) into the panels that conv_igemm.cl streams: forward weights, the
// flipped and transposed weights of an input gradient, B or its transpose of a matmul.
//
//   panels[group][panel][tap][i][lane] = source[source_offset + group*group_stride + out*out_stride + tap_index[tap]*tap_stride
//                                               + i*red_stride]       with out = panel*width + lane; zero where out >= outs
//
// Strides are in floats and may be negative.  Work-item (item, tap, group*panels + panel): `span` consecutive elements of the
// [reds][width] matrix of that tap and panel; neighbouring work-items write neighbouring elements.
//
//        source, one tap                        panel 0        panel 1 (zero filled)
//        o=0  | i=0 i=1 i=2 ... |               i=0 | o0 o1 |   i=0 | o2 0 |
//        o=1  |                 |      ->       i=1 | o0 o1 |   i=1 | o2 0 |
//        o=2  |                 |               ...             ...
//
// Whole lines of a panel (span a multiple of width, as CPUs have it) go faster where the source is dense in one direction:
// along the outputs by vector copies, along i by squares of 4 x 4, LINE floats of four outputs at a time; element by element the
// source's lines, often a multiple of 4 KiB apart, would push each other out of the cache before they are read to the end.
#include "vectors.cl"
#define LINE 16     // floats of a cache line

// y[m][0..4) = x[0..4)[m]: rows of x lie x_stride apart, rows of y y_stride.
inline void transpose_square(__global const float *x, const int x_stride, __global float *y, const int y_stride) {
    const float4 a = load_quad(x), b = load_quad(x + x_stride), c = load_quad(x + 2 * x_stride), d = load_quad(x + 3 * x_stride);
    store_quad((float4)(a.s0, b.s0, c.s0, d.s0), y);
    store_quad((float4)(a.s1, b.s1, c.s1, d.s1), y + y_stride);
    store_quad((float4)(a.s2, b.s2, c.s2, d.s2), y + 2 * y_stride);
    store_quad((float4)(a.s3, b.s3, c.s3, d.s3), y + 3 * y_stride);
}

__kernel void pack(
    __global const float *source, const int source_offset,
    __global float *panels, const int panels_offset,
    __global const int *tap_index,
    const int group_stride, const int out_stride, const int tap_stride, const int red_stride,
    const int tap_count, const int reds, const int outs, const int width, const int span)
{
    const int tap = get_global_id(1);
    const int group_panels = (outs + width - 1) / width;
    const int group = (int)get_global_id(2) / group_panels;
    const int first_out = ((int)get_global_id(2) - group * group_panels) * width;
    const int elements = reds * width;
    const int first = get_global_id(0) * span;
    const int last = min(first + span, elements);

    __global const float *from = source + source_offset + group * group_stride + first_out * out_stride + tap_index[tap] * tap_stride;
    __global float *to = panels + panels_offset + ((int)get_global_id(2) * tap_count + tap) * elements;
    const int lanes = min(outs - first_out, width);
    int i = first / width, lane = first - i * width;
    const int lines = last / width;             // whole lines from i on, when the item starts at a line
    if (lane == 0 && width % VEC == 0 && out_stride == 1) {
        for (; i < lines; ++i)
            for (int v = 0; v < width; v += VEC)
                store(v < lanes ? load_some(from + i * red_stride + v, lanes - v) : (real)(0.0f), to + i * width + v);
    } else if (lane == 0 && lanes == width && width % 4 == 0 && red_stride == 1) {
        for (; i + LINE <= lines; i += LINE)
            for (int v = 0; v < width; v += 4)
                for (int m = 0; m < LINE; m += 4)
                    transpose_square(from + v * out_stride + i + m, out_stride, to + (i + m) * width + v, width);
    }
    for (int element = i * width + lane; element < last; ++element) {
        to[element] = lane < lanes ? from[lane * out_stride + i * red_stride] : 0.0f;
        if (++lane == width) { lane = 0; ++i; }
    }
}
