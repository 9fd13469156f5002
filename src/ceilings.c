/* Loops that a processor cannot do faster (ceilings.h). */
#include "ceilings.h"
#include "vec_basic.h"

void KERNEL(multiply_adds)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct multiply_adds_params *p = params;
    const vf x = vf_set1(0.5f), y = vf_set1(0.25f + (float)task);
    vf a0 = y, a1 = y + 1.0f, a2 = y + 2.0f, a3 = y + 3.0f, a4 = y + 4.0f, a5 = y + 5.0f;
    vf a6 = y + 6.0f, a7 = y + 7.0f, a8 = y + 8.0f, a9 = y + 9.0f, a10 = y + 10.0f, a11 = y + 11.0f;
    for (int64_t round = 0; round < p->rounds; round++) {
        a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y, a5 = a5 * x + y;
        a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y, a10 = a10 * x + y, a11 = a11 * x + y;
    }
    ((float *)buffers[0])[task] = (a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11)[0];
}

void KERNEL(copies)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct copies_params *p = params;
    const float *source = (const float *)buffers[0] + task * p->items;
    float *target = (float *)buffers[1] + task * p->items;
    for (int64_t round = 0; round < p->rounds; round++) {
        int64_t i = 0;
        for (; i + 4 * VL <= p->items; i += 4 * VL) {
            vf_store(target + i, vf_load(source + i));
            vf_store(target + i + VL, vf_load(source + i + VL));
            vf_store(target + i + 2 * VL, vf_load(source + i + 2 * VL));
            vf_store(target + i + 3 * VL, vf_load(source + i + 3 * VL));
            __asm__ volatile(""); /* a compiler that sees memcpy here may call a slower one */
        }
        for (; i < p->items; i++) target[i] = source[i];
        __asm__ volatile("" : : "r"(target), "r"(source) : "memory"); /* every round is done */
    }
}
