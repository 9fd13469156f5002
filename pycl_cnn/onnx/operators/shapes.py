"""Shapes, and movements of elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...geometry import AxisRule
from ...ops.base import FLOAT, INT
from ...ops.movement import Concat, Expand, Flip, Pad, Reshape, Slice, Transpose
from ...ops.resample import Resample
from ...trace import Symbol, emit
from ..node import Call, symbol
from .table import evaluated, lowered


def reshaped(x: Symbol, shape: Sequence[int]) -> Symbol:
    """The elements under another shape."""
    return x if x.shape == tuple(shape) else emit(Reshape(tuple(shape)), x.value)


def sliced(x: Symbol, axis: int, start: int, stop: int, step: int = 1) -> Symbol:
    """Elements start, start + step, ... before stop along an axis; step is positive."""
    starts, stops, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], stops[axis], steps[axis] = start, max(start, stop), step
    return emit(Slice(tuple(starts), tuple(stops), tuple(steps)), x.value)


def joined(parts: Sequence[Symbol], axis: int) -> Symbol:
    """Arrays one behind the other."""
    return parts[0] if len(parts) == 1 else emit(Concat(axis), *(part.value for part in parts))


def _any(call: Call, x: Any) -> Symbol:
    """A tensor of any dtype in the trace."""
    if isinstance(x, Symbol) or x.dtype in (FLOAT, INT):
        return symbol(x, call)
    from ...trace import active_tracer

    tracer = active_tracer()
    assert tracer is not None
    return Symbol(tracer.graph.constant(np.asarray(x, order="C")))


# ---- what shapes are --------------------------------------------------------------------------------------------------


@evaluated("Shape", structural=True)
def shape_of(call: Call, x: Any) -> np.ndarray:
    rank = len(x.shape)
    start, end = call.integer("start", 0), call.integer("end", rank)
    start, end = (min(max(n + rank if n < 0 else n, 0), rank) for n in (start, end))
    return np.array(x.shape[start:end], np.int64)


@evaluated("Size", structural=True)
def size_of(call: Call, x: Any) -> np.ndarray:
    return np.array(math.prod(x.shape), np.int64)


@evaluated("Constant")
def constant(call: Call) -> np.ndarray:
    for name, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32), ("value_ints", np.int64)):
        if call.has(name):
            return np.asarray(call.get(name), dtype)
    call.refuse("its value must be numbers", attributes=sorted(call.node.attributes))


@evaluated("ConstantOfShape", values=(0,))
def constant_of_shape(call: Call, shape: np.ndarray) -> np.ndarray:
    value = np.asarray(call.get("value", np.zeros(1, np.float32)))
    call.require(value.size == 1, "value must have one element", value=value.shape)
    return np.full(call.bounded(call.ints(shape, "shape"), value.itemsize), value.reshape(-1)[0], value.dtype)


@evaluated("Range", values=(0, 1, 2))
def arange(call: Call, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    first, last, step = (call.scalar(value, name) for value, name in ((start, "start"), (limit, "limit"), (delta, "delta")))
    call.require(step != 0, "delta must not be 0")
    count = max(math.ceil((last - first) / step), 0)
    call.bounded((count,))
    return (np.arange(count) * np.asarray(step, start.dtype) + np.asarray(first, start.dtype)).astype(start.dtype)


@evaluated("EyeLike")
def eye_like(call: Call, x: np.ndarray) -> np.ndarray:
    from .quantisation import onnx_dtype

    call.require(x.ndim == 2, "the input must be a matrix", input=x.shape)
    return np.eye(x.shape[0], x.shape[1], k=call.integer("k", 0)).astype(onnx_dtype(call, call.integer("dtype")) if call.has("dtype") else x.dtype)


# ---- views ------------------------------------------------------------------------------------------------------------


def _new_shape(call: Call, x: Any, shape: Any) -> tuple[int, ...]:
    sizes = list(call.ints(shape, "shape"))
    if not call.integer("allowzero", 0):
        call.require(all(n != 0 or axis < len(x.shape) for axis, n in enumerate(sizes)), "a 0 copies a size that the input must have", input=x.shape, shape=sizes)
        sizes = [x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    total = math.prod(x.shape)
    if sizes.count(-1) == 1:
        rest = math.prod(n for n in sizes if n != -1)
        call.require(rest and total % rest == 0, "the number of elements must stay the same", input=x.shape, shape=sizes)
        sizes[sizes.index(-1)] = total // rest
    call.require(min(sizes, default=0) >= 0 and math.prod(sizes) == total, "the number of elements must stay the same", input=x.shape, shape=sizes)
    return tuple(sizes)


def _flat_shape(call: Call, x: Any) -> tuple[int, ...]:
    axis = call.axis(call.integer("axis", 1), len(x.shape), inclusive=True)
    return math.prod(x.shape[:axis]), math.prod(x.shape[axis:])


def _view_shape(call: Call, x: Any, argument: Any) -> tuple[int, ...]:
    """The shape that Reshape, Flatten, Squeeze or Unsqueeze gives."""
    if call.op == "Reshape":
        return _new_shape(call, x, np.array(call.integers("shape"), np.int64) if call.opset < 5 else argument)
    if call.op == "Flatten":
        return _flat_shape(call, x)
    rank = len(x.shape)
    if call.opset < 13:
        axes = call.integers("axes") if call.has("axes") else None
    else:
        axes = None if argument is None else call.ints(argument, "axes")
    if call.op == "Unsqueeze":
        call.require(axes is not None, "axes must be given")
        places = call.axes(axes or (), rank + len(axes or ()))
        sizes = iter(x.shape)
        return tuple(1 if axis in places else next(sizes) for axis in range(rank + len(places)))
    gone = tuple(axis for axis, n in enumerate(x.shape) if n == 1) if axes is None else call.axes(axes, rank)
    call.require(all(x.shape[axis] == 1 for axis in gone), "only axes of length 1 can be squeezed", input=x.shape, axes=axes)
    return tuple(n for axis, n in enumerate(x.shape) if axis not in gone)


@evaluated("Reshape", "Flatten", "Squeeze", "Unsqueeze", values=(1,))
def view(call: Call, x: np.ndarray, argument: Any = None) -> np.ndarray:
    return x.reshape(_view_shape(call, x, argument))


@lowered("Reshape", "Flatten", "Squeeze", "Unsqueeze", any_dtype=True, values=(1,))
def lower_view(call: Call, x: Symbol, argument: Any = None) -> Symbol:
    return reshaped(x, _view_shape(call, x, argument))


@evaluated("Identity", structural=True)
def identity(call: Call, x: Any) -> Any:
    return x


# ---- movements --------------------------------------------------------------------------------------------------------


def _permutation(call: Call, x: Any) -> tuple[int, ...]:
    order = call.integers("perm", range(len(x.shape))[::-1])
    call.require(sorted(order) == list(range(len(x.shape))), "perm must name every axis once", input=x.shape, perm=order)
    return order


@evaluated("Transpose")
def transpose(call: Call, x: np.ndarray) -> np.ndarray:
    return x.transpose(_permutation(call, x))


@lowered("Transpose", any_dtype=True)
def lower_transpose(call: Call, x: Symbol) -> Symbol:
    return emit(Transpose(_permutation(call, x)), x.value)


@evaluated("Concat")
def concat(call: Call, *arrays: np.ndarray) -> np.ndarray:
    call.bounded((sum(array.size for array in arrays),), arrays[0].itemsize)
    return np.concatenate(arrays, call.axis(call.integer("axis", 1), arrays[0].ndim))


@lowered("Concat", any_dtype=True)
def lower_concat(call: Call, *arrays: Any) -> Symbol:
    axis = call.axis(call.integer("axis", 1), len(arrays[0].shape))
    return joined([_any(call, array) for array in arrays], axis)


def _pieces(call: Call, x: Any, split: Any) -> tuple[int, list[int]]:
    """The axis, and the lengths along it."""
    axis = call.axis(call.integer("axis", 0), len(x.shape))
    length = x.shape[axis]
    if call.opset < 13:
        sizes = list(call.integers("split")) if call.has("split") else None
    else:
        sizes = None if split is None else list(call.ints(split, "split"))
    if sizes is None:
        count = call.integer("num_outputs", call.outputs)
        call.require(0 < count <= 1 << 16, "num_outputs must be positive", num_outputs=count)
        size = -(-length // count)
        sizes = [max(min(size, length - i * size), 0) for i in range(count)]
    call.require(min(sizes, default=0) >= 0 and sum(sizes) == length and len(sizes) >= call.outputs, "the lengths must make up the axis", input=x.shape, axis=axis, split=sizes)
    return axis, sizes


@evaluated("Split", values=(1,))
def split_apart(call: Call, x: np.ndarray, split: Any = None) -> tuple[np.ndarray, ...]:
    axis, sizes = _pieces(call, x, split)
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@lowered("Split", any_dtype=True, values=(1,))
def lower_split(call: Call, x: Symbol, split: Any = None) -> tuple[Symbol, ...]:
    axis, sizes = _pieces(call, x, split)
    ends = np.cumsum(sizes).tolist()
    return tuple(sliced(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _ranges(call: Call, x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> list[tuple[int, range]]:
    """For each sliced axis the positions that are taken."""
    rank = len(x.shape)
    if call.opset < 10:
        first, last = call.integers("starts"), call.integers("ends")
        chosen, strides = call.integers("axes", range(len(first))), (1,) * len(first)
    else:
        first, last = call.ints(starts, "starts"), call.ints(ends, "ends")
        chosen = tuple(range(len(first))) if axes is None else call.ints(axes, "axes")
        strides = (1,) * len(first) if steps is None else call.ints(steps, "steps")
    call.require(len(first) == len(last) == len(chosen) == len(strides) and 0 not in strides, "starts, ends, axes and steps must fit", starts=first, ends=last, axes=chosen, steps=strides)
    places = [call.axis(axis, rank) for axis in chosen]
    call.require(len(set(places)) == len(places), "the axes must differ", axes=chosen)
    return [(axis, _positions(x.shape[axis], a, b, s)) for axis, a, b, s in zip(places, first, last, strides, strict=True)]


def _positions(n: int, start: int, end: int, step: int) -> range:
    """What a slice takes of n elements."""
    if step > 0:
        return range(n)[start:end:step]
    start, end = (place + n if place < 0 else place for place in (start, end))
    return range(min(max(start, 0), n - 1), min(max(end, -1), n - 1), step)  # a start before the first is the first, other than in Python


@evaluated("Slice", values=(1, 2, 3, 4))
def slice_out(call: Call, x: np.ndarray, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> np.ndarray:
    for axis, taken in _ranges(call, x, starts, ends, axes, steps):
        x = np.take(x, taken, axis)
    return x


@lowered("Slice", any_dtype=True, values=(1, 2, 3, 4))
def lower_slice(call: Call, x: Symbol, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Symbol:
    low, high, stride, flips = [0] * x.ndim, list(x.shape), [1] * x.ndim, []
    for axis, taken in _ranges(call, x, starts, ends, axes, steps):
        if len(taken) == 0:
            low[axis] = high[axis] = 0
            continue
        low[axis], high[axis] = min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1
        stride[axis] = abs(taken.step)
        if taken.step < 0 and len(taken) > 1:
            flips.append(axis)
    y = emit(Slice(tuple(low), tuple(high), tuple(stride)), x.value)
    return emit(Flip(tuple(sorted(flips))), y.value) if flips else y


@evaluated("Expand", values=(1,))
def expand(call: Call, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, _expanded(call, x, shape)).copy()


def _expanded(call: Call, x: Any, shape: Any) -> tuple[int, ...]:
    given = call.bounded(call.ints(shape, "shape"), 1)
    try:
        wanted = np.broadcast_shapes(x.shape, given)
    except ValueError:
        call.refuse("sizes must agree or be 1", input=x.shape, shape=given)
    return call.bounded(wanted, x.dtype.itemsize)


@lowered("Expand", any_dtype=True, values=(1,))
def lower_expand(call: Call, x: Symbol, shape: Any) -> Symbol:
    wanted = _expanded(call, x, shape)
    y = reshaped(x, (1,) * (len(wanted) - x.ndim) + x.shape)
    return y if y.shape == wanted else emit(Expand(wanted), y.value)


def _repeats(call: Call, x: Any, repeats: Any) -> tuple[int, ...]:
    counts = call.ints(repeats, "repeats")
    call.require(len(counts) == len(x.shape) and min(counts, default=0) >= 0, "one count is needed for every axis", input=x.shape, repeats=counts)
    call.bounded([n * count for n, count in zip(x.shape, counts, strict=True)], x.dtype.itemsize)
    return counts


@evaluated("Tile", values=(1,))
def tile(call: Call, x: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    return np.tile(x, _repeats(call, x, repeats))


@lowered("Tile", any_dtype=True, values=(1,))
def lower_tile(call: Call, x: Symbol, repeats: Any) -> Symbol:
    """Each axis beside a new one of length 1, which is repeated."""
    counts = _repeats(call, x, repeats)
    pairs = [pair for n, count in zip(x.shape, counts, strict=True) for pair in ((count, n) if count != 1 else (n,))]
    ones = [pair for n, count in zip(x.shape, counts, strict=True) for pair in ((1, n) if count != 1 else (n,))]
    y = reshaped(x, ones)
    y = y if y.shape == tuple(pairs) else emit(Expand(tuple(pairs)), y.value)
    return reshaped(y, [n * count for n, count in zip(x.shape, counts, strict=True)])


# ---- padding ----------------------------------------------------------------------------------------------------------


def _amounts(call: Call, x: Any, pads: Any, axes: Any) -> list[tuple[int, int]]:
    """(before, after) for every axis; negative ones crop."""
    rank = len(x.shape)
    given = call.integers("pads") if call.opset < 11 else call.ints(pads, "pads")
    chosen = call.ints(axes, "axes") if axes is not None else range(rank)
    call.require(len(given) == 2 * len(chosen), "two amounts are needed for every axis", input=x.shape, pads=given)
    amounts = [(0, 0)] * rank
    for i, axis in enumerate(chosen):
        amounts[call.axis(axis, rank)] = (given[i], given[i + len(chosen)])
    call.bounded([max(n + a + b, 0) for n, (a, b) in zip(x.shape, amounts, strict=True)], x.dtype.itemsize)
    call.require(all(n + a + b >= 0 for n, (a, b) in zip(x.shape, amounts, strict=True)), "no more can be cropped than there is", input=x.shape, pads=given)
    return amounts


def _fill(call: Call, x: Any, value: Any) -> Any:
    if call.opset < 11:
        return call.number("value", 0.0)
    return 0 if value is None else call.scalar(value, "constant_value")


def _cropped(n: int, before: int, after: int) -> tuple[int, int, int, int]:
    """What an axis of n keeps (start, stop) and is padded with then (before, after); what is cropped beyond its end is taken from the padding."""
    start = min(max(-before, 0), n)
    stop = max(n - max(-after, 0), start)
    padding = n + before + after - (stop - start)
    before = min(max(before, 0), padding)
    return start, stop, before, padding - before


def _source(call: Call, n: int, amounts: tuple[int, int], mode: str) -> np.ndarray:
    """For every position of a padded axis the element of the input that stands there."""
    start, stop, before, after = _cropped(n, *amounts)
    n = stop - start
    call.require(n > 0 or before + after == 0, "there is nothing to repeat", pads=amounts)
    call.bounded((n + before + after,), 16, what="the table of its places")
    where = np.arange(-before, n + after)
    if mode == "wrap":
        return start + where % n
    if mode == "edge" or n == 1:
        return start + where.clip(0, n - 1)
    period = 2 * (n - 1)
    return start + n - 1 - np.abs(where % period - (n - 1))


@evaluated("Pad", values=(1, 2, 3))
def pad(call: Call, x: np.ndarray, pads: Any = None, value: Any = None, axes: Any = None) -> np.ndarray:
    amounts, mode = _amounts(call, x, pads, axes), call.text("mode", "constant")
    if mode == "constant":
        parts = [_cropped(n, *pair) for n, pair in zip(x.shape, amounts, strict=True)]
        x = x[tuple(slice(start, stop) for start, stop, _, _ in parts)]
        return np.pad(x, [(before, after) for _, _, before, after in parts], constant_values=np.asarray(_fill(call, x, value)).astype(x.dtype))
    call.require(mode in ("reflect", "edge", "wrap"), "mode must be constant, reflect, edge or wrap", mode=mode)
    for axis, pair in enumerate(amounts):
        if pair != (0, 0):
            x = np.take(x, _source(call, x.shape[axis], pair, mode), axis)
    return x


def gathered(call: Call, x: Symbol, axis: int, where: np.ndarray) -> Symbol | None:
    """Elements `where` of an axis as slices that are joined, or where these would be many, by a sparse matrix; None for elements that have neither."""
    call.bounded((len(where),), 100, what="the table of its places")
    y = _slices(x, axis, where)
    if y is None and x.dtype == FLOAT:
        picked = AxisRule.of_rows(x.shape[axis], [[(place, 1.0)] for place in where.tolist()])
        flat = reshaped(x, (math.prod(x.shape[:axis]), x.shape[axis], 1, math.prod(x.shape[axis + 1 :])))
        rows = emit(Resample(picked, AxisRule.of_rows(1, [[(0, 1.0)]])), flat.value)
        y = reshaped(rows, (*x.shape[:axis], len(where), *x.shape[axis + 1 :]))
    return y


def _slices(x: Symbol, axis: int, where: np.ndarray) -> Symbol | None:
    pieces: list[tuple[int, int, int]] = []  # first, step, count
    for position in where.tolist():
        if pieces:
            first, step, count = pieces[-1]
            if count == 1 or position == first + step * count:
                step = position - first if count == 1 else step
                pieces[-1] = (first, step, count + 1)
                continue
        pieces.append((position, 1, 1))
        if len(pieces) > 8:
            return None
    parts = []
    for first, step, count in pieces:
        low, high = min(first, first + step * (count - 1)), max(first, first + step * (count - 1))
        if step == 0:
            shape = [*x.shape]
            shape[axis] = count
            parts.append(emit(Expand(tuple(shape)), sliced(x, axis, low, low + 1).value))
            continue
        part = sliced(x, axis, low, high + 1, abs(step))
        parts.append(emit(Flip((axis,)), part.value) if step < 0 else part)
    return joined(parts, axis)


@lowered("Pad", any_dtype=True, values=(1, 2, 3))
def lower_pad(call: Call, x: Symbol, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    amounts, mode = _amounts(call, x, pads, axes), call.text("mode", "constant")
    if mode == "constant":
        if x.dtype.kind != "f" and isinstance(_fill(call, x, value), int) and abs(_fill(call, x, value)) > 1 << 53:
            return NotImplemented
        starts, stops, before, after = zip(*(_cropped(n, *pair) for n, pair in zip(x.shape, amounts, strict=True)), strict=True) if amounts else ((),) * 4
        if any(start == stop < n for start, stop, n in zip(starts, stops, x.shape, strict=True)):
            return NotImplemented
        y = x if starts == (0,) * x.ndim and stops == x.shape else emit(Slice(starts, stops, (1,) * x.ndim), x.value)
        return emit(Pad(before, after, (0,) * x.ndim, float(_fill(call, x, value))), y.value)
    for axis, pair in enumerate(amounts):
        if pair != (0, 0):
            where = _source(call, x.shape[axis], pair, mode)
            wider = gathered(call, x, axis, where) if len(where) else None
            if wider is None:
                return NotImplemented
            x = wider
    return x


# ---- depth and space --------------------------------------------------------------------------------------------------


def _rearranged(call: Call, x: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The shape before, the permutation, the shape after."""
    call.require(len(x.shape) == 4, "the input must be [n,c,h,w]", input=x.shape)
    n, c, h, w = x.shape
    b = call.integer("blocksize")
    call.require(b > 0, "blocksize must be positive", blocksize=b)
    if call.op == "SpaceToDepth":
        call.require(h % b == 0 and w % b == 0, "blocksize must divide height and width", input=x.shape, blocksize=b)
        if call.text("mode", "DCR") == "CRD":
            return (n, c, h // b, b, w // b, b), (0, 1, 3, 5, 2, 4), (n, c * b * b, h // b, w // b)
        return (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), (n, c * b * b, h // b, w // b)
    call.require(c % (b * b) == 0, "the square of blocksize must divide the channels", input=x.shape, blocksize=b)
    after = (n, c // (b * b), h * b, w * b)
    if call.text("mode", "DCR") == "CRD":
        return (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3), after
    return (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2), after


@evaluated("DepthToSpace", "SpaceToDepth")
def rearrange(call: Call, x: np.ndarray) -> np.ndarray:
    before, order, after = _rearranged(call, x)
    return x.reshape(before).transpose(order).reshape(after)


@lowered("DepthToSpace", "SpaceToDepth", any_dtype=True)
def lower_rearrange(call: Call, x: Symbol) -> Symbol:
    before, order, after = _rearranged(call, x)
    return reshaped(emit(Transpose(order), reshaped(x, before).value), after)
