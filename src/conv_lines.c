/* conv_lines: convolutions whose kernel rows are runs of floats in x, read in place by the GEMM micro-kernel.
 *
 * With channels last, the taps of a kernel row and their channels lie side by side in x, and neighbouring output columns
 * see runs that are col_step pixels apart. A tile of output columns of one line is therefore a matrix product with x as
 * it is, one kernel row after the other:
 *
 *     3 channels, 3 taps, col_step 2      x   |r g b|r g b|r g b|r g b|r g b|r g b|r g b|
 *     column 0                                 ----------------- 9 floats
 *     column 1                                             -----------------
 *
 * igemm would gather 27 floats for each pixel, one by one; this reads every float of x from where it is. Where lines
 * reach over the borders of x, the rows that a task sees are copied once, with the padding around them. */
#include "conv.h"
#include "conv_epilogue.h"
#include "isa.h"

/* Rows of x around which there is padding where tiles need it. */
struct band {
    const float *origin; /* tap (0, 0) of column 0 of the first line */
    int64_t row_stride;
};

/* Rows first_row .. first_row+rows-1 of an image, columns first_col .. first_col+cols-1, zero outside of x. */
static void band_copy(const struct patch_geometry *g, const float *image, int64_t first_row, int64_t rows,
                      int64_t first_col, int64_t cols, float *target) {
    const int64_t begin = min_i64(max_i64(0, -first_col), cols);
    const int64_t end = max_i64(begin, min_i64(cols, g->cols - first_col));
    for (int64_t row = first_row; row < first_row + rows; row++, target += cols * g->channels) {
        const int inside = row >= 0 && row < g->rows;
        const int64_t left = (inside ? begin : cols) * g->channels, right = (inside ? end : cols) * g->channels;
        for (int64_t i = 0; i < left; i++) target[i] = 0;
        if (right > left) {
            const float *source = image + row * g->row_stride + (first_col + begin) * g->channels;
            for (int64_t i = 0; i < right - left; i += VL)
                vf_store_until(target + left, vf_load_until(source, i, right - left), i, right - left);
        }
        for (int64_t i = right; i < cols * g->channels; i++) target[i] = 0;
    }
}

/* What `lines` lines of the grid from `line` on see of an image: in place when all of that lies inside. */
static struct band band(const struct patch_geometry *g, const float *image, int64_t line, int64_t lines, float *scratch) {
    const int64_t rows = band_rows(g, lines), cols = band_cols(g), reach = (g->tap_rows - 1) * g->tap_row_step;
    const int64_t first_row = line * g->row_step + g->tap_row_start + min_i64(0, reach);
    struct band band;
    if (first_row >= 0 && first_row + rows <= g->rows && g->tap_col_start >= 0 && g->tap_col_start + cols <= g->cols) {
        band = (struct band){image + first_row * g->row_stride + g->tap_col_start * g->channels, g->row_stride};
    } else {
        band_copy(g, image, first_row, rows, g->tap_col_start, cols, scratch);
        band = (struct band){scratch, cols * g->channels};
    }
    band.origin += max_i64(0, -reach) * band.row_stride;
    return band;
}

void KERNEL(conv_lines)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct conv_lines_params *p = params;
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t line_blocks = ceil_div(p->grid_rows, p->line_block), panel_blocks = ceil_div(panels, p->panel_block);
    const int64_t line_begin = task % line_blocks * p->line_block;
    const int64_t line_end = min_i64(p->grid_rows, line_begin + p->line_block);
    const int64_t image = task / line_blocks % p->images;
    const int64_t panel_begin = task / line_blocks / p->images % panel_blocks * p->panel_block;
    const int64_t panel_end = min_i64(panels, panel_begin + p->panel_block);

    float *sums = scratch;
    const float *x = (const float *)buffers[0] + image * p->image_stride;
    const struct band seen = band(params, x, line_begin, line_end - line_begin, sums + TILE_FLOATS);

    const struct epilogue e = epilogue(p->activation, p->alpha, p->beta);
    const float *weights = buffers[1], *bias = buffers[2], *residual = buffers[3];
    const int64_t reds = p->tap_rows * p->tap_cols * p->channels;
    const int64_t tiles = ceil_div(p->grid_cols, most_rows(width)), distance = p->col_step * p->channels;
    const struct tile_rows layout = {.tiles = 1, .row_stride = distance, .chunk_stride = CHUNK, .segments = p->tap_rows,
                                     .segment_length = p->tap_cols * p->channels,
                                     .segment_stride = p->tap_row_step * seen.row_stride};
    int64_t offsets[MR];
    for (int64_t i = 0; i < MR; i++) offsets[i] = i * p->out_col_stride;
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const int64_t out = panel * width, lanes = min_i64(width, p->outs - out);
        gemm_rows_tile *const *sizes = rows_tiles(width, lanes);
        struct tile_end end = {.sums = sums, .sums_stride = width, .offsets = offsets, .lanes = lanes,
                               .bias = bias ? bias + out : NULL, .low = e.low, .high = e.high};
        for (int64_t line = line_begin; line < line_end; line++) {
            const float *a = seen.origin + (line - line_begin) * p->row_step * seen.row_stride;
            int64_t place = p->out_offset + image * p->out_image_stride + line * p->out_row_stride + out;
            for (int64_t tile = 0; tile < tiles; tile++) {
                const int64_t count = tile_rows(p->grid_cols, tiles, tile);
                float *y = (float *)buffers[4] + place;
                end.y = e.clips ? y : NULL;
                end.residual = residual ? residual + place : NULL;
                sizes[count](&layout, a, weights + panel * reds * width, width, &end);
                if (!e.clips) store_tile(e, sums, width, count, lanes, end.bias, end.residual, y, offsets);
                a += count * distance;
                place += count * p->out_col_stride;
            }
        }
    }
}
