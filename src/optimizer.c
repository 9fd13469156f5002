/* Update rules of the optimizers (optimizer.h): one pass over a parameter and its state. */
#include "optimizer.h"
#include "vec_basic.h"

/* The elements of a task. */
struct stretch {
    int64_t begin, end;
};

static struct stretch stretch_of(int64_t size, int64_t task) {
    return (struct stretch){task * OPTIMIZER_ITEMS, min_i64(size, (task + 1) * OPTIMIZER_ITEMS)};
}

/* start + weight * (end - start) */
ALWAYS_INLINE vf lerp(vf start, vf end, float weight) { return start + (end - start) * weight; }

void KERNEL(sgd)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct sgd_params *p = params;
    float *param = buffers[0], *velocity = buffers[2];
    const float *grad = buffers[1], *hyper = buffers[3];
    const float rate = hyper[0];
    const int first = hyper[1] != 0.0f;
    const struct stretch s = stretch_of(p->size, task);
    for (int64_t i = s.begin; i < s.end; i += VL) {
        vf value = vf_load_until(param, i, s.end), g = vf_load_until(grad, i, s.end);
        if (p->weight_decay != 0.0f) g = g + value * p->weight_decay;
        if (velocity) {
            vf momentum = g;
            if (!first) momentum = vf_load_until(velocity, i, s.end) * p->momentum + g * p->one_minus_dampening;
            vf_store_until(velocity, momentum, i, s.end);
            g = p->nesterov ? g + momentum * p->momentum : momentum;
        }
        vf_store_until(param, value - g * rate, i, s.end);
    }
}

void KERNEL(adam)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct adam_params *p = params;
    float *param = buffers[0], *mean = buffers[2], *square = buffers[3];
    const float *grad = buffers[1], *hyper = buffers[4];
    const float rate = hyper[0], step = rate / hyper[1], correction = __builtin_sqrtf(hyper[2]);
    const struct stretch s = stretch_of(p->size, task);
    for (int64_t i = s.begin; i < s.end; i += VL) {
        vf value = vf_load_until(param, i, s.end), g = vf_load_until(grad, i, s.end);
        if (p->decoupled) value = value * (1.0f - rate * p->weight_decay);
        else if (p->weight_decay != 0.0f) g = g + value * p->weight_decay;
        vf m = lerp(vf_load_until(mean, i, s.end), g, p->one_minus_beta1);
        vf v = vf_load_until(square, i, s.end) * p->beta2 + g * p->one_minus_beta2 * g;
        vf_store_until(mean, m, i, s.end);
        vf_store_until(square, v, i, s.end);
        vf denominator = vf_sqrt(v) / correction + p->eps;
        vf_store_until(param, value - m * step / denominator, i, s.end);
    }
}

void KERNEL(rmsprop)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct rmsprop_params *p = params;
    float *param = buffers[0], *square = buffers[2], *mean = buffers[3], *velocity = buffers[4];
    const float *grad = buffers[1], rate = *(const float *)buffers[5];
    const struct stretch s = stretch_of(p->size, task);
    for (int64_t i = s.begin; i < s.end; i += VL) {
        vf value = vf_load_until(param, i, s.end), g = vf_load_until(grad, i, s.end);
        if (p->weight_decay != 0.0f) g = g + value * p->weight_decay;
        vf average = vf_load_until(square, i, s.end) * p->alpha + g * p->one_minus_alpha * g;
        vf_store_until(square, average, i, s.end);
        if (mean) {
            vf m = lerp(vf_load_until(mean, i, s.end), g, p->one_minus_alpha);
            vf_store_until(mean, m, i, s.end);
            average = average - m * m;
        }
        g = g / (vf_sqrt(average) + p->eps);
        if (velocity) {
            g = vf_load_until(velocity, i, s.end) * p->momentum + g;
            vf_store_until(velocity, g, i, s.end);
        }
        vf_store_until(param, value - g * rate, i, s.end);
    }
}
