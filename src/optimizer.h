/* Update rules of the optimizers, in place, in PyTorch's order of operations. */
#ifndef PYCL_CNN_OPTIMIZER_H
#define PYCL_CNN_OPTIMIZER_H

#include "blocks.h"

/* Elements in a task. No kernel here needs scratch. */
#define OPTIMIZER_ITEMS 16384

/* Members named one_minus_... are computed in double precision: 1 - 0.999 has few digits left in float. */

/* sgd  buffers: param, grad, velocity (NULL without momentum), hyper[4] = (learning rate, not 0 in the first step, ..).
 *   g = grad + weight_decay * param
 *   velocity = first ? g : momentum * velocity + (1 - dampening) * g;   g = nesterov ? g + momentum * velocity : velocity
 *   param -= rate * g */
struct sgd_params {
    int64_t size;
    int64_t nesterov; /* 0 or 1 */
    float momentum;
    float one_minus_dampening;
    float weight_decay;
};

/* adam  buffers: param, grad, m, v, hyper[4] = (learning rate, 1 - beta1^t, 1 - beta2^t, ..).
 *   decoupled: param *= 1 - rate * weight_decay;   otherwise: g = grad + weight_decay * param
 *   m += (1 - beta1) * (g - m);   v = beta2 * v + (1 - beta2) * g^2
 *   param -= rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps) */
struct adam_params {
    int64_t size;
    int64_t decoupled; /* 0: Adam, 1: AdamW */
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float eps;
    float weight_decay;
};

/* rmsprop  buffers: param, grad, square_avg, grad_avg (NULL unless centered), velocity (NULL without momentum),
 *          hyper[4] = (learning rate, ..).
 *   g = grad + weight_decay * param;   square_avg = alpha * square_avg + (1 - alpha) * g^2
 *   centered: grad_avg += (1 - alpha) * (g - grad_avg);   variance = square_avg - grad_avg^2 (otherwise square_avg)
 *   g = g / (sqrt(variance) + eps);   velocity = momentum * velocity + g;   param -= rate * (velocity or g) */
struct rmsprop_params {
    int64_t size;
    float alpha;
    float one_minus_alpha;
    float eps;
    float weight_decay;
    float momentum;
};

static inline int64_t sgd_tasks(const struct sgd_params *p) {
    return blocks_of(p->size, OPTIMIZER_ITEMS);
}
static inline int64_t adam_tasks(const struct adam_params *p) {
    return blocks_of(p->size, OPTIMIZER_ITEMS);
}
static inline int64_t rmsprop_tasks(const struct rmsprop_params *p) {
    return blocks_of(p->size, OPTIMIZER_ITEMS);
}

#endif
