/* The instruction set a translation unit is compiled for, as the kernels see it: names with the set's suffix, the
 * widest float vector, and the register tile of the GEMM micro-kernel.
 *
 * setup.py compiles src/kernels.c once per instruction set with that set's flags and -DISA=<name>. Vectors are the
 * GCC/clang vector extension, so that the same source serves every set; an intrinsic appears only where the extension
 * has no word for it (masked loads and stores). */
#ifndef PYCL_CNN_ISA_H
#define PYCL_CNN_ISA_H

#include <stdint.h>
#include <string.h>

#ifndef ISA
#define ISA generic
#endif

#define KERNEL_CONCATENATE(name, isa) name##_##isa
#define KERNEL_EXPAND(name, isa) KERNEL_CONCATENATE(name, isa)
/* KERNEL(igemm) is igemm_avx2 in the translation unit compiled for AVX2. */
#define KERNEL(name) KERNEL_EXPAND(name, ISA)

/* VL: floats in a vector. MR x NV: rows and vectors of the GEMM register tile; MR * NV accumulators, NV vectors of the
 * panel and one broadcast have to fit the register file. NR: floats in a full panel row. FEW_TILES: tiles of Winograd's whose
 * sums for a row of 6 frequencies fit beside the row of a filter; 0 where 16 registers hold too few to be worth it (winograd_few.h). */
#if defined(__AVX512F__)
#include <immintrin.h>
#define VL 16
#define MR 14 /* 28 accumulators + 2 panel vectors of 32 registers */
#define NV 2
#define FEW_TILES 4
#elif defined(__AVX2__)
#include <immintrin.h>
#define VL 8
#define MR 6 /* 12 accumulators + 2 panel vectors + 1 broadcast of 16 registers */
#define NV 2
#define FEW_TILES 0
#elif defined(__aarch64__)
#define VL 4
#define MR 6 /* 24 accumulators + 4 panel vectors + broadcasts of 32 registers */
#define NV 4
#define FEW_TILES 4
#else
#define VL 4
#define MR 6
#define NV 2
#define FEW_TILES 0
#endif
#define NR (NV * VL)
/* Floats of a panel from what is multiplied to what is fetched: as long as memory takes to answer. */
#define PANEL_AHEAD 1024

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef vf vf_unaligned __attribute__((aligned(4), may_alias));
typedef vi vi_unaligned __attribute__((aligned(4), may_alias));

static inline vf vf_load(const float *source) { return *(const vf_unaligned *)source; }
static inline void vf_store(float *target, vf value) { *(vf_unaligned *)target = value; }
static inline vi vi_load(const int32_t *source) { return *(const vi_unaligned *)source; }
static inline void vi_store(int32_t *target, vi value) { *(vi_unaligned *)target = value; }

/* x - {0}: a scalar minus a zero vector broadcasts without turning +0 or NaN into anything else. */
static inline vf vf_set1(float value) { return value - (vf){0}; }
static inline vi vi_set1(int32_t value) { return value - (vi){0}; }

/* All ones in the first `count` lanes. */
static inline vi vi_first_lanes(int64_t count) {
    vi lanes;
    for (int lane = 0; lane < VL; lane++) lanes[lane] = lane;
    return lanes < vi_set1((int32_t)count);
}

/* The first `count` lanes (0 <= count <= VL); nothing beyond them is touched. Lanes not loaded are zero. */
static inline vf vf_load_first(const float *source, int64_t count) {
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), source);
#elif defined(__AVX2__)
    return (vf)_mm256_maskload_ps(source, (__m256i)vi_first_lanes(count));
#else
    vf value = {0};
    for (int lane = 0; lane < VL; lane++)
        if (lane < count) value[lane] = source[lane];
    return value;
#endif
}

static inline void vf_store_first(float *target, vf value, int64_t count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(target, (__mmask16)((1u << count) - 1), (__m512)value);
#elif defined(__AVX2__)
    _mm256_maskstore_ps(target, (__m256i)vi_first_lanes(count), (__m256)value);
#else
    for (int lane = 0; lane < VL; lane++)
        if (lane < count) target[lane] = value[lane];
#endif
}

/* Lane-wise choice: `mask` lanes are all ones or all zeros, as vector comparisons give them. */
static inline vf vf_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* Before a loop of a template: unroll it so many times. */
#define UNROLL_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define UNROLL(times) UNROLL_PRAGMA(unroll times)
#else
#define UNROLL(times) UNROLL_PRAGMA(GCC unroll times)
#endif

/* Floats of an array that comes from memory rather than from a cache. */
enum { FAR_FLOATS = 1 << 20 };

/* Reads a run of floats, so that what reads it next in any order finds it in a cache. Processors foresee one that is read as it lies in memory;
 * of small pieces of several rows they do not see that all will be read, and wait for memory. */
static inline void touch(const float *run, int64_t floats) {
    enum { LINE = 16 }; /* of the shortest cache lines */
    for (int64_t i = 0; i < floats; i += LINE) (void)*(const volatile float *)(run + i);
    if (floats > 0) (void)*(const volatile float *)(run + floats - 1);
}

/* The same for `rows` runs, `stride` floats apart. */
static inline void touch_rows(const float *x, int64_t stride, int64_t rows, int64_t floats) {
    for (int64_t row = 0; row < rows; row++) touch(x + row * stride, floats);
}

static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif
