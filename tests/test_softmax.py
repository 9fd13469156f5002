"""Softmax and its logarithm: against SciPy, and where careless formulas overflow."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from helpers.catalogue import array
from helpers.graphs import result_and_gradients
from helpers.tolerance import TINY, ULPS, U, assert_within, gamma
from hypothesis import example, given
from hypothesis import strategies as st

import pycl_cnn.functional as F

SHAPES = st.lists(st.sampled_from([1, 2, 3, 5, 16, 33]), min_size=1, max_size=4).map(tuple)


@given(shape=SHAPES, data=st.data(), scale=st.sampled_from([0.1, 1.0, 30.0]))
@example(shape=(3, 5000), data=None, scale=3.0)
@example(shape=(2, 1000, 9), data=None, scale=3.0)
def test_softmax_equals_scipy(shape, data, scale, device):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1)) if data else 1
    x = array(*shape) * np.float32(scale)
    exact = scipy.special.softmax(x.astype(np.float64), axis)
    # the rounding of x - max is carried through exp: an absolute error of u |x - max| becomes a relative one of the result
    spread = np.abs(x - x.max(axis, keepdims=True))
    bound = (ULPS + spread) * 2 * U * exact + gamma(shape[axis] + 4) * exact + TINY
    y = F.softmax(x, axis, device=device)
    assert_within(y, exact, bound)
    log = scipy.special.log_softmax(x.astype(np.float64), axis)
    assert_within(F.log_softmax(x, axis, device=device), log, 2 * ULPS * U * (1 + spread) + gamma(shape[axis] + 4))


def test_rows_sum_to_one_and_a_shift_changes_nothing(device):
    x = array(7, 50)
    y = F.softmax(x, 1, device=device)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(F.softmax(x + np.float32(64), 1, device=device), y, rtol=1e-5)


def test_large_logits_do_not_overflow(device):
    x = np.array([[1e30, 0, -1e30], [3e38, 3e38, -3e38], [-1e30, -1e30, -1e30]], np.float32)
    np.testing.assert_allclose(F.softmax(x, 1, device=device), [[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    log = F.log_softmax(x, 1, device=device)
    assert not np.isnan(log).any() and log[0, 0] == 0


def test_masked_logits_have_no_probability(device):
    """Minus infinity, as for masks, gives 0 and leaves the others as they were."""
    x = array(3, 6)
    masked = x.copy()
    masked[:, [1, 4]] = -np.inf
    y = F.softmax(masked, 1, device=device)
    assert not y[:, [1, 4]].any()
    np.testing.assert_allclose(y[:, [0, 2, 3, 5]], F.softmax(np.ascontiguousarray(x[:, [0, 2, 3, 5]]), 1, device=device), rtol=1e-6)


def test_a_nan_spoils_its_own_row_only(device):
    x = array(4, 20)
    x[1, 3] = np.nan
    y = F.softmax(x, 1, device=device)
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2, 3]]).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradients_along_every_axis(axis, device):
    x = array(4, 5, 6)
    c = np.random.default_rng(0).uniform(0.5, 1.5, x.shape).astype(np.float32)
    p = scipy.special.softmax(x.astype(np.float64), axis)
    _, grad = result_and_gradients(lambda x: F.softmax(x, axis), x, device=device)
    assert_within(grad, p * (c - (p * c).sum(axis, keepdims=True)), 64 * U)
    _, grad = result_and_gradients(lambda x: F.log_softmax(x, axis), x, device=device)
    assert_within(grad, c - p * c.sum(axis, keepdims=True, dtype=np.float64), 128 * U)
