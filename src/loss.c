/* Cross entropy (loss.h), on the row functions of softmax. */
#include "loss.h"
#include "softmax_row.h"

/* What a row's loss and gradient share. */
struct cross_entropy_row {
    float largest; /* logit */
    float sum;     /* of exp(logit - largest) */
};

static struct cross_entropy_row cross_entropy_row(const float *logits, int64_t classes, float *exponentials) {
    struct cross_entropy_row row;
    row.largest = reduce_row(REDUCE_MAX, logits, classes);
    row.sum = exponential_sum(logits, classes, row.largest, exponentials);
    return row;
}

void KERNEL(cross_entropy)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct cross_entropy_params *p = params;
    const int64_t end = min_i64(p->rows, (task + 1) * p->rows_per_task);
    const int32_t *labels = buffers[1];
    float *loss = buffers[2];
    for (int64_t r = task * p->rows_per_task; r < end; r++) {
        const float *logits = (const float *)buffers[0] + r * p->classes;
        const int64_t label = labels[r];
        if (label == p->ignore_index) {
            loss[r] = 0.0f;
        } else if (label < 0 || label >= p->classes) {
            loss[r] = __builtin_nanf("");
        } else {
            const struct cross_entropy_row row = cross_entropy_row(logits, p->classes, NULL);
            const float log_sum = vf_log(vf_set1(row.sum))[0];
            loss[r] = log_sum - (logits[label] - row.largest);
            if (p->label_smoothing != 0.0f) {
                const float mean = reduce_row(REDUCE_SUM, logits, p->classes) / (float)p->classes;
                loss[r] = (1.0f - p->label_smoothing) * loss[r] + p->label_smoothing * (log_sum - (mean - row.largest));
            }
        }
    }
}

void KERNEL(cross_entropy_backward)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct cross_entropy_params *p = params;
    const int64_t end = min_i64(p->rows, (task + 1) * p->rows_per_task), classes = p->classes;
    const int32_t *labels = buffers[1];
    const float *dloss = buffers[2];
    const float smooth = p->label_smoothing / (float)classes, keep = 1.0f - p->label_smoothing;
    for (int64_t r = task * p->rows_per_task; r < end; r++) {
        const float *logits = (const float *)buffers[0] + r * classes;
        float *dlogits = (float *)buffers[3] + r * classes;
        const int64_t label = labels[r];
        if (label == p->ignore_index || label < 0 || label >= classes) {
            memset(dlogits, 0, (size_t)classes * sizeof(float));
            continue;
        }
        const struct cross_entropy_row row = cross_entropy_row(logits, classes, dlogits);
        const float reciprocal = 1.0f / row.sum, likelihood = dlogits[label] * reciprocal;
        for (int64_t c = 0; c < classes; c += VL) {
            vf probability = vf_load_until(dlogits, c, classes) * reciprocal;
            vf_store_until(dlogits, (probability - smooth) * dloss[r], c, classes);
        }
        dlogits[label] = (likelihood - keep - smooth) * dloss[r];
    }
}

void KERNEL(label_mask)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct label_mask_params *p = params;
    const int64_t end = min_i64(p->size, (task + 1) * LABEL_MASK_ITEMS);
    const int32_t *labels = buffers[0];
    float *y = buffers[1];
    for (int64_t i = task * LABEL_MASK_ITEMS; i < end; i++) {
        y[i] = labels[i] == p->ignore_index ? 0.0f : 1.0f;
    }
}
