"""Functions of one array and arithmetic of two, over the whole range of float32 and every way to broadcast."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special
from helpers.catalogue import array
from helpers.graphs import result_and_gradients
from helpers.tolerance import ULPS, U, assert_within, function_bound
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pycl_cnn as pc
import pycl_cnn.functional as F


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


#: name, arguments, the function in float64 (written with SciPy, not with pycl_cnn's own reference)
FUNCTIONS = {
    "relu": ((), lambda x: np.where(np.isnan(x), x, np.maximum(x, 0))),
    "relu6": ((), lambda x: np.clip(x, 0, 6)),
    "leaky_relu": ((0.2,), lambda x: np.where(x > 0, x, np.float32(0.2) * x)),
    "elu": ((0.7,), lambda x: np.where(x > 0, x, np.float32(0.7) * special.expm1(np.minimum(x, 0)))),
    "clamp": ((-1.5, 2.5), lambda x: np.clip(x, -1.5, 2.5)),
    "sigmoid": ((), special.expit),
    "tanh": ((), np.tanh),
    "gelu": ((), lambda x: x * special.ndtr(x)),
    "gelu-tanh": (("tanh",), gelu_tanh),
    "silu": ((), lambda x: x * special.expit(x)),
    "hardswish": ((), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardsigmoid": ((), lambda x: np.clip(x + 3, 0, 6) / 6),
    "softplus": ((), lambda x: np.logaddexp(x, 0)),
    "neg": ((), np.negative),
    "exp": ((), np.exp),
    "abs": ((), np.abs),
    "square": ((), np.square),
    "erf": ((), special.erf),
    "log": ((), np.log),
    "sqrt": ((), np.sqrt),
    "rsqrt": ((), lambda x: 1 / np.sqrt(x)),
    "reciprocal": ((), lambda x: 1 / x),
}
CASES = sorted(FUNCTIONS)
EDGES = np.array([0.0, 1.0, 3.0, 6.0, 0.5, 1e-3, 1e-7, 1e-20, 9.3, 15.0, 30.0, 80.0, 88.0, 100.0, 1e4, 3e18, 3e38], np.float32)


def check(name, x, device):
    args, function = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
        h = 1e-7 * np.maximum(np.abs(x), 1e-3)
        slope = (function(x + h) - function(x - h)) / (2 * h)
        expected = np.where(np.abs(exact) > np.finfo(np.float32).max, np.sign(exact) * np.inf, exact)
    y = getattr(F, name.split("-")[0])(x, *args, device=device)
    bound = function_bound(x.astype(np.float64), expected, slope)
    with np.errstate(all="ignore"):  # where the exact result is at the border of the range, infinity is right as well
        border = np.isinf(y) & (np.abs(exact) > 0.99 * np.finfo(np.float32).max)
    assert_within(np.where(border, np.float32(0), y), np.where(border, 0, expected), bound, f"{name} of {x[:3]}")


@pytest.mark.parametrize("name", CASES)
def test_function_over_the_range_of_float32(name, device):
    domain = EDGES if name in ("log", "sqrt", "rsqrt") else np.concatenate([EDGES, -EDGES])
    check(name, np.concatenate([domain, np.linspace(-20, 20, 801, dtype=np.float32)]) if domain.size > EDGES.size else domain, device)


@pytest.mark.parametrize("name", CASES)
def test_function_of_infinity_and_nan(name, device):
    """What float64 gives: a NaN stays one, so that a mistake is seen at the end of a network."""
    args, function = FUNCTIONS[name]
    x = np.array([np.inf, np.nan], np.float32) if name in ("log", "sqrt", "rsqrt") else np.array([np.inf, -np.inf, np.nan], np.float32)
    y = getattr(F, name.split("-")[0])(x, *args, device=device)
    with np.errstate(all="ignore"):
        expected = function(x.astype(np.float64))
    assert np.isnan(y[-1])
    finite = ~np.isnan(expected)  # 0 * inf is a matter of how a formula is written
    np.testing.assert_allclose(y[finite], expected[finite], atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_function_of_any_array(name, data, device):
    low = 0.0 if name in ("log", "sqrt", "rsqrt") else None
    elements = st.floats(low, None, width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    check(name, data.draw(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=9), elements=elements)), device)


@pytest.mark.parametrize("exponent", [2, 3, 0.5, -1, 0, -2.5])
def test_pow_with_a_number(exponent, device):
    x = array(40, low=0.1) if exponent != int(exponent) else np.concatenate([array(20, low=0.1), array(20, high=-0.1)])
    expected = x.astype(np.float64) ** exponent
    assert_within(F.pow(x, exponent, device=device), expected, 2 * ULPS * U * np.abs(expected))


@pytest.mark.parametrize(
    ("name", "at", "slope"),
    [
        ("relu", 0.0, 0.0),
        ("relu6", 6.0, 0.0),
        ("leaky_relu", 0.0, 0.01),
        ("elu", 0.0, 1.0),
        ("abs", 0.0, 0.0),
        ("hardsigmoid", 3.0, 0.0),
        ("hardsigmoid", -3.0, 0.0),
    ],
)
def test_slope_at_a_kink(name, at, slope, device):
    x = np.full(3, at, np.float32)
    unit = result_and_gradients(lambda x: x * 1.0, x, device=device)[1]
    _, grad = result_and_gradients(lambda x: getattr(F, name)(x), x, device=device)
    np.testing.assert_allclose(grad, slope * unit, rtol=1e-6)


BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum, "minimum": np.minimum}


@pytest.mark.parametrize("name", BINARY)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=5), seed=st.integers(0, 99))
def test_arithmetic_broadcasts_like_numpy(name, shapes, seed, device):
    a, b = (array(*shape, seed=seed + i, low=0.1) for i, shape in enumerate(shapes.input_shapes))
    expected = BINARY[name](a.astype(np.float64), b.astype(np.float64))
    assert_within(getattr(F, name)(a, b, device=device), expected, 3 * U * np.abs(expected))  # OpenCL 1.2 allows 2.5 ulp for a division


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=1), seed=st.integers(0, 99))
def test_the_gradient_of_broadcasting_is_a_sum(shapes, seed, device):
    a, b = (array(*shape, seed=seed + i) for i, shape in enumerate(shapes.input_shapes))
    _, da, db = result_and_gradients(lambda a, b: F.mul(a, b), a, b, device=device)
    out = np.broadcast_shapes(a.shape, b.shape)
    c = np.random.default_rng(0).uniform(0.5, 1.5, out).astype(np.float32).astype(np.float64)

    def gathered(full, shape):
        extra = len(out) - len(shape)
        full = full.sum(tuple(range(extra)))
        return full.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)

    for got, other, like in ((da, b, a), (db, a, b)):
        full = c * np.broadcast_to(other, out)
        assert_within(got, gathered(full, like.shape), 300 * U * gathered(np.abs(full), like.shape))


def test_ties_share_the_gradient(device):
    a = np.array([1.0, 2.0, 3.0], np.float32)
    b = np.array([1.0, 5.0, 3.0], np.float32)
    _, da, db = result_and_gradients(lambda a, b: F.maximum(a, b), a, b, device=device)
    c = result_and_gradients(lambda a, b: a + b, a, b, device=device)[1]
    np.testing.assert_allclose(da, c * [0.5, 0, 0.5])
    np.testing.assert_allclose(db, c * [0.5, 1, 0.5])


def test_gradients_of_pow_where_base_or_exponent_is_zero(device):
    """As in PyTorch: no NaN from 0 * log(0) nor from 0 * 0**-1."""
    a, b = np.array([0.0, 2.0, 0.0], np.float32), np.array([2.0, 0.0, 0.0], np.float32)
    y, da, db = result_and_gradients(lambda a, b: F.pow(a, b), a, b, device=device)
    np.testing.assert_array_equal(y, [0, 1, 1])
    np.testing.assert_array_equal(da, [0, 0, 0])
    assert db[0] == 0 and db[1] > 0 and db[2] == 0


@pytest.mark.parametrize("name", ["relu", "relu6", "silu", "hardswish", "hardsigmoid", "leaky_relu", "elu"])
def test_inplace_is_accepted_and_leaves_the_input_alone(name):
    x = array(3, 4)
    before = x.copy()
    np.testing.assert_array_equal(getattr(F, name)(x, inplace=True, device="reference"), getattr(F, name)(x, device="reference"))
    np.testing.assert_array_equal(x, before)


def test_numbers_take_part_in_arithmetic(device):
    x = array(4, 3)
    np.testing.assert_allclose(F.sub(1, x, device=device), 1 - x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(F.div(x, np.int64(4), device=device), x / 4, rtol=1e-6)
    np.testing.assert_allclose(F.mul(x, np.float64(0.5), device=device), x / 2, rtol=1e-6)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(pc.ShapeError, match=r"add: .*a=\(2, 3\), b=\(4,\)"):
        F.add(array(2, 3), array(4), device="reference")
