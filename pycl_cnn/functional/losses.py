"""Losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph import Value
from ..ops.loss import CrossEntropy, LabelMask
from ..ops.movement import Reshape, Transpose
from ..ops.pointwise import Activation, Binary, Unary
from ..ops.reduce import Reduce
from ..ops.softmax import Softmax
from ..trace import Symbol, as_symbol, emit, floating
from .door import operation


def _reduction(name: str, loss: Symbol, reduction: str) -> Symbol:
    if reduction not in ("mean", "sum", "none"):
        raise ShapeError(name, 'reduction must be "mean", "sum" or "none"', reduction=reduction)
    return loss if reduction == "none" else emit(Reduce(reduction, tuple(range(loss.ndim))), loss.value)


@operation
def cross_entropy(input: Any, target: Any, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> Any:
    """Cross entropy of logits [n,c] or [n,c,h,w] with labels [n] or [n,h,w], or with probabilities of the logits' shape.

    "mean" divides by the number of labels that are not `ignore_index`. Raises ShapeError.
    """
    name = "cross_entropy"
    logits, labels = floating(as_symbol(input, name), name), as_symbol(target, name).value
    if len(logits.shape) < 2:
        raise ShapeError(name, "logits must be [n,c] or [n,c,...]", input=logits.shape)
    if not 0 <= label_smoothing <= 1:
        raise ShapeError(name, "label_smoothing must lie between 0 and 1", label_smoothing=label_smoothing)
    n, classes, *places = logits.shape
    if labels.dtype == np.float32:
        if labels.shape != logits.shape:
            raise ShapeError(
                name, "probabilities must have the logits' shape (labels must be integers)", input=logits.shape, target=labels.shape
            )
        if label_smoothing:
            labels = emit(Unary(Activation("affine", 1 - label_smoothing, label_smoothing / classes)), labels).value
        weighted = emit(Binary("mul"), emit(Softmax(1, log=True), logits).value, labels)
        loss = emit(Unary(Activation("neg")), emit(Reduce("sum", (1,)), weighted.value).value)
        if reduction == "mean":
            total = emit(Reduce("sum", tuple(range(loss.ndim))), loss.value)
            return emit(Unary(Activation("affine", 1.0 / max(math.prod(loss.shape), 1))), total.value)
        return _reduction(name, loss, reduction)
    if labels.shape != (n, *places):
        raise ShapeError(name, "one label is needed per row", input=logits.shape, target=labels.shape)
    if places:
        rank = len(logits.shape)
        logits = emit(Transpose((0, *range(2, rank), 1)), logits).value
        logits = emit(Reshape((n * math.prod(places), classes)), logits).value
        labels = emit(Reshape((n * math.prod(places),)), labels).value
    loss = emit(CrossEntropy(float(label_smoothing), int(ignore_index)), logits, labels)
    if reduction == "mean":
        counted = emit(Reduce("sum", (0,)), emit(LabelMask(int(ignore_index)), labels).value)
        return emit(Binary("div"), emit(Reduce("sum", (0,)), loss.value).value, counted.value)
    return emit(Reshape((n, *places)), loss.value) if reduction == "none" else _reduction(name, loss, reduction)


def _difference(name: str, input: Any, target: Any) -> tuple[Value, Value]:
    x, t = floating(as_symbol(input, name), name), floating(as_symbol(target, name), name, "target")
    if x.shape != t.shape:
        raise ShapeError(name, "input and target must have the same shape", input=x.shape, target=t.shape)
    return x, t


@operation
def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Mean of the squared differences."""
    x, t = _difference("mse_loss", input, target)
    square_of = emit(Unary(Activation("square")), emit(Binary("sub"), x, t).value)
    return _reduction("mse_loss", square_of, reduction)


@operation
def binary_cross_entropy_with_logits(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """``softplus(x) - x * t``: the cross entropy of sigmoid(x) with targets between 0 and 1, without overflow."""
    name = "binary_cross_entropy_with_logits"
    x, t = _difference(name, input, target)
    loss = emit(Binary("sub"), emit(Unary(Activation("softplus")), x).value, emit(Binary("mul"), x, t).value)
    return _reduction(name, loss, reduction)
