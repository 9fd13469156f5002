// Vector types and the multiply-add form, shared by every kernel of this folder (programs.py pastes this text where a
// kernel says #include "vectors.cl").
//
// VEC            floats in a vector register operation; 1, 2, 4, 8 or 16 (OpenCL C has no others).  The device's native width
//                on CPUs (16 with AVX-512, 8 with AVX2, 4 on Arm), 4 on GPUs, where float4 is the widest coalesced access.
// MULTIPLY_ADD   1: a*b+c, which the compiler may contract; 2: fma(a,b,c); 3: mad(a,b,c).  A capability that is probed: on some
//                runtimes fma() and mad() are slow calls, on others a*b+c is never contracted.
#include "builtins.cl"

#ifndef VEC
#define VEC 4
#endif
#ifndef MULTIPLY_ADD
#define MULTIPLY_ADD 1
#endif

#if MULTIPLY_ADD == 1
#pragma OPENCL FP_CONTRACT ON
#define multiply_add(a, b, c) ((a) * (b) + (c))
#elif MULTIPLY_ADD == 2
#define multiply_add(a, b, c) fma(a, b, c)
#else
#define multiply_add(a, b, c) mad(a, b, c)
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

// real: VEC floats, whole: VEC ints.  A comparison of reals gives a whole (-1 for true; 1 when VEC is 1), and
// `condition ? a : b` chooses lane by lane in either case.
#if VEC == 1
typedef float real;
typedef int whole;
#define bits_of(v) as_int(v)
#define real_of(v) as_float(v)
#else
typedef JOIN(float, VEC) real;
typedef JOIN(int, VEC) whole;
#define bits_of(v) JOIN(as_int, VEC)(v)
#define real_of(v) JOIN(as_float, VEC)(v)
#endif

// Vectors in memory, aligned as a float is.  vloadN and vstoreN say the same, but some runtimes (PoCL 3.0) call them as functions and spill
// every register around the call: a fifth of the speed.
typedef struct __attribute__((packed, aligned(4))) { real lanes; } real_in_memory;
typedef struct __attribute__((packed, aligned(4))) { whole lanes; } whole_in_memory;
#define load(p) (((__global const real_in_memory *)(p))->lanes)
#define store(v, p) (((__global real_in_memory *)(p))->lanes = (v))
#define load_private(p) (((__private const real_in_memory *)(p))->lanes)
#define store_private(v, p) (((__private real_in_memory *)(p))->lanes = (v))
#define load_local(p) (((__local const real_in_memory *)(p))->lanes)
#define store_local(v, p) (((__local real_in_memory *)(p))->lanes = (v))
#define load_whole(p) (((__global const whole_in_memory *)(p))->lanes)
#define store_whole(v, p) (((__global whole_in_memory *)(p))->lanes = (v))

// Four floats, whatever VEC is: where a shape asks for exactly four.
typedef struct __attribute__((packed, aligned(4))) { float4 lanes; } quad_in_memory;
#define load_quad(p) (((__global const quad_in_memory *)(p))->lanes)
#define store_quad(v, p) (((__global quad_in_memory *)(p))->lanes = (v))
#define store_quad_private(v, p) (((__private quad_in_memory *)(p))->lanes = (v))

// The first `count` floats at p; the lanes behind them are `other` (0).  Fewer than VEC go through private memory: nothing outside is
// ever read or written.
inline real load_padded(__global const float *p, const int count, const float other) {
    if (count >= VEC)
        return load(p);
    float lanes[VEC];
    for (int lane = 0; lane < VEC; ++lane)
        lanes[lane] = lane < count ? p[lane] : other;
    return load_private(lanes);
}

inline real load_some(__global const float *p, const int count) {
    return load_padded(p, count, 0.0f);
}

inline void store_some(const real value, __global float *p, const int count) {
    if (count >= VEC) {
        store(value, p);
        return;
    }
    float lanes[VEC];
    store_private(value, lanes);
    for (int lane = 0; lane < count; ++lane)
        p[lane] = lanes[lane];
}

// F(0) F(1) ... F(n-1): spells out a register block by name.  An array of vectors would be the natural way to write it, but
// compilers spill such arrays to memory, which costs up to eight times the speed.
#define EACH_1(F) F(0)
#define EACH_2(F) EACH_1(F) F(1)
#define EACH_3(F) EACH_2(F) F(2)
#define EACH_4(F) EACH_3(F) F(3)
#define EACH_5(F) EACH_4(F) F(4)
#define EACH_6(F) EACH_5(F) F(5)
#define EACH_7(F) EACH_6(F) F(6)
#define EACH_8(F) EACH_7(F) F(7)
#define EACH_9(F) EACH_8(F) F(8)
#define EACH_10(F) EACH_9(F) F(9)
#define EACH_11(F) EACH_10(F) F(10)
#define EACH_12(F) EACH_11(F) F(11)
#define EACH_13(F) EACH_12(F) F(12)
#define EACH_14(F) EACH_13(F) F(13)
#define EACH_15(F) EACH_14(F) F(14)
#define EACH_16(F) EACH_15(F) F(15)
#define EACH(n, F) JOIN(EACH_, n)(F)
