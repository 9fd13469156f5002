"""Batch normalisation with the statistics of the batch (Ioffe and Szegedy, 2015).

With fixed statistics it is one multiplication and one addition per channel and needs no operation of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..records import record
from .base import Op, Spec, floats, require
from .pointwise import Activation, slope_reference, unary_reference

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class BatchNormTraining(Op):
    """``y = activation(gamma * (x - mean) * rstd + beta)`` over all axes but the last.

    Inputs x, gamma, beta, running_mean, running_var; outputs y, mean, rstd and the two running statistics, which are
    updated in place: ``running = (1 - momentum) * running + momentum * batch``, the variance unbiased.
    """

    eps: float
    momentum: float
    activation: Activation | None = None
    aliases: ClassVar[dict[int, int]] = {3: 3, 4: 4}

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        x, *vectors = inputs
        c = x.shape[-1]
        require(
            len(x.shape) >= 2 and all(v.shape == (c,) for v in vectors),
            "batch_norm",
            "weight, bias and statistics must have one element per channel",
            x=x.shape,
            vectors=[v.shape for v in vectors],
        )
        require(math.prod(x.shape[:-1]) > 1, "batch_norm", "training needs more than one value per channel", x=x.shape)
        return (x, *(floats(c) for _ in range(4)))

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None] * 5
        x, gamma, beta = node.inputs[:3]
        return [*graph.add(BatchNormBackward(self.activation), x, grads[0], gamma, beta, *node.outputs[1:3]), None, None]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, gamma, beta, running_mean, running_var = (array.astype(np.float64) for array in inputs)
        axes = tuple(range(x.ndim - 1))
        count = math.prod(x.shape[:-1])
        mean, var = x.mean(axes), x.var(axes)
        rstd = 1 / np.sqrt(var + self.eps)
        y = gamma * (x - mean) * rstd + beta
        if self.activation:
            y = unary_reference(self.activation, y)
        keep = 1 - self.momentum
        return (y, mean, rstd, keep * running_mean + self.momentum * mean, keep * running_var + self.momentum * var * count / (count - 1))

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 7 * inputs[0].size


@record
class BatchNormBackward(Op):
    """Gradients dx, dgamma, dbeta from x, dy, gamma, beta, mean, rstd.

    With xhat = (x - mean) * rstd and dy taken before the activation:
    ``dbeta = sum dy``, ``dgamma = sum dy xhat``, ``dx = gamma rstd (dy - dbeta/m - xhat dgamma/m)``.
    """

    activation: Activation | None = None
    reuses: ClassVar[tuple[int, ...]] = (1, 0)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        x, dy, gamma = inputs[:3]
        require(x == dy, self.name, "gradient and value must agree in shape", x=x.shape, dy=dy.shape)
        return (x, gamma, gamma)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, dy, gamma, beta, mean, rstd = (array.astype(np.float64) for array in inputs)
        axes = tuple(range(x.ndim - 1))
        count = math.prod(x.shape[:-1])
        xhat = (x - mean) * rstd
        if self.activation:
            dy = dy * slope_reference(self.activation, gamma * xhat + beta)
        dbeta, dgamma = dy.sum(axes), (dy * xhat).sum(axes)
        return (gamma * rstd * (dy - dbeta / count - xhat * dgamma / count), dgamma, dbeta)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 11 * inputs[0].size
