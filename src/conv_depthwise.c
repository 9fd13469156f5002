/* depthwise: y[pixel, c] = epilogue(sum over taps of x[source(pixel, t), c] * w[t][c]), and its weight gradient.
 *
 * The vector runs along the channels. A tile of COLS output pixels shares its loads of x and w (depthwise_tile.h); the
 * pixels of x that it touches are found once for all channels, and those outside of x point to a line of zeros.
 *
 * Normalised as it is read, a row of x goes to scratch, where as many rows are kept as are seen at once:
 *
 *     x  row 3 4 5 6 7        kept: 4     [ 4 | 5 | 6 | 7 ]   row 8 will take the place of row 4
 *              [ seen  ]                                                                                             */
#include "conv.h"
#include "conv_epilogue.h"
#include "isa.h"
#include "normalise.h"

enum { DEPTHWISE_COLS = 4 }; /* of a full tile */
#define COLS_1(M) M(0)
#define COLS_2(M) COLS_1(M) M(1)
#define COLS_3(M) COLS_2(M) M(2)
#define COLS_4(M) COLS_3(M) M(3)

typedef void depthwise_tile(const struct depthwise_params *p, int64_t count, const float *const *columns, int64_t lines,
                            const float *weights, const float *bias, const float *residual, float *y);
typedef void depthwise_gradient_tile(int64_t count, int64_t channels, const float *const *columns, int64_t lines,
                                     const float *dy, int64_t col_stride, float *parts);

typedef void depthwise_gradient_pair_tile(int64_t count, int64_t channels, const float *const *columns, const float *dy,
                                          int64_t row_stride, int64_t col_stride, float *parts);

#define TAPS 1
#define STRIDE 1
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 3
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 5
#include "depthwise_tiles.h"
#undef STRIDE
#define STRIDE 2
#include "depthwise_tiles.h"
#undef TAPS
#define TAPS 3
#include "depthwise_tiles.h"
#undef TAPS
#undef STRIDE

struct depthwise_variant {
    int64_t taps, stride;
    depthwise_tile *tiles[DEPTHWISE_COLS + 1]; /* by number of columns */
    depthwise_gradient_tile *gradient_tiles[DEPTHWISE_COLS + 1];
    depthwise_tile *pair_tiles[DEPTHWISE_COLS + 1]; /* of two rows; or none */
    depthwise_gradient_pair_tile *gradient_pair_tiles[DEPTHWISE_COLS + 1];
};
#define TILES_OF(name, t, s) {0, name##_##t##_##s##_1, name##_##t##_##s##_2, name##_##t##_##s##_3, name##_##t##_##s##_4}
#define SINGLE(t, s) TILES_OF(depthwise, t, s), TILES_OF(depthwise_gradient, t, s)
#define VARIANT(t, s) {t, s, SINGLE(t, s), {0}, {0}}
#define VARIANT_3(s) {3, s, SINGLE(3, s), TILES_OF(depthwise_pair, 3, s), TILES_OF(depthwise_gradient_pair, 3, s)}
static const struct depthwise_variant depthwise_variants[] = {
    VARIANT_3(1), VARIANT_3(2), VARIANT(5, 1), VARIANT(5, 2), VARIANT(1, 1)};

/* The last variant, single taps, fits everything. */
static const struct depthwise_variant *depthwise_choose(const struct patch_geometry *g) {
    const struct depthwise_variant *variant = depthwise_variants;
    while (variant->taps != 1 &&
           !(variant->taps == g->tap_cols && variant->stride == g->col_step && g->tap_col_step == 1))
        variant++;
    return variant;
}

/* Steps first..last-1 of `count` whose position start + i * step lies in 0..size-1. */
static void steps_inside(int64_t start, int64_t step, int64_t count, int64_t size, int64_t *first, int64_t *last) {
    int64_t begin = 0, end = count;
    while (begin < end && (start + begin * step < 0 || start + begin * step >= size)) begin++;
    while (end > begin && (start + (end - 1) * step < 0 || start + (end - 1) * step >= size)) end--;
    *first = begin;
    *last = end;
}

/* Rows of an image of x that are normalised when they are first seen. */
struct normalised_rows {
    const float *table; /* see normalise.h; at the first channel of the task */
    int64_t table_stride, row_stride, col_stride;
    struct patch_geometry kept; /* of the rows in scratch, whose pixels have the channels of the task only */
    float *rows;
};

/* The pixels of x that the tiles of one grid row see. */
struct columns {
    const struct patch_geometry *geometry;
    const struct depthwise_variant *variant;
    const float *zeros;   /* what columns outside of x read */
    const float **pixels; /* lines of pointers */
    const float *x;       /* the image at the task's first channel */
    int64_t kept;         /* rows of it that there is memory for: row r lies at r modulo kept */
    int64_t first_row;    /* the first row, perhaps outside of x, of those that are pointed at */
    int64_t first_tap;    /* the number of its tap row */
    int64_t rows;         /* rows that are pointed at */
    int64_t inside, outside; /* the first of them inside of x, and the first after those */
    int64_t lines;        /* of pointers */
    int64_t next_tile;    /* the column after the full tile that the pointers belong to, if that was inside of x; or -1 */
    struct normalised_rows *normalised; /* what is kept are rows of x, normalised; or NULL */
    const float *image;   /* x itself, or NULL if it is not in memory */
    int64_t seen;         /* the end of those rows of it that were pointed at so far */
    int far;              /* whether images come from memory, as runs of whole rows all of which are seen */
};

/* Scratch: zeros for the channels of a task, then the pointers. */
static struct columns columns_start(const struct patch_geometry *g, int64_t channel_block, void *scratch) {
    const int64_t floats = conv_round(channel_block, CHUNK) + LINE_SLACK;
    memset(scratch, 0, (size_t)floats * sizeof(float));
    const int runs = channel_block >= g->channels && g->row_stride == g->cols * g->channels;
    const int all_seen = g->tap_row_step * g->tap_row_step == 1 && g->row_step <= g->tap_rows && g->tap_cols > 0;
    return (struct columns){.geometry = g, .variant = depthwise_choose(g), .kept = g->rows, .zeros = scratch,
                            .far = runs && all_seen && g->images * g->rows * g->row_stride >= FAR_FLOATS,
                            .pixels = (const float **)((float *)scratch + floats)};
}

/* Lets `columns`, of columns_start, see rows that are normalised with a table and kept in scratch. */
static void columns_normalise(struct columns *columns, struct normalised_rows *rows, const float *normaliser, int64_t channel,
                              int64_t count, int64_t channel_block, void *scratch) {
    const struct patch_geometry *g = columns->geometry;
    *rows = (struct normalised_rows){.table = normaliser + channel, .table_stride = g->channels, .row_stride = g->row_stride,
                                     .col_stride = g->col_stride, .kept = *g};
    rows->kept.col_stride = count;
    rows->kept.row_stride = g->cols * count;
    rows->rows = (float *)((char *)scratch + depthwise_columns_bytes(channel_block, g->tap_rows * g->tap_cols));
    columns->geometry = &rows->kept;
    columns->kept = depthwise_kept_rows(g);
    columns->normalised = rows;
}

/* Turns to an image of x, at the task's first channel. */
static void columns_see(struct columns *columns, const float *x) {
    struct normalised_rows *rows = columns->normalised;
    columns->x = rows ? rows->rows : x;
    if (columns->image == x) return;
    columns->image = x;
    columns->seen = 0;
}

/* Reads, and normalises, those of the rows begin..end-1 of the image that were not seen yet: row by row, as they lie in memory, before tiles of
 * several rows are read. */
static void rows_seen(struct columns *columns, int64_t begin, int64_t end) {
    const struct normalised_rows *rows = columns->normalised;
    const struct patch_geometry *g = columns->geometry;
    const int64_t row_stride = rows ? rows->row_stride : g->row_stride;
    for (int64_t row = max_i64(columns->seen, begin); row < min_i64(end, g->rows); row++) {
        const float *x = columns->image + row * row_stride;
        if (columns->far) touch(x, row_stride);
        if (rows)
            normalise_block(rows->table, rows->table_stride, x, rows->col_stride, g->cols, g->col_stride,
                            rows->rows + row % columns->kept * g->row_stride, g->col_stride, INT64_MAX / 2, 0, 1,
                            columns->far ? 0 : NORMALISED_AHEAD);
    }
    columns->seen = max_i64(columns->seen, end);
}

/* Turns to a grid row. Tap rows outside of x are left out. */
static void columns_turn(struct columns *columns, int64_t grid_row) {
    const struct patch_geometry *g = columns->geometry;
    const int64_t start = grid_row * g->row_step + g->tap_row_start;
    int64_t last;
    steps_inside(start, g->tap_row_step, g->tap_rows, g->rows, &columns->first_tap, &last);
    columns->first_row = start + columns->first_tap * g->tap_row_step;
    columns->rows = last - columns->first_tap;
    const int64_t reach = (g->tap_rows - 1) * g->tap_row_step;
    if (columns->image) rows_seen(columns, max_i64(0, start + min_i64(0, reach)), start + max_i64(0, reach) + 1);
    columns->inside = 0;
    columns->outside = columns->rows;
    columns->lines = columns->rows * (columns->variant->taps == 1 ? g->tap_cols : 1);
    columns->next_tile = -1;
}

/* Turns to two grid rows that see neighbouring rows of x; those outside of x stay, as zeros. */
static void columns_turn_pair(struct columns *columns, int64_t grid_row) {
    const struct patch_geometry *g = columns->geometry;
    const int64_t start = grid_row * g->row_step + g->tap_row_start;
    columns->first_tap = 0;
    columns->rows = columns->lines = g->tap_rows + g->row_step;
    steps_inside(start, 1, columns->rows, g->rows, &columns->inside, &columns->outside);
    columns->first_row = start;
    if (columns->image) rows_seen(columns, max_i64(0, start), start + columns->rows);
    columns->next_tile = -1;
}

/* Whether two grid rows at once have a tile. */
static int columns_pair(const struct columns *columns) {
    const struct patch_geometry *g = columns->geometry;
    return columns->variant->pair_tiles[1] && g->tap_rows == columns->variant->taps && g->tap_row_step == 1 &&
           g->row_step == columns->variant->stride;
}

/* Points at the pixels that output columns b .. b+cols-1 see, line by line. A tile inside of x that follows a full one of
 * the same kind moves all pointers by the same distance. */
static void columns_point(struct columns *columns, int64_t b, int64_t cols) {
    const struct patch_geometry *g = columns->geometry;
    const struct depthwise_variant *variant = columns->variant;
    const int single = variant->taps == 1;
    const int64_t line = (DEPTHWISE_COLS - 1) * variant->stride + variant->taps, inputs = (cols - 1) * variant->stride + variant->taps;
    const int64_t lines_per_row = single ? g->tap_cols : 1, step = single ? g->col_step : 1;
    const int64_t start = b * g->col_step + g->tap_col_start, reach = (g->tap_cols - 1) * g->tap_col_step;
    const int inside = start + min_i64(0, reach) >= 0 && start + (cols - 1) * g->col_step + max_i64(0, reach) < g->cols;
    if (inside && columns->next_tile == b) {
        const int64_t row_pointers = lines_per_row * line, distance = DEPTHWISE_COLS * g->col_step * g->col_stride;
        for (int64_t i = columns->inside * row_pointers; i < columns->outside * row_pointers; i++) columns->pixels[i] += distance;
    } else {
        const float **pixels = columns->pixels;
        for (int64_t r = 0; r < columns->rows; r++) {
            const int row_inside = r >= columns->inside && r < columns->outside;
            const float *row = row_inside ? columns->x + (columns->first_row + r * g->tap_row_step) % columns->kept * g->row_stride : NULL;
            for (int64_t s = 0; s < lines_per_row; s++, pixels += line) {
                const int64_t col = start + s * g->tap_col_step;
                if (row_inside && inside)
                    for (int64_t j = 0; j < inputs; j++) pixels[j] = row + (col + j * step) * g->col_stride;
                else
                    for (int64_t j = 0; j < inputs; j++)
                        pixels[j] = row_inside && col + j * step >= 0 && col + j * step < g->cols ? row + (col + j * step) * g->col_stride : columns->zeros;
            }
        }
    }
    columns->next_tile = inside && cols == DEPTHWISE_COLS ? b + cols : -1;
}

/* Grid rows row_begin..row_end-1 of `count` channels; weights, bias, residual and y are those of the first channel, y and
 * residual at the image. */
static void depthwise_rows(const struct depthwise_params *p, struct columns *columns, int64_t row_begin, int64_t row_end,
                           int64_t count, const float *weights, const float *bias, const float *residual, float *y) {
    const int pairs = columns_pair(columns);
    for (int64_t row = row_begin; row < row_end;) {
        const int pair = pairs && row + 1 < row_end;
        depthwise_tile *const *tiles = pair ? columns->variant->pair_tiles : columns->variant->tiles;
        if (pair)
            columns_turn_pair(columns, row);
        else
            columns_turn(columns, row);
        for (int64_t col = 0; col < p->grid_cols; col += DEPTHWISE_COLS) {
            const int64_t cols = min_i64(DEPTHWISE_COLS, p->grid_cols - col);
            const int64_t offset = row * p->out_row_stride + col * p->out_col_stride;
            columns_point(columns, col, cols);
            tiles[cols](p, count, columns->pixels, columns->lines, weights + columns->first_tap * p->tap_cols * p->channels,
                        bias, residual ? residual + offset : NULL, y + offset);
        }
        row += 1 + pair;
    }
}

/* normaliser: a table (see normalise.h) if x is normalised as it is read, or NULL. */
ALWAYS_INLINE void depthwise_task(const struct depthwise_params *p, void *const *buffers, const float *normaliser, int64_t task,
                                  void *scratch) {
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), row_blocks = ceil_div(p->grid_rows, p->row_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t count = min_i64(p->channel_block, p->channels - channel);
    const int64_t row_begin = task / channel_blocks % row_blocks * p->row_block;
    const int64_t row_end = min_i64(p->grid_rows, row_begin + p->row_block);
    const int64_t image = task / channel_blocks / row_blocks;
    const int64_t place = channel + p->out_offset + image * p->out_image_stride;
    const float *bias = buffers[2], *residual = buffers[3];

    struct columns columns = columns_start((const struct patch_geometry *)p, p->channel_block, scratch);
    struct normalised_rows rows;
    if (normaliser) columns_normalise(&columns, &rows, normaliser, channel, count, p->channel_block, scratch);
    columns_see(&columns, (const float *)buffers[0] + image * p->image_stride + channel);
    depthwise_rows(p, &columns, row_begin, row_end, count, (const float *)buffers[1] + channel, bias ? bias + channel : NULL,
                   residual ? residual + place : NULL, (float *)buffers[4] + place);
}

void KERNEL(depthwise)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    depthwise_task(params, buffers, NULL, task, scratch);
}

void KERNEL(depthwise_normalised)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    depthwise_task(params, buffers, buffers[5], task, scratch);
}

/* normaliser: as for depthwise_task. */
ALWAYS_INLINE void depthwise_weight_gradient_task(const struct depthwise_weight_gradient_params *p, void *const *buffers,
                                                  const float *normaliser, int64_t task, void *scratch) {
    const int64_t channel_blocks = ceil_div(p->channels, p->channel_block), taps = p->tap_rows * p->tap_cols;
    const int64_t channel = task % channel_blocks * p->channel_block, part = task / channel_blocks;
    const int64_t count = min_i64(p->channel_block, p->channels - channel), lines = p->images * p->grid_rows;

    const float *x = (const float *)buffers[0] + channel, *dy = (const float *)buffers[1] + p->out_offset + channel;
    float *parts = (float *)buffers[2] + part * taps * p->channels + channel;
    for (int64_t t = 0; t < taps; t++) memset(parts + t * p->channels, 0, (size_t)count * sizeof(float));

    struct columns columns = columns_start((const struct patch_geometry *)p, p->channel_block, scratch);
    struct normalised_rows rows;
    if (normaliser) columns_normalise(&columns, &rows, normaliser, channel, count, p->channel_block, scratch);
    const int pairs = columns_pair(&columns);
    const int64_t line_end = lines * (part + 1) / p->parts;
    for (int64_t line = lines * part / p->parts; line < line_end;) {
        const int64_t image = line / p->grid_rows, row = line % p->grid_rows;
        const int pair = pairs && line + 1 < line_end && row + 1 < p->grid_rows;
        const float *dy_row = dy + image * p->out_image_stride + row * p->out_row_stride;
        columns_see(&columns, x + image * p->image_stride);
        if (columns.far) touch_rows(dy_row, p->out_row_stride, 1 + pair, (p->grid_cols - 1) * p->out_col_stride + count);
        if (pair)
            columns_turn_pair(&columns, row);
        else
            columns_turn(&columns, row);
        for (int64_t col = 0; col < p->grid_cols; col += DEPTHWISE_COLS) {
            const int64_t cols = min_i64(DEPTHWISE_COLS, p->grid_cols - col);
            const float *dy_tile = dy_row + col * p->out_col_stride;
            columns_point(&columns, col, cols);
            if (pair)
                columns.variant->gradient_pair_tiles[cols](count, p->channels, columns.pixels, dy_tile, p->out_row_stride,
                                                           p->out_col_stride, parts);
            else
                columns.variant->gradient_tiles[cols](count, p->channels, columns.pixels, columns.lines, dy_tile,
                                                      p->out_col_stride, parts + columns.first_tap * p->tap_cols * p->channels);
        }
        line += 1 + pair;
    }
}

void KERNEL(depthwise_weight_gradient)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    depthwise_weight_gradient_task(params, buffers, NULL, task, scratch);
}

void KERNEL(depthwise_weight_gradient_normalised)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    depthwise_weight_gradient_task(params, buffers, buffers[3], task, scratch);
}
