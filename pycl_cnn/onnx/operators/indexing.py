"""Elements by their places: gather, scatter, one-hot, triangles, and what finds places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...trace import Symbol
from ..node import Call
from .shapes import gathered, reshaped
from .table import evaluated, lowered


def _places(call: Call, indices: np.ndarray, length: int) -> np.ndarray:
    """Indices with negative ones counted from the end; all must lie inside the axis."""
    inside = (indices >= -length) & (indices < length)
    call.require(inside.all(), "indices must lie inside the axis", length=length, indices=indices[~inside][:3].tolist())
    return np.where(indices < 0, indices + length, indices)


@evaluated("Gather")
def gather(call: Call, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    if 0 in indices.shape:
        return np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    call.bounded((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.itemsize)
    return np.take(x, _places(call, indices, x.shape[axis]), axis)


@lowered("Gather", any_dtype=True)
def lower_gather(call: Call, x: Any, indices: Any) -> Any:
    """With known indices: slices, or a sparse matrix."""
    if isinstance(indices, Symbol) or not isinstance(x, Symbol) or 0 in (*indices.shape, *x.shape):
        return NotImplemented
    axis = call.axis(call.integer("axis", 0), x.ndim)
    places = _places(call, indices, x.shape[axis]).reshape(-1)
    y = gathered(call, x, axis, places)
    return NotImplemented if y is None else reshaped(y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@evaluated("GatherElements")
def gather_elements(call: Call, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    call.require(indices.ndim == x.ndim, "indices must have the input's axes", input=x.shape, indices=indices.shape)
    at: list[Any] = list(np.indices(indices.shape, sparse=True))
    for other, places in enumerate(at):
        call.require(other == axis or places.size <= x.shape[other], "indices must not be larger than the input", input=x.shape, indices=indices.shape)
    at[axis] = _places(call, indices, x.shape[axis])
    return x[tuple(at)]


def _nd_places(call: Call, x: np.ndarray, indices: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
    """What to index x with: for each of the first `batch` axes its own place, behind them what `indices` says."""
    depth = indices.shape[-1]
    call.require(indices.ndim > 0 and batch + depth <= x.ndim and batch < indices.ndim, "the indices must fit the input", input=x.shape, indices=indices.shape, batch_dims=batch)
    call.require(x.shape[:batch] == indices.shape[:batch], "the batch axes must agree", input=x.shape, indices=indices.shape, batch_dims=batch)
    lead = indices.shape[:-1]
    own = [np.arange(n).reshape([n if i == axis else 1 for i in range(len(lead))]) for axis, n in enumerate(x.shape[:batch])]
    return (*own, *(_places(call, indices[..., i], x.shape[batch + i]) for i in range(depth)))


@evaluated("GatherND")
def gather_nd(call: Call, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    batch = call.integer("batch_dims", 0)
    at = _nd_places(call, x, indices, batch)
    shape = call.bounded((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]), x.itemsize)
    return x[at].reshape(shape)


_SCATTERED = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(call: Call, x: np.ndarray, at: tuple[np.ndarray, ...], updates: np.ndarray) -> np.ndarray:
    y, reduction = x.copy(), call.text("reduction", "none")
    if reduction == "none":
        y[at] = updates
        return y
    call.require(reduction in _SCATTERED, "reduction must be none, add, mul, max or min", reduction=reduction)
    _SCATTERED[reduction].at(y, at, updates)
    return y


@evaluated("ScatterND")
def scatter_nd(call: Call, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    at = _nd_places(call, x, indices, 0)
    call.require(updates.shape == (*indices.shape[:-1], *x.shape[indices.shape[-1] :]), "the updates must fit", indices=indices.shape, updates=updates.shape)
    return _scatter(call, x, at, updates)


@evaluated("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    call.require(indices.shape == updates.shape and indices.ndim == x.ndim, "indices and updates must fit", indices=indices.shape, updates=updates.shape)
    at: list[Any] = list(np.indices(indices.shape))
    at[axis] = _places(call, indices, x.shape[axis])
    return _scatter(call, x, tuple(at), updates)


@evaluated("OneHot", values=(1,))
def one_hot(call: Call, indices: np.ndarray, depth: np.ndarray, values: np.ndarray) -> np.ndarray:
    count = int(call.scalar(depth, "depth"))
    axis = call.axis(call.integer("axis", -1), indices.ndim + 1)
    call.bounded((*indices.shape, count), values.itemsize)
    call.require(values.shape == (2,), "values must be (off, on)", values=values.shape)
    places = np.asarray(indices).astype(np.int64)
    places = np.where((places < -count) | (places >= count), -1 - count, places)
    hot = np.expand_dims(np.where((places < 0) & (places >= -count), places + count, places), axis)
    shape = [1] * (indices.ndim + 1)
    shape[axis] = count
    return np.where(hot == np.arange(count).reshape(shape), values[1], values[0]).astype(values.dtype)


@evaluated("Trilu", values=(1,))
def triangle(call: Call, x: np.ndarray, k: Any = None) -> np.ndarray:
    diagonal = 0 if k is None else int(call.scalar(k, "k"))
    return np.triu(x, diagonal) if call.integer("upper", 1) else np.tril(x, diagonal)


@evaluated("NonZero", dynamic=True)
def non_zero(call: Call, x: np.ndarray) -> np.ndarray:
    return np.array(np.nonzero(x) if x.ndim else np.nonzero(x.reshape(1)), np.int64).reshape(x.ndim, -1)


@evaluated("Compress", dynamic=True)
def compress(call: Call, x: np.ndarray, condition: np.ndarray) -> np.ndarray:
    if not call.has("axis"):
        return np.compress(condition, x.reshape(-1))
    return np.compress(condition, x, call.axis(call.integer("axis"), x.ndim))


@evaluated("Unique", dynamic=True)
def unique(call: Call, x: np.ndarray) -> tuple[np.ndarray, ...]:
    axis = call.axis(call.integer("axis"), x.ndim) if call.has("axis") else None
    source = x if axis is not None else x.reshape(-1)
    values, first, inverse, counts = np.unique(source, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not call.integer("sorted", 1):
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        values, first, inverse, counts = np.take(values, order, axis or 0), first[order], rank[inverse], counts[order]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@evaluated("ReverseSequence")
def reverse_sequence(call: Call, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    moved = np.moveaxis(x, (batch, time), (0, 1))
    call.require(lengths.shape == moved.shape[:1] and (lengths <= moved.shape[1]).all(), "one length is needed for every sequence", lengths=lengths.shape, input=x.shape)
    place = np.arange(moved.shape[1])
    place = np.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return np.moveaxis(moved[np.arange(len(place))[:, None], place], (0, 1), (batch, time))


