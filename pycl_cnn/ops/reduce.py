"""Sums, means, products and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..records import record
from .base import Op, Spec, require
from .movement import Expand, Reshape
from .pointwise import Activation, Binary, Unary

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value

REDUCE_KINDS = {"sum": 0, "mean": 1, "max": 2, "min": 3, "prod": 4}


@record
class Reduce(Op):
    """One value for all elements along `axes`."""

    kind: str
    axes: tuple[int, ...]
    keepdims: bool = False

    @property
    def name(self) -> str:
        return self.kind

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(
            all(0 <= axis < len(x.shape) for axis in self.axes) and len(set(self.axes)) == len(self.axes),
            self.kind,
            "axes must be different axes of the input",
            input=x.shape,
            axes=self.axes,
        )
        empty = any(x.shape[axis] == 0 for axis in self.axes)
        require(not (empty and self.kind in ("max", "min")), self.kind, "there is no extreme of no elements", input=x.shape, axes=self.axes)
        if self.keepdims:
            return (Spec(tuple(1 if axis in self.axes else n for axis, n in enumerate(x.shape)), x.dtype),)
        return (Spec(tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes), x.dtype),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        (dy,) = grads
        if dy is None:
            return [None]
        (x,) = node.inputs
        kept = tuple(1 if axis in self.axes else n for axis, n in enumerate(x.shape))

        def spread(value: Value) -> Value:
            return graph.apply(Expand(x.shape), graph.apply(Reshape(kept), value))

        if self.kind == "sum":
            return [spread(dy)]
        if self.kind == "mean":
            count = math.prod(x.shape[axis] for axis in self.axes)
            return [spread(graph.apply(Unary(Activation("affine", 1.0 / max(count, 1))), dy))]
        y = graph.apply(Reshape(kept), node.outputs[0])
        if self.kind == "prod":
            return [graph.apply(Binary("div"), graph.apply(Binary("mul"), spread(dy), y), x)]
        # Extremes that occur several times share the gradient, as in PyTorch's amax.
        mask = graph.apply(Binary("eq"), x, y)
        count_of = graph.apply(Reduce("sum", self.axes, True), mask)
        share = graph.apply(Binary("div"), graph.apply(Reshape(kept), dy), count_of)
        return [graph.apply(Binary("mul"), mask, share)]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        functions = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}
        x = inputs[0].astype(np.float64)
        return (np.asarray(functions[self.kind](x, axis=self.axes, keepdims=self.keepdims)) if self.axes else x,)  # type: ignore[operator]

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return inputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        op = Reduce(self.kind, tuple(sorted(permutation[axis] for axis in self.axes)), self.keepdims)
        if self.keepdims:
            return op, permutation
        kept = [axis for index, axis in enumerate(permutation) if index not in self.axes]
        return op, tuple(sorted(kept).index(axis) for axis in kept)
