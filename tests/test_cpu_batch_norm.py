"""The CPU's training batch norm kernels on every instruction set, against NumPy in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run
from scipy import special

NONE, RELU, SILU = 0, 1, 7
DERIVATIVE = {
    NONE: lambda z: np.ones_like(z),
    RELU: lambda z: (z > 0) * 1.0,
    SILU: lambda z: special.expit(z) * (1 + z * special.expit(-z)),
}
VALUE = {NONE: lambda z: z, RELU: lambda z: np.maximum(z, 0), SILU: lambda z: z * special.expit(z)}
EPS, MOMENTUM = 1e-5, 0.1


def members(rows, c, activation, **sizes):
    common = {"rows": rows, "c": c, "activation": activation, "alpha": 0.0, "beta": 0.0, "eps": EPS, "momentum": MOMENTUM}
    return {**common, **kernels.batch_norm_blocks(rows, c), **sizes}


def partials(form):
    return empty(kernels.batch_norm_workspace(kernels.batch_norm_params(**form)) // 4)


def data(rows, c, offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, c)) * rng.uniform(0.5, 2, c) + offset * rng.normal(size=c)).astype(np.float32)
    return x, rng.normal(size=(rows, c)).astype(np.float32), rng.uniform(0.5, 1.5, c).astype(np.float32), rng.normal(size=c).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows, c, offset", [(1, 5, 1), (2, 1, 0), (17, 17, 3), (255, 64, 1e2), (1000, 7, 1e4), (3000, 300, 5), (4099, 40, 1e3), (3600, 300, 5)])
def test_statistics_keep_their_digits(isa, rows, c, offset):
    """Also where the mean is ten thousand deviations: there E(x^2) - E(x)^2 would have none left."""
    x = data(rows, c, offset)[0]
    exact = x.astype(np.float64)
    for sizes in ({}, {"part_rows": -(-rows // 7)}, {"part_rows": 9, "image_rows": rows // 3 if rows % 3 == 0 else rows, "near": 1}):
        form = members(rows, c, NONE, **sizes)
        partial, mean, rstd = partials(form), empty(c), empty(c)
        running_mean, running_var = np.full(c, 0.5, np.float32), np.full(c, 2, np.float32)
        run(isa, "batch_norm_statistics", form, x, partial)
        run(isa, "batch_norm_finalize", form, partial, x, mean, rstd, running_mean, running_var)
        np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(rstd, 1 / np.sqrt(exact.var(0) + EPS), rtol=1e-6)
        np.testing.assert_allclose(running_mean, 0.9 * 0.5 + 0.1 * exact.mean(0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(running_var, 0.9 * 2 + 0.1 * exact.var(0) * rows / max(rows - 1, 1), rtol=1e-6)
        twice = mean.copy(), rstd.copy()
        run(isa, "batch_norm_finalize", form, partial, x, mean, rstd, None, None)
        np.testing.assert_array_equal((mean, rstd), twice)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", [NONE, RELU, SILU])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rows, c", [(2, 1), (17, 17), (255, 64), (1000, 7), (300, 700), (3600, 300)])
def test_normalisation_and_gradients(isa, activation, affine, rows, c):
    x, dy, gamma, beta = data(rows, c, 3)
    # The statistics are inputs here, so that only this step's roundings count.
    mean = x.astype(np.float64).mean(0).astype(np.float32)
    rstd = (1 / np.sqrt(x.astype(np.float64).var(0) + EPS)).astype(np.float32)
    scale, shift = (gamma, beta) if affine else (None, None)
    form = members(rows, c, activation, part_rows=-(-rows // 5), image_rows=rows // 2 if rows % 2 == 0 else rows)
    xhat = (x.astype(np.float64) - mean) * rstd
    z = xhat * gamma + beta if affine else xhat
    kink = np.abs(z) < 1e-5  # on either side of it ReLU's derivative is another
    y = empty(rows, c)
    run(isa, "batch_norm_normalise", form, x, scale, shift, mean, rstd, y)
    np.testing.assert_allclose(y, VALUE[activation](z), rtol=2e-6, atol=3e-6)

    dy[kink] = 0
    partial, dgamma, dbeta, dx = partials(form), empty(c), empty(c), empty(rows, c)
    inputs = (x, dy, scale, shift, mean, rstd)
    run(isa, "batch_norm_backward_partial", form, *inputs, partial)
    run(isa, "batch_norm_backward_finalize", form, partial, dgamma, dbeta)
    run(isa, "batch_norm_backward_input", form, *inputs, dgamma, dbeta, dx)
    dz = dy * DERIVATIVE[activation](z)
    exact_dgamma, exact_dbeta = (dz * xhat).sum(0), dz.sum(0)
    np.testing.assert_allclose(dgamma, exact_dgamma, rtol=2e-6, atol=1e-6 * np.abs(dz * xhat).sum(0).max())
    np.testing.assert_allclose(dbeta, exact_dbeta, rtol=2e-6, atol=1e-6 * np.abs(dz).sum(0).max())
    exact = (gamma if affine else 1) * rstd * (dz - exact_dbeta / rows - xhat * exact_dgamma / rows)
    np.testing.assert_allclose(dx, exact, rtol=1e-5, atol=5e-6 * rstd.max())

    run(isa, "batch_norm_backward_input", form, x, dy, scale, shift, mean, rstd, dgamma, dbeta, dy)
    np.testing.assert_array_equal(dy, dx)
    run(isa, "batch_norm_normalise", form, x, scale, shift, mean, rstd, x)
    np.testing.assert_array_equal(x, y)
