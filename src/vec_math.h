/* Elementary functions on float vectors, and the activations built from them.
 *
 * Everything is branch-free vector arithmetic, so that a lane's result does not depend on its neighbours. Errors stay
 * below 4 units in the last place (1e-6 relative where a function is steep) over the whole float range, with the usual
 * loss of digits where a result is subnormal; infinities give the limit, NaN gives NaN. The polynomials are minimax fits
 * made for these kernels; each names the function and interval that it stands for. */
#ifndef PYCL_CNN_VEC_MATH_H
#define PYCL_CNN_VEC_MATH_H

#include "vec_basic.h"

/* ---- exp ------------------------------------------------------------------------------------------------------ */

/* exp(high + low) = 2^n * (1 + fraction), for |low| < 0.1; |fraction| < 0.42. */
struct exp_parts {
    vf fraction;
    vf n;
};

ALWAYS_INLINE struct exp_parts exp_split(vf high, vf low) {
    struct exp_parts parts;
    const float shift = 12582912.0f; /* 1.5 * 2^23 leaves the nearest integer in the low bits */
    vf bounded = vf_clip(high, -105.0f, 90.0f);
    parts.n = (bounded * 1.44269504088896341f + shift) - shift;
    vf r = bounded - parts.n * 0.693359375f; /* ln 2 in two pieces; the first product is exact */
    r = (r + parts.n * 2.12194440e-4f) + low;
    /* (expm1(r) - r) / r^2 on [-ln2/2, ln2/2] */
    vf p = r * 1.395053969e-3f + 8.368917950e-3f;
    p = p * r + 4.166620508e-2f;
    p = p * r + 1.666651860e-1f;
    p = p * r + 5.000000095e-1f;
    parts.fraction = p * r * r + r;
    return parts;
}

/* 2^n for integral n in -126 .. 127. */
ALWAYS_INLINE vf vf_power_of_two(vf n) {
    return (vf)(((vu)(n + 12583039.0f)) << 23); /* 1.5 * 2^23 + 127: the biased exponent ends in the low bits */
}

/* x * 2^n for integral n in -252 .. 254, in two steps so that overflow and subnormal results come out right. */
ALWAYS_INLINE vf vf_scale(vf x, vf n) {
    vf half = (n * 0.5f + 12582912.0f) - 12582912.0f;
    return (x * vf_power_of_two(half)) * vf_power_of_two(n - half);
}

/* exp(high + low). */
ALWAYS_INLINE vf vf_exp_sum(vf high, vf low) {
    struct exp_parts parts = exp_split(high, low);
    return vf_scale(parts.fraction + 1.0f, parts.n);
}

ALWAYS_INLINE vf vf_exp(vf x) {
    struct exp_parts parts = exp_split(x, vf_set1(0.0f));
    return vf_scale(parts.fraction + 1.0f, parts.n);
}

/* exp(x) - 1 for x <= 0, accurate near zero. */
ALWAYS_INLINE vf vf_expm1_negative(vf x) {
    struct exp_parts parts = exp_split(vf_max(vf_set1(-30.0f), x), vf_set1(0.0f));
    vf scale = vf_power_of_two(parts.n);
    return parts.fraction * scale + (scale - 1.0f);
}

/* ---- log ------------------------------------------------------------------------------------------------------ */

/* A positive number = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)); subnormals included. */
struct log_parts {
    vf mantissa;
    vf exponent;
};

ALWAYS_INLINE struct log_parts log_split(vf x) {
    struct log_parts parts;
    vi subnormal = x < 1.17549435e-38f;
    vu bits = (vu)vf_select(subnormal, x * 8388608.0f, x);
    vi exponent = (vi)(bits - 0x3f3504f3u) >> 23;
    parts.mantissa = (vf)(bits - ((vu)exponent << 23));
    parts.exponent = __builtin_convertvector(exponent - (subnormal & 23), vf);
    return parts;
}

ALWAYS_INLINE vf vf_log(vf x) {
    struct log_parts parts = log_split(x);
    vf f = parts.mantissa - 1.0f;
    /* ((log(1+f) - f) / f^2 + 1/2) / f on [sqrt(1/2) - 1, sqrt(2) - 1] */
    vf p = f * -7.634496362e-2f + 1.276157689e-1f;
    p = p * f - 1.316018239e-1f;
    p = p * f + 1.420175802e-1f;
    p = p * f - 1.662335735e-1f;
    p = p * f + 2.000122688e-1f;
    p = p * f - 2.500082103e-1f;
    p = p * f + 3.333333171e-1f;
    p = p * f - 0.5f;
    vf result = parts.exponent * 0.693359375f + (f + (p * f * f - parts.exponent * 2.12194440e-4f));
    const float infinity = __builtin_inff();
    result = vf_select(x == 0.0f, vf_set1(-infinity), result);
    result = vf_select(x < 0.0f, vf_set1(__builtin_nanf("")), result);
    return vf_select((x == infinity) | (x != x), x, result);
}

/* log(1 + x) for x in [0, 1]: 2 atanh(s), s = x / (2 + x). */
ALWAYS_INLINE vf vf_log1p_unit(vf x) {
    vf s = x / (x + 2.0f);
    vf z = s * s;
    /* (atanh(s) / s - 1) / s^2 for s^2 in [0, 1/9] */
    vf p = z * 1.401222976e-1f + 1.399957046e-1f;
    p = p * z + 2.001084954e-1f;
    p = p * z + 3.333320657e-1f;
    vf twice = s + s;
    return p * z * twice + twice;
}

/* ---- tanh, sigmoid, the error function ------------------------------------------------------------------------ */

ALWAYS_INLINE vf vf_tanh(vf x) {
    vf decay = vf_expm1_negative(vf_abs(x) * -2.0f);
    return vf_with_sign(vf_abs(decay / (decay + 2.0f)), vf_sign_bit(x));
}

/* The logistic function 1 / (1 + exp(-(high + low))) and its derivative. Both come from exp of a negative number, so
 * the small side of the curve keeps its digits. */
struct logistic {
    vf value;
    vf slope;
};

ALWAYS_INLINE struct logistic vf_logistic(vf high, vf low) {
    struct logistic logistic;
    vi sign = vf_sign_bit(high);
    vf decay = vf_exp_sum((vf)((vi)high | INT32_MIN), (vf)((vi)-low ^ sign));
    vf large = 1.0f / (decay + 1.0f);
    vf small = decay * large;
    logistic.value = vf_select(sign != 0, small, large);
    logistic.slope = small * large;
    return logistic;
}

ALWAYS_INLINE vf vf_sigmoid(vf x) {
    vf decay = vf_exp((vf)((vi)x | INT32_MIN));
    vf large = 1.0f / (decay + 1.0f);
    return vf_select(x < 0.0f, decay * large, large);
}

/* exp(t^2) * erfc(t) for t in [0, 10.3]: a polynomial in q = (t - 3) / (t + 3) over 1 + 2t. */
ALWAYS_INLINE vf vf_scaled_erfc(vf t) {
    vf q = (t - 3.0f) / (t + 3.0f);
    vf p = q * -2.662389860e-4f - 7.726851066e-4f;
    p = p * q + 2.004844958e-3f;
    p = p * q + 2.565722040e-3f;
    p = p * q - 2.379953708e-2f;
    p = p * q + 6.829574414e-2f;
    p = p * q - 1.192706143e-1f;
    p = p * q + 1.296464517e-1f;
    p = p * q - 4.756242010e-2f;
    p = p * q - 1.356211409e-1f;
    p = p * q + 1.253008059e+0f;
    return p / (t + t + 1.0f);
}

ALWAYS_INLINE vf vf_erf(vf x) {
    vf size = vf_abs(x);
    vf t = vf_min(vf_set1(5.0f), size);
    vf large = 1.0f - vf_exp(-(t * t)) * vf_scaled_erfc(t);
    vf z = t * t;
    /* erf(x) / x - 1 for x^2 in [0, 1] */
    vf p = z * 7.853854321e-5f - 8.010191495e-4f;
    p = p * z + 5.188327443e-3f;
    p = p * z - 2.685381181e-2f;
    p = p * z + 1.128358515e-1f;
    p = p * z - 3.761262582e-1f;
    p = p * z + 1.283791657e-1f;
    return vf_with_sign(vf_select(t < 1.0f, p * t + t, large), vf_sign_bit(x));
}

/* exp(factor * size^2) for size >= 0 and a factor that is a power of two. exp of a large number magnifies its rounding
 * error, so the square is taken as that of the upper 12 bits of size and a rest. */
ALWAYS_INLINE vf vf_bell(vf size, float factor) {
    vf upper = (vf)((vi)size & vi_set1(-4096));
    return vf_exp_sum(upper * upper * factor, (size - upper) * (size + upper) * factor);
}

/* The standard normal distribution: cdf(x), and exp(-x^2/2) which its density is a multiple of. */
struct normal {
    vf cdf;
    vf bell;
};

ALWAYS_INLINE struct normal vf_normal(vf x) {
    struct normal normal;
    vf size = vf_min(vf_set1(14.5f), vf_abs(x));
    normal.bell = vf_bell(size, -0.5f);
    vf tail = normal.bell * 0.5f * vf_scaled_erfc(size * 0.70710678118654752f);
    normal.cdf = vf_select(x < 0.0f, tail, 1.0f - tail);
    return normal;
}

/* ---- functions that need doubles ------------------------------------------------------------------------------ */

/* Half as many lanes, and the doubles they widen to: for the few places where float arithmetic is too short. */
typedef float vf_half __attribute__((vector_size(2 * VL)));
typedef double vd __attribute__((vector_size(4 * VL)));

#if VL == 16
#define VF_LOWER(x) __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7)
#define VF_UPPER(x) __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15)
#define VF_JOIN(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#elif VL == 8
#define VF_LOWER(x) __builtin_shufflevector(x, x, 0, 1, 2, 3)
#define VF_UPPER(x) __builtin_shufflevector(x, x, 4, 5, 6, 7)
#define VF_JOIN(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7)
#else
#define VF_LOWER(x) __builtin_shufflevector(x, x, 0, 1)
#define VF_UPPER(x) __builtin_shufflevector(x, x, 2, 3)
#define VF_JOIN(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3)
#endif

ALWAYS_INLINE vd vd_lower(vf x) { return __builtin_convertvector(VF_LOWER(x), vd); }
ALWAYS_INLINE vd vd_upper(vf x) { return __builtin_convertvector(VF_UPPER(x), vd); }

ALWAYS_INLINE vf vf_narrow(vd lower, vd upper) {
    vf_half a = __builtin_convertvector(lower, vf_half), b = __builtin_convertvector(upper, vf_half);
    return VF_JOIN(a, b);
}

/* The argument of the logistic function in gelu_tanh, 2 sqrt(2/pi) (x + 0.044715 x^3), as a float and its rest. */
ALWAYS_INLINE void gelu_tanh_argument(vf x, vf *high, vf *low) {
    vd lower = vd_lower(x), upper = vd_upper(x);
    lower *= lower * lower * 0.07135481627260025 + 1.5957691216057308;
    upper *= upper * upper * 0.07135481627260025 + 1.5957691216057308;
    *high = vf_narrow(lower, upper);
    *low = vf_narrow(lower - vd_lower(*high), upper - vd_upper(*high));
}

/* 2^t = fraction * 2^whole. */
struct power_parts {
    vd fraction;
    vd whole;
};

/* (mantissa * 2^exponent)^y for a mantissa in [sqrt(1/2), sqrt(2)). */
ALWAYS_INLINE struct power_parts power_split(vd mantissa, vd exponent, vd y) {
    struct power_parts parts;
    vd s = (mantissa - 1.0) / (mantissa + 1.0);
    vd z = s * s;
    vd p = z * (1.0 / 13) + 1.0 / 11; /* atanh(s) / s, s^2 < 0.0295 */
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    p = p * z + 1.0;
    vd t = (p * s * 2.8853900817779268 + exponent) * y;
    /* Far outside the float range the exact size no longer matters; NaN fails both comparisons and stays. */
    const vd bound = (vd){0} + 200.0;
    __typeof__(t > bound) above = t > bound, below = t < -bound;
    t = (vd)((above & (__typeof__(above))bound) | (~above & (__typeof__(above))t));
    t = (vd)((below & (__typeof__(above))-bound) | (~below & (__typeof__(above))t));
    parts.whole = (t + 6755399441055744.0) - 6755399441055744.0;
    vd r = (t - parts.whole) * 0.69314718055994531; /* exp(r) - 1, |r| < 0.347 */
    vd q = r * (1.0 / 40320) + 1.0 / 5040;
    q = q * r + 1.0 / 720;
    q = q * r + 1.0 / 120;
    q = q * r + 1.0 / 24;
    q = q * r + 1.0 / 6;
    q = q * r + 0.5;
    parts.fraction = (q * r * r + r) + 1.0;
    return parts;
}

/* |x|^y = 2^(y log2|x|) in double, so that the float result keeps its last digits up to 2^128. Infinite exponents of
 * `parts` stand for |x| = 0 and |x| = infinity. */
ALWAYS_INLINE vf vf_pow_magnitude(struct log_parts parts, vf y) {
    struct power_parts lower = power_split(vd_lower(parts.mantissa), vd_lower(parts.exponent), vd_lower(y));
    struct power_parts upper = power_split(vd_upper(parts.mantissa), vd_upper(parts.exponent), vd_upper(y));
    return vf_scale(vf_narrow(lower.fraction, upper.fraction), vf_narrow(lower.whole, upper.whole));
}

/* C99's pow, special cases included. Out of line: it is long, and its callers are many. */
static __attribute__((noinline)) vf vf_pow(vf x, vf y) {
    const float infinity = __builtin_inff();
    vf size = vf_abs(x);
    struct log_parts parts = log_split(size);
    parts.exponent = vf_select(size == 0.0f, vf_set1(-infinity), parts.exponent);
    parts.exponent = vf_select(size == infinity, vf_set1(infinity), parts.exponent);
    parts.mantissa = vf_select((size == infinity) | (size == 0.0f), vf_set1(1.0f), parts.mantissa);
    vf result = vf_pow_magnitude(parts, y);
    vf half = y * 0.5f;
    vi integral = vf_round(y) == y;
    vi odd = integral & (vf_round(half) != half);
    result = vf_with_sign(result, vf_sign_bit(x) & odd);
    vi undefined = (x < 0.0f) & (size != infinity) & ~integral;
    result = vf_select(undefined | (x != x) | (y != y), vf_set1(__builtin_nanf("")), result);
    vi one = (y == 0.0f) | (x == 1.0f) | ((size == 1.0f) & (vf_abs(y) == infinity));
    return vf_select(one, vf_set1(1.0f), result);
}

/* ---- activations ---------------------------------------------------------------------------------------------- */

/* Kinds of activation: `kind` of an epilogue and of Unary; alpha and beta are their parameters. */
enum activation {
    ACTIVATION_NONE = 0,
    ACTIVATION_RELU = 1,
    ACTIVATION_LEAKY_RELU = 2, /* alpha: slope below zero */
    ACTIVATION_CLIP = 3,       /* alpha: lowest, beta: highest value */
    ACTIVATION_SIGMOID = 4,
    ACTIVATION_TANH = 5,
    ACTIVATION_GELU = 6, /* x * cdf(x) of the normal distribution */
    ACTIVATION_SILU = 7,
    ACTIVATION_HARDSWISH = 8,
    ACTIVATION_GELU_TANH = 9,
    ACTIVATION_ELU = 10, /* alpha: minus the limit at minus infinity */
    ACTIVATION_SOFTPLUS = 11,
    ACTIVATION_HARDSIGMOID = 12, /* clip(x/6 + 1/2, 0, 1) */
};

ALWAYS_INLINE vf vf_relu(vf x) { return vf_max(vf_set1(0.0f), x); }

/* x * gate(x) where gate falls to zero at minus infinity; far below the gate's range the product is a zero, not NaN. */
ALWAYS_INLINE vf vf_gated(vf x, vf gate) { return vf_max(vf_set1(-200.0f), x) * gate; }

ALWAYS_INLINE vf vf_gelu_tanh(vf x) {
    vf high, low;
    vf bounded = vf_clip(x, -14.0f, 14.0f);
    gelu_tanh_argument(bounded, &high, &low);
    return vf_gated(x, vf_logistic(high, low).value);
}

ALWAYS_INLINE vf vf_elu(vf x, float alpha) {
    return vf_select(x > 0.0f, x, vf_expm1_negative(vf_min(vf_set1(0.0f), x)) * alpha);
}

ALWAYS_INLINE vf vf_softplus(vf x) {
    return vf_max(vf_set1(0.0f), x) + vf_log1p_unit(vf_exp((vf)((vi)x | INT32_MIN)));
}

ALWAYS_INLINE vf vf_hardsigmoid(vf x) { return vf_clip(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

/* One activation of any kind; with a constant `kind` only that kind's arithmetic remains. */
ALWAYS_INLINE vf activate_inline(int64_t kind, float alpha, float beta, vf x) {
    switch (kind) {
    case ACTIVATION_RELU: return vf_relu(x);
    case ACTIVATION_LEAKY_RELU: return vf_select(x > 0.0f, x, x * alpha);
    case ACTIVATION_CLIP: return vf_clip(x, alpha, beta);
    case ACTIVATION_SIGMOID: return vf_sigmoid(x);
    case ACTIVATION_TANH: return vf_tanh(x);
    case ACTIVATION_GELU: return vf_gated(x, vf_normal(x).cdf);
    case ACTIVATION_SILU: return vf_gated(x, vf_sigmoid(x));
    case ACTIVATION_HARDSWISH: return vf_max(vf_set1(-3.0f), x) * vf_hardsigmoid(x);
    case ACTIVATION_GELU_TANH: return vf_gelu_tanh(x);
    case ACTIVATION_ELU: return vf_elu(x, alpha);
    case ACTIVATION_SOFTPLUS: return vf_softplus(x);
    case ACTIVATION_HARDSIGMOID: return vf_hardsigmoid(x);
    default: return x;
    }
}

/* The activations that cost more than a call. */
static __attribute__((noinline)) vf activate_called(int64_t kind, float alpha, float beta, vf x) {
    return activate_inline(kind, alpha, beta, x);
}

/* One activation whose kind is known at run time only. */
static inline vf activate(int64_t kind, float alpha, float beta, vf x) {
    if (kind == ACTIVATION_NONE) return x;
    if (kind == ACTIVATION_RELU) return vf_relu(x);
    if (kind == ACTIVATION_CLIP) return vf_clip(x, alpha, beta);
    return activate_called(kind, alpha, beta, x);
}

#endif
