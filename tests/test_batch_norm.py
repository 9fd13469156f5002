"""Batch normalisation in training and inference, and its running statistics."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.graphs import result_and_gradients
from helpers.tolerance import assert_close
from hypothesis import example, given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn

SHAPES = st.one_of(
    st.tuples(st.integers(2, 40), st.sampled_from([1, 3, 8, 17, 64])),
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 8, 17]), st.integers(2, 6), st.integers(1, 6)),
    st.tuples(st.integers(2, 3), st.sampled_from([1, 5, 33]), st.integers(1, 9)),
)


def normalised(x, gamma, beta, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    x = x.astype(np.float64)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (x - mean) / np.sqrt(var + eps) * gamma.reshape(shape) + beta.reshape(shape), mean.ravel(), var.ravel()


@given(shape=SHAPES, seed=st.integers(0, 99))
@example(shape=(2000, 5), seed=0)
@example(shape=(4, 6, 33, 31), seed=0)
def test_training_uses_the_statistics_of_the_batch(shape, seed, device):
    x, gamma, beta = array(*shape, seed=seed), array(shape[1], seed=seed + 1), array(shape[1], seed=seed + 2)
    expected, *_ = normalised(x, gamma, beta)
    # rstd multiplies the rounding error of the mean; a channel of nearly equal elements has a large one
    scale = 1 / np.sqrt(x.astype(np.float64).var((0, *range(2, x.ndim))).min() + 1e-5)
    assert_close(F.batch_norm(x, None, None, gamma, beta, True, device=device), expected, int(32 * (1 + scale)))


def test_a_large_mean_does_not_drown_the_variance(device):
    """E[x^2] - E[x]^2 in float32 would leave nothing of a variance of 1 at a mean of 10,000."""
    x = (array(64, 3) + np.array([1e4, -3e4, 0])).astype(np.float32)
    expected, *_ = normalised(x, np.ones(3), np.zeros(3))
    np.testing.assert_allclose(F.batch_norm(x, None, None, training=True, device=device), expected, atol=5e-3)


def test_running_statistics_follow_with_momentum_and_unbiased_variance(device):
    x = array(4, 3, 5, 5)
    model = nn.BatchNorm2d(3, momentum=0.3)
    model(x, device=device)
    model(2 * x, device=device)
    mean, var = x.mean((0, 2, 3), dtype=np.float64), x.var((0, 2, 3), dtype=np.float64, ddof=1)
    assert_close(model.state_dict()["running_mean"], 0.3 * (0.7 * mean + 2 * mean), 64)
    assert_close(model.state_dict()["running_var"], 0.7 * (0.7 * 1 + 0.3 * var) + 0.3 * 4 * var, 64)


def test_inference_uses_the_running_statistics_and_leaves_them(device):
    x = array(4, 3, 5, 5)
    model = nn.BatchNorm2d(3).eval()
    model.load_state_dict({"weight": [1, 2, 3], "bias": [4, 5, 6], "running_mean": [0.1, 0.2, 0.3], "running_var": [1, 4, 9]})
    before = model.state_dict()
    shape = (1, 3, 1, 1)
    expected = (x - np.array([0.1, 0.2, 0.3]).reshape(shape)) / np.sqrt(np.array([1, 4, 9]) + 1e-5).reshape(shape)
    expected = expected * np.array([1, 2, 3]).reshape(shape) + np.array([4, 5, 6]).reshape(shape)
    assert_close(model(x, device=device), expected, 8)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_caller_s_running_statistics_are_never_written_to(device):
    """As a function it has no state: arrays given as statistics stay as they are, also when they are read-only."""
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    var.flags.writeable = False
    for _ in range(2):
        F.batch_norm(array(4, 3, 2, 2), mean, var, training=True, device=device)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(var, 1)


def test_without_tracked_statistics_every_batch_is_its_own(device):
    model = nn.BatchNorm2d(3, track_running_stats=False).eval()
    x = array(4, 3, 5, 5)
    expected, *_ = normalised(x, np.ones(3), np.zeros(3))
    for _ in range(2):
        assert_close(model(x, device=device), expected, 100)
    assert list(model.state_dict()) == ["weight", "bias"]


@given(shape=SHAPES, activation=st.sampled_from(["none", "relu", "silu", "leaky_relu"]))
def test_gradients_with_and_without_an_activation_behind(shape, activation, device):
    """The activation moves into the normalisation, forward and backward; the gradients stay what they were."""
    x, gamma, beta = array(*shape), array(shape[1], seed=1, low=0.5), array(shape[1], seed=2)

    def function(x, gamma, beta):
        y = F.batch_norm(x, None, None, gamma, beta, True, eps=0.1)
        return y if activation == "none" else getattr(F, activation)(y)

    results = result_and_gradients(function, x, gamma, beta, device=device)
    expected = result_and_gradients(function, x, gamma, beta, device=pc.device("reference"))
    for got, want in zip(results, expected, strict=True):
        assert_close(got, want, 200)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_training_needs_more_than_one_value_per_channel(shape):
    with pytest.raises(pc.ShapeError, match="batch_norm: training needs more than one value per channel"):
        F.batch_norm(array(*shape), None, None, training=True, device="reference")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.batch_norm(array(2, 3, 4, 4), None, None, array(4)), r"batch_norm: weight must have one element per channel; .*channels=3"),
        (lambda: F.batch_norm(array(2, 3, 4, 4), array(2), None), r"batch_norm: running_mean must have one element per channel"),
        (lambda: F.batch_norm(array(3), None, None), r"batch_norm: the input must be \[n,c\], \[n,c,l\] or \[n,c,h,w\]"),
        (lambda: nn.BatchNorm2d(3)(array(2, 3)), r"BatchNorm2d: the input must have 4 axes; received input=\(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call()
