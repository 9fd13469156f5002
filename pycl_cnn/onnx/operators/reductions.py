"""Reductions over axes, arg-extremes, the largest k, cumulative sums, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.reduce import Reduce
from ...ops.softmax import Softmax
from ...trace import Symbol, emit
from ..node import Call
from .pointwise import binary, unary, wide
from .shapes import reshaped
from .table import evaluated, lowered

REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")

#: Since which opset the axes are an input.
_AXES_INPUT = {"ReduceSum": 13}


def _axes(call: Call, x: Any, axes: Any) -> tuple[int, ...] | None:
    """The axes to reduce, ascending; None where nothing is to be reduced."""
    rank = len(x.shape)
    if call.opset < _AXES_INPUT.get(call.op, 18):
        return call.axes(call.integers("axes", range(rank)), rank)
    given = () if axes is None else call.ints(axes, "axes")
    if given:
        return call.axes(given, rank)
    return None if call.integer("noop_with_empty_axes", 0) else tuple(range(rank))


def _least(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _largest(dtype: np.dtype) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _log_sum_exp(x: np.ndarray, **where: Any) -> np.ndarray:
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    top = x.max(axis=where["axis"], keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    total = np.log(np.exp(x - top).sum(**where))
    return total + top.reshape(total.shape)


_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "ReduceSum": lambda x, **where: x.sum(**where),
    "ReduceMean": lambda x, **where: x.mean(**where),
    "ReduceMax": lambda x, **where: x.max(initial=_least(x.dtype), **where),
    "ReduceMin": lambda x, **where: x.min(initial=_largest(x.dtype), **where),
    "ReduceProd": lambda x, **where: x.prod(**where),
    "ReduceL1": lambda x, **where: np.abs(x).sum(**where),
    "ReduceL2": lambda x, **where: np.sqrt((x * x).sum(**where)),
    "ReduceLogSum": lambda x, **where: np.log(x.sum(**where)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": lambda x, **where: (x * x).sum(**where),
}


@evaluated(*REDUCTIONS, values=(1,))
def reduced(call: Call, x: np.ndarray, axes: Any = None) -> np.ndarray:
    chosen = _axes(call, x, axes)
    function = _FUNCTIONS[call.op]
    source = wide(x) if x.dtype.kind in "fV" else x
    if chosen is None:  # every element is reduced by itself
        return x if call.op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd") else function(source, axis=(), keepdims=True).astype(x.dtype)
    return np.asarray(function(source, axis=chosen, keepdims=bool(call.integer("keepdims", 1)))).astype(x.dtype)


@lowered(*REDUCTIONS, values=(1,))
def lower_reduced(call: Call, x: Symbol, axes: Any = None) -> Any:
    chosen, keep = _axes(call, x, axes), bool(call.integer("keepdims", 1))
    if 0 in x.shape:
        return NotImplemented
    if chosen is None:
        chosen, keep = (), True

    def over(y: Symbol, kind: str) -> Symbol:
        return emit(Reduce(kind, chosen, keep), y.value) if chosen else y

    plain = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}
    if call.op in plain:
        return over(x, plain[call.op])
    if call.op == "ReduceL1":
        return over(unary(x, "abs"), "sum")
    if call.op == "ReduceLogSum":
        return unary(over(x, "sum"), "log")
    if call.op == "ReduceLogSumExp":
        return NotImplemented if not chosen else _lower_log_sum_exp(x, chosen, keep)
    squares = over(unary(x, "square"), "sum")
    return unary(squares, "sqrt") if call.op == "ReduceL2" else squares


def _lower_log_sum_exp(x: Symbol, axes: tuple[int, ...], keep: bool) -> Symbol:
    most = float(np.finfo(np.float32).max)
    top = unary(emit(Reduce("max", axes, True), x.value), "clip", -most, most)  # inf - inf would be NaN
    total = unary(emit(Reduce("sum", axes, True), unary(binary("sub", x, top), "exp").value), "log")
    y = binary("add", total, top)
    return y if keep else reshaped(y, [n for axis, n in enumerate(x.shape) if axis not in axes])


@evaluated("ArgMax", "ArgMin")
def arg_extreme(call: Call, x: np.ndarray) -> np.ndarray:
    axis = call.axis(call.integer("axis", 0), x.ndim)
    call.require(x.shape[axis] > 0, "there is no extreme of no elements", input=x.shape)
    find = np.argmax if call.op == "ArgMax" else np.argmin
    if call.integer("select_last_index", 0):
        where = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
    else:
        where = find(x, axis=axis)
    where = np.asarray(where, np.int64)
    return np.expand_dims(where, axis) if call.integer("keepdims", 1) else where


@evaluated("TopK", values=(1,))
def top_k(call: Call, x: np.ndarray, k: Any = None) -> tuple[np.ndarray, np.ndarray]:
    count = call.integer("k") if call.opset < 10 else int(call.scalar(k, "k"))
    axis = call.axis(call.integer("axis", -1), x.ndim)
    call.require(0 <= count <= x.shape[axis], "k must lie between 0 and the axis' length", k=count, input=x.shape)
    moved = np.moveaxis(x, axis, -1)
    if call.integer("largest", 1):  # of equal elements the first comes first
        order = moved.shape[-1] - 1 - np.argsort(moved[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(moved, axis=-1, kind="stable")
    where = order[..., :count]
    values = np.take_along_axis(moved, where, -1)
    return np.moveaxis(values, -1, axis), np.moveaxis(where, -1, axis).astype(np.int64)


@evaluated("CumSum", "CumProd", values=(1,))
def cumulative(call: Call, x: np.ndarray, axis_input: Any) -> np.ndarray:
    axis = call.axis(int(call.scalar(axis_input, "axis")), x.ndim)
    y = np.flip(x, axis) if call.integer("reverse", 0) else x
    accumulate, neutral = (np.cumsum, 0) if call.op == "CumSum" else (np.cumprod, 1)
    result = accumulate(wide(y) if x.dtype.kind == "f" else y, axis=axis)
    if call.integer("exclusive", 0):
        first = np.full_like(np.take(result, [0], axis) if result.shape[axis] else result, neutral)
        result = np.concatenate([first, np.take(result, range(result.shape[axis] - 1), axis)], axis)
    return (np.flip(result, axis) if call.integer("reverse", 0) else result).astype(x.dtype)


# ---- softmax ----------------------------------------------------------------------------------------------------------


def _softmax_form(call: Call, x: Any) -> tuple[tuple[int, ...], int]:
    """The shape in which it is done, and the axis: before opset 13 all axes from `axis` on were one."""
    rank = len(x.shape)
    if call.opset >= 13:
        return x.shape, call.axis(call.integer("axis", -1), rank)
    axis = call.axis(call.integer("axis", 1), rank, inclusive=True)
    return (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), 1


@evaluated("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call, x: np.ndarray) -> np.ndarray:
    shape, axis = _softmax_form(call, x)
    source = (x if x.dtype.kind == "f" else wide(x)).reshape(shape)
    if 0 in shape:
        return x.copy()
    if call.op == "Hardmax":
        y = np.zeros_like(source)
        np.put_along_axis(y, np.expand_dims(source.argmax(axis), axis), 1, axis)
    else:
        shifted = source - source.max(axis, keepdims=True)
        total = np.exp(shifted).sum(axis, keepdims=True)
        y = shifted - np.log(total) if call.op == "LogSoftmax" else np.exp(shifted) / total
    return y.reshape(x.shape).astype(x.dtype)


@lowered("Softmax", "LogSoftmax")
def lower_softmax(call: Call, x: Symbol) -> Symbol:
    shape, axis = _softmax_form(call, x)
    if call.opset < 13:
        own = call.axis(call.integer("axis", 1), x.ndim, inclusive=True)
        if math.prod(x.shape[own + 1 :]) == 1 and own < x.ndim:  # nothing to make one axis of
            shape, axis = x.shape, own
    y = emit(Softmax(axis, call.op == "LogSoftmax"), reshaped(x, shape).value)
    return reshaped(y, x.shape)
