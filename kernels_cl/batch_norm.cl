// Batch normalisation of x[rows][channels] in training, with fused activation, and its gradient.
//
//   forward    moments (parts) -> statistics -> normalise            y  = act(gamma * (x - mean) * rstd + beta)
//   backward   backward_sums (parts) -> backward_join -> backward     dz = dy * act'(gamma * xhat + beta)
//              dbeta = sum dz, dgamma = sum dz * xhat, dx = gamma * rstd * (dz - dbeta/rows - xhat * dgamma/rows)
//
//   x | c c c c | c c c c |  part 0: rows [0, rows_per_part)
//     | c c c c | c c c c |
//     | c c c c | c c c c |  part 1          VECTORS vectors of VEC channels make a block, which a work-item takes
//
// Work-item      moments, backward_sums: (block of channels, part)       normalise, backward: (block of channels, rows_per_item rows)
//                statistics, backward_join: (vector of channels)
//
// VECTORS     vectors of channels of a work-item; 1..4.  More make longer pieces of a row, which memory likes; 1 on GPUs, where
//             neighbouring work-items make the piece.
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation_derivative.cl"
#ifndef VECTORS
#define VECTORS 1
#endif

#define BLOCK_OF_CHANNELS \
    const int channel = get_global_id(0) * (VECTORS * VEC); \
    const int left = channels - channel;
// The v-th vector of the block at p, and its store.
#define get(p, v) load_some((p) + v * VEC, left - v * VEC)
#define put(value, p, v) store_some(value, (p) + v * VEC, left - v * VEC)

// moments[part][0][c] = mean of the part, moments[part][1][c] = sum of squared differences from it.  Two passes over a part that
// fits a cache: the squares do not cancel.
__kernel void batch_norm_moments(
    __global const float *x, const int x_offset,
    __global float *moments, const int moments_offset,
    const int rows, const int channels, const int rows_per_part)
{
    BLOCK_OF_CHANNELS
    const int part = get_global_id(1);
    const int first = part * rows_per_part;
    const int last = min(first + rows_per_part, rows);
    x += x_offset + channel;
    moments += moments_offset + part * 2 * channels + channel;
#define START(v) real sum##v = (real)(0.0f), squares##v = (real)(0.0f);
    EACH(VECTORS, START)
    for (int row = first; row < last; ++row) {
#define ADD(v) sum##v += get(x + row * channels, v);
        EACH(VECTORS, ADD)
    }
    const float share = 1.0f / (float)(last - first);
#define MEAN(v) const real mean##v = sum##v * share;
    EACH(VECTORS, MEAN)
    for (int row = first; row < last; ++row) {
#define ADD_SQUARE(v) { const real difference = get(x + row * channels, v) - mean##v; squares##v = multiply_add(difference, difference, squares##v); }
        EACH(VECTORS, ADD_SQUARE)
    }
#define KEEP_MOMENTS(v) put(mean##v, moments, v); put(squares##v, moments + channels, v);
    EACH(VECTORS, KEEP_MOMENTS)
}

// Joins the parts in order (Chan, Golub, LeVeque: mean and squares of two sets from those of each) and updates the running values.
__kernel void batch_norm_statistics(
    __global const float *moments, const int moments_offset,
    __global float *running_mean, const int running_mean_offset,
    __global float *running_variance, const int running_variance_offset,
    __global float *mean, const int mean_offset,
    __global float *rstd, const int rstd_offset,
    const int rows, const int channels, const int rows_per_part, const int parts, const float epsilon, const float momentum)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    moments += moments_offset + channel;
    real joint_mean = load_some(moments, lanes), joint_squares = load_some(moments + channels, lanes);
    float count = (float)min(rows_per_part, rows);
    for (int part = 1; part < parts; ++part) {
        const float more = (float)min(rows_per_part, rows - part * rows_per_part);
        const real difference = load_some(moments + part * 2 * channels, lanes) - joint_mean;
        joint_mean += difference * (more / (count + more));
        joint_squares += load_some(moments + (part * 2 + 1) * channels, lanes) + difference * difference * (count * (more / (count + more)));
        count += more;
    }
    const real variance = joint_squares / (float)rows;
    store_some(joint_mean, mean + mean_offset + channel, lanes);
    store_some((real)(1.0f) / sqrt(variance + epsilon), rstd + rstd_offset + channel, lanes);
    __global float *old_mean = running_mean + running_mean_offset + channel;
    __global float *old_variance = running_variance + running_variance_offset + channel;
    const real unbiased = rows > 1 ? joint_squares / (float)(rows - 1) : variance;
    store_some((1.0f - momentum) * load_some(old_mean, lanes) + momentum * joint_mean, old_mean, lanes);
    store_some((1.0f - momentum) * load_some(old_variance, lanes) + momentum * unbiased, old_variance, lanes);
}

__kernel void batch_norm_normalise(
    __global const float *x, const int x_offset,
    __global const float *gamma, const int gamma_offset,
    __global const float *beta, const int beta_offset,
    __global const float *mean, const int mean_offset,
    __global const float *rstd, const int rstd_offset,
    __global float *y, const int y_offset,
    const int rows, const int channels, const int rows_per_item, const float activation_alpha, const float activation_beta)
{
    BLOCK_OF_CHANNELS
#define LOAD_FORWARD(v) \
    const real center##v = get(mean + mean_offset + channel, v), shift##v = get(beta + beta_offset + channel, v); \
    const real scale##v = get(rstd + rstd_offset + channel, v) * get(gamma + gamma_offset + channel, v);
    EACH(VECTORS, LOAD_FORWARD)
    const int first = get_global_id(1) * rows_per_item;
    const int last = min(first + rows_per_item, rows);
    x += x_offset + channel;
    y += y_offset + channel;
    for (int row = first; row < last; ++row) {
#define NORMALISE(v) { \
        const real value = multiply_add(get(x + row * channels, v) - center##v, scale##v, shift##v); \
        put(activate(value, activation_alpha, activation_beta), y + row * channels, v); \
    }
        EACH(VECTORS, NORMALISE)
    }
}

// What both backward kernels know of a channel, and for one element of it xhat and dz.
#define LOAD_BACKWARD(v) \
    const real center##v = get(mean + mean_offset + channel, v), inverse##v = get(rstd + rstd_offset + channel, v); \
    const real scale##v = get(gamma + gamma_offset + channel, v), shift##v = get(beta + beta_offset + channel, v);
#define NORMAL_AND_SLOPE(v) \
    const real normal = (get(x + row * channels, v) - center##v) * inverse##v; \
    const real slope = get(dy + row * channels, v) * derivative(multiply_add(normal, scale##v, shift##v), activation_alpha, activation_beta);

// sums[part][0][c] = sum of dz, sums[part][1][c] = sum of dz * xhat over the part's rows.
__kernel void batch_norm_backward_sums(
    __global const float *x, const int x_offset,
    __global const float *dy, const int dy_offset,
    __global const float *gamma, const int gamma_offset,
    __global const float *beta, const int beta_offset,
    __global const float *mean, const int mean_offset,
    __global const float *rstd, const int rstd_offset,
    __global float *sums, const int sums_offset,
    const int rows, const int channels, const int rows_per_part, const float activation_alpha, const float activation_beta)
{
    BLOCK_OF_CHANNELS
    const int part = get_global_id(1);
    EACH(VECTORS, LOAD_BACKWARD)
    const int first = part * rows_per_part;
    const int last = min(first + rows_per_part, rows);
    x += x_offset + channel;
    dy += dy_offset + channel;
    sums += sums_offset + part * 2 * channels + channel;
#define START_SUMS(v) real sum##v = (real)(0.0f), weighted##v = (real)(0.0f);
    EACH(VECTORS, START_SUMS)
    for (int row = first; row < last; ++row) {
#define ADD_SLOPE(v) { NORMAL_AND_SLOPE(v) sum##v += slope; weighted##v = multiply_add(slope, normal, weighted##v); }
        EACH(VECTORS, ADD_SLOPE)
    }
#define KEEP_SUMS(v) put(sum##v, sums, v); put(weighted##v, sums + channels, v);
    EACH(VECTORS, KEEP_SUMS)
}

__kernel void batch_norm_backward_join(
    __global const float *sums, const int sums_offset,
    __global float *dgamma, const int dgamma_offset,
    __global float *dbeta, const int dbeta_offset,
    const int channels, const int parts)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    sums += sums_offset + channel;
    real sum = (real)(0.0f), weighted = (real)(0.0f);
    for (int part = 0; part < parts; ++part) {
        sum += load_some(sums + part * 2 * channels, lanes);
        weighted += load_some(sums + (part * 2 + 1) * channels, lanes);
    }
    store_some(sum, dbeta + dbeta_offset + channel, lanes);
    store_some(weighted, dgamma + dgamma_offset + channel, lanes);
}

__kernel void batch_norm_backward(
    __global const float *x, const int x_offset,
    __global const float *dy, const int dy_offset,
    __global const float *gamma, const int gamma_offset,
    __global const float *beta, const int beta_offset,
    __global const float *mean, const int mean_offset,
    __global const float *rstd, const int rstd_offset,
    __global const float *dgamma, const int dgamma_offset,
    __global const float *dbeta, const int dbeta_offset,
    __global float *dx, const int dx_offset,
    const int rows, const int channels, const int rows_per_item, const float activation_alpha, const float activation_beta)
{
    BLOCK_OF_CHANNELS
    const float share = 1.0f / (float)rows;
    EACH(VECTORS, LOAD_BACKWARD)
#define LOAD_MEANS(v) \
    const real mean_slope##v = get(dbeta + dbeta_offset + channel, v) * share, mean_weighted##v = get(dgamma + dgamma_offset + channel, v) * share;
    EACH(VECTORS, LOAD_MEANS)
    const int first = get_global_id(1) * rows_per_item;
    const int last = min(first + rows_per_item, rows);
    x += x_offset + channel;
    dy += dy_offset + channel;
    dx += dx_offset + channel;
    for (int row = first; row < last; ++row) {
#define GRADIENT(v) { \
        NORMAL_AND_SLOPE(v) \
        put(scale##v * inverse##v * (slope - mean_slope##v - normal * mean_weighted##v), dx + row * channels, v); \
    }
        EACH(VECTORS, GRADIENT)
    }
}
