"""How far a float32 result may lie from the exact one.

Standard model of rounding: every operation gives ``(a op b)(1 + e)`` with ``|e| <= u = 2**-24``. For a sum of n products added in
any order (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1)

    |computed - exact| <= gamma(n) * sum |products|,    gamma(n) = n u / (1 - n u)

so `sum_bound` needs two things: the length of the longest sum, and the same operation carried out on absolute values. The bound
holds for every order of summation and with or without fused multiply-adds; anything beyond it is not rounding.
Elementary functions are allowed `ULPS` units in the last place of the result, and as many of the argument, carried through by
the function's slope.
"""

from __future__ import annotations

import numpy as np

U = 2.0**-24
#: Units in the last place that an elementary function may be off by (OpenCL 1.2, table 7.1, allows 4 for exp and 16 for pow and erf).
ULPS = 16
#: Results below the least normal number may be flushed to zero.
TINY = 2.0**-126


def gamma(n: int) -> float:
    """Relative growth of rounding errors in a chain of n operations."""
    return n * U / (1 - n * U)


def sum_bound(length: int, magnitude: np.ndarray | float) -> np.ndarray | float:
    """Bound for a sum of `length` products, `magnitude` = the sum of their absolute values; 4 more for what is fused behind it."""
    return gamma(length + 4) * magnitude + TINY


def function_bound(x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Bound for ``y = f(x)`` with derivative `slope`. Products like ``x * Phi(x)`` cancel, hence the term in |x| times u."""
    with np.errstate(all="ignore"):
        bound = ULPS * U * (np.abs(y) + np.abs(x * slope) + np.minimum(np.abs(x), 1.0)) + TINY
    return np.where(np.isfinite(bound), bound, 0.0)


def assert_within(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray | float, what: str = "") -> None:
    """Every element of `actual`, a float32 array, lies within `bound` of `expected`; NaN and infinity stand in the same places."""
    expected = np.asarray(expected)
    assert isinstance(actual, np.ndarray), f"{what}: a {type(actual).__name__} instead of an array"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    assert actual.dtype == np.float32, f"{what}: dtype {actual.dtype} instead of float32"
    with np.errstate(all="ignore"):
        error = np.abs(actual - expected.astype(np.float64))
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        allowed = np.broadcast_to(bound, expected.shape) + 2 * U * np.abs(expected)
        bad = ~same & ~(error <= allowed)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {bad.size} elements are off, first {list(where)}: "
            f"{actual[where]!r} instead of {expected[where]!r}, allowed {allowed[where]:.3g}"
        )


def assert_close(actual: np.ndarray, expected: np.ndarray, length: int = 1, what: str = "") -> None:
    """`assert_within` for data of size around 1 and sums of up to `length` products: the bound is relative to the largest element.

    Of use where the absolute values' own sum is not at hand (gradients of whole chains of operations).
    """
    expected = np.asarray(expected)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(float(finite.max(initial=0.0)), 1.0)
    assert_within(actual, expected, 2 * gamma(length + ULPS) * scale, what)
