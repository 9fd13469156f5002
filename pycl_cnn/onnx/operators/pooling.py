"""Pooling: windows and whole images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ...functional.door import NCHW_TO_NHWC, NHWC_TO_NCHW
from ...geometry import AxisRule, PoolAxis, PoolGeometry
from ...ops.max_pool import MaxPool
from ...ops.movement import Transpose
from ...ops.reduce import Reduce
from ...ops.resample import Resample
from ...trace import Symbol, active_tracer, emit
from ..node import Call
from .pointwise import unary, wide
from .shapes import reshaped
from .table import evaluated, lowered
from .windows import Sliding, bound_windows, sliding


def _windows(call: Call, x: Any) -> Sliding:
    windows = sliding(call, x.shape, call.integers("kernel_shape"), bool(call.integer("ceil_mode", 0)))
    # Else there are windows of nothing but padding, as many as the file likes.
    fits = all(max(pads) < extent for pads, extent in zip(windows.pads, windows.extent, strict=True))
    call.require(fits, "pads must be smaller than the window", pads=windows.pads, kernel_shape=windows.kernel, dilations=windows.dilation)
    return windows


def _counts(call: Call, windows: Sliding) -> list[np.ndarray]:
    """For each axis the elements that every window counts: those inside the input, or inside the padded one."""
    padding = bool(call.integer("count_include_pad", 0))
    counts = []
    for n, k, s, d, (before, after), out in zip(windows.size, windows.kernel, windows.stride, windows.dilation, windows.pads, windows.out, strict=True):
        call.bounded((out,), 32, what="the table of its windows")
        first = np.arange(out) * s - before
        low, high = (-before, n + after) if padding else (0, n)
        within = [np.clip(-((first - end) // d), 0, k) for end in (low, high)]  # elements of every window that lie before `end`
        counts.append(within[1] - within[0])
    return counts


@evaluated("AveragePool")
def average_pool(call: Call, x: np.ndarray) -> np.ndarray:
    windows = _windows(call, x)
    bound_windows(call, x, windows, 4)
    rank = len(windows.kernel)
    total = windows.windows(windows.padded(wide(x), 0)).sum(tuple(range(2 + rank, 2 + 2 * rank)))
    counts = math.prod(np.ix_(*_counts(call, windows)))
    return (total / counts).astype(x.dtype)


@evaluated("LpPool")
def lp_pool(call: Call, x: np.ndarray) -> np.ndarray:
    windows, p = _windows(call, x), call.integer("p", 2)
    bound_windows(call, x, windows, 8)
    rank = len(windows.kernel)
    powers = np.abs(windows.windows(windows.padded(wide(x), 0))) ** p
    return (powers.sum(tuple(range(2 + rank, 2 + 2 * rank))) ** (1 / p)).astype(x.dtype)


@evaluated("MaxPool")
def max_pool(call: Call, x: np.ndarray) -> tuple[np.ndarray, ...]:
    windows = _windows(call, x)
    bound_windows(call, x, windows, 8 if call.wants(1) else 4)
    rank = len(windows.kernel)
    least = -np.inf if x.dtype.kind not in "iu" else np.iinfo(x.dtype).min
    view = windows.windows(windows.padded(x, least))
    y = view.max(tuple(range(2 + rank, 2 + 2 * rank)))
    if not call.wants(1):
        return (y,)
    row: Any = np.arange(math.prod(windows.size))
    plane = row.reshape(windows.size[::-1]).T if call.integer("storage_order", 0) else row.reshape(windows.size)
    numbers = windows.windows(windows.padded(plane[None, None], -1))
    flat = view.reshape(*y.shape, -1)
    inside = numbers.reshape(1, 1, *windows.out, -1) >= 0
    best = np.where(inside, flat, least).argmax(-1)[..., None]
    found = np.take_along_axis(np.broadcast_to(inside, flat.shape), best, -1)
    best = np.where(found, best, inside.argmax(-1)[..., None])  # of elements as small as the padding the first inside
    taken = np.take_along_axis(np.broadcast_to(numbers.reshape(1, 1, *windows.out, -1), flat.shape), best, -1)[..., 0]
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * rank) * math.prod(windows.size)
    return y, (taken + planes).astype(np.int64)


@evaluated("MaxUnpool", values=(2,))
def max_unpool(call: Call, x: np.ndarray, indices: np.ndarray, shape: Any = None) -> np.ndarray:
    kernel = call.integers("kernel_shape")
    rank = len(kernel)
    stride, pads = call.integers("strides", (1,) * rank), call.integers("pads", (0,) * (2 * rank))
    own = [(n - 1) * s + k - pads[i] - pads[i + rank] for i, (n, s, k) in enumerate(zip(x.shape[2:], stride, kernel, strict=True))]
    y = np.zeros(call.bounded((*x.shape[:2], *own)), x.dtype)
    y.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
    if shape is None:
        return y
    wanted = call.bounded(call.ints(shape, "output_shape"))
    call.require(len(wanted) == y.ndim, "output_shape must have the input's axes", input=x.shape, output_shape=wanted)
    return np.pad(y, [(0, max(n - m, 0)) for n, m in zip(wanted, y.shape, strict=True)])[tuple(slice(0, n) for n in wanted)]


# ---- lowered to the graph ---------------------------------------------------------------------------------------------


def _image(x: Symbol) -> Symbol:
    """[n,c,l] or [n,c,h,w] as [n,h,w,c]."""
    if x.ndim == 3:
        x = reshaped(x, (*x.shape[:2], 1, x.shape[2]))
    return emit(Transpose(NCHW_TO_NHWC), x.value)


def _back(y: Symbol, rank: int) -> Symbol:
    y = emit(Transpose(NHWC_TO_NCHW), y.value)
    return reshaped(y, (*y.shape[:2], y.shape[3])) if rank == 1 else y


def _axes(windows: Sliding) -> list[tuple[int, int, int, int, int, tuple[int, int], int]]:
    """(size, kernel, stride, dilation, windows, pads, axis) of rows and columns."""
    axes = list(zip(windows.size, windows.kernel, windows.stride, windows.dilation, windows.out, windows.pads, range(2), strict=False))
    return axes if len(axes) == 2 else [(1, 1, 1, 1, 1, (0, 0), -1), *axes]


def _planned(call: Call, x: Symbol) -> Sliding:
    """The windows of a kernel, whose plan has a table of what every window takes: about 100 bytes for each element."""
    windows = _windows(call, x)
    for n, k, d, out in zip(windows.size, windows.kernel, windows.dilation, windows.out, strict=True):
        taps = 1 if call.op == "MaxPool" else min(k, -(-n // d))  # of a maximum the ends of the window are kept
        call.bounded((out, 1 + taps), 100, what="the table of its windows")
    return windows


@lowered("MaxPool")
def lower_max_pool(call: Call, x: Symbol) -> Any:
    windows = _planned(call, x)
    rank = len(windows.kernel)
    axes = [PoolAxis(n, out, k, s, before, d) for n, k, s, d, out, (before, _), _ in _axes(windows)]
    if rank > 2 or call.wants(1) or 0 in x.shape or any(first >= end or first < 0 for axis in axes for first, end in axis.windows):
        return NotImplemented
    tracer = active_tracer()
    assert tracer is not None
    z = _image(x)
    y, *_ = tracer.graph.add(MaxPool(PoolGeometry(z.shape[0], z.shape[3], *axes), tracer.gradients), z.value)
    return _back(Symbol(y), rank)


def _window_rows(windows: Sliding, weight: Any) -> list[AxisRule]:
    """For rows and columns the linear map that sums windows, each scaled by ``weight(axis, window)``."""
    rules = []
    for n, k, s, d, out, (before, _), axis in _axes(windows):
        rows = []
        for i in range(out):
            start, factor = i * s - before, weight(axis, i)
            inside = range(start + max(0, -(start // d)) * d, min(start + k * d, n), d)  # of a long window little may be inside
            rows.append(tuple((place, factor) for place in inside))
        rules.append(AxisRule.of_rows(n, rows))
    return rules


@lowered("AveragePool")
def lower_average_pool(call: Call, x: Symbol) -> Any:
    windows = _planned(call, x)
    if len(windows.kernel) > 2 or 0 in x.shape:
        return NotImplemented
    padding = bool(call.integer("count_include_pad", 0))
    if max(windows.dilation) == 1:  # as average pooling is known elsewhere
        rows, cols = (AxisRule("average", n, out, k, s, before, after, padding) for n, k, s, _, out, (before, after), _ in _axes(windows))
        if min(pad for pair in windows.pads for pad in pair) >= 0:
            return _back(emit(Resample(rows, cols), _image(x).value), len(windows.kernel))
    counts = _counts(call, windows)
    rows, cols = _window_rows(windows, lambda axis, i: 1.0 if axis < 0 else 1.0 / max(int(counts[axis][i]), 1))
    return _back(emit(Resample(rows, cols), _image(x).value), len(windows.kernel))


@lowered("LpPool")
def lower_lp_pool(call: Call, x: Symbol) -> Any:
    windows, p = _planned(call, x), call.integer("p", 2)
    if len(windows.kernel) > 2 or 0 in x.shape:
        return NotImplemented
    rows, cols = _window_rows(windows, lambda axis, i: 1.0)
    total = emit(Resample(rows, cols), _image(_powers(x, p)).value)
    return _back(_root(total, p), len(windows.kernel))


def _powers(x: Symbol, p: int) -> Symbol:
    """``|x| ** p``."""
    return unary(x, "square") if p == 2 else unary(x, "abs") if p == 1 else unary(unary(x, "abs"), "pow", p)


def _root(x: Symbol, p: int) -> Symbol:
    """``x ** (1 / p)``."""
    return unary(x, "sqrt") if p == 2 else x if p == 1 else unary(x, "pow", 1 / p)


@lowered("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def lower_global_pool(call: Call, x: Symbol) -> Any:
    call.require(x.ndim > 2, "the input must be [n,c,...]", input=x.shape)
    if 0 in x.shape:
        return NotImplemented
    axes = tuple(range(2, x.ndim))
    if call.op == "GlobalLpPool":
        p = call.integer("p", 2)
        return _root(emit(Reduce("sum", axes, True), _powers(x, p).value), p)
    if call.op == "GlobalAveragePool" and x.ndim == 4:
        return F.adaptive_avg_pool2d(x, 1)
    return emit(Reduce("mean" if call.op == "GlobalAveragePool" else "max", axes, True), x.value)


@evaluated("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(2, x.ndim))
    if call.op == "GlobalMaxPool":
        return x.max(axes, keepdims=True)
    if call.op == "GlobalAveragePool":
        return wide(x).mean(axes, keepdims=True).astype(x.dtype)
    p = call.integer("p", 2)
    return ((np.abs(wide(x)) ** p).sum(axes, keepdims=True) ** (1 / p)).astype(x.dtype)
