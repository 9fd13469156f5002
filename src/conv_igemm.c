/* igemm: the implicit GEMM over taps, behind convolutions, input gradients and matrix products (see conv.h).
 *
 *     task = pixel_block pixels x panel_block panels of a group
 *       for each block of the reduction                   pixels * reduction_block stays in L2
 *         for each panel                                  comes from memory once a task, stays in L1 or L2
 *           for each tile of some pixels                  its patches are copied when the first panel meets them
 *             micro-kernel, and after the last block the epilogue
 *
 * A copied patch is used by all panels of the task; in return the micro-kernel knows nothing of taps and borders. Where
 * patches are simply the pixels of x (1x1, stride 1), copying would cost as much as 16 outs, and the tiles read x in
 * place, unless they are to be normalised on the way. Sums of different reduction blocks are added in order. */
#include "conv.h"
#include "conv_epilogue.h"
#include "isa.h"
#include "normalise.h"

/* y = act(sums + bias + residual) for `rows` pixels by `count` outs. bias and residual may be NULL. */
static void store_tile(struct epilogue e, const float *sums, int64_t sums_stride, int64_t rows, int64_t count,
                       const float *bias, const float *residual, float *y, const int64_t *offsets) {
    for (int64_t o = 0; o < count; o += VL) {
        const vf added = bias ? vf_load_until(bias, o, count) : (vf){0};
        for (int64_t row = 0; row < rows; row++) {
            vf value = vf_load_until(sums + row * sums_stride, o, count) + added;
            if (residual) value += vf_load_until(residual + offsets[row], o, count);
            vf_store_until(y + offsets[row], finish(e, value), o, count);
        }
    }
}

static void pixel_offsets(const struct igemm_params *p, int64_t begin, int64_t count, int64_t *offsets) {
    for (int64_t line = begin / p->grid_cols, col = begin % p->grid_cols; count > 0; line++, col = 0) {
        const int64_t cols = min_i64(count, p->grid_cols - col), stride = p->out_col_stride;
        const int64_t place = p->out_offset + line / p->grid_rows * p->out_image_stride + line % p->grid_rows * p->out_row_stride + col * stride;
        for (int64_t i = 0; i < cols; i++) offsets[i] = place + i * stride;
        offsets += cols;
        count -= cols;
    }
}

/* normaliser: a table (see normalise.h) if x is normalised as it is read, which takes patches that are pixels; or NULL. */
ALWAYS_INLINE void igemm_task(const struct igemm_params *p, void *const *buffers, const float *normaliser, int64_t task,
                              void *scratch) {
    const struct patch_geometry *g = (const struct patch_geometry *)p;
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t pixels = p->images * p->grid_rows * p->grid_cols, pixel_blocks = ceil_div(pixels, p->pixel_block);
    const int64_t panel_blocks = ceil_div(panels, p->panel_block);
    const int64_t reds = p->tap_rows * p->tap_cols * p->channels;

    /* Neighbouring tasks share their panels. */
    const int64_t pixel_begin = task % pixel_blocks * p->pixel_block;
    const int64_t count = min_i64(p->pixel_block, pixels - pixel_begin);
    const int64_t panel_begin = task / pixel_blocks % panel_blocks * p->panel_block;
    const int64_t panel_end = min_i64(panels, panel_begin + p->panel_block);
    const int64_t group = task / pixel_blocks / panel_blocks;

    const float *weights = (const float *)buffers[1] + group * panels * reds * width;
    const float *bias = buffers[2], *residual = buffers[3];
    float *y = buffers[4];

    int64_t *offsets = scratch;
    float *packed = (float *)scratch + conv_round(2 * p->pixel_block, CHUNK);
    const int64_t block = conv_round(min_i64(reds, p->reduction_block), CHUNK);
    float *lines = packed + p->pixel_block * block, *sums = lines + LINES * (block + LINE_SLACK);
    const int blocked = reds > p->reduction_block;

    const int in_place = !normaliser && patch_is_pixel(g) && p->col_stride % ALIASING;
    const float *x = (const float *)buffers[0] + group * p->channels + pixel_begin * p->col_stride;
    const struct epilogue e = epilogue(p->activation, p->alpha, p->beta);
    const struct patch_reader reader = patch_reader(g, buffers[0], group, block, lines);
    const int64_t tiles = ceil_div(count, most_rows(width));
    pixel_offsets(p, pixel_begin, count, offsets);
    int64_t k_begin = 0;
    do {
        const int64_t k_end = min_i64(reds, k_begin + p->reduction_block), k_count = k_end - k_begin;
        const int64_t row_floats = conv_round(k_count, CHUNK);
        struct pixel pixel = pixel_at(g, pixel_begin);
        for (int64_t panel = panel_begin; panel < panel_end; panel++) {
            const int64_t out = panel * width, lanes = min_i64(width, p->outs - out);
            gemm_rows_tile *const *sizes = rows_tiles(width, lanes);
            const int64_t channel = group * p->outs + out;
            struct tile_end end = {.sums_stride = width, .accumulate = k_begin > 0, .lanes = lanes,
                                   .low = e.low, .high = e.high, .bias = bias ? bias + channel : NULL,
                                   .residual = residual ? residual + channel : NULL,
                                   .y = k_end == reds && e.clips ? y + channel : NULL};
            /* Tiles come one by one where each is copied first, or has its sums finished here. */
            const int copied = panel == panel_begin && !in_place, finished = k_end == reds && !e.clips;
            struct tile_rows layout = {.row_stride = in_place ? p->col_stride : CHUNK, .segments = 1, .segment_length = k_count};
            for (int64_t tile = 0, first = 0; tile < tiles; tile += layout.tiles) {
                const int64_t rows = tile_rows(count, tiles, tile);
                const float *a = in_place ? x + first * p->col_stride + k_begin : packed + first * row_floats;
                layout.tiles = copied || finished ? 1 : tiles_alike(count, tiles, tile);
                layout.tile_stride = rows * (in_place ? p->col_stride : row_floats);
                layout.chunk_stride = in_place ? CHUNK : rows * CHUNK;
                if (copied && normaliser) {
                    /* While a tile of many channels is multiplied, the next one is fetched; others are done before that. */
                    const int many = rows * p->col_stride >= NORMALISED_AHEAD / 4;
                    layout.next = many ? x + (first + rows) * p->col_stride + k_begin : NULL;
                    layout.next_stride = p->col_stride;
                    normalise_block(normaliser + group * p->channels + k_begin, p->groups * p->channels,
                                    x + first * p->col_stride + k_begin, p->col_stride, rows, k_count, packed + first * row_floats,
                                    CHUNK, CHUNK, rows * CHUNK, 0, many ? 0 : NORMALISED_AHEAD);
                } else if (copied && k_count)
                    patches_read(&reader, &pixel, rows, k_begin, k_end, packed + first * row_floats, CHUNK, rows * CHUNK, CHUNK);
                end.sums = sums + (blocked ? ((panel - panel_begin) * count + first) * width : 0);
                end.offsets = offsets + first;
                sizes[rows](&layout, a, weights + (panel * reds + k_begin) * width, width, &end);
                if (finished)
                    store_tile(e, end.sums, width, rows, lanes, end.bias, end.residual, y + channel, offsets + first);
                first += rows * layout.tiles;
            }
        }
        k_begin = k_end;
    } while (k_begin < reds);
}

void KERNEL(igemm)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    igemm_task(params, buffers, NULL, task, scratch);
}

void KERNEL(igemm_normalised)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    igemm_task(params, buffers, buffers[5], task, scratch);
}
