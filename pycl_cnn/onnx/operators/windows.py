"""Windows that slide over any number of axes: the sizes that convolutions and pooling share, and NumPy views of the windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...records import record
from ..node import MOST_COMPUTED, Call

Pads = tuple[tuple[int, int], ...]


@record
class Sliding:
    """For every axis of space: kernel, stride, dilation, padding (before, after), and how many windows there are."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads
    out: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Elements from a window's first to its last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def padded(self, x: np.ndarray, fill: Any) -> np.ndarray:
        """x[n,c,...] with all that windows reach, `fill` outside."""
        amounts = []
        for n, e, s, (before, after), out in zip(self.size, self.extent, self.stride, self.pads, self.out, strict=True):
            amounts.append((before, max(after, (out - 1) * s + e - n - before)))
        return np.pad(x, [(0, 0), (0, 0), *amounts], constant_values=fill)

    def windows(self, padded: np.ndarray) -> np.ndarray:
        """A view [n, c, *out, *kernel]."""
        axes = tuple(range(2, 2 + len(self.kernel)))
        whole = np.lib.stride_tricks.sliding_window_view(padded, self.extent, axes)
        places = tuple(slice(0, (out - 1) * s + 1, s) for out, s in zip(self.out, self.stride, strict=True))
        inner = tuple(slice(None, None, d) for d in self.dilation)
        index = (slice(None), slice(None), *places, *inner)
        return whole[index]


def bound_windows(call: Call, x: np.ndarray, windows: Sliding, itemsize: int) -> None:
    """Refuse windows that together have too many elements for NumPy to go through, or to keep at `itemsize` bytes."""
    call.bounded((*x.shape[:2], *windows.out, *windows.kernel), itemsize, MOST_COMPUTED, "all windows together")


def positive(call: Call, name: str, default: Sequence[int], count: int) -> tuple[int, ...]:
    """An attribute of one positive integer for each axis."""
    values = call.integers(name, default)
    call.require(len(values) == count and min(values, default=1) > 0, f"{name} must be one positive integer for each axis", **{name: values})
    return values


def given_pads(call: Call, count: int) -> Pads:
    """The attribute pads as (before, after) for each axis."""
    pads = call.integers("pads", (0,) * (2 * count))
    call.require(len(pads) == 2 * count, "pads must be two integers for each axis", pads=pads)
    return tuple(zip(pads[:count], pads[count:], strict=True))


def sliding(call: Call, shape: Sequence[int], kernel: Sequence[int], ceil: bool = False) -> Sliding:
    """The windows over x of `shape` [n,c,...] that the node's attributes describe."""
    size, rank = tuple(shape[2:]), len(shape) - 2
    call.require(len(kernel) == rank and rank > 0, "the kernel must have the axes of space", input=tuple(shape), kernel_shape=tuple(kernel))
    stride, dilation = positive(call, "strides", (1,) * rank, rank), positive(call, "dilations", (1,) * rank, rank)
    mode = call.text("auto_pad", "NOTSET")
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads: Pads = ()
        for n, e, s in zip(size, extent, stride, strict=True):
            total = max((-(-n // s) - 1) * s + e - n, 0)
            less, more = total // 2, total - total // 2
            pads = (*pads, (less, more) if mode == "SAME_UPPER" else (more, less))
        ceil = False
    elif mode == "VALID":
        pads = ((0, 0),) * rank
    else:
        call.require(mode in ("NOTSET", ""), "auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID", auto_pad=mode)
        pads = given_pads(call, rank)
    out = []
    for n, e, s, (before, after) in zip(size, extent, stride, pads, strict=True):
        span = n + before + after - e
        call.require(span >= 0 or (ceil and span > -s), "the window must not be larger than the padded input", input=tuple(shape), kernel_shape=tuple(kernel), pads=pads)
        count = (-(-span // s) if ceil else span // s) + 1
        if ceil and (count - 1) * s >= n + before:  # windows that would begin in the padding behind
            count -= 1
        out.append(count)
    call.bounded((*shape[:2], *out), 4, MOST_COMPUTED)
    call.bounded((*shape[:2], *(max(n, n + before + after) for n, (before, after) in zip(size, pads, strict=True))), 4, MOST_COMPUTED, "the padded input")
    return Sliding(size, tuple(kernel), stride, dilation, pads, tuple(out))


