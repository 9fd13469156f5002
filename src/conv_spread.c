/* spread_lines: the input gradient of a convolution whose input has few channels.
 *
 * A pixel of dy reaches, in each of tap_rows rows of dx, a run of tap_cols * channels floats. A line of dx is the sum of the
 * runs of its pixels, which begin `channels` floats apart:
 *
 *     3 channels, 3 taps      dx  |r g b|r g b|r g b|r g b|r g b|r g b|
 *     pixel 0 of dy                ----------------- 9 floats
 *     pixel 1                            -----------------
 *
 * The runs are a matrix product, pixels by (rows of taps, outs), with the run along the vector: full where the channels
 * alone would leave most lanes empty. Every pixel is multiplied once, none for the padding around it. */
#include "conv.h"
#include "isa.h"

void KERNEL(spread_lines)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct spread_lines_params *p = params;
    const int64_t width = p->panel_width, run = p->tap_cols * p->channels, panels = ceil_div(run, width);
    const int64_t tiles = ceil_div(p->grid_cols, most_rows(width)), dy_row = p->grid_cols * p->outs, floats = p->cols * p->channels;
    const int64_t end = min_i64(p->images * p->rows, (task + 1) * p->line_block);
    float *sums = scratch, *line = sums + TILE_FLOATS;
    struct tile_rows layout = {.tiles = 1, .row_stride = p->outs, .chunk_stride = CHUNK, .segment_length = p->outs, .segment_stride = -dy_row};
    const struct tile_end to_sums = {.sums = sums, .sums_stride = width};
    for (int64_t i = task * p->line_block; i < end; i++) {
        const int64_t image = i / p->rows, row = i % p->rows + p->pad_top;
        const int64_t first = max_i64(0, row - p->grid_rows + 1), last = min_i64(p->tap_rows, row + 1);
        const float *dy = (const float *)buffers[0] + (image * p->grid_rows + row - first) * dy_row;
        layout.segments = max_i64(0, last - first);
        memset(line, 0, (size_t)spread_line_floats(p) * sizeof(float));
        for (int64_t panel = 0; panel < panels && layout.segments; panel++) {
            const float *weights = (const float *)buffers[1] + (panel * p->tap_rows + first) * p->outs * width;
            const int64_t lanes = min_i64(width, run - panel * width);
            gemm_rows_tile *const *sizes = rows_tiles(width, lanes);
            for (int64_t tile = 0, col = 0; tile < tiles; tile++) {
                const int64_t count = tile_rows(p->grid_cols, tiles, tile);
                sizes[count](&layout, dy + col * p->outs, weights, width, &to_sums);
                for (int64_t t = 0; t < count; t++, col++) {
                    float *target = line + col * p->channels + panel * width;
                    for (int64_t k = 0; k < lanes; k += VL)
                        vf_store_until(target, vf_load_until(target, k, lanes) + vf_load(sums + t * width + k), k, lanes);
                }
            }
        }
        const float *inside = line + p->pad_left * p->channels;
        float *dx = (float *)buffers[2] + i * floats;
        for (int64_t k = 0; k < floats; k += VL) vf_store_until(dx, vf_load_until(inside, k, floats), k, floats);
    }
}
