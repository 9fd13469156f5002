/* The sum of exponentials of a row, which softmax and cross entropy share. */
#ifndef PYCL_CNN_SOFTMAX_ROW_H
#define PYCL_CNN_SOFTMAX_ROW_H

#include "reduce_tree.h"
#include "vec_math.h"

/* Elements whose terms are summed before they join the total. */
#define SOFTMAX_BLOCK 2048

/* The sum of exp(x - shift); the exponentials themselves go to y unless that is NULL. */
static float exponential_sum(const float *x, int64_t count, float shift, float *y) {
    vf total = vf_set1(0.0f);
    for (int64_t begin = 0; begin < count; begin += SOFTMAX_BLOCK) {
        const int64_t end = min_i64(count, begin + SOFTMAX_BLOCK);
        vf block = vf_set1(0.0f);
        int64_t i = begin;
        for (; i + VL <= end; i += VL) {
            vf e = vf_exp(vf_load(x + i) - shift);
            if (y) vf_store(y + i, e);
            block += e;
        }
        if (i < end) {
            vf e = vf_exp(vf_load_first(x + i, end - i) - shift);
            if (y) vf_store_first(y + i, e, end - i);
            block += vf_select(vi_first_lanes(end - i), e, vf_set1(0.0f));
        }
        total += block;
    }
    return vf_sum(total);
}

#endif
