/* Normalisation as something is read: convolutions after a batch norm in training take its input and normalise each element when they
 * copy it into their scratch, max pooling when it compares, so that the normalised array is never in memory.
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

/* The table at a vector of channels. */
struct normalised_channels {
    vf mean, scale, shift, low, high;
};

/* Those from channel c on, of which there are `count`. */
ALWAYS_INLINE struct normalised_channels normalised_channels(const float *table, int64_t stride, int64_t c, int64_t count) {
    return (struct normalised_channels){vf_load_until(table + NORMALISER_MEAN * stride, c, count),
                                        vf_load_until(table + NORMALISER_SCALE * stride, c, count),
                                        vf_load_until(table + NORMALISER_SHIFT * stride, c, count),
                                        vf_load_until(table + NORMALISER_LOW * stride, c, count),
                                        vf_load_until(table + NORMALISER_HIGH * stride, c, count)};
}

ALWAYS_INLINE vf normalised(const struct normalised_channels *at, vf x) {
    return vf_min(at->high, vf_max(at->low, (x - at->mean) * at->scale + at->shift));
}

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
            const struct normalised_channels at = normalised_channels(table, table_stride, c, count);
            float *target = z + c / chunk * chunk_stride + c % chunk;
            if (c + VL <= count) {
                for (int64_t r = first; r < end; r++) {
                    const float *read = x + r * x_stride + c;
                    if (fetched) __builtin_prefetch(read + ahead);
                    vf_store(target + r * z_stride, normalised(&at, vf_load(read)));
                }
            } else {
                for (int64_t r = first; r < end; r++) {
                    const vf value = normalised(&at, vf_load_first(x + r * x_stride + c, count - c));
                    if (exact) vf_store_first(target + r * z_stride, value, count - c);
                    else vf_store(target + r * z_stride, value);
                }
            }
        }
    }
}

#endif
