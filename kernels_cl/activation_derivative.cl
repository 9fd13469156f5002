// Derivatives of the functions of activation.cl, from the function's input; at a kink PyTorch's choice.
#include "activation.cl"

// exp(-x*x/2), with the square split so that its rounding is not amplified by the exponential.
inline real gauss(const real x) {
    const real high = upper_half(x);
    const real value = exp(-0.5f * high * high) * exp(-0.5f * (x - high) * (x + high));
    return absolute(x) > (real)(15.0f) ? (real)(0.0f) : value;
}

inline real derivative(const real x, const float alpha, const float beta) {
    const real zero = (real)(0.0f), one = (real)(1.0f);
#if ACTIVATION == 0
    return one;
#elif ACTIVATION == 1
    return x > zero ? one : zero;
#elif ACTIVATION == 2
    return x > zero ? one : (real)(alpha);
#elif ACTIVATION == 3
    return x > (real)(alpha) ? x < (real)(beta) ? one : zero : zero;
#elif ACTIVATION == 4
    const real e = exp(-absolute(x));
    return e / ((one + e) * (one + e));
#elif ACTIVATION == 5
    const real e = exp(-2.0f * absolute(x));
    return 4.0f * e / ((one + e) * (one + e));
#elif ACTIVATION == 6
    const real bounded = x < (real)(-15.0f) ? (real)(-15.0f) : x > (real)(15.0f) ? (real)(15.0f) : x;
    return normal_distribution(x) + 0.398942280f * bounded * gauss(x);
#elif ACTIVATION == 7
    const real bounded = x < (real)(-110.0f) ? (real)(-110.0f) : x > (real)(110.0f) ? (real)(110.0f) : x;
    return sigmoid(bounded) * (one + bounded * sigmoid(-bounded));
#elif ACTIVATION == 8
    return x <= (real)(-3.0f) ? zero : x >= (real)(3.0f) ? one : x / 3.0f + 0.5f;
#elif ACTIVATION == 9
    const real bounded = x < (real)(-15.0f) ? (real)(-15.0f) : x > (real)(15.0f) ? (real)(15.0f) : x;
    const real square = bounded * bounded;
    const real u = 1.59576912f * bounded * (one + 0.044715f * square);
    return sigmoid(u) * (one + sigmoid(-u) * 1.59576912f * bounded * (one + 0.134145f * square));
#elif ACTIVATION == 10
    return x > zero ? one : alpha * exp(x);
#elif ACTIVATION == 11
    return sigmoid(x);
#elif ACTIVATION == 12
    return x > (real)(-3.0f) ? x < (real)(3.0f) ? (real)(1.0f / 6.0f) : zero : zero;
#elif ACTIVATION == 20
    return -one;
#elif ACTIVATION == 21
    return exp(x);
#elif ACTIVATION == 22
    return one / x;
#elif ACTIVATION == 23
    return 0.5f / sqrt(x);
#elif ACTIVATION == 24
    return -0.5f / (x * sqrt(x));
#elif ACTIVATION == 25
    return -one / (x * x);
#elif ACTIVATION == 26
    return x > zero ? one : x < zero ? -one : x;
#elif ACTIVATION == 28
    return alpha == 0.0f ? zero : alpha * pow(x, (real)(alpha - 1.0f));
#elif ACTIVATION == 29
    return (real)(alpha);
#elif ACTIVATION == 30
    return x == zero ? zero : alpha * pow(absolute(x), (real)(alpha - 1.0f));
#elif ACTIVATION == 31
    return 2.0f * x;
#elif ACTIVATION == 32
    return 1.12837917f * gauss(1.41421356f * x);
#else
    return zero;
#endif
}
