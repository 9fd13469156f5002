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
__kernel void pack(
    __global const float *source, const int source_offset,
    __global float *panels, const int panels_offset,
    __global const int *tap_index,
    const int group_stride, const int out_stride, const int tap_stride, const int red_stride,
    const int tap_count, const int reds, const int outs, const int width, const int span)
{
    const int tap = get_global_id(1);
    const int group_panels = (outs + width - 1) / width;
    const int group = get_global_id(2) / group_panels;
    const int first_out = (get_global_id(2) % group_panels) * width;
    const int elements = reds * width;
    const int first = get_global_id(0) * span;
    const int last = min(first + span, elements);

    __global const float *from = source + source_offset + group * group_stride + first_out * out_stride + tap_index[tap] * tap_stride;
    __global float *to = panels + panels_offset + ((int)get_global_id(2) * tap_count + tap) * elements;
    const int lanes = min(outs - first_out, width);
    int i = first / width, lane = first % width;
    for (int element = first; element < last; ++element) {
        to[element] = lane < lanes ? from[lane * out_stride + i * red_stride] : 0.0f;
        if (++lane == width) { lane = 0; ++i; }
    }
}
