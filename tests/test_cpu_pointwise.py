"""The CPU's elementwise kernels on every instruction set, against NumPy and SciPy in float64."""

import itertools

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, padded, run, ulps
from scipy import special

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinities and NaN are among the inputs

ALPHA = np.float64(np.float32(0.3))
EDGES = [0.0, -0.0, 1, -1, 3, -3, 6, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-45, 1e-40, -1e-40, 3e38, -3e38, 88.72, 8388607.5]


def inputs(count=20001):
    """Ordinary numbers, all sizes of numbers, and the edges."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(-86, 88, count // 4)) * rng.choice([-1, 1], count // 4)
    parts = [rng.normal(size=count // 4), rng.normal(size=count // 4) * 8, sizes, rng.uniform(-86, 88, count // 4), EDGES]
    return np.concatenate(parts).astype(np.float32)


def gelu_tanh_argument(x):
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def gated(x, gate):
    return np.where(np.isneginf(x), -0.0, np.maximum(x, -1e30) * gate)


def slope(s):
    """Of the logistic function at s."""
    return special.expit(s) * special.expit(-s)


def bell(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


# kind: (function, derivative), both of float64 arrays; derivatives at infinities are their limits.
KINDS = {
    1: (lambda x: np.where(x <= 0, 0, x), lambda x: ~(x <= 0) * 1.0),
    2: (lambda x: np.where(x > 0, x, ALPHA * x), lambda x: np.where(x > 0, 1, ALPHA)),
    3: (lambda x: np.clip(x, ALPHA, 6), lambda x: ((x > ALPHA) & (x < 6)) * 1.0),
    4: (special.expit, slope),
    5: (np.tanh, lambda x: 4 * slope(2 * x)),
    6: (lambda x: gated(x, special.ndtr(x)), lambda x: special.ndtr(x) + np.clip(x, -99, 99) * bell(x)),
    7: (lambda x: gated(x, special.expit(x)), lambda x: special.expit(x) + np.clip(x, -999, 999) * slope(x)),
    8: (lambda x: gated(np.maximum(x, -9), np.clip(x + 3, 0, 6) / 6), lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))),
    9: (
        lambda x: gated(x, special.expit(gelu_tanh_argument(x))),
        lambda x: special.expit(gelu_tanh_argument(x))
        + np.clip(x, -99, 99) * slope(gelu_tanh_argument(np.clip(x, -99, 99))) * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * np.clip(x, -99, 99) ** 2),
    ),
    10: (lambda x: np.where(x > 0, x, ALPHA * np.expm1(x)), lambda x: np.where(x > 0, 1, ALPHA * np.exp(x))),
    11: (lambda x: np.logaddexp(0, x), special.expit),
    12: (lambda x: np.clip(x + 3, 0, 6) / 6, lambda x: ((x > -3) & (x < 3)) / 6),
    20: (np.negative, lambda x: x * 0 - 1),
    21: (np.exp, np.exp),
    22: (np.log, lambda x: 1 / x),
    23: (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    24: (lambda x: 1 / np.sqrt(x), lambda x: -0.5 * x**-1.5),
    25: (lambda x: 1 / x, lambda x: -1 / x**2),
    26: (np.abs, np.sign),
    27: (np.sign, lambda x: x * 0),
    28: (lambda x: np.power(x, ALPHA), lambda x: ALPHA * np.power(x, np.float64(np.float32(ALPHA) - np.float32(1)))),
    29: (lambda x: ALPHA * x + 6, lambda x: x * 0 + ALPHA),
    30: (lambda x: np.copysign(np.abs(x) ** ALPHA, x), lambda x: np.where(x == 0, 0, ALPHA * np.abs(x) ** (ALPHA - 1))),
    31: (np.square, lambda x: 2 * x),
    32: (special.erf, lambda x: np.exp(-x * x) * 2 / np.sqrt(np.pi)),
    33: (np.floor, lambda x: x * 0),
    34: (np.ceil, lambda x: x * 0),
    35: (np.rint, lambda x: x * 0),
}
# 1e-6 relative are 8 to 17 units in the last place; these are steep where they are small.
STEEP = {6: 12, 7: 6, 9: 12}


def members(kind, size):
    return {"size": size, "kind": kind, "alpha": float(ALPHA), "beta": 6.0}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
def test_unary_is_accurate_over_all_floats(isa, kind):
    x = inputs()
    y = empty(x.size)
    run(isa, "unary", members(kind, x.size), x, y)
    exact = KINDS[kind][0](x.astype(np.float64))
    if kind == 29:  # a sum can cancel
        np.testing.assert_allclose(y, exact, rtol=2e-7, atol=1e-6)
        return
    normal = (np.abs(exact) > 1e-36) | (exact == 0) | ~np.isfinite(exact)  # subnormal steps in between lose digits
    assert ulps(y[normal], exact[normal]).max(initial=0) < STEEP.get(kind, 4)
    np.testing.assert_allclose(y[~normal], exact[~normal], atol=1e-42, rtol=1e-5)
    run(isa, "unary", members(kind, x.size), x, x)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
def test_unary_gradient(isa, kind):
    x = inputs()
    x = x[~np.isnan(x) & (np.abs(x) > 1e-19) & (np.abs(x) < 1e19) | (x == 0) & ~np.signbit(x)]  # further out derivatives overflow
    dy = np.random.default_rng(1).normal(size=x.size).astype(np.float32)
    dx = empty(x.size)
    run(isa, "unary_backward", members(kind, x.size), dy, x, dx)
    exact = dy * KINDS[kind][1](x.astype(np.float64))
    # Sums of a gate and its slope pass through zero.
    np.testing.assert_allclose(dx, exact.astype(np.float32), rtol=1e-6, atol=1e-6 if kind in (6, 7, 8, 9) else 1e-37)
    for in_place in (dy.copy(), x.copy()):
        run(isa, "unary_backward", members(kind, x.size), *((in_place, x) if in_place[0] == dy[0] else (dy, in_place)), in_place)
        np.testing.assert_array_equal(in_place, dx)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("alpha", [-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 5, 2.7, -0.75, 0.001])
def test_power_of_a_scalar(isa, alpha):
    x = inputs()
    if alpha == 0.5:
        x = x[~np.isneginf(x) & ((x != 0) | ~np.signbit(x))]  # the square root: of -0 it is -0, of -inf NaN
    y = empty(x.size)
    run(isa, "unary", {"size": x.size, "kind": 28, "alpha": alpha, "beta": 0.0}, x, y)
    exact = np.power(x.astype(np.float64), np.float64(np.float32(alpha)))
    if alpha == -0.5:
        y, exact = y[(x != 0) & ~np.isneginf(x)], exact[(x != 0) & ~np.isneginf(x)]
    assert ulps(y, exact).max() < 4


@pytest.mark.parametrize("isa", ISAS)
def test_powers_of_edges_are_those_of_c99(isa):
    numbers = np.array([*EDGES, 2, -2, 16777215, -16777215, 16777216, 1e-3], np.float32)
    a, b = (np.ascontiguousarray(grid.ravel()) for grid in np.meshgrid(numbers, numbers))
    y = empty(a.size)
    strides = {"rank": 1, "shape": padded([a.size]), "a_stride": padded([1]), "b_stride": padded([1])}
    run(isa, "binary", {"size": a.size, **strides, "kind": 6, "activation": 0, "alpha": 0, "beta": 0}, a, b, y)
    exact = np.power(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(y, exact, rtol=3e-7, atol=2e-45)
    np.testing.assert_array_equal(np.signbit(y[~np.isnan(y)]), np.signbit(exact[~np.isnan(y)]))


BINARY = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.power, np.equal, np.greater, np.greater_equal, lambda a, b: np.where(b != 0, a, 0)]
SHAPES = [
    ((7,), (7,)), ((1,), (1,)), ((3, 255), (255,)), ((1717, 3), (3,)), ((17, 3), (17, 1)), ((50000,), (1,)), ((1,), (40000,)),
    ((5, 1, 7), (1, 3, 1)), ((2, 3, 4, 5, 6, 7), (3, 1, 5, 1, 7)), ((2, 1, 4, 1, 6, 1), (1, 3, 1, 5, 1, 7)), ((300, 300), (300, 1)),
    ((70, 1), (1, 500)), ((9, 9, 3), (3,)), ((8, 1, 5), (8, 900, 1)),
]  # fmt: skip


def broadcast(a, b, shape):
    """Members of binary: strides in elements, 0 where an operand is repeated."""
    a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    strides = [[0 if n == 1 else s // 4 for s, n in zip(x.strides, shape, strict=True)] for x in (a, b)]
    return {"size": a.size, "rank": len(shape), "shape": padded(shape), "a_stride": padded(strides[0]), "b_stride": padded(strides[1])}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_binary_broadcasts(isa, shapes):
    rng = np.random.default_rng(2)
    for kind, activation in itertools.product(range(10), (0, 1, 7)):
        a, b = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        if kind == 6:
            a = np.abs(a)
        if kind in (4, 5):
            a.flat[0] = b.flat[-1] = np.nan
        if kind >= 7:
            a, b = np.round(2 * a), np.round(2 * b)
        exact = BINARY[kind](a.astype(np.float64), b.astype(np.float64)).astype(np.float64)
        exact = {0: exact, 1: np.where(exact <= 0, 0, exact), 7: exact * special.expit(exact)}[activation]
        form = {**broadcast(a, b, exact.shape), "kind": kind, "activation": activation, "alpha": 0.0, "beta": 0.0}
        y = empty(*exact.shape)
        run(isa, "binary", form, a, b, y)
        np.testing.assert_allclose(y, exact, rtol=2e-6, atol=1e-6)
        if a.shape == exact.shape:
            run(isa, "binary", form, a, b, a)
            np.testing.assert_array_equal(a, y)
