/* Dropout (dropout.h) on Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011).
 *
 * Every 64-bit lane is a generator with its own counter. The four words of its state live in the lower halves of four
 * vectors; the upper halves are never looked at, as the multiplication takes lower halves only.
 *
 *     lane 0: words of elements 0 1 2 3      lane 1: 4 5 6 7      lane 2: 8 9 10 11      ...                           */
#include "dropout.h"
#include "vec_basic.h"

typedef uint64_t vq __attribute__((vector_size(4 * VL)));
#define PHILOX_LANES (VL / 2)
#define PHILOX_ROUNDS 10

/* Lower halves multiplied to 64 bits. */
ALWAYS_INLINE vq vq_multiply(vq a, vq b) {
#if defined(__AVX512F__)
    return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vq)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* The words of the generators with counters (first + lane, step, 0, 0), in element order: lower and upper vector. */
ALWAYS_INLINE void philox(uint32_t seed, uint32_t stream, uint32_t first, uint32_t step, vu *lower, vu *upper) {
    const vq multiplier0 = (vq){0} + 0xD2511F53u, multiplier1 = (vq){0} + 0xCD9E8D57u;
    vq word0, word1 = (vq){0} + step, word2 = {0}, word3 = {0};
    for (int lane = 0; lane < PHILOX_LANES; lane++) word0[lane] = (uint32_t)lane;
    word0 += first;
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        const vq product0 = vq_multiply(word0, multiplier0), product1 = vq_multiply(word2, multiplier1);
        word0 = (product1 >> 32) ^ word1 ^ seed;
        word1 = product1;
        word2 = (product0 >> 32) ^ word3 ^ stream;
        word3 = product0;
        seed += 0x9E3779B9u;
        stream += 0xBB67AE85u;
    }
    const vq words01 = (word0 & 0xffffffffu) | word1 << 32, words23 = (word2 & 0xffffffffu) | word3 << 32;
#if VL == 16
    *lower = (vu)__builtin_shufflevector(words01, words23, 0, 8, 1, 9, 2, 10, 3, 11);
    *upper = (vu)__builtin_shufflevector(words01, words23, 4, 12, 5, 13, 6, 14, 7, 15);
#elif VL == 8
    *lower = (vu)__builtin_shufflevector(words01, words23, 0, 4, 1, 5);
    *upper = (vu)__builtin_shufflevector(words01, words23, 2, 6, 3, 7);
#else
    *lower = (vu)__builtin_shufflevector(words01, words23, 0, 2);
    *upper = (vu)__builtin_shufflevector(words01, words23, 1, 3);
#endif
}

ALWAYS_INLINE vf dropout_value(vf x, vu word, vi threshold, float keep) {
    return (vf)((vi)(x / keep) & ((vi)(word >> 8) >= threshold));
}

void KERNEL(dropout)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct dropout_params *p = params;
    const float *x = buffers[0];
    const int32_t *rng = buffers[1];
    float *y = buffers[2];
    const int64_t end = min_i64(p->size, (task + 1) * DROPOUT_ITEMS);
    const uint32_t seed = (uint32_t)rng[0], step = (uint32_t)rng[1];
    const vi threshold = vi_set1((int32_t)p->threshold);
    for (int64_t i = task * DROPOUT_ITEMS; i < end; i += 2 * VL) {
        vu lower, upper;
        philox(seed, (uint32_t)p->stream, (uint32_t)(i / 4), step, &lower, &upper);
        vf_store_until(y, dropout_value(vf_load_until(x, i, end), lower, threshold, p->keep), i, end);
        if (i + VL < end)
            vf_store_until(y, dropout_value(vf_load_until(x, i + VL, end), upper, threshold, p->keep), i + VL, end);
    }
}
