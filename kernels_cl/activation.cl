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

// |x| and the upper half of x's digits, by bits: as calls of a runtime they would cost more than what surrounds them.
inline real absolute(const real x) {
    return real_of(bits_of(x) & (whole)(0x7FFFFFFF));
}

inline real upper_half(const real x) {
    return real_of(bits_of(x) & (whole)(0xFFFFF000));
}

// 1/(1+exp(-x)) from an exponential that cannot overflow, so that the small tail keeps its relative accuracy.
inline real sigmoid(const real x) {
    const real e = exp(-absolute(x));
    return (x < (real)(0.0f) ? e : (real)(1.0f)) / ((real)(1.0f) + e);
}

// The normal distribution function erfc(-x/sqrt(2))/2, with 5e-7 of relative error also in its small tail, where a runtime's erf would
// cancel and its erfc takes three times as long.  Press, Teukolsky, Vetterling, Flannery, Numerical Recipes, section 6.2:
// erfc(z) = t exp(-z*z + p(t)), t = 1/(1 + z/2).  The square is split so that -x*x/2 is exact, and what the sum in the exponent rounds away
// is applied as a factor.
inline real normal_distribution(const real x) {
    const real size = absolute(x) > (real)(15.0f) ? (real)(15.0f) : absolute(x);
    const real t = (real)(1.0f) / ((real)(1.0f) + 0.353553391f * size);
    real p = 0.17087277f * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    const real high = upper_half(size);
    const real square = -0.5f * high * high;
    const real rest = p - 0.5f * ((size - high) * (size + high));
    const real exponent = square + rest, kept = exponent - square;
    const real lost = (square - (exponent - kept)) + (rest - kept);
    const real tail = 0.5f * t * exp(exponent) * ((real)(1.0f) + lost);
    const real value = x < (real)(0.0f) ? tail : (real)(1.0f) - tail;
    return x != x ? x : value;
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
    return (x < zero ? zero : x) + log1p(exp(-absolute(x)));
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
    return absolute(x);
#elif ACTIVATION == 27
    return x > zero ? (real)(1.0f) : x < zero ? (real)(-1.0f) : x;
#elif ACTIVATION == 28
    return pow(x, (real)(alpha));
#elif ACTIVATION == 29
    return alpha * x + beta;
#elif ACTIVATION == 30
    return copysign(pow(absolute(x), (real)(alpha)), x);
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
