/* expanded_depthwise: a 1x1 convolution and the depthwise convolution behind it, as one step (see conv.h).
 *
 *     task = row_block grid rows x channel_block channels of an image
 *       for each band of band_rows grid rows
 *         the rows of the expansion that it sees and the one before did not      a GEMM, from x to the task's scratch
 *         the grid rows                                                          depthwise, from there to y
 *
 *     rows of the expansion   0 1 2 3 4 5 6 7 ..        scratch has room for what a band sees; row r lies at r modulo that
 *     band 0 (3x3, stride 1)  * * *                     many, where it takes the place of one that no later band sees
 *     band 1                      + * * +
 *
 * The expansion, several times as wide as x and y, stays in a core's caches and is never written to memory. Rows are computed
 * twice only where two tasks meet. */
#include "conv.h"
#include "conv_epilogue.h"
#include "isa.h"

/* What a task computes of the expansion. */
struct expansion {
    const struct expanded_depthwise_params *params;
    const float *x;       /* the image */
    const float *weights; /* the panels of the task's channels */
    const float *bias;    /* of the task's channels, or NULL */
    int64_t count;        /* channels */
    int64_t kept;         /* rows that there is room for */
    int64_t left, cols;   /* zeros before the pixels of such a row, and all its columns */
    int64_t line;         /* floats of a pixel there */
    int64_t *offsets;     /* of pixels */
    float *sums, *rows;
};

/* Rows row_begin..row_end-1, no more than are kept. */
static void expand_rows(const struct expansion *to, int64_t row_begin, int64_t row_end) {
    const struct expanded_depthwise_params *p = to->params;
    const struct epilogue e = epilogue(p->expand_activation, p->expand_alpha, p->expand_beta);
    const int64_t width = p->panel_width, pixels = (row_end - row_begin) * p->cols, tiles = ceil_div(pixels, most_rows(width));
    struct tile_rows layout = {.row_stride = p->reds, .chunk_stride = CHUNK, .segments = 1, .segment_length = p->reds};
    const float *x = to->x + row_begin * p->row_stride;
    int64_t *offset = to->offsets;
    for (int64_t row = row_begin; row < row_end; row++)
        for (int64_t col = 0; col < p->cols; col++) *offset++ = (row % to->kept * to->cols + to->left + col) * to->line;
    for (int64_t channel = 0; channel < to->count; channel += width) {
        const int64_t lanes = min_i64(width, to->count - channel);
        const float *bias = to->bias ? to->bias + channel : NULL;
        float *y = to->rows + channel;
        gemm_rows_tile *const *sizes = rows_tiles(width, lanes);
        struct tile_end end = {.sums = to->sums, .sums_stride = width, .lanes = lanes, .low = e.low, .high = e.high, .bias = bias,
                               .y = e.clips ? y : NULL};
        for (int64_t tile = 0, first = 0; tile < tiles; tile += layout.tiles) {
            const int64_t rows = tile_rows(pixels, tiles, tile);
            layout.tiles = e.clips ? tiles_alike(pixels, tiles, tile) : 1;
            layout.tile_stride = rows * p->reds;
            end.offsets = to->offsets + first;
            sizes[rows](&layout, x + first * p->reds, to->weights + channel * p->reds, width, &end);
            if (!e.clips) store_tile(e, end.sums, width, rows, lanes, bias, NULL, y, end.offsets);
            first += rows * layout.tiles;
        }
    }
}

void KERNEL(expanded_depthwise)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    const struct expanded_depthwise_params *p = params;
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), row_blocks = ceil_div(p->grid_rows, p->row_block);
    const int64_t channel = task % channel_blocks * p->channel_block, count = min_i64(p->channel_block, p->channels - channel);
    const int64_t row_begin = task / channel_blocks % row_blocks * p->row_block, row_end = min_i64(p->grid_rows, row_begin + p->row_block);
    const int64_t image = task / channel_blocks / row_blocks;
    const int64_t place = channel + p->out_offset + image * p->out_image_stride;
    const float *expand_bias = buffers[2], *bias = buffers[4], *residual = buffers[5];

    const int64_t kept = expanded_depthwise_kept(p), left = expanded_depthwise_left(p), right = expanded_depthwise_right(p);
    const int64_t cols = left + p->cols + right, line = conv_round(p->channel_block, CHUNK);
    float *sums = scratch, *rows = sums + TILE_FLOATS;
    int64_t *offsets = (int64_t *)(rows + kept * cols * line);
    const struct expansion expansion = {
        .params = p, .x = (const float *)buffers[0] + image * p->image_stride, .weights = (const float *)buffers[1] + channel * p->reds,
        .bias = expand_bias ? expand_bias + channel : NULL, .count = count, .kept = kept, .left = left, .cols = cols, .line = line,
        .offsets = offsets, .sums = sums, .rows = rows};
    for (int64_t row = 0; row < kept; row++) {
        memset(rows + row * cols * line, 0, (size_t)(left * line) * sizeof(float));
        memset(rows + (row * cols + left + p->cols) * line, 0, (size_t)(right * line) * sizeof(float));
    }

    /* The depthwise convolution sees the rows that are kept. */
    const struct depthwise_params depthwise = {
        .images = 1, .rows = p->rows, .cols = cols, .row_stride = cols * line, .col_stride = line, .groups = 1, .channels = p->channels,
        .grid_rows = p->grid_rows, .grid_cols = p->grid_cols, .row_step = p->row_step, .col_step = p->col_step, .tap_rows = p->tap_rows,
        .tap_cols = p->tap_cols, .tap_row_start = p->tap_row_start, .tap_col_start = p->tap_col_start + left,
        .tap_row_step = p->tap_row_step, .tap_col_step = p->tap_col_step, .out_row_stride = p->out_row_stride,
        .out_col_stride = p->out_col_stride, .activation = p->activation, .alpha = p->alpha, .beta = p->beta};
    struct columns columns = columns_start((const struct patch_geometry *)&depthwise, p->channel_block, offsets + conv_round(kept * p->cols, 8));
    columns.x = rows;
    columns.kept = kept;

    int64_t expanded = 0;
    for (int64_t row = row_begin; row < row_end; row += p->band_rows) {
        const int64_t end = min_i64(row_end, row + p->band_rows), first = row * p->row_step + p->tap_row_start;
        const int64_t seen = min_i64(p->rows, first + band_rows((const struct patch_geometry *)p, end - row));
        expanded = max_i64(expanded, first);
        if (seen > expanded) expand_rows(&expansion, expanded, seen);
        expanded = max_i64(expanded, seen);
        depthwise_rows(&depthwise, &columns, row, end, count, (const float *)buffers[3] + channel, bias ? bias + channel : NULL,
                       residual ? residual + place : NULL, (float *)buffers[6] + place);
    }
}
