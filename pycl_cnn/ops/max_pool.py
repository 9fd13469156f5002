"""Max pooling: regular windows with dilation, and adaptive ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import PoolGeometry
from ..records import record
from .base import INT, Op, Spec, floats, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class MaxPool(Op):
    """Largest element of every window, and with `indices` where it was.

    The index is PyTorch's: ``row * width + column`` in the input plane; the first of equal elements; a NaN wins, the last of several.
    Without `indices` the second output does not exist.
    """

    geometry: PoolGeometry
    indices: bool = False

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        g = self.geometry
        require(inputs[0].shape == g.input_shape, "max_pool", "shapes must fit the geometry", x=inputs[0].shape)
        y = floats(*g.output_shape)
        return (y, Spec(y.shape, INT)) if self.indices else (y,)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None]
        require(self.indices, "max_pool", "indices are needed for the gradient")
        return [graph.apply(MaxPoolBackward(self.geometry), grads[0], node.outputs[1])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        g = self.geometry
        x = inputs[0].astype(np.float64)
        y, where = np.empty(g.output_shape), np.empty(g.output_shape, np.int32)
        for a, (top, bottom) in enumerate(g.rows.windows):
            for b, (left, right) in enumerate(g.cols.windows):
                rows = np.arange(top, bottom, g.rows.dilation)
                cols = np.arange(left, right, g.cols.dilation)
                window = x[:, rows[:, None], cols].reshape(g.batch, -1, g.channels)
                best = np.where(np.isnan(window), np.inf, window).argmax(1)
                nan = np.isnan(window).any(1)
                best = np.where(nan, window.shape[1] - 1 - np.isnan(window)[:, ::-1].argmax(1), best)
                y[:, a, b] = np.take_along_axis(window, best[:, None], 1)[:, 0]
                where[:, a, b] = (rows[:, None] * g.cols.size + cols).ravel()[best]
        return (y, where) if self.indices else (y,)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return outputs[0].size * max(self.geometry.rows.kernel, 1) * max(self.geometry.cols.kernel, 1)


@record
class MaxPoolBackward(Op):
    """Every output's gradient goes to the element that was its largest."""

    geometry: PoolGeometry

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        g = self.geometry
        require(inputs[0].shape == g.output_shape == inputs[1].shape, "max_pool_backward", "shapes must fit the geometry", dy=inputs[0].shape)
        return (floats(*g.input_shape),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        g = self.geometry
        dy, where = inputs[0].astype(np.float64), inputs[1]
        dx = np.zeros((g.batch, g.rows.size * g.cols.size, g.channels))
        n, _, _, c = np.indices(dy.shape)
        np.add.at(dx, (n, where, c), dy)
        return (dx.reshape(g.input_shape),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return inputs[0].size
