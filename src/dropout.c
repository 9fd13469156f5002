/* Dropout (dropout.h) on Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011). The lanes of
 * the loops below are generators with consecutive counters; they are written lane by lane, which compilers turn into the
 * widening vector multiplications that the vector extension cannot spell. */
#include "dropout.h"
#include "vec_basic.h"

#define PHILOX_LANES 32
#define PHILOX_ROUNDS 10

/* 4 * PHILOX_LANES words in element order, from counters (first + lane, step, 0, 0). */
static void philox(uint32_t seed, uint32_t stream, uint32_t first, uint32_t step, uint32_t *words) {
    uint32_t c0[PHILOX_LANES], c1[PHILOX_LANES], c2[PHILOX_LANES], c3[PHILOX_LANES];
    for (int lane = 0; lane < PHILOX_LANES; lane++) {
        c0[lane] = first + (uint32_t)lane;
        c1[lane] = step;
        c2[lane] = c3[lane] = 0;
    }
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        for (int lane = 0; lane < PHILOX_LANES; lane++) {
            const uint64_t product0 = (uint64_t)c0[lane] * 0xD2511F53u, product1 = (uint64_t)c2[lane] * 0xCD9E8D57u;
            c0[lane] = (uint32_t)(product1 >> 32) ^ c1[lane] ^ seed;
            c1[lane] = (uint32_t)product1;
            c2[lane] = (uint32_t)(product0 >> 32) ^ c3[lane] ^ stream;
            c3[lane] = (uint32_t)product0;
        }
        seed += 0x9E3779B9u;
        stream += 0xBB67AE85u;
    }
    for (int lane = 0; lane < PHILOX_LANES; lane++) {
        words[4 * lane] = c0[lane];
        words[4 * lane + 1] = c1[lane];
        words[4 * lane + 2] = c2[lane];
        words[4 * lane + 3] = c3[lane];
    }
}

void KERNEL(dropout)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct dropout_params *p = params;
    const float *x = buffers[0];
    const int32_t *rng = buffers[1];
    float *y = buffers[2];
    const int64_t end = min_i64(p->size, (task + 1) * DROPOUT_ITEMS);
    const vi threshold = vi_set1((int32_t)p->threshold);
    uint32_t words[4 * PHILOX_LANES];
    for (int64_t i = task * DROPOUT_ITEMS; i < end; i += 4 * PHILOX_LANES) {
        const int64_t count = min_i64(4 * PHILOX_LANES, end - i);
        philox((uint32_t)rng[0], (uint32_t)p->stream, (uint32_t)(i / 4), (uint32_t)rng[1], words);
        for (int64_t k = 0; k < count; k += VL) {
            vu word = (vu)vi_load((const int32_t *)words + k);
            vi kept = (vi)(word >> 8) >= threshold;
            vf value = vf_load_until(x + i, k, count) / p->keep;
            vf_store_until(y + i, (vf)((vi)value & kept), k, count);
        }
    }
}
