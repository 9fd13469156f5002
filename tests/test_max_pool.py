"""Max pooling against a loop over windows; ties, NaN and padding."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array, distinct
from helpers.graphs import result_and_gradients
from hypothesis import assume, example, given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F


def windows(n, k, s, p, d, ceil_mode):
    """First positions of the windows along an axis: PyTorch's rule."""
    span = n + 2 * p - d * (k - 1) - 1
    count = (-(-span // s) if ceil_mode else span // s) + 1
    if ceil_mode and (count - 1) * s >= n + p:
        count -= 1
    return [i * s - p for i in range(count)]


def by_loops(x, kernel, stride, padding, dilation, ceil_mode):
    """Largest element and its index in the plane for every window, the first among equals."""
    n, c, h, w = x.shape
    tops = windows(h, kernel[0], stride[0], padding[0], dilation[0], ceil_mode)
    lefts = windows(w, kernel[1], stride[1], padding[1], dilation[1], ceil_mode)
    y, where = np.empty((n, c, len(tops), len(lefts)), np.float32), np.empty((n, c, len(tops), len(lefts)), np.int32)
    for a, top in enumerate(tops):
        for b, left in enumerate(lefts):
            rows = [r for r in (top + i * dilation[0] for i in range(kernel[0])) if 0 <= r < h]
            cols = [q for q in (left + i * dilation[1] for i in range(kernel[1])) if 0 <= q < w]
            assume(rows and cols)
            places = np.array([r * w + q for r in rows for q in cols])
            picked = x.reshape(n, c, h * w)[:, :, places]
            best = picked.argmax(2)
            y[:, :, a, b] = picked.max(2)
            where[:, :, a, b] = places[best]
    return y, where


@st.composite
def poolings(draw):
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(max(d * (k - 1) + 1 - 2 * p, 1) + draw(st.integers(0, 5)) for k, d, p in zip(kernel, dilation, padding, strict=True))
    return size, kernel, stride, padding, dilation, draw(st.booleans())


@given(case=poolings(), batch=st.sampled_from([0, 1, 2]), channels=st.sampled_from([1, 3, 8, 17]))
@example(case=((7, 7), (3, 3), (2, 2), (1, 1), (1, 1), False), batch=2, channels=33)
def test_max_pool2d(case, batch, channels, device):
    size, *sizes, ceil_mode = case
    x = distinct(batch, channels, *size) if batch else np.zeros((0, channels, *size), np.float32)
    expected, places = by_loops(x, *sizes, ceil_mode)
    y, indices = F.max_pool2d(x, *sizes, ceil_mode, True, device=device)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(F.max_pool2d(x, *sizes, ceil_mode, device=device), expected)


@given(case=poolings())
def test_gradient_goes_to_the_largest_element(case, device):
    """Windows overlap, so that an element may collect the gradient of several."""
    size, *sizes, ceil_mode = case
    x = distinct(2, 5, *size)
    y, places = by_loops(x, *sizes, ceil_mode)
    c = np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(np.float32)
    expected = np.zeros((2, 5, size[0] * size[1]))
    n, k, _, _ = np.indices(y.shape)
    np.add.at(expected, (n, k, places), c)
    _, grad = result_and_gradients(lambda x: F.max_pool2d(x, *sizes, ceil_mode), x, device=device)
    np.testing.assert_allclose(grad, expected.reshape(x.shape), rtol=1e-5)


def test_the_first_of_equal_elements_wins(device):
    _y, indices = F.max_pool2d(np.ones((1, 1, 4, 4), np.float32), 2, return_indices=True, device=device)
    np.testing.assert_array_equal(indices[0, 0], [[0, 2], [8, 10]])


def test_padding_never_wins(device):
    """It counts as minus infinity, not as zero."""
    x = -1 - np.abs(array(1, 2, 5, 5))
    assert F.max_pool2d(x, 3, 2, 1, device=device).max() <= -1
    x[:] = -np.inf
    assert np.isneginf(F.max_pool2d(x, 3, 2, 1, device=device)).all()


def test_a_nan_wins(device):
    x = array(1, 2, 6, 6)
    x[0, 1, 2, 3] = np.nan
    y = F.max_pool2d(x, 2, device=device)
    assert np.isnan(y[0, 1, 1, 1]) and np.isnan(y).sum() == 1


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), out=st.tuples(st.integers(1, 11), st.integers(1, 11)))
def test_adaptive_max_pool2d(size, out, device):
    """Windows floor(i*n/out) to ceil((i+1)*n/out), also where there are more windows than elements."""
    x = distinct(2, 3, *size)
    y, indices = F.adaptive_max_pool2d(x, out, True, device=device)
    for a in range(out[0]):
        for b in range(out[1]):
            window = x[:, :, a * size[0] // out[0] : -(-(a + 1) * size[0] // out[0]), b * size[1] // out[1] : -(-(b + 1) * size[1] // out[1])]
            np.testing.assert_array_equal(y[:, :, a, b], window.max((2, 3)))
    np.testing.assert_array_equal(np.take_along_axis(x.reshape(2, 3, -1), indices.reshape(2, 3, -1), 2), y.reshape(2, 3, -1))


def test_max_pool1d_is_a_row(device):
    x = distinct(2, 3, 11)
    y, indices = F.max_pool1d(x, 3, 2, 1, 2, True, True, device=device)
    expected, places = by_loops(x[:, :, None], (1, 3), (1, 2), (0, 1), (1, 2), True)
    np.testing.assert_array_equal(y, expected[:, :, 0])
    np.testing.assert_array_equal(indices, places[:, :, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.max_pool2d(x, 3, padding=2), r"max_pool2d: padding must be at most half of the .*kernel"),
        (lambda x: F.max_pool2d(x, 6), r"max_pool2d: the window must not be larger than the padded input; .*input_size=5.*kernel_size=6"),
        (lambda x: F.max_pool2d(x, 0), r"max_pool2d: kernel_size must be at least 1; .*0"),
        (lambda x: F.max_pool2d(x, 2, 0), r"max_pool2d: stride must be at least 1; .*0"),
        (lambda x: F.max_pool2d(x, 2, padding=-1), r"max_pool2d: padding must not be negative; .*-1"),
        (lambda x: F.max_pool2d(x, (2, 2, 2)), r"max_pool2d: kernel_size must be an integer or 2 integers"),
        (lambda x: F.max_pool2d(x[:, :, :1, :1], 2, padding=1, dilation=2), r"max_pool2d: every window must hold an element of the input"),
        (lambda x: F.adaptive_max_pool2d(x, (0, 2)), r"adaptive_max_pool2d: output_size must be at least 1"),
        (lambda x: F.max_pool2d(x[0], 2), r"max_pool2d: the input must have 4 axes \(NCHW\); received input=\(3, 5, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call(array(2, 3, 5, 5))
