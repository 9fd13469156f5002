"""Operations that move elements and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..records import record
from .base import Op, Spec, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


def _take(values: Sequence, permutation: Sequence[int]) -> tuple:
    return tuple(values[axis] for axis in permutation)


def invert(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `permutation`."""
    return tuple(sorted(range(len(permutation)), key=lambda axis: permutation[axis]))


def untransposed(values: Sequence, permutation: Sequence[int]) -> tuple:
    """Attributes given per axis of ``transpose(z, permutation)``, per axis of z."""
    return _take(values, invert(permutation))


@record
class Reshape(Op):
    """The same elements in the same order under another shape: a view."""

    shape: tuple[int, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(math.prod(self.shape) == x.size, "reshape", "the number of elements must stay the same", input=x.shape, shape=self.shape)
        return (Spec(self.shape, x.dtype),)

    def inverse(self, input_shape: tuple[int, ...]) -> Op:
        return Reshape(input_shape)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(Reshape(node.inputs[0].shape), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (inputs[0].reshape(self.shape),)


@record
class Transpose(Op):
    """Axis i of the output is axis ``permutation[i]`` of the input (numpy.transpose)."""

    permutation: tuple[int, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(
            sorted(self.permutation) == list(range(len(x.shape))),
            "transpose",
            "the permutation must name every axis once",
            input=x.shape,
            permutation=self.permutation,
        )
        return (Spec(_take(x.shape, self.permutation), x.dtype),)

    def inverse(self, input_shape: tuple[int, ...]) -> Op:
        return Transpose(invert(self.permutation))

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(Transpose(invert(self.permutation)), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (inputs[0].transpose(self.permutation),)

    @property
    def keeps_order(self) -> bool:
        """Whether it is the identity."""
        return self.permutation == tuple(range(len(self.permutation)))

    def is_view(self, shape: Sequence[int]) -> bool:
        """Whether it only moves axes of length 1 of an input of `shape`, so that a reshape does the same."""
        moved = [axis for axis in self.permutation if shape[axis] != 1]
        return moved == sorted(moved)


@record
class Expand(Op):
    """Axes of length 1 are repeated to `shape`."""

    shape: tuple[int, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(
            len(x.shape) == len(self.shape) and all(n in (1, m) for n, m in zip(x.shape, self.shape, strict=True)),
            "expand",
            "only axes of length 1 can be repeated",
            input=x.shape,
            shape=self.shape,
        )
        return (Spec(self.shape, x.dtype),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        from .reduce import Reduce

        axes = tuple(axis for axis, (n, m) in enumerate(zip(node.inputs[0].shape, self.shape, strict=True)) if n != m)
        return [grads[0] and graph.apply(Reduce("sum", axes, True), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.broadcast_to(inputs[0], self.shape),)

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return Expand(untransposed(self.shape, permutation)), permutation


@record
class Slice(Op):
    """Elements starts, starts + steps, ... before stops, along every axis; steps are positive."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(
            len(x.shape) == len(self.starts) == len(self.stops) == len(self.steps)
            and all(0 <= a <= b <= n and s > 0 for a, b, s, n in zip(self.starts, self.stops, self.steps, x.shape, strict=True)),
            "slice",
            "0 <= start <= stop <= size and step > 0 must hold on every axis",
            input=x.shape,
            starts=self.starts,
            stops=self.stops,
            steps=self.steps,
        )
        return (Spec(tuple(-(-(b - a) // s) for a, b, s in zip(self.starts, self.stops, self.steps, strict=True)), x.dtype),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None]
        shape, out = node.inputs[0].shape, node.outputs[0].shape
        high = tuple(n - a - ((m - 1) * s + 1 if m else 0) for n, a, m, s in zip(shape, self.starts, out, self.steps, strict=True))
        return [graph.apply(Pad(self.starts, high, tuple(s - 1 for s in self.steps)), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (inputs[0][tuple(slice(a, b, s) for a, b, s in zip(self.starts, self.stops, self.steps, strict=True))],)

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        starts, stops, steps = (untransposed(v, permutation) for v in (self.starts, self.stops, self.steps))
        return Slice(starts, stops, steps), permutation


@record
class Pad(Op):
    """`low` elements of `value` before, `high` after, `interior` between neighbours, along every axis."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]
    value: float = 0.0

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        (x,) = inputs
        require(
            len(x.shape) == len(self.low) == len(self.high) == len(self.interior) and min((0, *self.low, *self.high, *self.interior)) >= 0,
            "pad",
            "one amount of at least 0 is needed for every axis",
            input=x.shape,
            low=self.low,
            high=self.high,
            interior=self.interior,
        )
        shape = tuple(a + n + max(n - 1, 0) * i + b for n, a, b, i in zip(x.shape, self.low, self.high, self.interior, strict=True))
        return (Spec(shape, x.dtype),)

    def window(self, shape: Sequence[int]) -> Slice:
        """Where the elements of an input of `shape` lie in the output."""
        stops = tuple(a + (n + (n - 1) * i if n else 0) for a, n, i in zip(self.low, shape, self.interior, strict=True))
        return Slice(self.low, stops, tuple(i + 1 for i in self.interior))

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(self.window(node.inputs[0].shape), grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        y = np.full(self.infer(Spec(x.shape, x.dtype))[0].shape, self.value, x.dtype)
        window = self.window(x.shape)
        y[tuple(slice(a, b, s) for a, b, s in zip(window.starts, window.stops, window.steps, strict=True))] = x
        return (y,)

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        low, high, interior = (untransposed(v, permutation) for v in (self.low, self.high, self.interior))
        return Pad(low, high, interior, self.value), permutation


@record
class Flip(Op):
    """The elements along `axes` in reverse order."""

    axes: tuple[int, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (inputs[0],)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(self, grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.flip(inputs[0], self.axes),)

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return Flip(tuple(sorted(permutation[axis] for axis in self.axes))), permutation


@record
class Concat(Op):
    """Arrays one behind the other along `axis`."""

    axis: int

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        first = inputs[0]
        require(
            all(
                len(x.shape) == len(first.shape) and x.dtype == first.dtype and x.shape[: self.axis] + x.shape[self.axis + 1 :] == first.shape[: self.axis] + first.shape[self.axis + 1 :]
                for x in inputs
            ),
            "cat",
            "all sizes but the one along the axis must agree",
            shapes=[x.shape for x in inputs],
            axis=self.axis,
        )
        length = sum(x.shape[self.axis] for x in inputs)
        return (Spec((*first.shape[: self.axis], length, *first.shape[self.axis + 1 :]), first.dtype),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        (dy,) = grads
        if dy is None:
            return [None] * len(node.inputs)
        result, position = [], 0
        for x in node.inputs:
            starts, stops = [0] * len(x.shape), list(dy.shape)
            starts[self.axis], stops[self.axis] = position, position + x.shape[self.axis]
            position = stops[self.axis]
            result.append(graph.apply(Slice(tuple(starts), tuple(stops), (1,) * len(starts)), dy))
        return result

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.concatenate(inputs, self.axis),)

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return Concat(permutation[self.axis]), permutation


@record
class Copy(Op):
    """The input once more, in storage of its own: for results that would otherwise be a view of something kept."""

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (inputs[0],)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (inputs[0].copy(),)
