// The ceiling of a device's arithmetic: SUMS independent chains of multiply-adds of WIDTH floats in every work-item.
// Enough chains hide the latency of a multiply-add, and few enough stay in the registers.
#if FORM == 1
#pragma OPENCL FP_CONTRACT ON
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#elif FORM == 2
#define MULTIPLY_ADD(a, b, c) fma(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) mad(a, b, c)
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(float, WIDTH) real;

#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9)
#define SUMS 10

__kernel void multiply_add(__global float *result, const int rounds, const float factor, const float summand)
{
    const real a = (real)(factor), b = (real)(summand);
#define START(n) real sum##n = (real)((float)get_global_id(0) + n);
    EACH(START)
    for (int round = 0; round < rounds; ++round) {
#define STEP(n) sum##n = MULTIPLY_ADD(sum##n, a, b);
        EACH(STEP)
    }
    // The sums are used, so that no compiler leaves the loop out.
    real total = (real)(0.0f);
#define ADD(n) total += sum##n;
    EACH(ADD)
    float lanes[WIDTH];
    JOIN(vstore, WIDTH)(total, 0, lanes);
    float sum = 0.0f;
    for (int lane = 0; lane < WIDTH; ++lane)
        sum += lanes[lane];
    result[get_global_id(0)] = sum;
}
