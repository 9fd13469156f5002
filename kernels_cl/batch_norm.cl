// Batch normalisation of x[rows][channels] in training, with fused activation, and its gradient.
//
//   forward    moments (parts) -> statistics -> normalise            y  = act(gamma * (x - mean) * rstd + beta)
//   backward   backward_sums (parts) -> backward_join -> backward     dz = dy * act'(gamma * xhat + beta)
//              dbeta = sum dz, dgamma = sum dz * xhat, dx = gamma * rstd * (dz - dbeta/rows - xhat * dgamma/rows)
//
//   x | c c c c |  part 0: rows [0, rows_per_part)       moments, backward_sums: work-item (vector of VEC channels, part)
//     | c c c c |                                        statistics, backward_join: work-item (vector of VEC channels)
//     | c c c c |  part 1                                normalise, backward: work-item (vector of VEC channels, block of rows)
//
// ACTIVATION  kind, see activation.cl.
#include "vectors.cl"
#include "activation_derivative.cl"

// moments[part][0][c] = mean of the part, moments[part][1][c] = sum of squared differences from it.  Two passes over a part that
// fits a cache: the squares do not cancel.
__kernel void batch_norm_moments(
    __global const float *x, const int x_offset,
    __global float *moments, const int moments_offset,
    const int rows, const int channels, const int rows_per_part)
{
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const int part = get_global_id(1);
    const int first = part * rows_per_part;
    const int last = min(first + rows_per_part, rows);
    x += x_offset + channel;
    real sum = (real)(0.0f);
    for (int row = first; row < last; ++row)
        sum += load_some(x + row * channels, lanes);
    const real mean = sum / (float)(last - first);
    real squares = (real)(0.0f);
    for (int row = first; row < last; ++row) {
        const real difference = load_some(x + row * channels, lanes) - mean;
        squares = multiply_add(difference, difference, squares);
    }
    moments += moments_offset + part * 2 * channels + channel;
    store_some(mean, moments, lanes);
    store_some(squares, moments + channels, lanes);
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
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const real center = load_some(mean + mean_offset + channel, lanes);
    const real scale = load_some(rstd + rstd_offset + channel, lanes) * load_some(gamma + gamma_offset + channel, lanes);
    const real shift = load_some(beta + beta_offset + channel, lanes);
    const int first = get_global_id(1) * rows_per_item;
    const int last = min(first + rows_per_item, rows);
    x += x_offset + channel;
    y += y_offset + channel;
    for (int row = first; row < last; ++row) {
        const real value = multiply_add(load_some(x + row * channels, lanes) - center, scale, shift);
        store_some(activate(value, activation_alpha, activation_beta), y + row * channels, lanes);
    }
}

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
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const int part = get_global_id(1);
    const real center = load_some(mean + mean_offset + channel, lanes), inverse = load_some(rstd + rstd_offset + channel, lanes);
    const real scale = load_some(gamma + gamma_offset + channel, lanes), shift = load_some(beta + beta_offset + channel, lanes);
    const int first = part * rows_per_part;
    const int last = min(first + rows_per_part, rows);
    x += x_offset + channel;
    dy += dy_offset + channel;
    real sum = (real)(0.0f), weighted = (real)(0.0f);
    for (int row = first; row < last; ++row) {
        const real normal = (load_some(x + row * channels, lanes) - center) * inverse;
        const real slope = load_some(dy + row * channels, lanes)
                           * derivative(multiply_add(normal, scale, shift), activation_alpha, activation_beta);
        sum += slope;
        weighted = multiply_add(slope, normal, weighted);
    }
    sums += sums_offset + part * 2 * channels + channel;
    store_some(sum, sums, lanes);
    store_some(weighted, sums + channels, lanes);
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
    const int channel = get_global_id(0) * VEC;
    const int lanes = min(channels - channel, VEC);
    const real center = load_some(mean + mean_offset + channel, lanes), inverse = load_some(rstd + rstd_offset + channel, lanes);
    const real scale = load_some(gamma + gamma_offset + channel, lanes), shift = load_some(beta + beta_offset + channel, lanes);
    const real mean_slope = load_some(dbeta + dbeta_offset + channel, lanes) / (float)rows;
    const real mean_weighted = load_some(dgamma + dgamma_offset + channel, lanes) / (float)rows;
    const int first = get_global_id(1) * rows_per_item;
    const int last = min(first + rows_per_item, rows);
    x += x_offset + channel;
    dy += dy_offset + channel;
    dx += dx_offset + channel;
    for (int row = first; row < last; ++row) {
        const real normal = (load_some(x + row * channels, lanes) - center) * inverse;
        const real slope = load_some(dy + row * channels, lanes)
                           * derivative(multiply_add(normal, scale, shift), activation_alpha, activation_beta);
        store_some(scale * inverse * (slope - mean_slope - normal * mean_weighted), dx + row * channels, lanes);
    }
}
