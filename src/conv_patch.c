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

struct patch_reader {
    const struct patch_geometry *geometry;
    const float *x;         /* first channel of the group */
    int64_t limit;          /* floats that may be read from x on */
    int64_t reds;           /* floats of a patch */
    int64_t runs_per_row;   /* runs of a tap row: 1, or tap_cols */
    int64_t taps_per_run;   /* tap_cols, or 1 */
    int64_t run_length;     /* floats of a run */
    int64_t chunk;
    int direct;             /* channels are whole chunks: runs are copied to their place without the line between */
    float *line;            /* room for a patch and LINE_SLACK */
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

static struct patch_reader patch_reader(const struct patch_geometry *g, const float *x, int64_t group, int64_t chunk,
                                        float *line) {
    struct patch_reader reader = {.geometry = g, .x = x + group * g->channels, .chunk = chunk, .line = line};
    int neighbours = g->tap_col_step == 1 && g->col_stride == g->channels;
    reader.taps_per_run = neighbours ? g->tap_cols : 1;
    reader.runs_per_row = neighbours ? 1 : g->tap_cols;
    reader.run_length = reader.taps_per_run * g->channels;
    reader.reds = g->tap_rows * g->tap_cols * g->channels;
    reader.direct = g->channels % chunk == 0;
    reader.limit = (g->images - 1) * g->image_stride + (g->rows - 1) * g->row_stride + (g->cols - 1) * g->col_stride +
                   g->channels;
    return reader;
}

/* Both write up to VL - 1 floats past the end: lines are written in ascending order and have LINE_SLACK. */
static inline void line_zero(float *target, int64_t count) {
    for (int64_t i = 0; i < count; i += VL) vf_store(target + i, (vf){0});
}

static inline void line_copy(float *target, const float *source, int64_t count, int64_t readable) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(target + i, vf_load(source + i));
    if (i == count) return;
    vf_store(target + i, i + VL <= readable ? vf_load(source + i) : vf_load_first(source + i, count - i));
}

/* A contiguous source to its chunks; the last chunk is filled up with zeros. */
static inline void chunks_copy(float *target, int64_t chunk, int64_t chunk_stride, const float *source, int64_t count) {
    for (; count >= chunk; count -= chunk, source += chunk, target += chunk_stride)
        for (int64_t i = 0; i < chunk; i += VL) vf_store(target + i, vf_load(source + i));
    if (count == 0) return;
    for (int64_t i = 0; i < chunk; i += VL)
        vf_store(target + i, vf_load_first(source + i, max_i64(0, min_i64(VL, count - i))));
}

static inline void chunks_zero(float *target, int64_t chunk, int64_t chunk_stride, int64_t count) {
    for (; count > 0; count -= chunk, target += chunk_stride)
        for (int64_t i = 0; i < chunk; i += VL) vf_store(target + i, (vf){0});
}

/* Floats begin..end of the pixel's patch; begin is a multiple of the chunk. */
static void patch_read(const struct patch_reader *reader, struct pixel pixel, int64_t begin, int64_t end, float *target,
                       int64_t chunk_stride) {
    const struct patch_geometry *g = reader->geometry;
    const int64_t chunk = reader->chunk, length = reader->run_length, channels = g->channels;
    int64_t image = pixel.image * g->image_stride;
    int64_t first_row = pixel.row * g->row_step + g->tap_row_start;
    int64_t first_col = pixel.col * g->col_step + g->tap_col_start;
    int64_t run = begin / length, tap_row = run / reader->runs_per_row, tap_col = run % reader->runs_per_row;
    for (int64_t run_begin = run * length; run_begin < end; run_begin += length) {
        int64_t row = first_row + tap_row * g->tap_row_step, col = first_col + tap_col * g->tap_col_step;
        int64_t from = max_i64(begin, run_begin), to = min_i64(end, run_begin + length);
        /* The floats low..high of the patch lie inside of x. */
        int64_t low = to, high = to, source = 0;
        if (row >= 0 && row < g->rows) {
            int64_t inside_begin = max_i64(0, -col), inside_end = min_i64(reader->taps_per_run, g->cols - col);
            low = min_i64(max_i64(from, run_begin + inside_begin * channels), to);
            high = max_i64(min_i64(to, run_begin + inside_end * channels), low);
            source = image + row * g->row_stride + col * g->col_stride + (low - run_begin);
        }
        if (reader->direct) {
            float *place = target + (from - begin) / chunk * chunk_stride;
            chunks_zero(place, chunk, chunk_stride, low - from);
            place += (low - from) / chunk * chunk_stride;
            chunks_copy(place, chunk, chunk_stride, reader->x + source, high - low);
            place += (high - low) / chunk * chunk_stride;
            chunks_zero(place, chunk, chunk_stride, to - high);
        } else {
            line_zero(reader->line + (from - begin), low - from);
            line_copy(reader->line + (low - begin), reader->x + source, high - low, reader->limit - source);
            line_zero(reader->line + (high - begin), to - high);
        }
        if (++tap_col == reader->runs_per_row) {
            tap_col = 0;
            tap_row++;
        }
    }
    if (!reader->direct) chunks_copy(target, chunk, chunk_stride, reader->line, end - begin);
}
