/* Normalisation as something is read: convolutions after a batch norm in training take its input and normalise each element when they
 * copy it into their scratch, so that the normalised array is never in memory.
 *
 *     table[NORMALISER_ROWS][channels]     z = min(high, max(low, (x - mean) * scale + shift))      written by batch_norm_normaliser
 *
 * The bounds are those of the activation (none, relu, clip). Kernels called <name>_normalised read so, and have the table as their last
 * buffer; otherwise they are <name>, with the same parameters. Where x is padded, the padding is not normalised. */
#ifndef PYCL_CNN_NORMALISE_H
#define PYCL_CNN_NORMALISE_H

#include "isa.h"
#include "vec_basic.h"

enum { NORMALISER_MEAN, NORMALISER_SCALE, NORMALISER_SHIFT, NORMALISER_LOW, NORMALISER_HIGH, NORMALISER_ROWS };
/* Rows read at once, whose channels share the loads of the table; floats from what is read to what is fetched, where nothing else
 * fetches: x may be in memory, and so many lines are too many for the processor to foresee. */
enum { NORMALISED_ROWS = 4, NORMALISED_AHEAD = 2048 };

/* `count` channels of `rows` rows of x, which lie x_stride apart: float c of row r goes to
 * z[(c / chunk) * chunk_stride + r * z_stride + c % chunk]. table: at the first of the channels, its rows table_stride apart. Whole vectors
 * are written, zeros behind the last channel, unless `exact`. What lies `fetched` floats ahead is fetched, unless 0. chunk is a multiple
 * of the vector length. */
ALWAYS_INLINE void normalise_block(const float *table, int64_t table_stride, const float *x, int64_t x_stride, int64_t rows,
                                   int64_t count, float *z, int64_t z_stride, const int64_t chunk, int64_t chunk_stride,
                                   const int exact, const int64_t fetched) {
    const int64_t ahead = max_i64(fetched / x_stride, 1) * x_stride;
    for (int64_t first = 0; first < rows; first += NORMALISED_ROWS) {
        const int64_t end = min_i64(rows, first + NORMALISED_ROWS);
        for (int64_t c = 0; c < count; c += VL) {
            const vf mean = vf_load_until(table + NORMALISER_MEAN * table_stride, c, count);
            const vf scale = vf_load_until(table + NORMALISER_SCALE * table_stride, c, count);
            const vf shift = vf_load_until(table + NORMALISER_SHIFT * table_stride, c, count);
            const vf low = vf_load_until(table + NORMALISER_LOW * table_stride, c, count);
            const vf high = vf_load_until(table + NORMALISER_HIGH * table_stride, c, count);
            float *target = z + c / chunk * chunk_stride + c % chunk;
            if (c + VL <= count) {
                for (int64_t r = first; r < end; r++) {
                    const float *read = x + r * x_stride + c;
                    if (fetched) __builtin_prefetch(read + ahead);
                    vf_store(target + r * z_stride, vf_min(high, vf_max(low, (vf_load(read) - mean) * scale + shift)));
                }
            } else {
                for (int64_t r = first; r < end; r++) {
                    const vf read = vf_load_first(x + r * x_stride + c, count - c);
                    const vf value = vf_min(high, vf_max(low, (read - mean) * scale + shift));
                    if (exact) vf_store_first(target + r * z_stride, value, count - c);
                    else vf_store(target + r * z_stride, value);
                }
            }
        }
    }
}

#endif
