/* weight_gradient: dw[o][t][i] = sum over pixels of dy[pixel, o] * x[source(pixel, t), i], and sum_parts.
 *
 *     task = out_block outs x red_block tap-channel positions, over one share of the pixels
 *       for each pixel_block                     copies of dy and of the patches stay in L2
 *         copy dy       [tile of outs][pixel][rows of the tile]
 *         copy patches  [panel of NR positions][pixel][NR]
 *         for each panel, for each tile of up to MR outs
 *           micro-kernel over the pixels of the block
 *
 * dy whose pixels lie at a fixed distance is not copied, nor is x whose patches are its pixels (1x1, stride 1), unless it is to be
 * normalised on the way.
 *
 * Every block is summed from zero and then added to the sums so far: two levels of summation keep the rounding error
 * far below that of one long chain over all pixels. */
#include "conv.h"
#include "isa.h"
#include "normalise.h"

/* The outs of a tile for the pixels of a block, one line after the other; target has LINE_SLACK. */
static void copy_outs(const struct weight_gradient_params *p, const float *dy, int64_t limit, int64_t pixel_begin,
                      int64_t pixels, int64_t rows, float *target) {
    struct pixel pixel = pixel_at((const struct patch_geometry *)p, pixel_begin);
    for (int64_t i = 0; i < pixels; i++, target += rows, pixel_next((const struct patch_geometry *)p, &pixel)) {
        int64_t offset = pixel.image * p->out_image_stride + pixel.row * p->out_row_stride + pixel.col * p->out_col_stride;
        line_copy_end(target, dy + offset, rows, limit - offset);
    }
}

/* normaliser: as for igemm_task. */
ALWAYS_INLINE void weight_gradient_task(const struct weight_gradient_params *p, void *const *buffers, const float *normaliser,
                                        int64_t task, void *scratch) {
    const struct patch_geometry *g = (const struct patch_geometry *)p;
    const int64_t reds = p->tap_rows * p->tap_cols * p->channels;
    const int64_t red_blocks = ceil_div(reds, p->red_block), out_blocks = ceil_div(p->outs, p->out_block);
    const int64_t red_begin = task % red_blocks * p->red_block;
    const int64_t out_begin = task / red_blocks % out_blocks * p->out_block;
    const int64_t part = task / red_blocks / out_blocks % p->parts;
    const int64_t group = task / red_blocks / out_blocks / p->parts;

    const int64_t red_end = min_i64(reds, red_begin + p->red_block), red_count = red_end - red_begin;
    const int64_t out_count = min_i64(p->out_block, p->outs - out_begin);
    const int64_t panels = ceil_div(red_count, NR), tiles = ceil_div(out_count, MR);
    const int64_t pixels = p->images * p->grid_rows * p->grid_cols, blocks = ceil_div(pixels, p->pixel_block);
    const int64_t pixel_begin = blocks * part / p->parts * p->pixel_block;
    const int64_t pixel_end = min_i64(pixels, blocks * (part + 1) / p->parts * p->pixel_block);

    float *outs_copy = scratch;
    float *patches = outs_copy + conv_round(p->pixel_block * p->out_block + LINE_SLACK, CHUNK);
    float *lines = patches + p->pixel_block * p->red_block;
    float *sums = lines + LINES * (p->red_block + LINE_SLACK);

    const int64_t first_out = group * p->outs + out_begin;
    const float *dy = (const float *)buffers[1] + p->out_offset + first_out;
    const int64_t dy_limit = (p->images - 1) * p->out_image_stride + (p->grid_rows - 1) * p->out_row_stride +
                             (p->grid_cols - 1) * p->out_col_stride + p->outs - out_begin;
    const struct patch_reader reader = patch_reader(g, buffers[0], group, p->red_block, lines);

    /* Pixels at a fixed distance from each other are read where they are. */
    const int dy_in_place = p->out_row_stride == p->grid_cols * p->out_col_stride &&
                            p->out_image_stride == p->grid_rows * p->out_row_stride && p->out_col_stride % ALIASING;
    const int x_is_lines = !normaliser && patch_is_pixel(g) && p->col_stride % ALIASING;
    const int64_t red_round = conv_round(red_count, VL);

    for (int64_t begin = pixel_begin; begin < pixel_end || begin == pixel_begin; begin += p->pixel_block) {
        const int64_t count = max_i64(0, min_i64(p->pixel_block, pixel_end - begin));
        for (int64_t tile = 0, first = 0; tile < tiles && !dy_in_place; tile++) {
            const int64_t rows = tile_rows(out_count, tiles, tile);
            copy_outs(p, dy + first, dy_limit - first, begin, count, rows, outs_copy + first * count);
            first += rows;
        }
        /* Vectors may reach into the next pixel's channels: what their last lanes sum up is dropped. */
        const int x_in_place = x_is_lines && (begin + count - 1) * p->col_stride + red_begin + red_round <= reader.limit;
        struct pixel pixel = pixel_at(g, begin);
        if (normaliser)
            normalise_block(normaliser + group * p->channels + red_begin, p->groups * p->channels,
                            reader.x + begin * p->col_stride + red_begin, p->col_stride, count, red_count, patches, NR, NR, count * NR, 0,
                            begin > pixel_begin ? 0 : NORMALISED_AHEAD);
        else if (!x_in_place) patches_read(&reader, &pixel, count, red_begin, red_end, patches, NR, count * NR, NR);

        for (int64_t panel = 0; panel < panels; panel++) {
            gemm_columns_tile *const *sizes = tiles_columns[ceil_div(min_i64(NR, red_count - panel * NR), VL)];
            for (int64_t tile = 0, first = 0; tile < tiles; tile++) {
                const int64_t rows = tile_rows(out_count, tiles, tile);
                float *total = sums + (panel * out_count + first) * NR;
                const float *positions = x_in_place ? reader.x + begin * p->col_stride + red_begin + panel * NR
                                                    : patches + panel * count * NR;
                const int64_t stride = x_in_place ? p->col_stride : NR;
                /* What is normalised next comes from memory while this is multiplied. */
                const int next = normaliser && tile == 0;
                sizes[rows](count, dy_in_place ? dy + begin * p->out_col_stride + first : outs_copy + first * count,
                            dy_in_place ? p->out_col_stride : rows, positions, stride, total, NR, begin > pixel_begin,
                            next ? reader.x + (begin + count) * p->col_stride + red_begin + panel * NR : positions + PANEL_AHEAD,
                            next ? p->col_stride : stride);
                first += rows;
            }
        }
    }

    float *target = (float *)buffers[2] + (part * p->groups * p->outs + first_out) * reds + red_begin;
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t out = 0; out < out_count; out++) {
            const float *source = sums + (panel * out_count + out) * NR;
            float *line_target = target + out * reds + panel * NR;
            const int64_t count = min_i64(NR, red_count - panel * NR);
            int64_t i = 0;
            for (; i + VL <= count; i += VL) vf_store(line_target + i, vf_load(source + i));
            if (i < count) vf_store_first(line_target + i, vf_load(source + i), count - i);
        }
}

void KERNEL(weight_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    weight_gradient_task(params, buffers, NULL, task, scratch);
}

void KERNEL(weight_gradient_normalised)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    weight_gradient_task(params, buffers, buffers[3], task, scratch);
}

void KERNEL(sum_parts)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct sum_parts_params *p = params;
    const float *parts = buffers[0];
    float *sum = buffers[1];
    const int64_t begin = task * SUM_PARTS_BLOCK, end = min_i64(p->count, begin + SUM_PARTS_BLOCK);
    for (int64_t i = begin; i < end; i += VL) {
        const int64_t lanes = min_i64(VL, end - i);
        vf total = {0};
        for (int64_t part = 0; part < p->parts; part++) {
            const float *source = parts + part * p->count + i;
            total += lanes == VL ? vf_load(source) : vf_load_first(source, lanes);
        }
        if (lanes == VL)
            vf_store(sum + i, total);
        else
            vf_store_first(sum + i, total, lanes);
    }
}
