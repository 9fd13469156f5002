"""Softmax and its logarithm, and the gradient of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..records import record
from .base import Op, Spec, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class Softmax(Op):
    """``exp(x - max) / sum(exp(x - max))`` along `axis`, or the logarithm of that."""

    axis: int
    log: bool = False
    reuses: ClassVar[tuple[int, ...]] = (0,)

    @property
    def name(self) -> str:
        return "log_softmax" if self.log else "softmax"

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        require(0 <= self.axis < len(inputs[0].shape), self.name, "the axis must be one of the input's", input=inputs[0].shape, axis=self.axis)
        return (inputs[0],)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(SoftmaxBackward(self.axis, self.log), node.outputs[0], grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x = inputs[0].astype(np.float64)
        shifted = x - x.max(self.axis, keepdims=True)
        total = np.exp(shifted).sum(self.axis, keepdims=True)
        return (shifted - np.log(total) if self.log else np.exp(shifted) / total,)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 5 * outputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return Softmax(permutation[self.axis], self.log), permutation


@record
class SoftmaxBackward(Op):
    """``y * (dy - sum(y * dy))``; for the logarithm ``dy - exp(y) * sum(dy)``."""

    axis: int
    log: bool = False

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        require(inputs[0] == inputs[1], self.name, "gradient and value must agree in shape", y=inputs[0].shape, dy=inputs[1].shape)
        return (inputs[0],)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        y, dy = (array.astype(np.float64) for array in inputs)
        if self.log:
            return (dy - np.exp(y) * dy.sum(self.axis, keepdims=True),)
        return (y * (dy - (y * dy).sum(self.axis, keepdims=True)),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 4 * outputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return SoftmaxBackward(permutation[self.axis], self.log), permutation
