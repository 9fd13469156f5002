// Functions of one variable, shared by the epilogues (convolution, matmul, batch norm, binary) and the unary kernel.
//
// ACTIVATION  which function `activate(x, alpha, beta)` is; chosen at build time, because a switch in the inlined epilogue costs
//             more build time than the few kinds a network uses:
//    0 none          1 relu         2 leaky_relu(alpha)   3 clip(alpha, beta)   4 sigmoid       5 tanh        6 gelu (erf form)
//    7 silu          8 hardswish    9 gelu_tanh          10 elu(alpha)         11 softplus     12 hardsigmoid
//   20 neg          21 exp         22 log                23 sqrt               24 rsqrt        25 reciprocal  26 abs   27 sign
//   28 pow(alpha)   29 alpha*x+beta  30 sign(x)*|x|^alpha  31 square           32 erf          33 floor       34 ceil  35 round (half to even)
// NaN gives NaN, the limits at +-infinity are exact.  Comparisons are written so that NaN takes the branch that keeps it.
#ifndef ACTIVATION
#define ACTIVATION 0
#endif

// 1/(1+exp(-x)) from an exponential that cannot overflow, so that the small tail keeps its relative accuracy.
inline real sigmoid(const real x) {
    const real e = exp(-fabs(x));
    return (x < (real)(0.0f) ? e : (real)(1.0f)) / ((real)(1.0f) + e);
}

// erfc(-x/sqrt(2))/2, the normal distribution function.  In its small tail the rounding of x/sqrt(2) would be amplified by
// x*x, so the rounding error is computed exactly (both factors split into halves whose products are exact) and applied to
// first order with erfc'/erfc = -(z + sqrt(z*z + 1.6)) to a few percent.
inline real normal_distribution(real x) {
    x = x < (real)(-15.0f) ? (real)(-15.0f) : x > (real)(15.0f) ? (real)(15.0f) : x;
    const real x_high = real_of(bits_of(x) & (whole)(0xFFFFF000));
    const real x_low = x - x_high;
    const float c = 0.707106769f, c_high = 0.70703125f, c_low = 7.55310059e-05f;
    const real z = -x * c;
    const real error = -(((x_high * c_high + z) + x_high * c_low) + x_low * c_high + x_low * c_low);
    return 0.5f * erfc(z) * ((real)(1.0f) - error * (z + sqrt(z * z + 1.6f)));
}

inline real activate(const real x, const float alpha, const float beta) {
    const real zero = (real)(0.0f);
#if ACTIVATION == 0
    return x;
#elif ACTIVATION == 1
    return x < zero ? zero : x;
#elif ACTIVATION == 2
    return x < zero ? alpha * x : x;
#elif ACTIVATION == 3
    return x < (real)(alpha) ? (real)(alpha) : x > (real)(beta) ? (real)(beta) : x;
#elif ACTIVATION == 4
    return sigmoid(x);
#elif ACTIVATION == 5
    return tanh(x);
#elif ACTIVATION == 6
    return x < (real)(-15.0f) ? zero : x * normal_distribution(x);
#elif ACTIVATION == 7
    return x < (real)(-110.0f) ? zero : x * sigmoid(x);
#elif ACTIVATION == 8
    return x <= (real)(-3.0f) ? zero : x >= (real)(3.0f) ? x : x * (x + 3.0f) / 6.0f;
#elif ACTIVATION == 9
    return x < (real)(-15.0f) ? zero : x > (real)(15.0f) ? x : x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
#elif ACTIVATION == 10
    return x > zero ? x : alpha * expm1(x);
#elif ACTIVATION == 11
    return (x < zero ? zero : x) + log1p(exp(-fabs(x)));
#elif ACTIVATION == 12
    return x <= (real)(-3.0f) ? zero : x >= (real)(3.0f) ? (real)(1.0f) : x / 6.0f + 0.5f;
#elif ACTIVATION == 20
    return -x;
#elif ACTIVATION == 21
    return exp(x);
#elif ACTIVATION == 22
    return log(x);
#elif ACTIVATION == 23
    return sqrt(x);
#elif ACTIVATION == 24
    return (real)(1.0f) / sqrt(x);
#elif ACTIVATION == 25
    return (real)(1.0f) / x;
#elif ACTIVATION == 26
    return fabs(x);
#elif ACTIVATION == 27
    return x > zero ? (real)(1.0f) : x < zero ? (real)(-1.0f) : x;
#elif ACTIVATION == 28
    return pow(x, (real)(alpha));
#elif ACTIVATION == 29
    return alpha * x + beta;
#elif ACTIVATION == 30
    return copysign(pow(fabs(x), (real)(alpha)), x);
#elif ACTIVATION == 31
    return x * x;
#elif ACTIVATION == 32
    return erf(x);
#elif ACTIVATION == 33
    return floor(x);
#elif ACTIVATION == 34
    return ceil(x);
#elif ACTIVATION == 35
    return rint(x);
#else
#error "ACTIVATION names no function of activation.cl"
#endif
}
