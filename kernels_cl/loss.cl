// Cross entropy of logits[rows][classes] against int32 labels[rows], and its gradient.
//
//   loss[row]    = lse - (1 - s) * logits[label] - s/classes * sum logits          lse = log sum exp(logits), s = label smoothing
//   dlogits[row] = dloss[row] * (softmax(logits) - (1 - s) * onehot(label) - s/classes)
//
// Both are 0 in rows whose label is ignore_index; a label that is no class has loss NaN and gradient 0.
// One work-group for rows_per_group rows, its items share a row:
// global size (blocks of rows * WORK_GROUP), local size (WORK_GROUP).
//
//      logits | c0 c1 c2 ... | label   ->   maximum, sum of exponentials, sum   ->   loss
#include "vectors.cl"
#include "work_group.cl"

DEFINE_WORK_GROUP_REDUCTION(sum_group, COMBINE_SUM)
DEFINE_WORK_GROUP_REDUCTION(max_group, COMBINE_MAX)

#define FIRST (get_local_id(0) * VEC)
#define STEP (WORK_GROUP * VEC)

__kernel void cross_entropy(
    __global const float *logits, const int logits_offset,
    __global const int *labels, const int labels_offset,
    __global float *loss, const int loss_offset,
    const int rows, const int classes, const int rows_per_group, const int ignore_index, const float smoothing)
{
    __local float scratch[WORK_GROUP];
    const int first_row = get_group_id(0) * rows_per_group;
    const int last_row = min(first_row + rows_per_group, rows);
    for (int row = first_row; row < last_row; ++row) {
        __global const float *x = logits + logits_offset + row * classes;
        real highest = (real)(-INFINITY);
        for (int i = FIRST; i < classes; i += STEP)
            highest = maximum(highest, load_padded(x + i, classes - i, -INFINITY));
        const float top = max_group(highest, scratch);
        // Sums of x - top, so that log-probabilities of large logits keep their digits.
        real exponentials = (real)(0.0f), shifted = (real)(0.0f);
        for (int i = FIRST; i < classes; i += STEP) {
            exponentials += exp(load_padded(x + i, classes - i, -INFINITY) - top);
            if (smoothing != 0.0f)
                shifted += load_padded(x + i, classes - i, top) - top;
        }
        const float log_total = log(sum_group(exponentials, scratch));
        const float sum = sum_group(shifted, scratch);
        const int label = labels[labels_offset + row];
        if (get_local_id(0) == 0) {
            float value = 0.0f;
            if (label != ignore_index && (uint)label >= (uint)classes)
                value = NAN;
            else if (label != ignore_index) {
                value = (1.0f - smoothing) * (log_total - (x[label] - top));
                if (smoothing != 0.0f)
                    value += smoothing * (log_total - sum / classes);
            }
            loss[loss_offset + row] = value;
        }
    }
}

__kernel void cross_entropy_backward(
    __global const float *logits, const int logits_offset,
    __global const int *labels, const int labels_offset,
    __global const float *dloss, const int dloss_offset,
    __global float *dlogits, const int dlogits_offset,
    const int rows, const int classes, const int rows_per_group, const int ignore_index, const float smoothing)
{
    __local float scratch[WORK_GROUP];
    const int first_row = get_group_id(0) * rows_per_group;
    const int last_row = min(first_row + rows_per_group, rows);
    for (int row = first_row; row < last_row; ++row) {
        __global const float *x = logits + logits_offset + row * classes;
        __global float *dx = dlogits + dlogits_offset + row * classes;
        const int label = labels[labels_offset + row];
        if (label == ignore_index || (uint)label >= (uint)classes) {     // the same for all items of the work-group
            for (int i = FIRST; i < classes; i += STEP)
                store_some((real)(0.0f), dx + i, classes - i);
            continue;
        }
        const float slope = dloss[dloss_offset + row];
        real highest = (real)(-INFINITY);
        for (int i = FIRST; i < classes; i += STEP)
            highest = maximum(highest, load_padded(x + i, classes - i, -INFINITY));
        const float top = max_group(highest, scratch);
        real exponentials = (real)(0.0f);
        for (int i = FIRST; i < classes; i += STEP)
            exponentials += exp(load_padded(x + i, classes - i, -INFINITY) - top);
        const float scale = 1.0f / sum_group(exponentials, scratch);
        for (int i = FIRST; i < classes; i += STEP) {
            const real probability = exp(load_some(x + i, classes - i) - top) * scale;
            store_some(slope * (probability - smoothing / classes), dx + i, classes - i);
            if (label >= i && label < i + VEC)          // this item wrote the label's lane
                dx[label] = slope * (exp(x[label] - top) * scale - smoothing / classes - (1.0f - smoothing));
        }
    }
}

// y[i] = 0 where labels[i] is ignore_index, else 1: which rows a mean counts.  Work-item g: the labels [g*span, (g+1)*span).
__kernel void label_mask(
    __global const int *labels, const int labels_offset,
    __global float *y, const int y_offset,
    const int count, const int span, const int ignore_index)
{
    const int first = get_global_id(0) * span;
    const int last = min(first + span, count);
    for (int i = first; i < last; ++i)
        y[y_offset + i] = labels[labels_offset + i] == ignore_index ? 0.0f : 1.0f;
}
