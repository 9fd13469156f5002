// What a device can do at most: loops to be timed.  See pycl_cnn/backends/opencl/ceilings.py.
//
// Work-items of multiply_adds hold CHAINS vector accumulators that do not depend on each other: more than the latency of a multiply-add
// times its units, and few enough for the registers.  No accumulator may be left out, so their sum goes to memory.
//
//    copies on a CPU: an item copies `span` neighbouring vectors (step 1)       on a GPU: items side by side (step = number of items)
//      | item 0 . . . | item 1 . . . | ...                                        | 0 1 2 3 ... | 0 1 2 3 ... |
#include "vectors.cl"

#define CHAINS 12

// y[item] = something; rounds * CHAINS * VEC multiply-adds.
__kernel void multiply_adds(__global float *y, const int y_offset, const int rounds, const float factor, const float summand)
{
    const int item = get_global_id(0);
    const real f = (real)(factor), s = (real)(summand);
#define DECLARE(n) real sum##n = (real)(summand + n);
#define STEP(n) sum##n = multiply_add(sum##n, f, s);
    DECLARE(0) DECLARE(1) DECLARE(2) DECLARE(3) DECLARE(4) DECLARE(5) DECLARE(6) DECLARE(7) DECLARE(8) DECLARE(9) DECLARE(10) DECLARE(11)
    for (int round = 0; round < rounds; ++round) {
        STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
    }
    float lanes[VEC];
    store_private(sum0 + sum1 + sum2 + sum3 + sum4 + sum5 + sum6 + sum7 + sum8 + sum9 + sum10 + sum11, lanes);
    y[y_offset + item] = lanes[0];
}

// y = x, `rounds` times; an item's vectors begin at vector item*item_step and lie `step` vectors apart.
__kernel void copies(__global const float *x, const int x_offset, __global float *y, const int y_offset,
                     const int span, const int item_step, const int step, const int rounds)
{
    const int first = get_global_id(0) * item_step;
    for (int round = 0; round < rounds; ++round)
        for (int i = 0; i < span; ++i) {
            const int place = (first + i * step) * VEC;
            store(load(x + x_offset + place), y + y_offset + place);
        }
}
