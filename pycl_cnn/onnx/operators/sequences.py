"""Sequences and optional values: arrays of objects, which are known when a plan is made, or evaluated between its stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..node import Call
from .quantisation import onnx_dtype
from .table import evaluated


def items(values: Iterable[Any]) -> np.ndarray:
    """A sequence."""
    listed = list(values)
    sequence = np.empty(len(listed), object)
    for place, value in enumerate(listed):
        sequence[place] = value
    return sequence


def nothing() -> np.ndarray:
    """The optional value that is absent."""
    return np.array(None, object)


def as_python(value: np.ndarray) -> Any:
    """A sequence as a list, an absent value as None; a tensor as it is."""
    if not value.dtype.hasobject:
        return value
    return value.item() if value.ndim == 0 else list(value)


def _place(call: Call, sequence: np.ndarray, position: Any, last: int) -> int:
    """A position between the first and `last`, negative ones counted from the end."""
    place = int(call.scalar(position, "position"))
    call.require(-len(sequence) <= place <= last, "the position must lie inside the sequence", position=place, length=len(sequence))
    return place + len(sequence) if place < 0 else place


@evaluated("SequenceConstruct")
def construct(call: Call, *arrays: np.ndarray) -> np.ndarray:
    return items(arrays)


@evaluated("SequenceEmpty")
def empty(call: Call) -> np.ndarray:
    onnx_dtype(call, call.integer("dtype", 1))
    return items(())


@evaluated("SequenceInsert", values=(2,))
def insert(call: Call, sequence: np.ndarray, array: np.ndarray, position: Any = None) -> np.ndarray:
    place = len(sequence) if position is None else _place(call, sequence, position, len(sequence))
    return items([*sequence[:place], array, *sequence[place:]])


@evaluated("SequenceErase", values=(1,))
def erase(call: Call, sequence: np.ndarray, position: Any = None) -> np.ndarray:
    place = _place(call, sequence, -1 if position is None else position, len(sequence) - 1)
    return items([*sequence[:place], *sequence[place + 1 :]])


@evaluated("SequenceAt", values=(1,))
def at(call: Call, sequence: np.ndarray, position: Any) -> np.ndarray:
    return sequence[_place(call, sequence, position, len(sequence) - 1)]


@evaluated("SequenceLength")
def length(call: Call, sequence: np.ndarray) -> np.ndarray:
    return np.array(len(sequence), np.int64)


@evaluated("ConcatFromSequence")
def concat(call: Call, sequence: np.ndarray) -> np.ndarray:
    join = np.stack if call.integer("new_axis", 0) else np.concatenate
    call.bounded((sum(array.size for array in sequence),))
    return join(list(sequence), axis=call.integer("axis"))


@evaluated("SplitToSequence", values=(1,))
def split(call: Call, x: np.ndarray, lengths: Any = None) -> np.ndarray:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    size = x.shape[axis]
    call.bounded((1 if np.ndim(lengths) else size,), 200, what="the sequence")
    if lengths is None:
        parts = np.split(x, size, axis)
        return items(parts if call.integer("keepdims", 1) else [part.squeeze(axis) for part in parts])
    given = call.ints(lengths, "split")
    if np.ndim(lengths) == 0:
        call.require(given[0] > 0, "the length of a part must be positive", split=given[0])
        return items(np.split(x, range(given[0], size, given[0]), axis))
    call.require(min(given, default=0) >= 0 and sum(given) == size, "the lengths must make up the axis", input=x.shape, split=given)
    return items(np.split(x, np.cumsum(given)[:-1], axis))


@evaluated("Optional")
def optional(call: Call, value: Any = None) -> np.ndarray:
    return nothing() if value is None else value


@evaluated("OptionalHasElement")
def has_element(call: Call, value: Any = None) -> np.ndarray:
    return np.array(value is not None and not (value.dtype.hasobject and value.ndim == 0 and value.item() is None))


@evaluated("OptionalGetElement")
def get_element(call: Call, value: np.ndarray) -> np.ndarray:
    call.require(has_element(call, value), "the optional value is absent")
    return value
