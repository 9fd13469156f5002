"""Losses: their formulas, what is left out of them, and what happens to wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from helpers.catalogue import array, labels, probabilities
from helpers.graphs import result_and_gradients
from helpers.tolerance import assert_close
from hypothesis import given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F


def formula(x, target, ignore_index=-100, smoothing=0.0):
    """-(1-e) log p[label] - e/C sum log p per row, in float64."""
    log_p = scipy.special.log_softmax(x.astype(np.float64), 1)
    rows = np.arange(len(target))
    loss = -(1 - smoothing) * log_p[rows, target] - smoothing * log_p.mean(1)
    return np.where(target == ignore_index, 0, loss)


@given(rows=st.integers(1, 40), classes=st.sampled_from([1, 2, 3, 10, 33, 1000]), smoothing=st.sampled_from([0.0, 0.1, 1.0]), seed=st.integers(0, 99))
def test_cross_entropy(rows, classes, smoothing, seed, device):
    x, t = array(rows, classes, seed=seed) * np.float32(3), labels(rows, classes=classes, seed=seed)
    ignored = int(t[0]) if seed % 3 == 0 and classes > 1 else -100
    each = formula(x, t, ignored, smoothing)
    kwargs = {"ignore_index": ignored, "label_smoothing": smoothing, "device": device}
    assert_close(F.cross_entropy(x, t, reduction="none", **kwargs), each, classes)
    assert_close(F.cross_entropy(x, t, reduction="sum", **kwargs), each.sum(), classes + rows)
    with np.errstate(invalid="ignore"):
        assert_close(F.cross_entropy(x, t, **kwargs), np.asarray(each.sum() / (t != ignored).sum()), classes + rows)


def test_all_labels_ignored_gives_nan_for_the_mean_as_in_torch(device):
    x, t = array(3, 4), np.full(3, -100)
    assert np.isnan(F.cross_entropy(x, t, device=device))
    assert F.cross_entropy(x, t, reduction="sum", device=device) == 0


def test_a_label_that_is_no_class_gives_nan(device):
    """Not a silent 0, and not a read outside of the row."""
    y = F.cross_entropy(array(3, 4), np.array([0, 4, -1]), reduction="none", device=device)
    assert np.isfinite(y[0]) and np.isnan(y[1:]).all()


def test_ignored_rows_have_no_gradient(device):
    x, t = array(4, 5), np.array([1, 3, 3, 0], np.int32)
    _, grad = result_and_gradients(lambda x, t: F.cross_entropy(x, t, ignore_index=3, label_smoothing=0.2), x, t, device=device)
    assert not grad[1:3].any() and grad[[0, 3]].any(1).all()
    np.testing.assert_allclose(grad.sum(1), 0, atol=1e-6)


def test_huge_logits(device):
    x = np.array([[1e4, -1e4, 0], [-3e38, 3e38, 0]], np.float32)
    np.testing.assert_allclose(F.cross_entropy(x, np.array([0, 1]), reduction="none", device=device), [0, 0], atol=1e-6)
    np.testing.assert_allclose(F.cross_entropy(x[:1], np.array([1]), device=device), 2e4, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8])
def test_labels_of_any_integer_dtype(dtype, device):
    x, t = array(5, 6), labels(5, classes=6)
    assert_close(F.cross_entropy(x, t.astype(dtype), device=device), np.asarray(formula(x, t).mean()), 16)


def test_labels_and_their_one_hot_probabilities_agree(device):
    x, t = array(6, 5), labels(6, classes=5)
    one_hot = np.eye(5, dtype=np.float32)[t]
    for smoothing in (0.0, 0.3):
        first, second = (F.cross_entropy(x, target, label_smoothing=smoothing, device=device) for target in (t, one_hot))
        np.testing.assert_allclose(first, second, rtol=1e-5)


def test_labels_for_every_pixel(device):
    x, t = array(2, 5, 3, 4), labels(2, 3, 4, classes=5)
    expected = formula(x.transpose(0, 2, 3, 1).reshape(-1, 5), t.ravel())
    assert_close(F.cross_entropy(x, t, reduction="none", device=device), expected.reshape(2, 3, 4), 16)
    assert_close(F.cross_entropy(x, t, device=device), np.asarray(expected.mean()), 40)


def test_binary_cross_entropy_of_large_logits(device):
    x, t = np.array([200.0, -200.0, 200.0, 0.0], np.float32), np.array([1.0, 0.0, 0.0, 0.5], np.float32)
    y = F.binary_cross_entropy_with_logits(x, t, reduction="none", device=device)
    np.testing.assert_allclose(y, [0, 0, 200, np.log(2)], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.cross_entropy(array(3, 4), labels(2, classes=4)), r"cross_entropy: one label is needed per row; received input=\(3, 4\), target=\(2,\)"),
        (lambda: F.cross_entropy(array(3, 4), probabilities(3, 5)), r"cross_entropy: probabilities must have the logits' shape"),
        (lambda: F.cross_entropy(array(3, 4), labels(3, classes=4), label_smoothing=1.5), r"label_smoothing must lie between 0 and 1; .*1\.5"),
        (lambda: F.cross_entropy(array(3, 4), labels(3, classes=4), reduction="max"), r'reduction must be "mean", "sum" or "none"; .*max'),
        (lambda: F.cross_entropy(array(3), labels(3, classes=4)), r"cross_entropy: logits must be \[n,c\]"),
        (lambda: F.mse_loss(array(3, 4), array(3, 1)), r"mse_loss: input and target must have the same shape; .*\(3, 4\).*\(3, 1\)"),
        (lambda: F.mse_loss(array(3), labels(3, classes=4)), r"mse_loss: target must be a floating-point array; received dtype int32"),
        (lambda: F.cross_entropy(labels(3, 4, classes=9), labels(3, classes=4)), r"cross_entropy: input must be a floating-point array"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pc.PyclError, match=message):
        call()
