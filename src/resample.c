/* Separable linear resampling (resample.h): for every output pixel, a few vectors of channels stay in registers while
 * the taps of both axes pass. Taps of a row are added in blocks, blocks in groups, so that a global average over a large
 * image keeps its digits.
 *
 *     col_index       j0  j1
 *     row_index i0     .   .        y(a, b) = row_weight[i0] * (col_weight[j0] x(i0, j0) + col_weight[j1] x(i0, j1))
 *               i1     .   .                + row_weight[i1] * (col_weight[j0] x(i1, j0) + col_weight[j1] x(i1, j1))   */
#include "resample.h"
#include "vec_basic.h"

#define RESAMPLE_VECTORS 4
/* Taps of a row that make a block, and blocks that make a group. */
#define RESAMPLE_BLOCK 32
#define RESAMPLE_GROUP 32

/* Entries begin .. end - 1 of a CSR matrix: one of its rows. */
struct taps {
    const int32_t *index;
    const float *weight;
    int64_t count;
};

static struct taps taps_of(const int32_t *start, const int32_t *index, const float *weight, int64_t row) {
    return (struct taps){index + start[row], weight + start[row], start[row + 1] - start[row]};
}

/* `vectors` vectors of channels of one output pixel; `lanes` of the last one exist. */
ALWAYS_INLINE void resample_channels(const float *x, int64_t row_stride, int64_t c, struct taps rows, struct taps cols,
                                     float *y, int vectors, int64_t lanes) {
    vf sum[RESAMPLE_VECTORS], group[RESAMPLE_VECTORS];
    int64_t blocks = 0;
    for (int v = 0; v < vectors; v++) sum[v] = group[v] = vf_set1(0.0f);
    for (int64_t i = 0; i < rows.count; i++) {
        const float *row = x + rows.index[i] * row_stride;
        for (int64_t begin = 0; begin < cols.count; begin += RESAMPLE_BLOCK) {
            const int64_t end = min_i64(cols.count, begin + RESAMPLE_BLOCK);
            vf block[RESAMPLE_VECTORS];
            for (int v = 0; v < vectors; v++) block[v] = vf_set1(0.0f);
            for (int64_t j = begin; j < end; j++) {
                const float *pixel = row + cols.index[j] * c;
                for (int v = 0; v < vectors; v++) {
                    vf value = vf_load_lanes(pixel + v * VL, lanes);
                    block[v] += value * cols.weight[j];
                }
            }
            for (int v = 0; v < vectors; v++) group[v] += block[v] * rows.weight[i];
            if (++blocks % RESAMPLE_GROUP != 0) continue;
            for (int v = 0; v < vectors; v++) {
                sum[v] += group[v];
                group[v] = vf_set1(0.0f);
            }
        }
    }
    for (int v = 0; v < vectors; v++) vf_store_lanes(y + v * VL, sum[v] + group[v], lanes);
}

void KERNEL(resample)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct resample_params *p = params;
    const int64_t channel_blocks = ceil_div(p->c, p->channel_block);
    const int64_t channel = task % channel_blocks * p->channel_block;
    const int64_t channels = min_i64(p->channel_block, p->c - channel);
    const int64_t begin = task / channel_blocks * p->rows_per_task;
    const int64_t end = min_i64(p->n * p->oh, begin + p->rows_per_task);
    const int64_t row_stride = p->w * p->c;
    for (int64_t row = begin; row < end; row++) {
        const float *x = (const float *)buffers[0] + row / p->oh * p->h * row_stride + channel;
        const struct taps rows = taps_of(buffers[1], buffers[2], buffers[3], row % p->oh);
        for (int64_t b = 0; b < p->ow; b++) {
            const struct taps cols = taps_of(buffers[4], buffers[5], buffers[6], b);
            float *y = (float *)buffers[7] + (row * p->ow + b) * p->c + channel;
            int64_t k = 0;
            for (; k + RESAMPLE_VECTORS * VL <= channels; k += RESAMPLE_VECTORS * VL)
                resample_channels(x + k, row_stride, p->c, rows, cols, y + k, RESAMPLE_VECTORS, VL);
            for (; k + VL <= channels; k += VL) resample_channels(x + k, row_stride, p->c, rows, cols, y + k, 1, VL);
            if (k < channels) resample_channels(x + k, row_stride, p->c, rows, cols, y + k, 1, channels - k);
        }
    }
}
