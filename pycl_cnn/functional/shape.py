"""Shapes, axes, slices, padding."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..ops.movement import Concat, Expand, Flip, Pad, Reshape, Slice, Transpose
from ..trace import as_symbol, emit
from .door import axis_number, operation


@operation
def reshape(input: Any, shape: Any) -> Any:
    """The same elements under another shape; one size may be -1. Raises ShapeError."""
    x = as_symbol(input, "reshape")
    sizes = [int(n) for n in (shape if isinstance(shape, Sequence) else [shape])]
    if sizes.count(-1) > 1 or min([0, *sizes]) < -1:
        raise ShapeError("reshape", "sizes must not be negative, but for one -1", shape=tuple(sizes))
    if -1 in sizes:
        known = math.prod(n for n in sizes if n != -1)
        total = math.prod(x.shape)
        if known == 0 or total % known:
            raise ShapeError("reshape", "the number of elements must stay the same", input=x.shape, shape=tuple(sizes))
        sizes[sizes.index(-1)] = total // known
    return emit(Reshape(tuple(sizes)), x.value)


@operation
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Axes `start_dim` to `end_dim` as one."""
    x = as_symbol(input, "flatten")
    start, end = axis_number("flatten", start_dim, x.ndim), axis_number("flatten", end_dim, x.ndim)
    if start > end:
        raise ShapeError("flatten", "start_dim must not come after end_dim", start_dim=start_dim, end_dim=end_dim)
    return emit(Reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])), x.value)


@operation
def permute(input: Any, dims: Any) -> Any:
    """Axis i of the result is axis ``dims[i]`` of the input."""
    x = as_symbol(input, "permute")
    return emit(Transpose(tuple(axis_number("permute", dim, x.ndim) for dim in dims)), x.value)


@operation
def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """The input with two axes exchanged."""
    x = as_symbol(input, "transpose")
    a, b = axis_number("transpose", dim0, x.ndim), axis_number("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return emit(Transpose(tuple(order)), x.value)


@operation
def cat(tensors: Any, dim: int = 0) -> Any:
    """Arrays one behind the other along `dim`. Raises ShapeError."""
    symbols = [as_symbol(item, "cat") for item in tensors]
    if not symbols:
        raise ShapeError("cat", "at least one array is needed")
    return emit(Concat(axis_number("cat", dim, symbols[0].ndim)), *(symbol.value for symbol in symbols))


@operation
def expand(input: Any, shape: Any) -> Any:
    """Axes of length 1 repeated to `shape`; -1 keeps an axis; new axes may stand in front. Raises ShapeError."""
    x = as_symbol(input, "expand")
    if len(shape) < x.ndim:
        raise ShapeError("expand", "the shape must have at least the input's axes", input=x.shape, shape=tuple(shape))
    padded = (1,) * (len(shape) - x.ndim) + x.shape
    target = tuple(n if size == -1 else int(size) for n, size in zip(padded, shape, strict=True))
    return emit(Expand(target), emit(Reshape(padded), x.value).value)


@operation
def flip(input: Any, dims: Any) -> Any:
    """The elements along the axes `dims` in reverse order."""
    x = as_symbol(input, "flip")
    return emit(Flip(tuple(sorted(axis_number("flip", dim, x.ndim) for dim in (dims if isinstance(dims, Sequence) else [dims])))), x.value)


@operation
def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Padding with `value` (0); `pad` holds (before, after) pairs from the last axis backwards (as in PyTorch); negative ones crop.

    Raises ShapeError.
    """
    x = as_symbol(input, "pad")
    if mode != "constant":
        raise ShapeError("pad", 'mode must be "constant"', mode=mode)
    value = 0.0 if value is None else value
    amounts = [int(n) for n in pad]
    if len(amounts) % 2 or len(amounts) > 2 * x.ndim:
        raise ShapeError("pad", "pairs (before, after) must be given for at most the input's axes", pad=tuple(pad), input=x.shape)
    low, high = [0] * x.ndim, [0] * x.ndim
    for index in range(len(amounts) // 2):
        low[-1 - index], high[-1 - index] = amounts[2 * index], amounts[2 * index + 1]
    if min([0, *low, *high]) < 0:
        starts = tuple(max(-n, 0) for n in low)
        stops = tuple(size - max(-n, 0) for size, n in zip(x.shape, high, strict=True))
        x = emit(Slice(starts, stops, (1,) * x.ndim), x.value)
    return emit(Pad(tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high), (0,) * x.ndim, float(value)), x.value)


@operation
def getitem(input: Any, index: Any) -> Any:
    """``input[index]`` for integers, slices (steps of any sign), None and Ellipsis. Raises ShapeError."""
    x = as_symbol(input, "getitem")
    items = list(index) if isinstance(index, tuple) else [index]
    given = [item for item in items if item is not None and item is not Ellipsis]
    if len(given) > x.ndim or items.count(Ellipsis) > 1:
        raise ShapeError("getitem", "too many indices", input=x.shape, index=index)
    if Ellipsis not in items:
        items.append(Ellipsis)
    position = items.index(Ellipsis)
    items[position : position + 1] = [slice(None)] * (x.ndim - len(given))
    bounds: list[tuple[int, int, int]] = []  # (start, stop, step) of every axis
    flips, shape = [], []
    for item in items:
        if item is None:
            shape.append(1)
            continue
        axis = len(bounds)
        size = x.shape[axis]
        if isinstance(item, slice):
            picked = range(size)[item]
            first, last = (min(picked[0], picked[-1]), max(picked[0], picked[-1]) + 1) if picked else (0, 0)
            bounds.append((first, last, builtins.abs(picked.step)))
            if picked.step < 0 and len(picked) > 1:
                flips.append(axis)
            shape.append(len(picked))
        elif isinstance(item, int | np.integer) and not isinstance(item, bool):
            if not -size <= item < size:
                raise ShapeError("getitem", "the index must lie inside the axis", input=x.shape, index=index)
            bounds.append((int(item) % size, int(item) % size + 1, 1))
        else:
            raise ShapeError("getitem", "indices must be integers, slices, None or Ellipsis", index=index)
    starts, stops, steps = zip(*bounds, strict=True) if bounds else ((), (), ())
    y = emit(Slice(starts, stops, steps), x.value)
    if flips:
        y = emit(Flip(tuple(flips)), y.value)
    return emit(Reshape(tuple(shape)), y.value)
