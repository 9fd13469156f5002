/* The activation that ends the stores of igemm and depthwise.
 *
 * No activation, relu and clip are all one clip between bounds that may be infinite: the usual stores have no branch on
 * the kind. The others are called. */
#ifndef PYCL_CNN_CONV_EPILOGUE_H
#define PYCL_CNN_CONV_EPILOGUE_H

#include "isa.h"
#include "vec_math.h"

struct epilogue {
    int64_t kind;
    float alpha, beta;
    int clips;
    float low, high;
};

ALWAYS_INLINE struct epilogue epilogue(int64_t kind, float alpha, float beta) {
    struct epilogue e = {kind, alpha, beta, 1, -__builtin_inff(), __builtin_inff()};
    if (kind == ACTIVATION_RELU) {
        e.low = 0;
    } else if (kind == ACTIVATION_CLIP) {
        e.low = alpha;
        e.high = beta;
    } else {
        e.clips = kind == ACTIVATION_NONE;
    }
    return e;
}

ALWAYS_INLINE vf finish(struct epilogue e, vf x) {
    return e.clips ? vf_clip(x, e.low, e.high) : activate_called(e.kind, e.alpha, e.beta, x);
}

#endif
