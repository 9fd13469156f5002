"""The CPU's softmax kernels on every instruction set, against SciPy in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run
from scipy import special

SHAPES = [(1, 1, 1), (3, 7, 1), (64, 10, 1), (17, 255, 1), (2, 1000, 1), (1, 50001, 1), (3, 17, 5), (2, 21, 300), (1, 1000, 17), (40, 3, 1)]


def members(shape, log):
    outer, axis, inner = shape
    return {"outer": outer, "axis": axis, "inner": inner, "log": log, **kernels.softmax_blocks(outer, axis, inner)}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("log", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_and_its_gradient(isa, log, shape):
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=shape) * 5 + 100).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    y, dx = empty(*shape), empty(*shape)
    run(isa, "softmax", members(shape, log), x, y)
    exact = (special.log_softmax if log else special.softmax)(x.astype(np.float64), 1)
    # x - max(x) rounds once, at up to 40, before the exponential sees it.
    np.testing.assert_allclose(y, exact, rtol=3e-6, atol=1e-6 if log else 1e-12)
    run(isa, "softmax", members(shape, log), x, x)
    np.testing.assert_array_equal(x, y)

    run(isa, "softmax_backward", members(shape, log), y, dy, dx)
    p = y.astype(np.float64)
    exact = dy - np.exp(p) * dy.sum(1, keepdims=True, dtype=np.float64) if log else p * (dy - (p * dy).sum(1, keepdims=True))
    np.testing.assert_allclose(dx, exact, rtol=1e-6, atol=1e-6 * max(1, np.abs(dy).sum(1).max() ** 0.5))
    run(isa, "softmax_backward", members(shape, log), y, dy, dy)
    np.testing.assert_array_equal(dy, dx)


@pytest.mark.parametrize("isa", ISAS)
def test_infinities(isa):
    x = np.full((3, 5, 1), -np.inf, np.float32)
    x[0, 2] = 1
    x[1] = np.array([0, 1, np.nan, 3, 4], np.float32)[:, None]
    y = empty(3, 5, 1)
    run(isa, "softmax", members(x.shape, 0), x, y)
    np.testing.assert_array_equal(y[0, :, 0], [0, 0, 1, 0, 0])
    assert np.isnan(y[1:]).all()
