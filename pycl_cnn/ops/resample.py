"""Separable linear maps over rows and columns: average pooling of every kind, and interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import AxisRule
from ..records import record
from .base import Op, Spec, floats, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


def axis_matrix(rule: AxisRule) -> np.ndarray:
    """The rule's map along one axis, as a whole matrix."""
    matrix = np.zeros(rule.shape)
    starts, index, weight = rule.table
    for i in range(rule.shape[0]):
        for j in range(starts[i], starts[i + 1]):
            matrix[i, index[j]] += weight[j]
    return matrix


@record
class Resample(Op):
    """``y[n,a,b,c] = sum_h sum_w R[a,h] C[b,w] x[n,h,w,c]`` with sparse R and C; its gradient is the same with R^T and C^T."""

    rows: AxisRule
    cols: AxisRule

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        sizes = (self.rows.shape[1], self.cols.shape[1])
        require(len(x.shape) == 4 and x.shape[1:3] == sizes, "resample", "the input's height and width must fit the rules", x=x.shape, sizes=sizes)
        return (floats(x.shape[0], self.rows.shape[0], self.cols.shape[0], x.shape[3]),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(Resample(self.rows.transpose(), self.cols.transpose()), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.einsum("ah,nhwc,bw->nabc", axis_matrix(self.rows), inputs[0].astype(np.float64), axis_matrix(self.cols), optimize=True),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        n, _, _, c = outputs[0].shape
        return 2 * n * c * len(self.rows.table[1]) * len(self.cols.table[1])
