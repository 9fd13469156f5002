"""Average pooling, adaptive pooling, Lp pooling and interpolation: linear maps along rows and columns."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.linear import check_linear
from helpers.tolerance import assert_within, sum_bound
from hypothesis import example, given
from hypothesis import strategies as st
from test_max_pool import windows

import pycl_cnn as pc
import pycl_cnn.functional as F


@st.composite
def poolings(draw):
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride = pair(1, 4), pair(1, 4)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(max(k - 2 * p, 1) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))
    return size, kernel, stride, padding, draw(st.booleans())


def averages(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor=None):
    """Window by window: the divisor counts padding, but nothing beyond it."""
    n, c, h, w = x.shape
    tops = windows(h, kernel[0], stride[0], padding[0], 1, ceil_mode)
    lefts = windows(w, kernel[1], stride[1], padding[1], 1, ceil_mode)
    y = np.empty((n, c, len(tops), len(lefts)))
    for a, top in enumerate(tops):
        for b, left in enumerate(lefts):
            bottom, right = min(top + kernel[0], h + padding[0]), min(left + kernel[1], w + padding[1])
            inside = x[:, :, max(top, 0) : min(bottom, h), max(left, 0) : min(right, w)].astype(np.float64)
            count = (bottom - top) * (right - left) if count_include_pad else inside.shape[2] * inside.shape[3]
            y[:, :, a, b] = inside.sum((2, 3)) / (divisor or count)
    return y


@given(case=poolings(), batch=st.sampled_from([0, 1, 2]), channels=st.sampled_from([1, 3, 8, 17]), count=st.booleans(), divisor=st.sampled_from([None, 3]))
@example(case=((7, 7), (7, 7), (1, 1), (0, 0), False), batch=2, channels=40, count=True, divisor=None)
def test_avg_pool2d(case, batch, channels, count, divisor, device):
    size, *sizes, ceil_mode = case
    x = array(batch, channels, *size)
    y = F.avg_pool2d(x, *sizes, ceil_mode, count, divisor, device=device)
    exact, magnitude = (averages(a, *sizes, ceil_mode, count, divisor) for a in (x, np.abs(x)))
    assert_within(y, exact, sum_bound(2 * sum(sizes[0]) + 4, magnitude))


@given(case=poolings(), count=st.booleans())
def test_gradient_of_avg_pool2d(case, count, device):
    size, *sizes, ceil_mode = case
    check_linear(lambda x: F.avg_pool2d(x, *sizes, ceil_mode, count), (array(2, 3, *size),), (20, 40), device)


def test_asymmetric_padding_counts_both_sides(device):
    """One row of padding above, none below: the last windows count their own elements only."""
    x = np.ones((1, 1, 4, 4), np.float32)
    y = F.avg_pool2d(x, 2, 1, ((1, 0), (0, 1)), device=device)
    np.testing.assert_allclose(y[0, 0], [[0.5, 0.5, 0.5, 0.25], *[[1, 1, 1, 0.5]] * 3])


def test_a_window_that_sticks_out_counts_what_is_inside_the_padded_input(device):
    x = np.ones((1, 1, 5, 5), np.float32)
    np.testing.assert_allclose(F.avg_pool2d(x, 2, ceil_mode=True, device=device), np.ones((1, 1, 3, 3)))


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), out=st.tuples(st.integers(1, 11), st.integers(1, 11)))
def test_adaptive_avg_pool2d(size, out, device):
    x = array(2, 3, *size)
    expected = np.empty((2, 3, *out))
    for a in range(out[0]):
        for b in range(out[1]):
            window = x[:, :, a * size[0] // out[0] : -(-(a + 1) * size[0] // out[0]), b * size[1] // out[1] : -(-(b + 1) * size[1] // out[1])]
            expected[:, :, a, b] = window.mean((2, 3), dtype=np.float64)
    assert_within(F.adaptive_avg_pool2d(x, out, device=device), expected, 64 * 2.0**-23)
    check_linear(lambda x: F.adaptive_avg_pool2d(x, out), (x,), (40, 300), device)


def test_global_average_is_the_mean(device):
    x = array(3, 70, 13, 11)
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, 1, device=device)[..., 0, 0], x.mean((2, 3), dtype=np.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3, 1.5, 0.5])
def test_lp_pool2d(p, device):
    x = array(2, 3, 6, 7, low=0.1)
    y = F.lp_pool2d(x, p, (2, 3), 2, device=device)
    sums = averages(x.astype(np.float64) ** p, (2, 3), (2, 2), (0, 0), False, True) * 6
    np.testing.assert_allclose(y, sums ** (1 / p), rtol=1e-5)


def test_lp_pool_keeps_the_sign_of_an_odd_power(device):
    x = np.full((1, 1, 2, 2), -2.0, np.float32)
    np.testing.assert_allclose(F.lp_pool2d(x, 3, 2, device=device), -2 * 4 ** (1 / 3), rtol=1e-5)
    np.testing.assert_allclose(F.lp_pool2d(x, 2, 2, device=device), 4, rtol=1e-5)


def bilinear(x, out, corners, scales):
    """PyTorch's rule, one axis after the other, pixel by pixel."""
    for axis, (m, scale) in enumerate(zip(out, scales, strict=True), 2):
        n = x.shape[axis]
        slices = []
        for i in range(m):
            position = i * (n - 1) / (m - 1) if corners and m > 1 else 0.0 if corners else max((i + 0.5) * scale - 0.5, 0.0)
            low = min(int(position), n - 1)
            high, t = min(low + 1, n - 1), position - low
            slices.append((1 - t) * x.take(low, axis) + t * x.take(high, axis))
        x = np.stack(slices, axis)
    return x


@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), out=st.tuples(st.integers(1, 15), st.integers(1, 15)), corners=st.booleans())
def test_bilinear_interpolation_to_a_size(size, out, corners, device):
    x = array(2, 3, *size)
    expected = bilinear(x.astype(np.float64), out, corners, [n / m for n, m in zip(size, out, strict=True)])
    assert_within(F.interpolate(x, out, mode="bilinear", align_corners=corners, device=device), expected, 32 * 2.0**-23)
    check_linear(lambda x: F.interpolate(x, out, mode="bilinear", align_corners=corners), (x,), (16, 400), device)


@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), factor=st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, (2.0, 0.75)]))
def test_interpolation_by_a_factor(size, factor, device):
    x = array(2, 3, *size)
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    out = [int(n * f) for n, f in zip(size, factors, strict=True)]
    if min(out) < 1:
        with pytest.raises(pc.ShapeError, match="interpolate: size must be at least 1"):
            F.interpolate(x, scale_factor=factor, device=device)
        return
    rows, cols = ([min(int(i / f), n - 1) for i in range(m)] for n, f, m in zip(size, factors, out, strict=True))
    np.testing.assert_array_equal(F.interpolate(x, scale_factor=factor, device=device), x[:, :, rows][:, :, :, cols])
    expected = bilinear(x.astype(np.float64), out, False, [1 / f for f in factors])
    assert_within(F.interpolate(x, scale_factor=factor, mode="bilinear", device=device), expected, 32 * 2.0**-23)


@given(size=st.tuples(st.integers(1, 30), st.integers(1, 30)), out=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_nearest_picks_the_same_pixels_as_torch(size, out):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.arange(size[0] * size[1], dtype=np.float32).reshape(1, 1, *size)
    np.testing.assert_array_equal(F.interpolate(x, out, device="reference"), torch.nn.functional.interpolate(torch.from_numpy(x), out).numpy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.interpolate(x), r"interpolate: exactly one of size and scale_factor must be given"),
        (lambda x: F.interpolate(x, 4, 2.0), r"interpolate: exactly one of size and scale_factor"),
        (lambda x: F.interpolate(x, 4, mode="cubic"), r'interpolate: mode must be "nearest" or "bilinear"; .*cubic'),
        (lambda x: F.interpolate(x, 4, align_corners=True), r"interpolate: align_corners applies to bilinear only"),
        (lambda x: F.interpolate(x, (0, 4)), r"interpolate: size must be at least 1; received size=\(0, 4\)"),
        (lambda x: F.interpolate(x, scale_factor=-1.0), r"interpolate: scale_factor must be one or two positive numbers; .*-1"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), r"avg_pool2d: divisor_override must not be zero"),
        (lambda x: F.avg_pool2d(x, 3, padding=2), r"avg_pool2d: padding must be at most half"),
        (lambda x: F.lp_pool2d(x, 0, 2), r"lp_pool2d: norm_type must be a positive number; .*0"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), r"adaptive_avg_pool2d: output_size must be"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call(array(2, 3, 5, 5))
