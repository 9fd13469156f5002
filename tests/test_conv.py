"""Convolutions of every kind, against scipy.signal, which knows nothing of strides, groups or channels: those are written out here.

One sum of the convolution is as long as a filter; the bound of its rounding error is the same convolution of absolute values
times gamma(length), see helpers/tolerance.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.signal
from helpers.catalogue import array
from helpers.linear import check_linear
from helpers.tolerance import assert_within, sum_bound
from hypothesis import example, given
from hypothesis import strategies as st

import pycl_cnn.functional as F


def pairs_of(padding: Any, sizes: tuple, kernel: tuple, stride: tuple, dilation: tuple) -> list[tuple[int, int]]:
    """Every form of padding as (before, after) for each axis, by the rules of the documentation."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding == "same":
        result = []
        for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            result.append((total // 2, total - total // 2))
        return result
    if isinstance(padding, int):
        return [(padding, padding)] * len(sizes)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def spread(kernel: np.ndarray, dilation: tuple) -> np.ndarray:
    """A kernel with zeros between its elements."""
    wide = np.zeros([(n - 1) * d + 1 for n, d in zip(kernel.shape, dilation, strict=True)])
    wide[tuple(slice(None, None, d) for d in dilation)] = kernel
    return wide


def scipy_conv(x, w, b, stride, padding, dilation, groups, flip=False):
    """x[n,c,*size], w[k,c/groups,*kernel]: every output channel is a sum of correlations over the channels of its group."""
    pads = pairs_of(padding, x.shape[2:], w.shape[2:], stride, dilation)
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
    operation = scipy.signal.convolve if flip else scipy.signal.correlate
    k, per_group = w.shape[0], w.shape[1]
    out = [(n - d * (r - 1) - 1) // s + 1 for n, r, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)]
    y = np.zeros((x.shape[0], k, *out))
    for n in range(x.shape[0]):
        for o in range(k):
            first = o // (k // groups) * per_group
            for c in range(per_group):
                full = operation(x[n, first + c], spread(w[o, c], dilation), mode="valid", method="direct")
                y[n, o] += full[tuple(slice(None, None, s) for s in stride)]
            y[n, o] += 0 if b is None else b[o]
    return y


def scipy_conv_transpose(x, w, b, stride, padding, output_padding, dilation, groups):
    """x[n,c,*size], w[c,k/groups,*kernel]: the input spread by the stride, convolved in full, cut by the padding."""
    pads = pairs_of(padding, x.shape[2:], w.shape[2:], stride, dilation)
    c, per_group = w.shape[0], w.shape[1]
    maps = []
    for n in range(x.shape[0]):
        for o in range(per_group * groups):
            group = o // per_group
            total = 0
            for i in range(group * (c // groups), (group + 1) * (c // groups)):
                full = scipy.signal.convolve(spread(x[n, i], stride), spread(w[i, o % per_group], dilation), mode="full", method="direct")
                total = total + np.pad(full, [(0, extra) for extra in output_padding])
            cut = tuple(slice(before, size - after) for (before, after), size in zip(pads, total.shape, strict=True))
            maps.append(total[cut] + (0 if b is None else b[o]))
    return np.array(maps).reshape(x.shape[0], per_group * groups, *maps[0].shape)


CHANNELS = st.sampled_from([1, 1, 2, 3, 4, 5, 8, 17])


@dataclass(frozen=True)
class Problem:
    """One convolution, drawn at random."""

    axes: int
    batch: int
    size: tuple
    groups: int
    inputs: int  # per group
    outputs: int  # per group
    kernel: tuple
    stride: Any
    padding: Any
    dilation: Any
    bias: bool
    flip: bool = False
    seed: int = 0

    def steps(self) -> tuple[tuple, tuple]:
        return tuple((value,) * self.axes if isinstance(value, int) else tuple(value) for value in (self.stride, self.dilation))

    def arrays(self) -> tuple[np.ndarray, ...]:
        x = array(self.batch, self.groups * self.inputs, *self.size, seed=self.seed)
        w = array(self.groups * self.outputs, self.inputs, *self.kernel, seed=self.seed + 1)
        return (x, w, array(self.groups * self.outputs, seed=self.seed + 2)) if self.bias else (x, w)

    @property
    def length(self) -> int:
        return self.inputs * math.prod(self.kernel)


@st.composite
def problems(draw, axes=(1, 2), flips=True):
    rank = draw(st.sampled_from(axes))
    each = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    kernel, stride, dilation = each(1, 5), each(1, 3), each(1, 3)
    kind = draw(st.sampled_from(["int", "tuple", "pairs", "same", "valid"]))
    if kind == "int":
        padding: Any = draw(st.integers(0, 3))
    elif kind == "tuple":
        padding = each(0, 3)
    elif kind == "pairs":
        padding = tuple(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in range(rank))
        if rank == 1 and draw(st.booleans()):
            padding = padding[0]  # (before, after) of the only axis
    else:
        padding = kind
    if kind == "tuple" and rank == 1:
        padding = padding[0]
    sizes = []
    for axis in range(rank):
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        given_pads = {"int": [padding] * 2, "valid": [0, 0], "same": [extent, extent]}.get(kind)
        if given_pads is None:
            given_pads = [padding] * 2 if isinstance(padding, int) else padding if isinstance(padding[0], int) and kind == "pairs" else padding[axis]
            given_pads = [given_pads] * 2 if isinstance(given_pads, int) else given_pads
        least = max(extent - sum(given_pads), 1)
        sizes.append(least + draw(st.integers(0, 6)))
    depthwise = draw(st.integers(0, 3)) == 0
    groups = draw(st.integers(1, 9)) if depthwise else draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs = 1 if depthwise else draw(CHANNELS)
    outputs = draw(st.integers(1, 2)) if depthwise else draw(CHANNELS)
    plain = draw(st.booleans())
    return Problem(
        rank,
        draw(st.sampled_from([0, 1, 1, 2, 3])),
        tuple(sizes),
        groups,
        inputs,
        outputs,
        kernel,
        stride[0] if plain and len(set(stride)) == 1 else stride,
        padding,
        dilation,
        draw(st.booleans()),
        flips and draw(st.integers(0, 3)) == 0,
        draw(st.integers(0, 2**16)),
    )


def conv_of(problem: Problem):
    function = F.conv2d if problem.axes == 2 else F.conv1d

    def apply(x, w, b=None, **more):
        return function(x, w, b, problem.stride, problem.padding, problem.dilation, problem.groups, flip=problem.flip, **more)

    return apply


def as_pairs(problem: Problem) -> Any:
    """The padding in the two-level form that `pairs_of` takes for any number of axes."""
    padding = problem.padding
    return [padding] if problem.axes == 1 and isinstance(padding, tuple) and isinstance(padding[0], int) else padding


@given(problem=problems())
@example(problem=Problem(2, 1, (1, 1), 1, 1, 1, (1, 1), 1, 0, 1, False))
@example(problem=Problem(2, 0, (5, 4), 1, 3, 2, (3, 3), 1, 1, 1, True))
@example(problem=Problem(2, 2, (1, 1), 1, 2, 3, (5, 5), 1, 2, 1, True))  # the kernel is larger than the unpadded input
@example(problem=Problem(2, 1, (2, 3), 1, 3, 4, (4, 2), (3, 2), ((3, 0), (0, 2)), (1, 3), True))
@example(problem=Problem(2, 1, (9, 9), 33, 1, 1, (3, 3), 2, 1, 1, True))  # depthwise
@example(problem=Problem(2, 1, (9, 9), 4, 1, 3, (3, 3), 1, "same", 2, False))  # depthwise with a multiplier
@example(problem=Problem(2, 1, (12, 11), 1, 33, 40, (3, 3), 1, 1, 1, True))  # more channels than a register tile holds
@example(problem=Problem(2, 1, (5, 6), 1, 2, 3, (4, 2), 2, "same", 1, False))  # even kernels: the extra row and column come last
@example(problem=Problem(1, 2, (7,), 1, 3, 2, (3,), 2, (2, 0), 2, True))
def test_convolution_equals_scipy(problem, device):
    stride, dilation = problem.steps()
    x, w, *b = problem.arrays()
    bias = b[0] if b else None
    y = conv_of(problem)(x, w, bias, device=device)
    args = stride, as_pairs(problem), dilation, problem.groups, problem.flip
    expected = scipy_conv(x, w, bias, *args)
    magnitude = scipy_conv(np.abs(x), np.abs(w), None if bias is None else np.abs(bias), *args)
    assert_within(y, expected, sum_bound(problem.length + 1, magnitude))


@given(problem=problems(flips=False), data=st.data())
def test_transposed_convolution_equals_scipy(problem, data, device):
    """The drawn weight [k, c/groups, ...] serves as [c, k/groups, ...]: its first axis is the input's channels here."""
    stride, dilation = problem.steps()
    x = array(problem.batch, problem.groups * problem.outputs, *problem.size, seed=problem.seed)
    w = problem.arrays()[1]
    b = array(problem.groups * problem.inputs, seed=problem.seed + 3) if problem.bias else None
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(problem.size, stride, dilation, problem.kernel, strict=True)]
    padding = tuple(data.draw(st.integers(0, min(3, (length - 1) // 2))) for length in full)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    function = F.conv_transpose2d if problem.axes == 2 else F.conv_transpose1d
    y = function(x, w, b, stride, padding, extra, problem.groups, dilation, device=device)
    if problem.batch == 0:
        sizes = [length - 2 * p + e for length, p, e in zip(full, padding, extra, strict=True)]
        assert y.shape == (0, problem.groups * problem.inputs, *sizes)
        return
    expected = scipy_conv_transpose(x, w, b, stride, padding, extra, dilation, problem.groups)
    magnitude = scipy_conv_transpose(np.abs(x), np.abs(w), None if b is None else np.abs(b), stride, padding, extra, dilation, problem.groups)
    assert_within(y, expected, sum_bound(problem.outputs * math.prod(problem.kernel) + 1, magnitude))


@given(problem=problems())
@example(problem=Problem(2, 2, (9, 8), 1, 17, 33, (3, 3), 2, 1, 1, True))
@example(problem=Problem(2, 0, (5, 4), 1, 3, 2, (3, 3), 1, 1, 1, True))
@example(problem=Problem(2, 3, (7, 7), 20, 1, 1, (3, 3), 1, 1, 1, True))
@example(problem=Problem(2, 1, (6, 6), 1, 2, 2, (1, 1), 3, 0, 1, False))  # pixels that no window reaches get a zero gradient
def test_gradients_of_a_convolution(problem, device):
    """Against the reference and by the adjoint identity."""
    x, w, *b = problem.arrays()
    windows = problem.batch * math.prod(n + 6 for n in problem.size)
    lengths = (problem.length + 1, problem.outputs * math.prod(problem.kernel), windows, windows)[: 1 + len(problem.arrays())]
    check_linear_in_pairs(conv_of(problem), x, w, b, lengths, device)


def check_linear_in_pairs(function, x, w, bias, lengths, device):
    """A bias makes the map affine: the adjoint identity is that of the part without it, which `check_linear` sees."""
    check_linear(lambda x, w: function(x, w), (x, w), lengths[:3], device)
    if bias:
        check_linear(lambda b: function(np.zeros_like(x), np.zeros_like(w), b), (bias[0],), (lengths[0], lengths[2]), device)


@given(problem=problems(axes=(2,), flips=False), extra=st.integers(0, 2))
def test_gradients_of_a_transposed_convolution(problem, extra, device):
    stride, dilation = problem.steps()
    x = array(problem.batch, problem.groups * problem.outputs, *problem.size, seed=problem.seed)
    w = problem.arrays()[1]
    more = tuple(min(extra, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    taps = math.prod(problem.kernel)
    lengths = problem.outputs * taps, problem.inputs * taps, problem.batch * math.prod(problem.size)
    check_linear(lambda x, w: F.conv_transpose2d(x, w, None, stride, 0, more, problem.groups, dilation), (x, w), lengths, device)


@given(problem=problems(axes=(2,)))
def test_channels_last_gives_the_same_image(problem, device):
    x, w, *b = problem.arrays()
    first = conv_of(problem)(x, w, *b, device=device)
    last = conv_of(problem)(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), w, *b, layout="NHWC", device=device)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_same_padding_of_an_even_kernel_puts_the_extra_row_and_column_last(device):
    """A single 1 in the kernel's first corner copies the image as it is; the asymmetric form gives the other choice."""
    x = array(1, 1, 4, 5)
    w = np.zeros((1, 1, 2, 2), np.float32)
    w[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(F.conv2d(x, w, padding="same", device=device), x)
    shifted = F.conv2d(x, w, padding=((1, 0), (1, 0)), device=device)
    np.testing.assert_array_equal(shifted[:, :, 1:, 1:], x[:, :, :-1, :-1])
    assert not shifted[:, :, 0].any() and not shifted[..., 0].any()


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 5, 6, 7])
def test_same_padding_gives_ceil_n_over_stride(stride, size):
    for kernel in (1, 2, 3, 4, 5):
        y = F.conv2d(array(1, 1, size, size), array(1, 1, kernel, kernel), stride=stride, padding="same", device="reference")
        assert y.shape[2:] == (math.ceil(size / stride),) * 2


def test_flip_is_the_convolution_of_mathematics(device):
    """A kernel applied to a unit impulse appears as it is, not turned."""
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 2, 2] = 1
    w = array(1, 1, 3, 3)
    np.testing.assert_array_equal(F.conv2d(x, w, padding=1, flip=True, device=device)[0, 0, 1:4, 1:4], w[0, 0])
    np.testing.assert_array_equal(F.conv2d(x, w, padding=1, device=device)[0, 0, 1:4, 1:4], w[0, 0, ::-1, ::-1])


def test_groups_do_not_see_each_other(device):
    """A NaN in one group's channels reaches only that group's outputs."""
    x, w = array(1, 6, 5, 5), array(9, 2, 3, 3)
    x[:, 2:4] = np.nan
    y = F.conv2d(x, w, groups=3, device=device)
    assert np.isnan(y[:, 3:6]).all() and np.isfinite(y[:, :3]).all() and np.isfinite(y[:, 6:]).all()


def test_images_of_a_batch_do_not_see_each_other(device):
    x, w = array(3, 4, 6, 6), array(5, 4, 3, 3)
    x[1] = np.inf
    y = F.conv2d(x, w, padding=1, device=device)
    assert np.isfinite(y[[0, 2]]).all() and not np.isfinite(y[1]).any()


def test_a_one_dimensional_convolution_is_a_two_dimensional_one_of_height_1(device):
    x, w, b = array(2, 3, 11), array(4, 3, 5), array(4)
    line = F.conv1d(x, w, b, 2, 1, 2, device=device)
    image = F.conv2d(x[:, :, None], w[:, :, None], b, (1, 2), (0, 1), (1, 2), device=device)
    np.testing.assert_array_equal(line, image[:, :, 0])


@pytest.mark.slow
@given(problem=problems())
def test_convolution_of_larger_images(problem, device):
    larger = Problem(**{**vars(problem), "size": tuple(n + 40 for n in problem.size), "batch": 1})
    test_convolution_equals_scipy.hypothesis.inner_test(larger, device)
