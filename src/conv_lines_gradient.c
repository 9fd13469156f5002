/* weight_gradient_lines: the weight gradient where x has few channels (see conv_lines.c for how x is seen).
 *
 *     dw[r][position][o] = sum over lines, columns of  x[line, r][column * col_step * channels + position] * dy[line, column][o]
 *
 * position runs over the taps of a kernel row and their channels, which lie side by side in x. The vector runs along the
 * outs; a register tile is up to MR positions by NV vectors of outs, over the columns of a line. x and dy are read where
 * they are; every line is summed from zero and then added to the sums so far. */
#include "conv.h"
#include "isa.h"

void KERNEL(weight_gradient_lines)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct weight_gradient_lines_params *p = params;
    const struct patch_geometry *g = params;
    const int64_t positions = p->tap_cols * p->channels, reds = p->tap_rows * positions;
    const int64_t width = conv_round(p->outs, CHUNK), tiles = ceil_div(positions, MR), vectors = conv_round(p->outs, VL);
    const int64_t lines = p->images * p->grid_rows, distance = p->col_step * p->channels;
    const int64_t line_end = lines * (task + 1) / p->parts;
    const float *dy = (const float *)buffers[1] + p->out_offset;
    /* From this offset of a line on, the last vector of its last pixel would reach past the end of dy. */
    const int64_t dy_limit = (p->images - 1) * p->out_image_stride + (p->grid_rows - 1) * p->out_row_stride + p->outs - vectors;

    float *sums = scratch, *dy_copy = sums + reds * width, *band_scratch = dy_copy + p->grid_cols * width;
    memset(sums, 0, (size_t)(reds * width) * sizeof(float));
    for (int64_t begin = lines * task / p->parts; begin < line_end;) {
        const int64_t image = begin / p->grid_rows, row = begin % p->grid_rows;
        const int64_t count = min_i64(min_i64(line_end - begin, p->grid_rows - row), p->line_block);
        const struct band seen = band(g, (const float *)buffers[0] + image * p->image_stride, row, count, band_scratch);
        for (int64_t line = 0; line < count; line++) {
            const int64_t place = image * p->out_image_stride + (row + line) * p->out_row_stride;
            const float *dy_line = dy + place;
            int64_t dy_stride = p->out_col_stride;
            if (place > dy_limit) {
                for (int64_t col = 0; col < p->grid_cols; col++)
                    for (int64_t o = 0; o < p->outs; o += VL)
                        vf_store(dy_copy + col * width + o, vf_load_until(dy_line + col * dy_stride, o, p->outs));
                dy_line = dy_copy;
                dy_stride = width;
            }
            const float *source = seen.origin + line * p->row_step * seen.row_stride;
            float *target = sums;
            for (int64_t r = 0; r < p->tap_rows; r++, source += p->tap_row_step * seen.row_stride)
                for (int64_t tile = 0, first = 0; tile < tiles; tile++) {
                    const int64_t rows = tile_rows(positions, tiles, tile);
                    for (int64_t o = 0; o < p->outs; o += NR)
                        columns_tiles(min_i64(NR, p->outs - o))[rows](
                            p->grid_cols, source + first, distance, dy_line + o, dy_stride, target + o, width, 1,
                            dy_line + o + PANEL_AHEAD, dy_stride);
                    first += rows;
                    target += rows * width;
                }
        }
        begin += count;
    }

    float *dw = (float *)buffers[2] + task * p->outs * reds;
    for (int64_t o = 0; o < p->outs; o++)
        for (int64_t i = 0; i < reds; i++) dw[o * reds + i] = sums[i * width + o];
}
