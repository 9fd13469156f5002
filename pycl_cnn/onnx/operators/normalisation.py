"""Normalisations and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import functional as F
from ...geometry import AxisRule
from ...ops.base import FLOAT
from ...ops.reduce import Reduce
from ...ops.resample import Resample
from ...trace import Symbol, emit
from ..node import Call, symbol
from .pointwise import binary, unary, wide
from .shapes import reshaped
from .table import evaluated, lowered


def _per_channel(value: Any, rank: int) -> Any:
    """[c] beside [n,c,...]."""
    return value.reshape(-1, *(1,) * (rank - 2)) if isinstance(value, np.ndarray) else reshaped(value, (value.shape[0], *(1,) * (rank - 2)))


def _mean(x: Symbol, axes: Sequence[int]) -> Symbol:
    return emit(Reduce("mean", tuple(axes), True), x.value)


def _standardised(x: Symbol, axes: Sequence[int], eps: float) -> tuple[Symbol, Symbol, Symbol]:
    """``(x - mean) * rstd`` over axes, the mean, and rstd."""
    mean = _mean(x, axes)
    centred = binary("sub", x, mean)
    rstd = unary(unary(_mean(unary(centred, "square"), axes), "affine", 1, eps), "rsqrt")
    return binary("mul", centred, rstd), mean, rstd


def _normalised(x: np.ndarray, axes: Sequence[int], eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = x.mean(tuple(axes), keepdims=True)
    rstd = 1 / np.sqrt(x.var(tuple(axes), keepdims=True) + x.dtype.type(eps))
    return (x - mean) * rstd, mean, rstd


def _scaled(y: Symbol, scale: Symbol, bias: Symbol | None) -> Symbol:
    y = binary("mul", y, scale)
    return y if bias is None else binary("add", y, bias)


# ---- batch ------------------------------------------------------------------------------------------------------------


def _check_batch_norm(call: Call, x: Any, vectors: Sequence[Any]) -> None:
    call.require(call.opset >= 9 or call.integer("spatial", 1) == 1, "statistics per activation (spatial=0) are not supported")
    call.require(len(x.shape) >= 2 and all(v.shape == (x.shape[1],) for v in vectors), "one element is needed for every channel", input=x.shape, vectors=[v.shape for v in vectors])


@evaluated("BatchNormalization")
def batch_norm(call: Call, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, ...]:
    _check_batch_norm(call, x, (scale, bias, mean, var))
    eps, momentum, source = call.number("epsilon", 1e-5), call.number("momentum", 0.9), wide(x)
    updated: list[np.ndarray] = []
    if call.integer("training_mode", 0):
        axes = (0, *range(2, x.ndim))
        now_mean, now_var = source.mean(axes), source.var(axes)
        updated = [(old * momentum + now * (1 - momentum)).astype(old.dtype) for old, now in ((mean, now_mean), (var, now_var))]
        mean, var = now_mean, now_var
    rank = x.ndim
    factor = _per_channel(wide(scale) / np.sqrt(wide(var) + np.float32(eps)), rank)
    return (((source - _per_channel(wide(mean), rank)) * factor + _per_channel(wide(bias), rank)).astype(x.dtype), *updated)


@lowered("BatchNormalization")
def lower_batch_norm(call: Call, x: Any, *vectors: Any) -> Any:
    """With given statistics an affine map; a model in training mode takes the batch's, and its running ones follow (as in PyTorch)."""
    _check_batch_norm(call, x, vectors)
    eps, momentum, rank = call.number("epsilon", 1e-5), call.number("momentum", 0.9), len(x.shape)
    if 0 in x.shape:
        return NotImplemented
    x, (scale, bias, mean, var) = symbol(x, call), (symbol(v, call) for v in vectors)
    if call.integer("training_mode", 0):
        axes = (0, *range(2, rank))
        now_mean = _mean(x, axes)
        centred = binary("sub", x, now_mean)
        spread = _mean(unary(centred, "square"), axes)
        y = binary("mul", centred, unary(unary(spread, "affine", 1, eps), "rsqrt"))
        y = _scaled(y, _per_channel(scale, rank), _per_channel(bias, rank))
        follow = [
            binary("add", unary(old, "affine", momentum), unary(reshaped(new, old.shape), "affine", 1 - momentum)) for old, new in ((mean, now_mean), (var, spread))
        ]
        return (y, *follow)
    training = call.training and call.outputs == 1
    if rank == 4 or (rank in (2, 3) and training):
        return F.batch_norm(x, mean, var, scale, bias, training, 1 - momentum, eps)
    if training:
        return NotImplemented
    factor = binary("mul", scale, unary(unary(var, "affine", 1, eps), "rsqrt"))
    shift = binary("sub", bias, binary("mul", mean, factor))
    return _scaled(x, _per_channel(factor, rank), _per_channel(shift, rank))


# ---- instance, layer, group -------------------------------------------------------------------------------------------


@evaluated("InstanceNormalization")
def instance_norm(call: Call, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y, _, _ = _normalised(wide(x), range(2, x.ndim), call.number("epsilon", 1e-5))
    return (y * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)).astype(x.dtype)


@lowered("InstanceNormalization")
def lower_instance_norm(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    if 0 in x.shape:
        return NotImplemented
    x, scale, bias = (symbol(v, call) for v in (x, scale, bias))
    y, _, _ = _standardised(x, range(2, x.ndim), call.number("epsilon", 1e-5))
    return _scaled(y, _per_channel(scale, x.ndim), _per_channel(bias, x.ndim))


def _layer_axes(call: Call, x: Any) -> tuple[int, ...]:
    return tuple(range(call.axis(call.integer("axis", -1), len(x.shape)), len(x.shape)))


@evaluated("LayerNormalization")
def layer_norm(call: Call, x: np.ndarray, scale: np.ndarray, bias: Any = None) -> tuple[np.ndarray, ...]:
    y, mean, rstd = _normalised(wide(x), _layer_axes(call, x), call.number("epsilon", 1e-5))
    y = y * scale if bias is None else y * scale + bias
    return y.astype(x.dtype), mean.astype(np.float32), rstd.astype(np.float32)


@lowered("LayerNormalization")
def lower_layer_norm(call: Call, x: Any, scale: Any, bias: Any = None) -> Any:
    if 0 in x.shape:
        return NotImplemented
    y, mean, rstd = _standardised(symbol(x, call), _layer_axes(call, x), call.number("epsilon", 1e-5))
    return _scaled(y, symbol(scale, call), None if bias is None else symbol(bias, call)), mean, rstd


@evaluated("RMSNormalization")
def rms_norm(call: Call, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    axes, source = _layer_axes(call, x), wide(x)
    rms = np.sqrt((source * source).mean(axes, keepdims=True) + np.float32(call.number("epsilon", 1e-5)))
    return (source / rms * scale).astype(x.dtype)


@lowered("RMSNormalization")
def lower_rms_norm(call: Call, x: Any, scale: Any) -> Any:
    if 0 in x.shape:
        return NotImplemented
    x = symbol(x, call)
    mean = _mean(unary(x, "square"), _layer_axes(call, x))
    return _scaled(binary("mul", x, unary(unary(mean, "affine", 1, call.number("epsilon", 1e-5)), "rsqrt")), symbol(scale, call), None)


def _groups(call: Call, x: Any) -> tuple[int, tuple[int, ...]]:
    """How many groups, and x's shape with an axis for them."""
    groups = call.integer("num_groups")
    call.require(len(x.shape) > 2 and groups > 0 and x.shape[1] % groups == 0, "num_groups must divide the channels", input=x.shape, num_groups=groups)
    return groups, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


@evaluated("GroupNormalization")
def group_norm(call: Call, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    groups, shape = _groups(call, x)
    y, _, _ = _normalised(wide(x).reshape(shape), range(2, len(shape)), call.number("epsilon", 1e-5))
    if call.opset < 21:  # one factor for each group
        scale, bias = (np.repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return (y.reshape(x.shape) * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)).astype(x.dtype)


@lowered("GroupNormalization")
def lower_group_norm(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    if 0 in x.shape:
        return NotImplemented
    groups, shape = _groups(call, x)
    x, scale, bias = (symbol(v, call) for v in (x, scale, bias))
    flat = reshaped(x, (x.shape[0], groups, math.prod(shape[2:])))
    y, _, _ = _standardised(flat, (2,), call.number("epsilon", 1e-5))
    if call.opset < 21:
        return reshaped(_scaled(y, reshaped(scale, (groups, 1)), reshaped(bias, (groups, 1))), x.shape)
    return _scaled(reshaped(y, x.shape), _per_channel(scale, x.ndim), _per_channel(bias, x.ndim))


# ---- others -----------------------------------------------------------------------------------------------------------


def _neighbours(call: Call, channels: int) -> list[range]:
    """For each channel those whose squares it counts."""
    size = call.integer("size")
    call.require(size > 0, "size must be positive", size=size)
    call.bounded((channels, min(size, channels)), 100, what="the table of neighbours")
    return [range(max(c - (size - 1) // 2, 0), min(c + math.ceil((size - 1) / 2) + 1, channels)) for c in range(channels)]


@evaluated("LRN")
def local_response_norm(call: Call, x: np.ndarray) -> np.ndarray:
    source = wide(x)
    squares = np.stack([(source[:, list(near)] ** 2).sum(1) for near in _neighbours(call, x.shape[1])], 1)
    base = call.number("bias", 1.0) + call.number("alpha", 1e-4) / call.integer("size") * squares
    return (source / base ** call.number("beta", 0.75)).astype(x.dtype)


@lowered("LRN")
def lower_local_response_norm(call: Call, x: Symbol) -> Any:
    call.require(x.ndim >= 2, "the input must be [n,c,...]", input=x.shape)
    if 0 in x.shape:
        return NotImplemented
    n, c = x.shape[:2]
    near = AxisRule.of_rows(c, [[(other, 1.0) for other in channels] for channels in _neighbours(call, c)])
    inner = math.prod(x.shape[2:])
    squares = emit(Resample(near, AxisRule.of_rows(1, [[(0, 1.0)]])), reshaped(unary(x, "square"), (n, c, 1, inner)).value)
    base = unary(squares, "affine", call.number("alpha", 1e-4) / call.integer("size"), call.number("bias", 1.0))
    return binary("mul", x, reshaped(unary(base, "pow", -call.number("beta", 0.75)), x.shape))


def _variance_axes(call: Call, x: Any) -> tuple[int, ...]:
    return call.axes(call.integers("axes", (0, 2, 3)), len(x.shape))


@evaluated("MeanVarianceNormalization")
def mean_variance_norm(call: Call, x: np.ndarray) -> np.ndarray:
    source, axes = wide(x), _variance_axes(call, x)
    return ((source - source.mean(axes, keepdims=True)) / (source.std(axes, keepdims=True) + np.float32(1e-9))).astype(x.dtype)


@lowered("MeanVarianceNormalization")
def lower_mean_variance_norm(call: Call, x: Symbol) -> Any:
    if 0 in x.shape:
        return NotImplemented
    axes = _variance_axes(call, x)
    centred = binary("sub", x, _mean(x, axes))
    deviation = unary(unary(_mean(unary(centred, "square"), axes), "sqrt"), "affine", 1, 1e-9)
    return binary("div", centred, deviation)


@evaluated("LpNormalization")
def lp_norm(call: Call, x: np.ndarray) -> np.ndarray:
    axis, p, source = call.axis(call.integer("axis", -1), x.ndim), call.integer("p", 2), wide(x)
    norm = np.abs(source).sum(axis, keepdims=True) if p == 1 else np.sqrt((source * source).sum(axis, keepdims=True))
    return np.where(norm == 0, 0, source / np.where(norm == 0, 1, norm)).astype(x.dtype)


@lowered("LpNormalization")
def lower_lp_norm(call: Call, x: Symbol) -> Any:
    if 0 in x.shape:
        return NotImplemented
    axis = (call.axis(call.integer("axis", -1), x.ndim),)
    one = call.integer("p", 2) == 1
    total = emit(Reduce("sum", axis, True), unary(x, "abs" if one else "square").value)
    norm = total if one else unary(total, "sqrt")
    nothing = binary("eq", norm, symbol(np.float32(0), call))  # zeros stay zeros
    return binary("div", x, binary("add", norm, nothing))


# ---- dropout ----------------------------------------------------------------------------------------------------------


def _dropout(call: Call, ratio: Any, training: Any) -> tuple[float, bool]:
    """The probability, and whether the model says that elements are dropped at inference as well."""
    if call.opset < 12:
        return call.number("ratio", 0.5), False
    probability = 0.5 if ratio is None else float(call.scalar(ratio, "ratio"))
    return probability, training is not None and bool(call.scalar(training, "training_mode"))


@evaluated("Dropout", values=(1, 2))
def dropout(call: Call, x: np.ndarray, ratio: Any = None, training: Any = None) -> tuple[np.ndarray, ...]:
    probability, always = _dropout(call, ratio, training)
    if not always or probability == 0:
        return x, np.ones(x.shape, bool if call.opset >= 10 else x.dtype)
    kept = np.random.RandomState(call.integer("seed", 0)).uniform(0, 1, x.shape) >= probability
    return (x * kept / (1 - probability)).astype(x.dtype), kept


@lowered("Dropout", any_dtype=True, values=(1, 2))
def lower_dropout(call: Call, x: Symbol, ratio: Any = None, training: Any = None) -> Any:
    """At inference the input; a model in training mode drops."""
    probability, always = _dropout(call, ratio, training)
    if call.wants(1) or (always and probability > 0):
        return NotImplemented
    return F.dropout(x, probability, True) if call.training and x.dtype == FLOAT else x
