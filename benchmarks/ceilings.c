/* What this processor can do at most: a multiply-add loop in registers, and copying. Compiled with -O3 -march=native by ceilings.py. */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));

#define CHAINS 12 /* independent multiply-adds: more than latency times units, and they fit the registers with two operands */

/* Does `rounds` times CHAINS vector multiply-adds; returns their floating-point operations. `sink` takes a result, so that none is left out. */
int64_t multiply_add(int64_t rounds, float *sink)
{
    vf a[CHAINS], x = {0}, y = {0};
    for (int chain = 0; chain < CHAINS; chain++)
        a[chain] = x + (float)chain;
    x += 0.5f;
    y += 0.25f;
    vf a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4], a5 = a[5];
    vf a6 = a[6], a7 = a[7], a8 = a[8], a9 = a[9], a10 = a[10], a11 = a[11];
    for (int64_t round = 0; round < rounds; round++) {
        a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y, a5 = a5 * x + y;
        a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y, a10 = a10 * x + y, a11 = a11 * x + y;
    }
    vf sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
    memcpy(sink, &sum, sizeof(float));
    return rounds * CHAINS * 2 * (int64_t)(sizeof(vf) / sizeof(float));
}

/* Copies `bytes` from `source` to `target` `rounds` times; returns the bytes that were read and written. */
int64_t copy(int64_t rounds, void *target, const void *source, int64_t bytes)
{
    for (int64_t round = 0; round < rounds; round++) {
        memcpy(target, source, (size_t)bytes);
        __asm__ volatile("" : : "r"(target), "r"(source) : "memory");
    }
    return rounds * bytes * 2;
}
