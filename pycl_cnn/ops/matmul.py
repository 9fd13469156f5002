"""Matrix product: the dense layer, and with its two transposed forms its own gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..records import record
from .base import Spec, floats, require
from .conv import PLAIN, Epilogue, FusedOp

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class MatMul(FusedOp):
    """``y[m,n] = op(a) op(b)``, where op transposes when the flag says so."""

    transpose_a: bool = False
    transpose_b: bool = False
    epilogue: Epilogue = PLAIN

    def sizes(self, a: Spec, b: Spec) -> tuple[int, int, int]:
        """(m, n, k); k is the length of the sums."""
        k, m = a.shape if self.transpose_a else a.shape[::-1]
        n, inner = b.shape if self.transpose_b else b.shape[::-1]
        require(k == inner, "matmul", "inner sizes must agree", a=a.shape, b=b.shape, transpose_a=self.transpose_a, transpose_b=self.transpose_b)
        return m, n, k

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        a, b = inputs[:2]
        require(len(a.shape) == len(b.shape) == 2, "matmul", "both operands must be matrices", a=a.shape, b=b.shape)
        m, n, _ = self.sizes(a, b)
        self.epilogue.check("matmul", inputs[2:], n, floats(m, n))
        return (floats(m, n),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None] * len(node.inputs)
        dy, extra = self.epilogue.gradient(graph, node, grads[0])
        a, b = node.inputs[:2]
        if self.transpose_a:
            da = graph.apply(MatMul(self.transpose_b, True), b, dy)
        else:
            da = graph.apply(MatMul(False, not self.transpose_b), dy, b)
        if self.transpose_b:
            db = graph.apply(MatMul(True, self.transpose_a), dy, a)
        else:
            db = graph.apply(MatMul(not self.transpose_a, False), a, dy)
        return [da, db, *extra]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = (array.astype(np.float64) for array in inputs[:2])
        y = (a.T if self.transpose_a else a) @ (b.T if self.transpose_b else b)
        return (self.epilogue.reference(y, inputs[2:]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        k = inputs[0].shape[0 if self.transpose_a else 1]
        return 2 * k * outputs[0].size + self.epilogue.flops(outputs[0])
