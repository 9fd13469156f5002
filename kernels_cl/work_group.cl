// Reductions across the lanes of a vector and the items of a work-group, in a fixed order.
//
// WORK_GROUP  items of a work-group along dimension 0; a power of two.  1 on CPUs, where a work-group runs on one core and further
//             items would only add loops; 64..256 on GPUs, where neighbouring items read neighbouring memory.
#ifndef WORK_GROUP
#define WORK_GROUP 1
#endif

#define COMBINE_SUM(a, b) ((a) + (b))
#define COMBINE_MAX(a, b) ((a) != (a) ? (a) : (a) < (b) || (b) != (b) ? (b) : (a))
#define COMBINE_MIN(a, b) ((a) != (a) ? (a) : (a) > (b) || (b) != (b) ? (b) : (a))
#define COMBINE_PROD(a, b) ((a) * (b))

inline real maximum(const real a, const real b) {
    return a != a ? a : a < b ? b : b != b ? b : a;
}

inline real minimum(const real a, const real b) {
    return a != a ? a : a > b ? b : b != b ? b : a;
}

// Defines NAME(value, scratch): the combination of all lanes of all items of the work-group, for every item.
// scratch: WORK_GROUP floats of local memory (untouched when WORK_GROUP is 1); every item must call it.
#if WORK_GROUP == 1
#define DEFINE_WORK_GROUP_REDUCTION(NAME, COMBINE) \
inline float NAME(const real value, __local float *scratch) { \
    float lanes[VEC]; \
    store_private(value, lanes); \
    float result = lanes[0]; \
    for (int lane = 1; lane < VEC; ++lane) \
        result = COMBINE(result, lanes[lane]); \
    return result; \
}
#else
#define DEFINE_WORK_GROUP_REDUCTION(NAME, COMBINE) \
inline float NAME(const real value, __local float *scratch) { \
    const int item = get_local_id(0); \
    float lanes[VEC]; \
    store_private(value, lanes); \
    float result = lanes[0]; \
    for (int lane = 1; lane < VEC; ++lane) \
        result = COMBINE(result, lanes[lane]); \
    scratch[item] = result; \
    for (int reach = WORK_GROUP / 2; reach > 0; reach /= 2) { \
        barrier(CLK_LOCAL_MEM_FENCE); \
        if (item < reach) \
            scratch[item] = COMBINE(scratch[item], scratch[item + reach]); \
    } \
    barrier(CLK_LOCAL_MEM_FENCE); \
    result = scratch[0]; \
    barrier(CLK_LOCAL_MEM_FENCE); \
    return result; \
}
#endif
