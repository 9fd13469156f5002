/* Batch normalisation in training (batch_norm.h).
 *
 * Statistics are those of x less a part's first row, which keeps digits when the mean is large beside the deviation. They are taken from
 * bundles of eight rows: the bundle's mean first, deviations from it second, while its rows are in registers; bundles,
 * and later parts, are combined by Chan's formula. No large sums are ever subtracted.
 *
 *     partial   part 0: mean[c], squares[c]      part_rows rows of x, those of no two images
 *               part 1: mean[c], squares[c]
 *               ...                                                                                                  */
#include "batch_norm.h"
#include "conv_epilogue.h"
#include "normalise.h"
#include "unary.h"

#define BUNDLE 8

/* The rows begin..end-1 of a part. */
struct batch_norm_part {
    int64_t begin, end;
};

static struct batch_norm_part batch_norm_part(const struct batch_norm_params *p, int64_t part) {
    const int64_t parts = ceil_div(p->image_rows, p->part_rows), image = part / parts * p->image_rows;
    const int64_t begin = image + part % parts * p->part_rows;
    return (struct batch_norm_part){begin, min_i64(begin + p->part_rows, image + p->image_rows)};
}

/* Whether x comes from memory, in rows so long that a bundle of them is no run. What reads a bundle vector by vector then touches it before;
 * what needs no bundle goes row by row. */
static int is_far(const struct batch_norm_params *p) { return p->rows * p->c >= FAR_FLOATS && p->c >= 64; }

ALWAYS_INLINE vf add_bundle(const vf *row) {
    return ((row[0] + row[1]) + (row[2] + row[3])) + ((row[4] + row[5]) + (row[6] + row[7]));
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

/* What is known of `count` rows: their means and the sums of squared deviations from them. */
struct moments {
    vf mean, squares;
};

/* Chan: `added` rows join `count`. share = added / (count + added). */
ALWAYS_INLINE struct moments combine_moments(struct moments old, struct moments new, float count, float share) {
    vf delta = new.mean - old.mean;
    return (struct moments){old.mean + delta * share, old.squares + (new.squares + delta * delta * (count * share))};
}

/* `added` rows (BUNDLE or 1) of `lanes` channels join the moments of the `count` rows before. */
ALWAYS_INLINE void add_rows(const float *x, int64_t stride, const float *origin_x, int64_t added, int64_t lanes,
                            float count, float share, float *mean, float *squares) {
    const vf origin = vf_load_lanes(origin_x, lanes);
    struct moments new = {vf_set1(0.0f), vf_set1(0.0f)};
    if (added == BUNDLE) {
        vf row[BUNDLE], square[BUNDLE];
        for (int i = 0; i < BUNDLE; i++) row[i] = vf_load_lanes(x + i * stride, lanes) - origin;
        new.mean = add_bundle(row) * (1.0f / BUNDLE);
        for (int i = 0; i < BUNDLE; i++) square[i] = (row[i] - new.mean) * (row[i] - new.mean);
        new.squares = add_bundle(square);
    } else {
        new.mean = vf_load_lanes(x, lanes) - origin;
    }
    struct moments moments = combine_moments((struct moments){vf_load(mean), vf_load(squares)}, new, count, share);
    vf_store(mean, moments.mean);
    vf_store(squares, moments.squares);
}

/* The moments of `count` rows of `channels` channels, c floats apart. */
static void statistics_of_rows(const float *x, int64_t c, int64_t count, int64_t channels, int far, float *partial) {
    float mean[BATCH_NORM_CHANNELS + VL] = {0}, squares[BATCH_NORM_CHANNELS + VL] = {0};
    for (int64_t r = 0, added; r < count; r += added) {
        added = count - r >= BUNDLE ? BUNDLE : 1;
        const float before = (float)r, share = (float)added / (before + (float)added);
        const float *rows = x + r * c;
        if (far) touch_rows(rows, c, added, channels);
        int64_t k = 0;
        if (added == BUNDLE)
            for (; k + VL <= channels; k += VL) add_rows(rows + k, c, x + k, BUNDLE, VL, before, share, mean + k, squares + k);
        for (; k < channels; k += VL) add_rows(rows + k, c, x + k, added, min_i64(VL, channels - k), before, share, mean + k, squares + k);
    }
    memcpy(partial, mean, (size_t)channels * sizeof(float));
    memcpy(partial + c, squares, (size_t)channels * sizeof(float));
}

void KERNEL(batch_norm_statistics)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const struct batch_norm_part part = batch_norm_part(p, task);
    const float *x = (const float *)buffers[0] + part.begin * p->c;
    float *partial = (float *)buffers[1] + task * 2 * p->c;
    for (int64_t channel = 0; channel < p->c; channel += BATCH_NORM_CHANNELS)
        statistics_of_rows(x + channel, p->c, part.end - part.begin, min_i64(BATCH_NORM_CHANNELS, p->c - channel), is_far(p) && !p->near,
                           partial + channel);
}

/* The moments of some parts, `channels` channels from x and partial on, relative to row 0 of x: of one half and of the other, so that rounding
 * errors grow with the logarithm of the parts. */
static void combine_parts(const struct batch_norm_params *p, const float *x, const float *partial, int64_t first, int64_t count,
                          int64_t channels, float *mean, float *squares) {
    const int64_t begin = batch_norm_part(p, first).begin;
    if (count == 1) {
        const float *moments = partial + first * 2 * p->c;
        for (int64_t k = 0; k < channels; k += VL) {
            const vf shift = vf_load_until(x + begin * p->c, k, channels) - vf_load_until(x, k, channels);
            vf_store(mean + k, vf_load_until(moments, k, channels) + shift);
            vf_store(squares + k, vf_load_until(moments + p->c, k, channels));
        }
        return;
    }
    float other_mean[BATCH_NORM_CHANNELS], other_squares[BATCH_NORM_CHANNELS];
    const int64_t middle = first + count / 2, before = batch_norm_part(p, middle).begin - begin;
    const int64_t all = batch_norm_part(p, first + count - 1).end - begin;
    combine_parts(p, x, partial, first, count / 2, channels, mean, squares);
    combine_parts(p, x, partial, middle, count - count / 2, channels, other_mean, other_squares);
    for (int64_t k = 0; k < channels; k += VL) {
        const struct moments left = {vf_load(mean + k), vf_load(squares + k)}, right = {vf_load(other_mean + k), vf_load(other_squares + k)};
        const struct moments both = combine_moments(left, right, (float)before, (float)(all - before) / (float)all);
        vf_store(mean + k, both.mean);
        vf_store(squares + k, both.squares);
    }
}

void KERNEL(batch_norm_finalize)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const int64_t first = task * BATCH_NORM_CHANNELS, channels = min_i64(BATCH_NORM_CHANNELS, p->c - first);
    const float *partial = (const float *)buffers[0] + first, *x = (const float *)buffers[1] + first;
    float *mean = (float *)buffers[2] + first, *rstd = (float *)buffers[3] + first;
    float *running_mean = buffers[4] ? (float *)buffers[4] + first : NULL, *running_var = buffers[5] ? (float *)buffers[5] + first : NULL;
    const float rows = (float)p->rows, others = (float)max_i64(p->rows - 1, 1);
    float means[BATCH_NORM_CHANNELS], squares[BATCH_NORM_CHANNELS];
    combine_parts(p, x, partial, 0, batch_norm_parts(p), channels, means, squares);
    for (int64_t k = 0; k < channels; k += VL) {
        const vf total_mean = vf_load(means + k) + vf_load_until(x, k, channels), total_squares = vf_load(squares + k);
        vf_store_until(mean, total_mean, k, channels);
        vf_store_until(rstd, 1.0f / vf_sqrt(total_squares / rows + p->eps), k, channels);
        if (running_mean) {
            vf old = vf_load_until(running_mean, k, channels);
            vf_store_until(running_mean, old * (1.0f - p->momentum) + total_mean * p->momentum, k, channels);
        }
        if (running_var) {
            vf old = vf_load_until(running_var, k, channels);
            vf_store_until(running_var, old * (1.0f - p->momentum) + total_squares / others * p->momentum, k, channels);
        }
    }
}

/* Pointers to what normalises a block of channels; gamma and beta may be NULL. */
struct normaliser {
    const float *gamma, *beta, *mean, *rstd;
};

/* rstd * gamma at channels from k on. */
ALWAYS_INLINE vf normaliser_scale(const struct normaliser *n, int64_t k, int64_t end) {
    vf rstd = vf_load_until(n->rstd, k, end);
    return n->gamma ? rstd * vf_load_until(n->gamma, k, end) : rstd;
}

ALWAYS_INLINE vf normaliser_shift(const struct normaliser *n, int64_t k, int64_t end) {
    return n->beta ? vf_load_until(n->beta, k, end) : vf_set1(0.0f);
}

void KERNEL(batch_norm_normaliser)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const struct normaliser normaliser = {buffers[0], buffers[1], buffers[2], buffers[3]};
    const struct epilogue bounds = epilogue(p->activation, p->alpha, p->beta);
    float *table = buffers[4];
    const int64_t end = min_i64(p->c, (task + 1) * BATCH_NORM_CHANNELS);
    for (int64_t k = task * BATCH_NORM_CHANNELS; k < end; k += VL) {
        vf_store_until(table + NORMALISER_MEAN * p->c, vf_load_until(normaliser.mean, k, end), k, end);
        vf_store_until(table + NORMALISER_SCALE * p->c, normaliser_scale(&normaliser, k, end), k, end);
        vf_store_until(table + NORMALISER_SHIFT * p->c, normaliser_shift(&normaliser, k, end), k, end);
        vf_store_until(table + NORMALISER_LOW * p->c, vf_set1(bounds.low), k, end);
        vf_store_until(table + NORMALISER_HIGH * p->c, vf_set1(bounds.high), k, end);
    }
}

/* What a loop over rows has to know of the activation: itself where it takes an instruction or two and is computed while
 * the row is in registers, ACTIVATION_NONE for all others, which are computed bundle by bundle in a buffer. */
static int is_cheap(int64_t activation) {
    return activation == ACTIVATION_NONE || activation == ACTIVATION_RELU || activation == ACTIVATION_CLIP;
}

/* Calls function(kind, ...) with a kind that the compiler knows. */
#define DISPATCH_ACTIVATION(kind, function, ...)                                                                       \
    switch (kind) {                                                                                                    \
    case ACTIVATION_RELU: function(ACTIVATION_RELU, __VA_ARGS__); break;                                               \
    case ACTIVATION_CLIP: function(ACTIVATION_CLIP, __VA_ARGS__); break;                                               \
    default: function(ACTIVATION_NONE, __VA_ARGS__);                                                                   \
    }

/* y = activation((x - mean) * rstd * gamma + beta) for `rows` rows of `channels`; the outputs' rows lie y_stride apart. */
ALWAYS_INLINE void normalise_rows(int64_t kind, const struct batch_norm_params *p, const float *x, const struct normaliser *n,
                                  int64_t rows, int64_t channels, float *y, int64_t y_stride) {
    for (int64_t k = 0; k < channels; k += VL) {
        const vf mean = vf_load_until(n->mean, k, channels);
        const vf scale = normaliser_scale(n, k, channels), shift = normaliser_shift(n, k, channels);
        if (k + VL <= channels) {
            for (int64_t r = 0; r < rows; r++) {
                vf value = (vf_load(x + r * p->c + k) - mean) * scale + shift;
                vf_store(y + r * y_stride + k, unary_value(kind, p->alpha, p->beta, value));
            }
        } else {
            for (int64_t r = 0; r < rows; r++) {
                vf value = (vf_load_first(x + r * p->c + k, channels - k) - mean) * scale + shift;
                vf_store_first(y + r * y_stride + k, unary_value(kind, p->alpha, p->beta, value), channels - k);
            }
        }
    }
}

/* The last rows come first: the statistics have just read them, and some are still in a cache. */
static int64_t batch_norm_last_rows_first(const struct batch_norm_params *p, int64_t task) {
    return batch_norm_rows_tasks(p) - 1 - task;
}

void KERNEL(batch_norm_normalise)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const struct normaliser normaliser = {buffers[1], buffers[2], buffers[3], buffers[4]};
    const int64_t begin = batch_norm_last_rows_first(p, task) * p->rows_per_task, end = min_i64(p->rows, begin + p->rows_per_task);
    const int64_t bundle = is_far(p) ? 1 : BUNDLE;
    for (int64_t r = begin; r < end; r += bundle) {
        const int64_t rows = min_i64(bundle, end - r);
        const float *x = (const float *)buffers[0] + r * p->c;
        float *y = (float *)buffers[5] + r * p->c;
        DISPATCH_ACTIVATION(p->activation, normalise_rows, p, x, &normaliser, rows, p->c, y, p->c)
        if (!is_cheap(p->activation)) unary_run(p->activation, p->alpha, p->beta, y, y, rows * p->c);
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* Where the gradients of a bundle of rows are to be found: dy itself if the activation's derivative is taken in registers,
 * else dy times the derivative in `room`, where rows lie `channels` apart. */
static const float *activation_gradient(const struct batch_norm_params *p, const float *x, const float *dy,
                                        const struct normaliser *n, int64_t rows, int64_t channels, float *room,
                                        int64_t *stride) {
    *stride = p->c;
    if (is_cheap(p->activation)) return dy;
    *stride = channels;
    normalise_rows(ACTIVATION_NONE, p, x, n, rows, channels, room, channels);
    const int64_t runs = channels == p->c ? 1 : rows, run = channels == p->c ? rows * channels : channels;
    for (int64_t r = 0; r < runs; r++) {
        float *z = room + r * channels;
        unary_gradient_run(p->activation, p->alpha, p->beta, dy + r * p->c, z, z, run);
    }
    return room;
}

/* Adds dz and dz * xhat of some rows (at most BUNDLE), `lanes` channels from k on, to their sums. */
ALWAYS_INLINE void add_gradients(int64_t kind, const struct batch_norm_params *p, const float *x, const float *dz,
                                 int64_t dz_stride, const struct normaliser *n, int64_t rows, int64_t k, int64_t lanes,
                                 float *sum_dz, float *sum_product) {
    const vf mean = vf_load_lanes(n->mean + k, lanes), rstd = vf_load_lanes(n->rstd + k, lanes);
    const vf scale = normaliser_scale(n, k, k + lanes), shift = normaliser_shift(n, k, k + lanes);
    vf gradient[BUNDLE], product[BUNDLE];
    for (int i = 0; i < BUNDLE; i++) gradient[i] = product[i] = vf_set1(0.0f);
    for (int64_t i = 0; i < rows; i++) {
        vf deviation = vf_load_lanes(x + i * p->c + k, lanes) - mean;
        vf dy = vf_load_lanes(dz + i * dz_stride + k, lanes);
        gradient[i] = unary_gradient(kind, p->alpha, p->beta, dy, deviation * scale + shift);
        product[i] = gradient[i] * deviation;
    }
    vf_store(sum_dz + k, vf_load(sum_dz + k) + add_bundle(gradient));
    vf_store(sum_product + k, vf_load(sum_product + k) + add_bundle(product) * rstd);
}

/* The same for all channels of a block. */
ALWAYS_INLINE void add_gradients_of_bundle(int64_t kind, const struct batch_norm_params *p, const float *x, const float *dz,
                                           int64_t dz_stride, const struct normaliser *n, int64_t rows, int64_t channels,
                                           float *sum_dz, float *sum_product) {
    int64_t k = 0;
    if (rows == BUNDLE)
        for (; k + VL <= channels; k += VL)
            add_gradients(kind, p, x, dz, dz_stride, n, BUNDLE, k, VL, sum_dz, sum_product);
    for (; k < channels; k += VL)
        add_gradients(kind, p, x, dz, dz_stride, n, rows, k, min_i64(VL, channels - k), sum_dz, sum_product);
}

/* Bundles whose sums are added before they join the total. */
#define BUNDLES_IN_BLOCK 16

/* The sums of a part over the channels from `channel` on. */
static void gradients_of_part(const struct batch_norm_params *p, void *const *buffers, int64_t task, int64_t channel) {
    const struct batch_norm_part part = batch_norm_part(p, task);
    const int64_t channels = min_i64(BATCH_NORM_CHANNELS, p->c - channel);
    const struct normaliser normaliser = {buffers[2] ? (const float *)buffers[2] + channel : NULL,
                                          buffers[3] ? (const float *)buffers[3] + channel : NULL,
                                          (const float *)buffers[4] + channel, (const float *)buffers[5] + channel};
    float *partial = (float *)buffers[6] + task * 2 * p->c + channel;
    float room[BUNDLE * BATCH_NORM_CHANNELS];
    /* [0]: sums of dz, [1]: sums of dz * xhat; of the current block, and of all blocks before. */
    float block[2][BATCH_NORM_CHANNELS + VL] = {{0}}, total[2][BATCH_NORM_CHANNELS + VL] = {{0}};
    const int far = is_far(p);
    int64_t bundles = 0;
    for (int64_t r = part.begin; r < part.end; r += BUNDLE) {
        const int64_t rows = min_i64(BUNDLE, part.end - r);
        const float *x = (const float *)buffers[0] + r * p->c + channel, *dy = (const float *)buffers[1] + r * p->c + channel;
        if (far) {
            touch_rows(x, p->c, rows, channels);
            touch_rows(dy, p->c, rows, channels);
        }
        int64_t stride;
        const float *dz = activation_gradient(p, x, dy, &normaliser, rows, channels, room, &stride);
        DISPATCH_ACTIVATION(p->activation, add_gradients_of_bundle, p, x, dz, stride, &normaliser, rows, channels, block[0], block[1])
        if (++bundles % BUNDLES_IN_BLOCK != 0 && r + BUNDLE < part.end) continue;
        for (int sum = 0; sum < 2; sum++)
            for (int64_t k = 0; k < channels; k += VL) {
                vf_store(total[sum] + k, vf_load(total[sum] + k) + vf_load(block[sum] + k));
                vf_store(block[sum] + k, vf_set1(0.0f));
            }
    }
    memcpy(partial, total[0], (size_t)channels * sizeof(float));
    memcpy(partial + p->c, total[1], (size_t)channels * sizeof(float));
}

void KERNEL(batch_norm_backward_partial)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    for (int64_t channel = 0; channel < p->c; channel += BATCH_NORM_CHANNELS) gradients_of_part(p, buffers, task, channel);
}

void KERNEL(batch_norm_backward_finalize)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const float *partial = buffers[0];
    const int64_t end = min_i64(p->c, (task + 1) * BATCH_NORM_CHANNELS), parts = batch_norm_parts(p);
    for (int64_t k = task * BATCH_NORM_CHANNELS; k < end; k += VL) {
        vf dbeta = vf_load_until(partial, k, end), dgamma = vf_load_until(partial + p->c, k, end);
        for (int64_t part = 1; part < parts; part++) {
            dbeta += vf_load_until(partial + part * 2 * p->c, k, end);
            dgamma += vf_load_until(partial + part * 2 * p->c + p->c, k, end);
        }
        vf_store_until(buffers[1], dgamma, k, end);
        vf_store_until(buffers[2], dbeta, k, end);
    }
}

/* What the rows of dx have in common: dx = (dz - offset - (x - mean) * slope) * scale. */
struct input_gradient {
    float mean[BATCH_NORM_CHANNELS], scale[BATCH_NORM_CHANNELS], shift[BATCH_NORM_CHANNELS];
    float offset[BATCH_NORM_CHANNELS], slope[BATCH_NORM_CHANNELS];
};

static void prepare_input_gradient(const struct batch_norm_params *p, const struct normaliser *n, const float *dgamma, const float *dbeta,
                                   int64_t channels, struct input_gradient *g) {
    const float share = 1.0f / (float)p->rows;
    for (int64_t k = 0; k < channels; k += VL) {
        vf_store(g->mean + k, vf_load_until(n->mean, k, channels));
        vf_store(g->scale + k, normaliser_scale(n, k, channels));
        vf_store(g->shift + k, normaliser_shift(n, k, channels));
        vf_store(g->offset + k, vf_load_until(dbeta, k, channels) * share);
        vf_store(g->slope + k, vf_load_until(dgamma, k, channels) * share * vf_load_until(n->rstd, k, channels));
    }
}

/* Some rows of dx, `lanes` channels from k on. */
ALWAYS_INLINE void input_gradient_at(int64_t kind, float alpha, float beta, const float *x, int64_t x_stride, const float *dz, int64_t dz_stride,
                                     float *dx, const struct input_gradient *g, int64_t rows, int64_t k, int64_t lanes) {
    const vf mean = vf_load(g->mean + k), scale = vf_load(g->scale + k), shift = vf_load(g->shift + k);
    const vf offset = vf_load(g->offset + k), slope = vf_load(g->slope + k);
    for (int64_t r = 0; r < rows; r++) {
        const vf deviation = vf_load_lanes(x + r * x_stride + k, lanes) - mean, dy = vf_load_lanes(dz + r * dz_stride + k, lanes);
        const vf gradient = unary_gradient(kind, alpha, beta, dy, deviation * scale + shift);
        vf_store_lanes(dx + r * x_stride + k, (gradient - offset - deviation * slope) * scale, lanes);
    }
}

/* A bundle at once, or row by row. */
ALWAYS_INLINE void input_gradient_of_rows(int64_t kind, const struct batch_norm_params *p, const float *x, const float *dz, float *dx,
                                          int64_t dz_stride, const struct input_gradient *g, int64_t rows, int64_t channels, int by_row) {
    const int64_t stride = p->c, at_once = by_row ? 1 : rows;
    const float alpha = p->alpha, beta = p->beta;
    for (int64_t r = 0; r < rows; r += at_once, x += stride, dz += dz_stride, dx += stride) {
        int64_t k = 0;
        for (; k + VL <= channels; k += VL) input_gradient_at(kind, alpha, beta, x, stride, dz, dz_stride, dx, g, at_once, k, VL);
        if (k < channels) input_gradient_at(kind, alpha, beta, x, stride, dz, dz_stride, dx, g, at_once, k, channels - k);
    }
}

void KERNEL(batch_norm_backward_input)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct batch_norm_params *p = params;
    const int64_t begin = batch_norm_last_rows_first(p, task) * p->rows_per_task, end = min_i64(p->rows, begin + p->rows_per_task);
    const int far = is_far(p);
    float room[BUNDLE * BATCH_NORM_CHANNELS];
    for (int64_t channel = 0; channel < p->c; channel += BATCH_NORM_CHANNELS) {
        const int64_t channels = min_i64(BATCH_NORM_CHANNELS, p->c - channel);
        const struct normaliser normaliser = {buffers[2] ? (const float *)buffers[2] + channel : NULL,
                                              buffers[3] ? (const float *)buffers[3] + channel : NULL,
                                              (const float *)buffers[4] + channel, (const float *)buffers[5] + channel};
        const float *dgamma = (const float *)buffers[6] + channel, *dbeta = (const float *)buffers[7] + channel;
        struct input_gradient gradient;
        prepare_input_gradient(p, &normaliser, dgamma, dbeta, channels, &gradient);
        for (int64_t r = begin; r < end; r += BUNDLE) {
            const int64_t rows = min_i64(BUNDLE, end - r), place = r * p->c + channel;
            const float *x = (const float *)buffers[0] + place, *dy = (const float *)buffers[1] + place;
            float *dx = (float *)buffers[8] + place;
            if (far && !is_cheap(p->activation)) {
                touch_rows(x, p->c, rows, channels);
                touch_rows(dy, p->c, rows, channels);
            }
            int64_t stride;
            const float *dz = activation_gradient(p, x, dy, &normaliser, rows, channels, room, &stride);
            DISPATCH_ACTIVATION(p->activation, input_gradient_of_rows, p, x, dz, dx, stride, &gradient, rows, channels, far)
        }
    }
}
