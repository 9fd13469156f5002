"""Batch normalisation and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph import Value
from ..ops.batch_norm import BatchNormTraining
from ..ops.dropout import Dropout
from ..ops.movement import Transpose
from ..ops.pointwise import Activation, Binary, Unary
from ..trace import Symbol, active_tracer, as_symbol, emit, floating
from .door import operation


@operation
def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> Any:
    """Batch normalisation per channel of [n,c], [n,c,l] or [n,c,h,w]. Raises ShapeError.

    With fixed statistics ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``; in training the statistics of the
    batch, and a module's running ones follow with `momentum` (the variance unbiased).
    """
    name = "batch_norm"
    x = floating(as_symbol(input, name), name)
    rank = len(x.shape)
    if rank not in (2, 3, 4):
        raise ShapeError(name, "the input must be [n,c], [n,c,l] or [n,c,h,w]", input=x.shape)
    last = layout in ("NHWC", "NLC") or rank == 2
    channels = x.shape[-1 if last else 1]
    if not last:
        x = emit(Transpose((0, *range(2, rank), 1)), x).value

    def vector(given: Any, fill: float, argument: str) -> Value:
        value = as_symbol(np.full(channels, fill, np.float32) if given is None else given, name)
        if value.shape != (channels,):
            raise ShapeError(name, f"{argument} must have one element per channel", channels=channels, shape=value.shape)
        return floating(value, name, argument)

    gamma, beta = vector(weight, 1.0, "weight"), vector(bias, 0.0, "bias")
    mean, var = vector(running_mean, 0.0, "running_mean"), vector(running_var, 1.0, "running_var")
    if training:
        tracer = active_tracer()
        assert tracer is not None
        updates = tracer.graph.updates
        present = [updates.get(state, state) for state in (mean, var)]  # a module applied twice goes on from its own update
        y_value, _, _, *updated = tracer.graph.add(BatchNormTraining(eps, momentum), x, gamma, beta, *present)
        for state, new in zip((mean, var), updated, strict=True):
            if any(state is known for known in tracer.graph.states.values()):
                updates[state] = new
        y = Symbol(y_value)
    else:
        deviation = emit(Unary(Activation("affine", 1.0, eps)), var)
        scale = emit(Binary("mul"), gamma, emit(Unary(Activation("rsqrt")), deviation.value).value)
        shift = emit(Binary("sub"), beta, emit(Binary("mul"), mean, scale.value).value)
        y = emit(Binary("add"), emit(Binary("mul"), x, scale.value).value, shift.value)
    return y if last else emit(Transpose((0, rank - 1, *range(1, rank - 1))), y.value)


@operation
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Each element is zeroed with probability `p`, the others scaled by ``1/(1-p)``; the identity unless `training`.

    Outside a model the draw is that of seed 0 and step 0: the same at every call. Raises ShapeError.
    """
    x = floating(as_symbol(input, "dropout"), "dropout")
    if not 0 <= p <= 1:
        raise ShapeError("dropout", "the probability must lie between 0 and 1", p=p)
    if not training or p == 0:
        return Symbol(x)
    if p == 1:
        return emit(Unary(Activation("affine", 0.0)), x)
    tracer = active_tracer()
    assert tracer is not None
    rng, stream = tracer.random()
    return emit(Dropout(float(p), stream), x, rng)
