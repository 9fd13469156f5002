/* Elementwise operations: one input (and its gradient), or two with broadcasting. */
#ifndef PYCL_CNN_POINTWISE_H
#define PYCL_CNN_POINTWISE_H

#include "blocks.h"

/* Elements that one task computes. */
#define POINTWISE_ITEMS 16384

/* Kinds of Unary beyond the activations (enum activation in vec_math.h). */
enum unary_kind {
    UNARY_NEG = 20,
    UNARY_EXP = 21,
    UNARY_LOG = 22,
    UNARY_SQRT = 23,
    UNARY_RSQRT = 24,
    UNARY_RECIPROCAL = 25,
    UNARY_ABS = 26,
    UNARY_SIGN = 27,
    UNARY_POW_SCALAR = 28,  /* x^alpha */
    UNARY_AFFINE = 29,      /* alpha * x + beta */
    UNARY_SIGNED_ROOT = 30, /* sign(x) * |x|^alpha */
    UNARY_SQUARE = 31,
    UNARY_ERF = 32,
    UNARY_FLOOR = 33,
    UNARY_CEIL = 34,
    UNARY_ROUND = 35, /* half to even */
};

/* unary           buffers: x[size], y[size]; y may be x.
 * unary_backward  buffers: dy[size], x[size], dx[size]; dx = dy * f'(x), may be dy or x.
 * No scratch. */
struct unary_params {
    int64_t size; /* elements */
    int64_t kind; /* enum activation or enum unary_kind */
    float alpha;  /* the kind's parameters */
    float beta;
};

enum binary_kind {
    BINARY_ADD = 0,
    BINARY_SUB = 1,
    BINARY_MUL = 2,
    BINARY_DIV = 3,
    BINARY_MAX = 4, /* NaN where either is NaN */
    BINARY_MIN = 5,
    BINARY_POW = 6,
    BINARY_EQ = 7, /* comparisons give 1 or 0 */
    BINARY_GT = 8,
    BINARY_GE = 9,
    BINARY_KEEP = 10, /* a where b is not 0, else 0 */
};

/* binary  y = activation(a op b); buffers: a, b, y. y is dense; it may be an input that has the same shape.
 * The shape is given with neighbouring dimensions merged wherever both operands allow it. Fast when the last
 * dimension is long.
 * No scratch. */
struct binary_params {
    int64_t size;        /* elements of y */
    int64_t rank;        /* dimensions, 1 .. 6 */
    int64_t shape[6];    /* of y */
    int64_t a_stride[6]; /* elements; 0 where a is broadcast. In the last dimension 0 or 1 */
    int64_t b_stride[6];
    int64_t kind;       /* enum binary_kind */
    int64_t activation; /* enum activation */
    float alpha;        /* the activation's parameters */
    float beta;
};

static inline int64_t unary_tasks(const struct unary_params *p) {
    return blocks_of(p->size, POINTWISE_ITEMS);
}
static inline int64_t binary_tasks(const struct binary_params *p) {
    return blocks_of(p->size, POINTWISE_ITEMS);
}

#endif
