/* Copies the patch of x that an output pixel sees into the packed layouts of the GEMM micro-kernel.
 *
 * A patch is the line of taps * channels floats that a pixel multiplies with the weights. It is cut into chunks:
 *
 *     float k of the patch  ->  target[(k / chunk) * chunk_stride + k % chunk]
 *
 *     igemm:            chunk = CHUNK, chunk_stride = rows * CHUNK      [chunk][row of the tile][CHUNK]
 *     weight_gradient:  chunk = NR,    chunk_stride = pixels * NR      [panel][pixel][NR]
 *
 * Padding is never in memory: taps outside of x are written as zeros here. Taps of one kernel row that are neighbours
 * in x (no dilation, all channels) are one run of floats, so that a first layer with 1 or 3 channels copies a few
 * runs instead of many crumbs. */
#include "conv.h"
#include "isa.h"
#include "vec_basic.h"

struct patch_reader {
    const struct patch_geometry *geometry;
    const float *x;                         /* first channel of the group */
    int64_t limit;                          /* floats that may be read from x on */
    int64_t reds;                           /* floats of a patch */
    int64_t runs_per_row;                   /* runs of a tap row: 1, or tap_cols */
    int64_t taps_per_run;                   /* tap_cols, or 1 */
    int64_t run_length;                     /* floats of a run */
    int64_t row_low, row_high;              /* lowest and highest row of the taps, relative to the first one's row */
    int64_t col_low, col_high;
    float *lines;                           /* LINES lines of line_stride floats */
    int64_t line_stride;
};

struct pixel {
    int64_t image, row, col; /* of the grid */
};

static struct pixel pixel_at(const struct patch_geometry *g, int64_t index) {
    int64_t line = index / g->grid_cols;
    return (struct pixel){line / g->grid_rows, line % g->grid_rows, index % g->grid_cols};
}

static inline void pixel_next(const struct patch_geometry *g, struct pixel *p) {
    if (++p->col < g->grid_cols) return;
    p->col = 0;
    if (++p->row < g->grid_rows) return;
    p->row = 0;
    p->image++;
}

/* Whether the patches of all pixels are pixels of x, one after the other: 1x1, stride 1, not padded. */
static int patch_is_pixel(const struct patch_geometry *g) {
    return g->tap_rows == 1 && g->tap_cols == 1 && g->tap_row_start == 0 && g->tap_col_start == 0 && g->row_step == 1 &&
           g->col_step == 1 && g->grid_rows == g->rows && g->grid_cols == g->cols &&
           g->row_stride == g->cols * g->col_stride && g->image_stride == g->rows * g->row_stride;
}

/* Pixels so many floats apart (4 KiB) share one set of an L1 cache, which a tile of them would overflow. */
enum { ALIASING = 1024 };

/* `block`: the most floats of a patch that are read at once. */
static struct patch_reader patch_reader(const struct patch_geometry *g, const float *x, int64_t group, int64_t block,
                                        float *lines) {
    struct patch_reader reader = {.geometry = g, .x = x + group * g->channels, .lines = lines};
    const int neighbours = g->tap_col_step == 1 && g->col_stride == g->channels;
    const int64_t last_row = (g->tap_rows - 1) * g->tap_row_step, last_col = (g->tap_cols - 1) * g->tap_col_step;
    reader.taps_per_run = neighbours ? g->tap_cols : 1;
    reader.runs_per_row = neighbours ? 1 : g->tap_cols;
    reader.run_length = reader.taps_per_run * g->channels;
    reader.reds = g->tap_rows * g->tap_cols * g->channels;
    reader.row_low = min_i64(0, last_row);
    reader.row_high = max_i64(0, last_row);
    reader.col_low = min_i64(0, last_col);
    reader.col_high = max_i64(0, last_col);
    reader.limit = (g->images - 1) * g->image_stride + (g->rows - 1) * g->row_stride + (g->cols - 1) * g->col_stride +
                   g->channels;
    reader.line_stride = block + LINE_SLACK;
    return reader;
}

/* Short runs are moved four floats at a time: wide stores at odd places would mostly straddle two cache lines. */
typedef float line_quad __attribute__((vector_size(16), aligned(4), may_alias));
enum { LINE_QUAD = 4 };

/* These write up to LINE_QUAD - 1 floats past the end: lines are written in ascending order and have LINE_SLACK. line_copy
 * reads so many floats too much as well, unless the source ends there. */
ALWAYS_INLINE void line_zero(float *target, int64_t count) {
    for (int64_t i = 0; i < count; i += LINE_QUAD) *(line_quad *)(target + i) = (line_quad){0};
}

ALWAYS_INLINE void line_copy(float *target, const float *source, int64_t count) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(target + i, vf_load(source + i));
    for (; i < count; i += LINE_QUAD) *(line_quad *)(target + i) = *(const line_quad *)(source + i);
}

ALWAYS_INLINE void line_copy_end(float *target, const float *source, int64_t count, int64_t readable) {
    if (conv_round(count, LINE_QUAD) <= readable) {
        line_copy(target, source, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) target[i] = source[i];
}

/* A contiguous source to its chunks; the last chunk is filled up with zeros. */
ALWAYS_INLINE void chunks_copy(float *target, int64_t chunk, int64_t chunk_stride, const float *source,
                                      int64_t count) {
    for (; count >= chunk; count -= chunk, source += chunk, target += chunk_stride)
        for (int64_t i = 0; i < chunk; i += VL) vf_store(target + i, vf_load(source + i));
    if (count == 0) return;
    for (int64_t i = 0; i < chunk; i += VL)
        vf_store(target + i, vf_load_first(source + i, max_i64(0, min_i64(VL, count - i))));
}

ALWAYS_INLINE void chunks_zero(float *target, int64_t chunk, int64_t chunk_stride, int64_t count) {
    for (; count > 0; count -= chunk, target += chunk_stride)
        for (int64_t i = 0; i < chunk; i += VL) vf_store(target + i, (vf){0});
}

/* Floats begin..end of a pixel's patch: to their chunks when channels are whole chunks (direct), otherwise to a line. */
ALWAYS_INLINE void patch_read(const struct patch_reader *reader, struct pixel pixel, int64_t begin, int64_t end,
                                     float *target, int64_t chunk_stride, const int64_t chunk, const int direct) {
    const struct patch_geometry *g = reader->geometry;
    const int64_t length = reader->run_length, first_row = pixel.row * g->row_step + g->tap_row_start;
    const int64_t first_col = pixel.col * g->col_step + g->tap_col_start;
    const int64_t origin = pixel.image * g->image_stride + first_row * g->row_stride + first_col * g->col_stride;
    const int inside = first_row + reader->row_low >= 0 && first_row + reader->row_high < g->rows &&
                       first_col + reader->col_low >= 0 && first_col + reader->col_high < g->cols;
    const int64_t last = origin + reader->row_high * g->row_stride + reader->col_high * g->col_stride + length;
    if (!direct && inside && begin == 0 && end == reader->reds && last + LINE_QUAD <= reader->limit) {
        const float *row = reader->x + origin;
        for (int64_t r = 0; r < g->tap_rows; r++, row += g->tap_row_step * g->row_stride) {
            const float *source = row;
            for (int64_t s = 0; s < reader->runs_per_row; s++, source += g->tap_col_step * g->col_stride, target += length)
                line_copy(target, source, length);
        }
        return;
    }
    const int64_t first_run = begin / length;
    int64_t tap_row = first_run / reader->runs_per_row, tap_col = first_run % reader->runs_per_row;
    for (int64_t run_begin = first_run * length; run_begin < end; run_begin += length) {
        const int64_t from = max_i64(begin, run_begin), to = min_i64(end, run_begin + length);
        /* The floats low..high of the patch lie inside of x. */
        int64_t low = from, high = to;
        if (!inside) {
            const int64_t row = first_row + tap_row * g->tap_row_step, col = first_col + tap_col * g->tap_col_step;
            low = high = to;
            if (row >= 0 && row < g->rows) {
                const int64_t inside_begin = max_i64(0, -col), inside_end = min_i64(reader->taps_per_run, g->cols - col);
                low = min_i64(max_i64(from, run_begin + inside_begin * g->channels), to);
                high = max_i64(min_i64(to, run_begin + inside_end * g->channels), low);
            }
        }
        const int64_t source = origin + tap_row * g->tap_row_step * g->row_stride +
                               tap_col * g->tap_col_step * g->col_stride + (low - run_begin);
        if (direct) {
            float *place = target + (from - begin) / chunk * chunk_stride;
            if (low > from) chunks_zero(place, chunk, chunk_stride, low - from);
            place += (low - from) / chunk * chunk_stride;
            chunks_copy(place, chunk, chunk_stride, reader->x + source, high - low);
            place += (high - low) / chunk * chunk_stride;
            if (to > high) chunks_zero(place, chunk, chunk_stride, to - high);
        } else {
            if (low > from) line_zero(target + (from - begin), low - from);
            if (high > low) line_copy_end(target + (low - begin), reader->x + source, high - low, reader->limit - source);
            if (to > high) line_zero(target + (high - begin), to - high);
        }
        if (++tap_col == reader->runs_per_row) {
            tap_col = 0;
            tap_row++;
        }
    }
}

/* Floats begin..end of the patches of `count` pixels from `pixel` on, which is moved past them. begin is a multiple of
 * the chunk. Lines are finished some pixels before they are cut into chunks: a load that spans stores which are still
 * under way would have to wait for them. */
ALWAYS_INLINE void patches_read(const struct patch_reader *reader, struct pixel *pixel, int64_t count,
                                       int64_t begin, int64_t end, float *target, int64_t pixel_stride,
                                       int64_t chunk_stride, const int64_t chunk) {
    const struct patch_geometry *g = reader->geometry;
    if (g->channels % chunk == 0) {
        for (int64_t i = 0; i < count; i++, target += pixel_stride, pixel_next(g, pixel))
            patch_read(reader, *pixel, begin, end, target, chunk_stride, chunk, 1);
        return;
    }
    for (int64_t first = 0; first < count; first += LINES) {
        const int64_t lines = min_i64(LINES, count - first);
        for (int64_t i = 0; i < lines; i++, pixel_next(g, pixel))
            patch_read(reader, *pixel, begin, end, reader->lines + i * reader->line_stride, 0, chunk, 0);
        for (int64_t i = 0; i < lines; i++, target += pixel_stride)
            chunks_copy(target, chunk, chunk_stride, reader->lines + i * reader->line_stride, end - begin);
    }
}
