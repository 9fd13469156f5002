/* Small operations on float vectors: square root, bounds, rounding, and the reduction of a vector to a number.
 *
 * What both GCC's vector extension and the processor have in one instruction, but the language has no word for. */
#ifndef PYCL_CNN_VEC_BASIC_H
#define PYCL_CNN_VEC_BASIC_H

#include "isa.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <immintrin.h>
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vf vf_sqrt(vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
    return (vf)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
    return (vf)vsqrtq_f32((float32x4_t)x);
#else
    for (int lane = 0; lane < VL; lane++) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
#endif
}

/* Larger and smaller of two; `b` where either is NaN. So vf_max(constant, x) lets a NaN in x through. */
ALWAYS_INLINE vf vf_max(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vf_select(a > b, a, b);
#endif
}

ALWAYS_INLINE vf vf_min(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vf_select(a < b, a, b);
#endif
}

/* ---- signs, bounds, rounding ---------------------------------------------------------------------------------- */

ALWAYS_INLINE vi vf_sign_bit(vf x) { return (vi)x & vi_set1(INT32_MIN); }
ALWAYS_INLINE vf vf_abs(vf x) { return (vf)((vi)x & vi_set1(INT32_MAX)); }
ALWAYS_INLINE vf vf_with_sign(vf magnitude, vi sign_bit) { return (vf)((vi)magnitude | sign_bit); }
ALWAYS_INLINE vf vf_clip(vf x, float low, float high) { return vf_min(vf_set1(high), vf_max(vf_set1(low), x)); }

/* Nearest integer, ties to even. Adding 2^23 pushes the fraction out; from 2^23 on a float has none. */
ALWAYS_INLINE vf vf_round(vf x) {
    vf size = vf_abs(x);
    vf rounded = (size + 8388608.0f) - 8388608.0f;
    return vf_with_sign(vf_select(size < 8388608.0f, rounded, size), vf_sign_bit(x));
}

ALWAYS_INLINE vf vf_floor(vf x) {
    vf nearest = vf_round(x);
    return vf_with_sign(vf_select(nearest > x, nearest - 1.0f, nearest), vf_sign_bit(x));
}

ALWAYS_INLINE vf vf_ceil(vf x) {
    vf nearest = vf_round(x);
    return vf_with_sign(vf_select(nearest < x, nearest + 1.0f, nearest), vf_sign_bit(x));
}

/* As vf_max and vf_min, but NaN where either is NaN. */
ALWAYS_INLINE vf vf_maximum(vf a, vf b) { return vf_select(a != a, a, vf_max(a, b)); }
ALWAYS_INLINE vf vf_minimum(vf a, vf b) { return vf_select(a != a, a, vf_min(a, b)); }

/* ---- edges ---------------------------------------------------------------------------------------------------- */

/* The first `lanes` lanes, of which there may be VL: plain loads and stores where the compiler sees that there are. */
ALWAYS_INLINE vf vf_load_lanes(const float *x, int64_t lanes) {
    return lanes == VL ? vf_load(x) : vf_load_first(x, lanes);
}

ALWAYS_INLINE void vf_store_lanes(float *y, vf value, int64_t lanes) {
    if (lanes == VL) vf_store(y, value);
    else vf_store_first(y, value, lanes);
}

/* The vector at x[i], of a row that ends at `end`: whole, or only its first lanes, the rest zero. */
ALWAYS_INLINE vf vf_load_until(const float *x, int64_t i, int64_t end) {
    return i + VL <= end ? vf_load(x + i) : vf_load_first(x + i, end - i);
}

ALWAYS_INLINE void vf_store_until(float *y, vf value, int64_t i, int64_t end) {
    if (i + VL <= end) vf_store(y + i, value);
    else vf_store_first(y + i, value, end - i);
}

/* ---- across lanes --------------------------------------------------------------------------------------------- */

/* x with its lanes moved down by n, a constant; those that fall out come back at the top. */
#define ROTATED(n, i) ((i) + (n)) % VL
#if VL == 16
#define VF_ROTATE(x, n)                                                                                                \
    __builtin_shufflevector(x, x, ROTATED(n, 0), ROTATED(n, 1), ROTATED(n, 2), ROTATED(n, 3), ROTATED(n, 4),           \
                            ROTATED(n, 5), ROTATED(n, 6), ROTATED(n, 7), ROTATED(n, 8), ROTATED(n, 9), ROTATED(n, 10), \
                            ROTATED(n, 11), ROTATED(n, 12), ROTATED(n, 13), ROTATED(n, 14), ROTATED(n, 15))
#elif VL == 8
#define VF_ROTATE(x, n)                                                                                                \
    __builtin_shufflevector(x, x, ROTATED(n, 0), ROTATED(n, 1), ROTATED(n, 2), ROTATED(n, 3), ROTATED(n, 4),           \
                            ROTATED(n, 5), ROTATED(n, 6), ROTATED(n, 7))
#else
#define VF_ROTATE(x, n) __builtin_shufflevector(x, x, ROTATED(n, 0), ROTATED(n, 1), ROTATED(n, 2), ROTATED(n, 3))
#endif

/* The sum of all lanes, added in pairs. */
ALWAYS_INLINE float vf_sum(vf x) {
    if (VL > 8) x += VF_ROTATE(x, 8);
    if (VL > 4) x += VF_ROTATE(x, 4);
    x += VF_ROTATE(x, 2);
    x += VF_ROTATE(x, 1);
    return x[0];
}

#endif
