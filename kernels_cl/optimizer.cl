// Update rules of the optimizers, in place, PyTorch's formulas.  Work-item g: the vectors [g*span, (g+1)*span) of VEC floats of a parameter.
//
//   param | v v v v | v v v v | ... | rest |         param, its state and its gradient have the same places
//           item 0    item 1
//
// hyper (read on the device, so that a new learning rate binds nothing anew):
//   sgd      [0] lr, [1] 1 in the first step: the velocity starts as the gradient
//   adam     [0] lr, [1] 1 - beta1^t, [2] 1 - beta2^t
//   rmsprop  [0] lr
//
// FLAGS (bits) select the variant at build time, so that absent state costs nothing:
//   1 momentum (sgd, rmsprop)   2 nesterov (sgd)   4 centered (rmsprop)   8 weight decay decoupled (adam)
// What a variant does not use is bound to any buffer.  beta1_rest, beta2_rest, alpha_rest are 1 - beta1, ...: from the host's double
// precision, since the difference from 1 would keep only four digits of 1 - 0.999f.
#include "vectors.cl"
#ifndef FLAGS
#define FLAGS 0
#endif
#define MOMENTUM (FLAGS & 1)
#define NESTEROV (FLAGS & 2)
#define CENTERED (FLAGS & 4)
#define DECOUPLED (FLAGS & 8)

#define EACH_PLACE \
    const int first = get_global_id(0) * span * VEC; \
    const int last = min(first + span * VEC, count); \
    for (int i = first; i < last; i += VEC)

__kernel void sgd(
    __global float *param, const int param_offset,
    __global const float *grad, const int grad_offset,
    __global float *velocity, const int velocity_offset,
    __global const float *hyper, const int hyper_offset,
    const int count, const int span, const float momentum, const float dampening, const float weight_decay)
{
    const float lr = hyper[hyper_offset];
    param += param_offset;
    grad += grad_offset;
    EACH_PLACE {
        const int lanes = last - i;
        const real value = load_some(param + i, lanes);
        real step = load_some(grad + i, lanes) + weight_decay * value;
#if MOMENTUM
        __global float *state = velocity + velocity_offset + i;
        const real moving = hyper[hyper_offset + 1] != 0.0f ? step : momentum * load_some(state, lanes) + (1.0f - dampening) * step;
        store_some(moving, state, lanes);
        step = NESTEROV ? step + momentum * moving : moving;
#endif
        store_some(value - lr * step, param + i, lanes);
    }
}

__kernel void adam(
    __global float *param, const int param_offset,
    __global const float *grad, const int grad_offset,
    __global float *m, const int m_offset,
    __global float *v, const int v_offset,
    __global const float *hyper, const int hyper_offset,
    const int count, const int span, const float beta2, const float beta1_rest, const float beta2_rest, const float epsilon, const float weight_decay)
{
    const float lr = hyper[hyper_offset];
    const float step_size = lr / hyper[hyper_offset + 1], root = sqrt(hyper[hyper_offset + 2]);
    param += param_offset;
    grad += grad_offset;
    m += m_offset;
    v += v_offset;
    EACH_PLACE {
        const int lanes = last - i;
        real value = load_some(param + i, lanes), slope = load_some(grad + i, lanes);
        if (DECOUPLED)
            value *= 1.0f - lr * weight_decay;
        else
            slope += weight_decay * value;
        const real old = load_some(m + i, lanes);
        const real first_moment = old + beta1_rest * (slope - old);
        const real second_moment = beta2 * load_some(v + i, lanes) + beta2_rest * slope * slope;
        store_some(first_moment, m + i, lanes);
        store_some(second_moment, v + i, lanes);
        store_some(value - step_size * first_moment / (sqrt(second_moment) / root + epsilon), param + i, lanes);
    }
}

__kernel void rmsprop(
    __global float *param, const int param_offset,
    __global const float *grad, const int grad_offset,
    __global float *square_average, const int square_average_offset,
    __global float *gradient_average, const int gradient_average_offset,
    __global float *velocity, const int velocity_offset,
    __global const float *hyper, const int hyper_offset,
    const int count, const int span, const float alpha, const float alpha_rest, const float epsilon, const float weight_decay, const float momentum)
{
    const float lr = hyper[hyper_offset];
    param += param_offset;
    grad += grad_offset;
    square_average += square_average_offset;
    EACH_PLACE {
        const int lanes = last - i;
        const real value = load_some(param + i, lanes);
        const real slope = load_some(grad + i, lanes) + weight_decay * value;
        const real squares = alpha * load_some(square_average + i, lanes) + alpha_rest * slope * slope;
        store_some(squares, square_average + i, lanes);
        real spread = squares;
#if CENTERED
        __global float *center = gradient_average + gradient_average_offset + i;
        const real old = load_some(center, lanes);
        const real average = old + alpha_rest * (slope - old);
        store_some(average, center, lanes);
        spread -= average * average;
#endif
        real step = slope / (sqrt(spread) + epsilon);
#if MOMENTUM
        __global float *state = velocity + velocity_offset + i;
        step += momentum * load_some(state, lanes);
        store_some(step, state, lanes);
#endif
        store_some(value - lr * step, param + i, lanes);
    }
}
