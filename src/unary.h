/* Elementwise functions of one input and their gradients, over flat stretches: one vector loop per kind, so that
 * nothing is decided inside a loop. The pointwise and batch-normalisation kernels share them. */
#ifndef PYCL_CNN_UNARY_H
#define PYCL_CNN_UNARY_H

#include "pointwise.h"
#include "vec_math.h"

/* x^alpha; the common exponents are exact, as PyTorch has them. */
ALWAYS_INLINE vf pow_scalar(vf x, float alpha) {
    if (alpha == 2.0f) return x * x;
    if (alpha == 3.0f) return x * x * x;
    if (alpha == 1.0f) return x;
    if (alpha == 0.5f) return vf_sqrt(x);
    if (alpha == -0.5f) return 1.0f / vf_sqrt(x);
    if (alpha == -1.0f) return 1.0f / x;
    return vf_pow(x, vf_set1(alpha));
}

ALWAYS_INLINE vf unary_value(int64_t kind, float alpha, float beta, vf x) {
    switch (kind) {
    case UNARY_NEG: return -x;
    case UNARY_EXP: return vf_exp(x);
    case UNARY_LOG: return vf_log(x);
    case UNARY_SQRT: return vf_sqrt(x);
    case UNARY_RSQRT: return 1.0f / vf_sqrt(x);
    case UNARY_RECIPROCAL: return 1.0f / x;
    case UNARY_ABS: return vf_abs(x);
    case UNARY_SIGN: return vf_select((x == 0.0f) | (x != x), x, vf_with_sign(vf_set1(1.0f), vf_sign_bit(x)));
    case UNARY_POW_SCALAR: return pow_scalar(x, alpha);
    case UNARY_AFFINE: return x * alpha + beta;
    case UNARY_SIGNED_ROOT: return vf_with_sign(pow_scalar(vf_abs(x), alpha), vf_sign_bit(x));
    case UNARY_SQUARE: return x * x;
    case UNARY_ERF: return vf_erf(x);
    case UNARY_FLOOR: return vf_floor(x);
    case UNARY_CEIL: return vf_ceil(x);
    case UNARY_ROUND: return vf_round(x);
    default: return activate_inline(kind, alpha, beta, x);
    }
}

/* dy * f'(x). Where f is constant the result is an exact zero, also for an infinite dy. */
ALWAYS_INLINE vf unary_gradient(int64_t kind, float alpha, float beta, vf dy, vf x) {
    const vf zero = vf_set1(0.0f);
    switch (kind) {
    case ACTIVATION_RELU: return vf_select(x <= 0.0f, zero, dy);
    case ACTIVATION_LEAKY_RELU: return vf_select(x > 0.0f, dy, dy * alpha);
    case ACTIVATION_CLIP: return vf_select((x > alpha) & (x < beta), dy, zero);
    case ACTIVATION_SIGMOID: return dy * vf_logistic(x, zero).slope;
    case ACTIVATION_TANH: return dy * (vf_logistic(x + x, zero).slope * 4.0f);
    case ACTIVATION_GELU: {
        struct normal normal = vf_normal(x);
        return dy * (normal.cdf + vf_clip(x, -200.0f, 200.0f) * normal.bell * 0.39894228040143268f);
    }
    case ACTIVATION_SILU: {
        struct logistic logistic = vf_logistic(x, zero);
        return dy * (logistic.value + vf_clip(x, -200.0f, 200.0f) * logistic.slope);
    }
    case ACTIVATION_HARDSWISH: {
        vf inside = dy * (x * (1.0f / 3.0f) + 0.5f);
        return vf_select(x <= -3.0f, zero, vf_select(x >= 3.0f, dy, inside));
    }
    case ACTIVATION_GELU_TANH: {
        vf high, low, bounded = vf_clip(x, -14.0f, 14.0f);
        gelu_tanh_argument(bounded, &high, &low);
        struct logistic logistic = vf_logistic(high, low);
        vf slope = bounded * bounded * 0.21406444881780073f + 1.5957691216057308f;
        return dy * (logistic.value + bounded * slope * logistic.slope);
    }
    case ACTIVATION_ELU: return dy * vf_select(x > 0.0f, vf_set1(1.0f), vf_exp(vf_min(zero, x)) * alpha);
    case ACTIVATION_SOFTPLUS: return dy * vf_sigmoid(x);
    case ACTIVATION_HARDSIGMOID: return vf_select((x > -3.0f) & (x < 3.0f), dy * (1.0f / 6.0f), zero);
    case UNARY_NEG: return -dy;
    case UNARY_EXP: return dy * vf_exp(x);
    case UNARY_LOG: return dy / x;
    case UNARY_SQRT: return dy * (0.5f / vf_sqrt(x));
    case UNARY_RSQRT: {
        vf root = 1.0f / vf_sqrt(x);
        return dy * (root * root * root * -0.5f);
    }
    case UNARY_RECIPROCAL: {
        vf reciprocal = 1.0f / x;
        return dy * -(reciprocal * reciprocal);
    }
    case UNARY_ABS: return vf_select(x == 0.0f, zero, (vf)((vi)dy ^ vf_sign_bit(x)));
    case UNARY_POW_SCALAR: return alpha == 0.0f ? zero : dy * (pow_scalar(x, alpha - 1.0f) * alpha);
    case UNARY_AFFINE: return dy * alpha;
    case UNARY_SIGNED_ROOT: return vf_select(x == 0.0f, zero, dy * (pow_scalar(vf_abs(x), alpha - 1.0f) * alpha));
    case UNARY_SQUARE: return dy * (x + x);
    case UNARY_ERF: return dy * (vf_bell(vf_min(vf_set1(12.0f), vf_abs(x)), -1.0f) * 1.1283791670955126f);
    case UNARY_SIGN:
    case UNARY_FLOOR:
    case UNARY_CEIL:
    case UNARY_ROUND: return zero;
    default: (void)beta; return dy;
    }
}

#define UNARY_KINDS(X)                                                                                                 \
    X(ACTIVATION_RELU)                                                                                                 \
    X(ACTIVATION_LEAKY_RELU)                                                                                           \
    X(ACTIVATION_CLIP)                                                                                                 \
    X(ACTIVATION_SIGMOID)                                                                                              \
    X(ACTIVATION_TANH)                                                                                                 \
    X(ACTIVATION_GELU)                                                                                                 \
    X(ACTIVATION_SILU)                                                                                                 \
    X(ACTIVATION_HARDSWISH)                                                                                            \
    X(ACTIVATION_GELU_TANH)                                                                                            \
    X(ACTIVATION_ELU)                                                                                                  \
    X(ACTIVATION_SOFTPLUS)                                                                                             \
    X(ACTIVATION_HARDSIGMOID)                                                                                          \
    X(UNARY_NEG)                                                                                                       \
    X(UNARY_EXP)                                                                                                       \
    X(UNARY_LOG)                                                                                                       \
    X(UNARY_SQRT)                                                                                                      \
    X(UNARY_RSQRT)                                                                                                     \
    X(UNARY_RECIPROCAL)                                                                                                \
    X(UNARY_ABS)                                                                                                       \
    X(UNARY_SIGN)                                                                                                      \
    X(UNARY_POW_SCALAR)                                                                                                \
    X(UNARY_AFFINE)                                                                                                    \
    X(UNARY_SIGNED_ROOT)                                                                                               \
    X(UNARY_SQUARE)                                                                                                    \
    X(UNARY_ERF)                                                                                                       \
    X(UNARY_FLOOR)                                                                                                     \
    X(UNARY_CEIL)                                                                                                      \
    X(UNARY_ROUND)

ALWAYS_INLINE void unary_loop(int64_t kind, float alpha, float beta, const float *x, float *y, int64_t count) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL) vf_store(y + i, unary_value(kind, alpha, beta, vf_load(x + i)));
    if (i < count) {
        vf last = unary_value(kind, alpha, beta, vf_load_first(x + i, count - i));
        vf_store_first(y + i, last, count - i);
    }
}

ALWAYS_INLINE void gradient_loop(int64_t kind, float alpha, float beta, const float *dy, const float *x, float *dx,
                                 int64_t count) {
    int64_t i = 0;
    for (; i + VL <= count; i += VL)
        vf_store(dx + i, unary_gradient(kind, alpha, beta, vf_load(dy + i), vf_load(x + i)));
    if (i < count) {
        vf last = unary_gradient(kind, alpha, beta, vf_load_first(dy + i, count - i), vf_load_first(x + i, count - i));
        vf_store_first(dx + i, last, count - i);
    }
}

/* y[i] = f(x[i]); y may be x. */
static void unary_run(int64_t kind, float alpha, float beta, const float *x, float *y, int64_t count) {
    switch (kind) {
#define CASE(k)                                                                                                        \
    case k: unary_loop(k, alpha, beta, x, y, count); break;
        UNARY_KINDS(CASE)
#undef CASE
    default: unary_loop(ACTIVATION_NONE, alpha, beta, x, y, count);
    }
}

/* dx[i] = dy[i] * f'(x[i]); dx may be dy or x. */
static void unary_gradient_run(int64_t kind, float alpha, float beta, const float *dy, const float *x, float *dx,
                               int64_t count) {
    switch (kind) {
#define CASE(k)                                                                                                        \
    case k: gradient_loop(k, alpha, beta, dy, x, dx, count); break;
        UNARY_KINDS(CASE)
#undef CASE
    default: gradient_loop(ACTIVATION_NONE, alpha, beta, dy, x, dx, count);
    }
}

#endif
