"""The CPU's reduction kernel on every instruction set, against NumPy in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run

SHAPES = [
    (1, 1, 1), (3, 7, 1), (17, 17, 1), (2, 255, 1), (1, 300003, 1), (1000, 10, 1), (5, 3, 7), (1, 36001, 6), (1, 30000, 64), (1, 9999, 3),
    (2, 49, 512), (4, 49, 515), (1, 130, 1030), (200, 1, 5), (1, 1, 3000), (30, 9, 33), (2, 63, 31),
]  # fmt: skip
SUM, MAX, MIN, PROD = range(4)


def reduce(isa, x, kind, divisor=1.0, **sizes):
    """One or two stages, as the backend launches them."""
    outer, length, inner = x.shape
    sizes = {**kernels.reduce_blocks(outer, length, inner), **sizes}
    parts = empty(sizes["parts"], outer, inner)
    common = {"kind": kind, "outer": outer, "reduce": length, "inner": inner}
    if sizes["parts"] == 1:
        run(isa, "reduce", {**common, **sizes, "divisor": divisor}, x, parts)
        return parts[0]
    run(isa, "reduce", {**common, **sizes, "divisor": 1.0}, x, parts)
    y = empty(outer, inner)
    second = {**common, **kernels.reduce_blocks(1, sizes["parts"], outer * inner), "parts": 1, "divisor": divisor}
    run(isa, "reduce", {**second, "outer": 1, "reduce": sizes["parts"], "inner": outer * inner}, parts, y)
    return y


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_means_keep_their_digits(isa, shape):
    """A long sum is as accurate as a short one: within a few roundings of the sum of absolute values."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    exact, size = x.astype(np.float64).sum(1), np.abs(x.astype(np.float64)).sum(1)
    np.testing.assert_array_less(np.abs(reduce(isa, x, SUM) - exact), 3e-7 * size)
    np.testing.assert_array_less(np.abs(reduce(isa, x, SUM, shape[1]) - exact / shape[1]), 3e-7 * size / shape[1])
    x += 5
    np.testing.assert_allclose(reduce(isa, x, SUM), x.astype(np.float64).sum(1), rtol=4e-7)
    if shape[1] > 8:
        odd = reduce(isa, x, SUM, parts=5, inner_block=min(shape[2], 7), outer_block=3)
        np.testing.assert_allclose(odd, x.astype(np.float64).sum(1), rtol=4e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_extremes_are_exact_and_nan_wins(isa, shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(reduce(isa, x, MAX), x.max(1))
    np.testing.assert_array_equal(reduce(isa, x, MIN), x.min(1))
    x[0, shape[1] // 2, 0] = np.nan
    x[-1, 0, -1] = np.inf
    np.testing.assert_array_equal(reduce(isa, x, MAX), x.max(1))
    np.testing.assert_array_equal(reduce(isa, x, MIN), x.min(1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products(isa, shape):
    x = np.exp(np.random.default_rng(2).normal(size=shape) * 0.01).astype(np.float32)
    # Every multiplication rounds once: the errors add up like a random walk.
    np.testing.assert_allclose(reduce(isa, x, PROD), x.astype(np.float64).prod(1), rtol=3e-7 * (1 + shape[1] ** 0.5))
