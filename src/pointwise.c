/* Elementwise operations (pointwise.h): vector loops over flat stretches, one loop per kind so that nothing is decided
 * inside a loop. */
#include "pointwise.h"
#include "vec_math.h"

/* ---- one input ------------------------------------------------------------------------------------------------ */

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
    case ACTIVATION_CLIP: return vf_select((x <= alpha) | (x >= beta), zero, dy);
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
        vf slope = bounded * bounded * 0.21406443843832251f + 1.5957691216057308f;
        return dy * (logistic.value + bounded * slope * logistic.slope);
    }
    case ACTIVATION_ELU: return dy * vf_select(x > 0.0f, vf_set1(1.0f), vf_exp(vf_min(zero, x)) * alpha);
    case ACTIVATION_SOFTPLUS: return dy * vf_sigmoid(x);
    case ACTIVATION_HARDSIGMOID: return vf_select((x <= -3.0f) | (x >= 3.0f), zero, dy * (1.0f / 6.0f));
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

void KERNEL(unary)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct unary_params *p = params;
    const int64_t begin = task * POINTWISE_ITEMS;
    const float *x = buffers[0];
    float *y = buffers[1];
    unary_run(p->kind, p->alpha, p->beta, x + begin, y + begin, min_i64(POINTWISE_ITEMS, p->size - begin));
}

void KERNEL(unary_backward)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct unary_params *p = params;
    const int64_t begin = task * POINTWISE_ITEMS;
    const float *dy = buffers[0], *x = buffers[1];
    float *dx = buffers[2];
    unary_gradient_run(p->kind, p->alpha, p->beta, dy + begin, x + begin, dx + begin,
                       min_i64(POINTWISE_ITEMS, p->size - begin));
}

/* ---- two inputs ----------------------------------------------------------------------------------------------- */

ALWAYS_INLINE vf binary_value(int64_t kind, vf a, vf b) {
    const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
    switch (kind) {
    case BINARY_ADD: return a + b;
    case BINARY_SUB: return a - b;
    case BINARY_MUL: return a * b;
    case BINARY_DIV: return a / b;
    case BINARY_MAX: return vf_maximum(a, b);
    case BINARY_MIN: return vf_minimum(a, b);
    case BINARY_POW: return vf_pow(a, b);
    case BINARY_EQ: return vf_select(a == b, one, zero);
    case BINARY_GT: return vf_select(a > b, one, zero);
    default: return vf_select(a >= b, one, zero);
    }
}

/* Steps are 0 (the same number for all) or 1. */
ALWAYS_INLINE void binary_loop(int64_t kind, const float *a, int64_t a_step, const float *b, int64_t b_step, float *y,
                               int64_t count) {
    const vf a_first = vf_set1(*a), b_first = vf_set1(*b);
    int64_t i = 0;
    for (; i + VL <= count; i += VL)
        vf_store(y + i, binary_value(kind, a_step ? vf_load(a + i) : a_first, b_step ? vf_load(b + i) : b_first));
    if (i < count) {
        vf last = binary_value(kind, a_step ? vf_load_first(a + i, count - i) : a_first,
                               b_step ? vf_load_first(b + i, count - i) : b_first);
        vf_store_first(y + i, last, count - i);
    }
}

static void binary_run(int64_t kind, const float *a, int64_t a_step, const float *b, int64_t b_step, float *y,
                       int64_t count) {
    switch (kind) {
#define CASE(k)                                                                                                        \
    case k:                                                                                                            \
        if (a_step && b_step) binary_loop(k, a, 1, b, 1, y, count);                                                    \
        else if (a_step) binary_loop(k, a, 1, b, 0, y, count);                                                         \
        else if (b_step) binary_loop(k, a, 0, b, 1, y, count);                                                         \
        else binary_loop(k, a, 0, b, 0, y, count);                                                                     \
        break;
        CASE(BINARY_ADD)
        CASE(BINARY_SUB)
        CASE(BINARY_MUL)
        CASE(BINARY_DIV)
        CASE(BINARY_MAX)
        CASE(BINARY_MIN)
        CASE(BINARY_POW)
        CASE(BINARY_EQ)
        CASE(BINARY_GT)
        CASE(BINARY_GE)
#undef CASE
    }
}

/* Stretches up to this long are computed, then activated, while they lie in the first-level cache. */
#define BINARY_BLOCK 2048
/* Rows shorter than this are gathered into blocks of BINARY_GATHER elements first. */
#define BINARY_SHORT_ROW 48
#define BINARY_GATHER 256

/* A place in the broadcast shape: coordinates, and the offsets of both operands. */
struct place {
    int64_t coordinate[6];
    int64_t a, b;
};

static struct place place_of(const struct binary_params *p, int64_t index) {
    struct place place = {.a = 0, .b = 0};
    for (int64_t d = p->rank - 1; d >= 0; d--) {
        place.coordinate[d] = index % p->shape[d];
        index /= p->shape[d];
        place.a += place.coordinate[d] * p->a_stride[d];
        place.b += place.coordinate[d] * p->b_stride[d];
    }
    return place;
}

/* Forward by `count` elements of the row that the place lies in; from its end to the start of the next. */
static void advance(const struct binary_params *p, struct place *place, int64_t count) {
    int64_t d = p->rank - 1;
    place->coordinate[d] += count;
    place->a += count * p->a_stride[d];
    place->b += count * p->b_stride[d];
    for (; d > 0 && place->coordinate[d] == p->shape[d]; d--) {
        place->coordinate[d] = 0;
        place->coordinate[d - 1]++;
        place->a += p->a_stride[d - 1] - p->shape[d] * p->a_stride[d];
        place->b += p->b_stride[d - 1] - p->shape[d] * p->b_stride[d];
    }
}

void KERNEL(binary)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct binary_params *p = params;
    const float *a = buffers[0], *b = buffers[1];
    float *y = buffers[2];
    const int64_t last = p->rank - 1, row = p->shape[last];
    const int64_t a_step = p->a_stride[last], b_step = p->b_stride[last];
    const int64_t end = min_i64((task + 1) * POINTWISE_ITEMS, p->size);
    int64_t i = task * POINTWISE_ITEMS;
    struct place place = place_of(p, i);
    while (i < end) {
        int64_t count;
        if (p->rank == 1 || row >= BINARY_SHORT_ROW) {
            count = min_i64(min_i64(BINARY_BLOCK, end - i), row - place.coordinate[last]);
            binary_run(p->kind, a + place.a, a_step, b + place.b, b_step, y + i, count);
            advance(p, &place, count);
        } else {
            float a_block[BINARY_GATHER], b_block[BINARY_GATHER];
            count = min_i64(BINARY_GATHER, end - i);
            for (int64_t k = 0; k < count;) {
                const int64_t run = min_i64(row - place.coordinate[last], count - k);
                for (int64_t r = 0; r < run; r++, k++) {
                    a_block[k] = a[place.a + r * a_step];
                    b_block[k] = b[place.b + r * b_step];
                }
                advance(p, &place, run);
            }
            binary_run(p->kind, a_block, 1, b_block, 1, y + i, count);
        }
        if (p->activation != ACTIVATION_NONE) unary_run(p->activation, p->alpha, p->beta, y + i, y + i, count);
        i += count;
    }
}
