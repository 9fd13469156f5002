/* Max pooling (max_pool.h): for every pixel, a few vectors of channels stay in registers while the window passes.
 *
 *     x  . . . . . .        y  . . .      one task: some output rows, one block of channels
 *        . [window].   ->      . # .      # = largest over the window, lane by lane
 *        . [      ].                                                                                                 */
#include "max_pool.h"
#include "normalise.h"
#include "vec_basic.h"

/* The part of a row's vectors that is worked on at once. */
#define MAX_POOL_VECTORS 4

/* What a window covers: rows begin, begin + step, ... < end. */
struct span {
    int64_t begin, end, step;
};

/* `vectors` vectors of channels of one output pixel; `lanes` of the last one exist. table: see normalise.h, at the first of the
 * channels; or NULL, if x is compared as it is. */
ALWAYS_INLINE void max_pool_channels(const float *x, int64_t w, int64_t c, struct span rows, struct span cols, const float *table,
                                     float *y, int32_t *indices, int vectors, int64_t lanes) {
    struct normalised_channels at[MAX_POOL_VECTORS];
    for (int v = 0; v < vectors && table; v++) at[v] = normalised_channels(table + v * VL, c, 0, lanes);
    vf largest[MAX_POOL_VECTORS];
    vi index[MAX_POOL_VECTORS];
    const vi first = vi_set1((int32_t)(rows.begin * w + cols.begin));
    for (int v = 0; v < vectors; v++) {
        largest[v] = vf_set1(-__builtin_inff());
        index[v] = first;
    }
    for (int64_t i = rows.begin; i < rows.end; i += rows.step)
        for (int64_t j = cols.begin; j < cols.end; j += cols.step) {
            const float *pixel = x + (i * w + j) * c;
            const vi place = vi_set1((int32_t)(i * w + j));
            for (int v = 0; v < vectors; v++) {
                vf value = vf_load_lanes(pixel + v * VL, lanes);
                if (table) value = normalised(&at[v], value);
                if (indices) {
                    vi wins = (value > largest[v]) | (value != value);
                    largest[v] = vf_select(wins, value, largest[v]);
                    index[v] = (wins & place) | (~wins & index[v]);
                } else {
                    largest[v] = vf_maximum(largest[v], value);
                }
            }
        }
    for (int v = 0; v < vectors; v++) {
        vf_store_lanes(y + v * VL, largest[v], lanes);
        if (indices) vf_store_lanes((float *)indices + v * VL, (vf)index[v], lanes);
    }
}

/* All channels of one output pixel that belong to the task. */
ALWAYS_INLINE void max_pool_pixel(const float *x, int64_t w, int64_t c, struct span rows, struct span cols, const float *table,
                                  float *y, int32_t *indices, int64_t channels) {
    int64_t k = 0;
    for (; k + MAX_POOL_VECTORS * VL <= channels; k += MAX_POOL_VECTORS * VL)
        max_pool_channels(x + k, w, c, rows, cols, table ? table + k : NULL, y + k, indices ? indices + k : NULL, MAX_POOL_VECTORS, VL);
    for (; k + VL <= channels; k += VL)
        max_pool_channels(x + k, w, c, rows, cols, table ? table + k : NULL, y + k, indices ? indices + k : NULL, 1, VL);
    if (k < channels)
        max_pool_channels(x + k, w, c, rows, cols, table ? table + k : NULL, y + k, indices ? indices + k : NULL, 1, channels - k);
}

ALWAYS_INLINE void max_pool_task(const struct max_pool_params *p, void *const *buffers, const float *normaliser, int64_t task) {
    const int64_t channel_blocks = ceil_div(p->c, p->channel_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t channels = min_i64(p->channel_block, p->c - channel);
    const int64_t begin = task / channel_blocks * p->rows_per_task;
    const int64_t end = min_i64(p->n * p->oh, begin + p->rows_per_task);
    const int32_t *row_start = buffers[1], *row_end = row_start + p->oh;
    const int32_t *col_start = row_end + p->oh, *col_end = col_start + p->ow;
    for (int64_t row = begin; row < end; row++) {
        const float *x = (const float *)buffers[0] + row / p->oh * p->h * p->w * p->c + channel;
        const int64_t a = row % p->oh;
        const struct span rows = {row_start[a], row_end[a], p->row_dilation};
        for (int64_t b = 0; b < p->ow; b++) {
            const struct span cols = {col_start[b], col_end[b], p->col_dilation};
            const int64_t place = (row * p->ow + b) * p->c + channel;
            float *y = (float *)buffers[2] + place;
            const float *table = normaliser ? normaliser + channel : NULL;
            if (buffers[3]) max_pool_pixel(x, p->w, p->c, rows, cols, table, y, (int32_t *)buffers[3] + place, channels);
            else max_pool_pixel(x, p->w, p->c, rows, cols, table, y, NULL, channels);
        }
    }
}

void KERNEL(max_pool)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    max_pool_task(params, buffers, NULL, task);
}

void KERNEL(max_pool_normalised)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    max_pool_task(params, buffers, buffers[4], task);
}

/* The gradient of one input pixel: dy of those windows over it whose largest element it was. `vectors` vectors of
 * channels; `lanes` of the last one exist. */
ALWAYS_INLINE void max_pool_gather(const float *dy, const int32_t *indices, int64_t ow, int64_t c, struct span rows,
                                   struct span cols, int32_t pixel, float *dx, int vectors, int64_t lanes) {
    vf sum[MAX_POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vf_set1(0.0f);
    for (int64_t a = rows.begin; a < rows.end; a++)
        for (int64_t b = cols.begin; b < cols.end; b++) {
            const int64_t place = (a * ow + b) * c;
            for (int v = 0; v < vectors; v++) {
                const float *value = dy + place + v * VL, *index = (const float *)indices + place + v * VL;
                vi hit = (vi)vf_load_lanes(index, lanes) == vi_set1(pixel);
                sum[v] += (vf)((vi)vf_load_lanes(value, lanes) & hit);
            }
        }
    for (int v = 0; v < vectors; v++) vf_store_lanes(dx + v * VL, sum[v], lanes);
}

/* Whether no column lies under more than one window. */
static int columns_apart(const int32_t *first, const int32_t *end, int64_t w) {
    int apart = 1;
    for (int64_t j = 0; j < w; j++) apart &= end[j] - first[j] <= 1;
    return apart;
}

/* The gradient of a line that one row of windows covers, and each column at most one window: dy goes to the largest element.
 * `first` and `end` as in the table of covers; dy and indices are those of the windows' row, `pixel` is the line's first. */
static void max_pool_line(const float *dy, const int32_t *indices, const int32_t *first, const int32_t *end, int64_t w, int64_t c,
                          int64_t channels, int32_t pixel, float *dx) {
    for (int64_t j = 0; j < w; j++, dx += c) {
        const vi covered = vi_set1(end[j] > first[j] ? -1 : 0), place = vi_set1(pixel + (int32_t)j);
        const int64_t window = end[j] > first[j] ? first[j] * c : 0;
        for (int64_t k = 0; k < channels; k += VL) {
            vi hit = covered & ((vi)vf_load_until((const float *)indices + window, k, channels) == place);
            vf_store_until(dx, (vf)((vi)vf_load_until(dy + window, k, channels) & hit), k, channels);
        }
    }
}

void KERNEL(max_pool_backward)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct max_pool_params *p = params;
    const int64_t channel_blocks = ceil_div(p->c, p->channel_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t channels = min_i64(p->channel_block, p->c - channel);
    const int64_t begin = task / channel_blocks * p->rows_per_task;
    const int64_t end = min_i64(p->n * p->h, begin + p->rows_per_task);
    const int32_t *row_first = buffers[2], *row_end = row_first + p->h;
    const int32_t *col_first = row_end + p->h, *col_end = col_first + p->w;
    const int apart = columns_apart(col_first, col_end, p->w);
    for (int64_t row = begin; row < end; row++) {
        const int64_t image = row / p->h * p->oh * p->ow * p->c + channel, i = row % p->h;
        const float *dy = (const float *)buffers[0] + image;
        const int32_t *indices = (const int32_t *)buffers[1] + image;
        const struct span rows = {row_first[i], row_end[i], 1};
        if (apart && rows.end == rows.begin + 1) {
            const int64_t line = rows.begin * p->ow * p->c;
            max_pool_line(dy + line, indices + line, col_first, col_end, p->w, p->c, channels, (int32_t)(i * p->w),
                          (float *)buffers[3] + row * p->w * p->c + channel);
            continue;
        }
        for (int64_t j = 0; j < p->w; j++) {
            const struct span cols = {col_first[j], col_end[j], 1};
            const int32_t pixel = (int32_t)(i * p->w + j);
            float *dx = (float *)buffers[3] + (row * p->w + j) * p->c + channel;
            int64_t k = 0;
            for (; k + MAX_POOL_VECTORS * VL <= channels; k += MAX_POOL_VECTORS * VL)
                max_pool_gather(dy + k, indices + k, p->ow, p->c, rows, cols, pixel, dx + k, MAX_POOL_VECTORS, VL);
            for (; k + VL <= channels; k += VL)
                max_pool_gather(dy + k, indices + k, p->ow, p->c, rows, cols, pixel, dx + k, 1, VL);
            if (k < channels)
                max_pool_gather(dy + k, indices + k, p->ow, p->c, rows, cols, pixel, dx + k, 1, channels - k);
        }
    }
}
