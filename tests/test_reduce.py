"""Sums, means and extremes over any axes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.graphs import result_and_gradients
from helpers.tolerance import assert_within, sum_bound
from hypothesis import example, given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F


@st.composite
def reductions(draw):
    """(shape, axes): up to four axes, any of them reduced."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 7, 16, 33]), min_size=1, max_size=4)))
    return shape, tuple(axis for axis in range(len(shape)) if draw(st.booleans())) or (0,)


@given(case=reductions(), keepdim=st.booleans())
@example(case=((100_000,), (0,)), keepdim=False)
@example(case=((3, 5000, 2), (1,)), keepdim=False)
@example(case=((2000, 65), (0,)), keepdim=True)
@example(case=((1, 65, 2000), (2,)), keepdim=False)
def test_sum_and_mean(case, keepdim, device):
    shape, axes = case
    x = array(*shape)
    length = int(np.prod([shape[axis] for axis in axes]))
    exact, magnitude = (a.astype(np.float64).sum(axes, keepdims=keepdim) for a in (x, np.abs(x)))
    assert_within(F.sum(x, axes, keepdim, device=device), exact, sum_bound(length, magnitude))
    assert_within(F.mean(x, axes, keepdim, device=device), exact / length, sum_bound(length, magnitude / length))


@given(case=reductions(), keepdim=st.booleans())
@example(case=((70_001,), (0,)), keepdim=False)
def test_extremes_are_exact(case, keepdim, device):
    shape, axes = case
    x = array(*shape)
    np.testing.assert_array_equal(F.amax(x, axes, keepdim, device=device), x.max(axes, keepdims=keepdim))
    np.testing.assert_array_equal(F.amin(x, axes, keepdim, device=device), x.min(axes, keepdims=keepdim))


def test_a_long_sum_is_more_exact_than_one_running_total(device):
    """The sum is a tree of blocks: its error grows far slower than that of adding one after the other."""
    x = np.full(1 << 20, 0.1, np.float32)
    exact = x.astype(np.float64).sum()
    assert abs(float(F.sum(x, device=device)) - exact) < 1e-5 * exact
    assert abs(float(np.add.accumulate(x)[-1]) - exact) > 1e-4 * exact  # what a running total would give


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin"])
def test_a_nan_is_not_lost(name, device):
    x = array(5, 40)
    x[2, 37] = np.nan
    np.testing.assert_array_equal(np.isnan(getattr(F, name)(x, 1, device=device)), np.arange(5) == 2)


def test_reductions_of_nothing(device):
    x = np.zeros((3, 0), np.float32)
    np.testing.assert_array_equal(F.sum(x, 1, device=device), [0, 0, 0])
    assert np.isnan(F.mean(x, 1, device=device)).all()
    assert F.sum(x, 0, device=device).shape == (0,)
    with pytest.raises(pc.ShapeError, match="no extreme of no elements"):
        F.amax(x, 1, device=device)


def test_equal_extremes_share_the_gradient(device):
    x = np.array([[1, 3, 3, 2], [5, 5, 5, 5]], np.float32)
    _, grad = result_and_gradients(lambda x: F.amax(x, 1), x, device=device)
    _, total = result_and_gradients(lambda x: F.sum(x, 1), x, device=device)
    np.testing.assert_allclose(grad, total * [[0, 0.5, 0.5, 0], [0.25] * 4], rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 0), (5,), (-4,)])
def test_axes_must_be_different_axes_of_the_input(axes):
    with pytest.raises(pc.ShapeError, match=r"sum: the axis must be|sum: axes must be different"):
        F.sum(array(2, 3, 4), axes, device="reference")
