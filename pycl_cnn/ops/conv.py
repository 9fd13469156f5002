"""Convolution and its two gradients: three operations that are each other's derivatives.

Layouts are channels last: x[n,h,w,c], w[k,r,s,c/groups], y[n,oh,ow,k]. "Convolution" is cross-correlation, as everywhere
in deep learning; the flipped, mathematical one is the same operation on flipped weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import ConvGeometry
from ..records import record
from .base import Op, Spec, floats, require
from .pointwise import Activation, unary_reference

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class Epilogue:
    """What happens to a result before it is stored: ``activation(result + bias + residual)``."""

    bias: bool = False
    residual: bool = False
    activation: Activation | None = None

    @property
    def operands(self) -> int:
        """Number of inputs that the epilogue adds to its operation."""
        return self.bias + self.residual

    def check(self, operation: str, extra: Sequence[Spec], channels: int, output: Spec) -> None:
        require(len(extra) == self.operands, operation, "bias and residual must be given as announced", operands=len(extra))
        if self.bias:
            require(extra[0].shape == (channels,), operation, "the bias must have one element per output channel", bias=extra[0].shape, channels=channels)
        if self.residual:
            require(extra[-1] == output, operation, "the residual must have the output's shape", residual=extra[-1].shape, output=output.shape)

    def reference(self, y: np.ndarray, extra: Sequence[np.ndarray]) -> np.ndarray:
        for operand in extra:
            y = y + operand.astype(np.float64)
        return y if self.activation is None else unary_reference(self.activation, y)

    def gradient(self, graph: Graph, node: Node, dy: Value) -> tuple[Value, list[Value | None]]:
        """Gradient of the result before the epilogue, and those of bias and residual."""
        from .reduce import Reduce

        require(self.activation is None, node.op.name, "differentiate before activations are fused")
        extra: list[Value | None] = []
        if self.bias:
            extra.append(graph.apply(Reduce("sum", tuple(range(len(dy.shape) - 1)), False), dy))
        if self.residual:
            extra.append(dy)
        return dy, extra

    def flops(self, output: Spec) -> int:
        return output.size * (self.operands + (self.activation is not None))

    def __str__(self) -> str:
        parts = ["bias"] * self.bias + ["residual"] * self.residual + ([str(self.activation)] if self.activation else [])
        return "+".join(parts) or "none"


PLAIN = Epilogue()


@record
class FusedOp(Op):
    """An operation whose store can carry an epilogue; two operands come first, then bias and residual."""

    @property
    def reuses(self) -> tuple[int, ...]:
        """The residual, which is read where the result is written."""
        epilogue: Epilogue = self.epilogue  # type: ignore[attr-defined]
        return (2 + epilogue.bias,) if epilogue.residual else ()

    def with_epilogue(self, epilogue: Epilogue) -> FusedOp:
        return replace(self, epilogue=epilogue)  # type: ignore[call-arg]


@record
class Conv(FusedOp):
    """``y[n,a,b,k] = sum_{r,s,c} x[n, a*stride + r*dilation - top, b*stride + s*dilation - left, c] w[k,r,s,c]``."""

    geometry: ConvGeometry
    epilogue: Epilogue = PLAIN

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        g = self.geometry
        require(inputs[0].shape == g.input_shape and inputs[1].shape == g.weight_shape, "conv", "shapes must fit the geometry", x=inputs[0].shape, weight=inputs[1].shape)
        self.epilogue.check("conv", inputs[2:], g.out_channels, floats(*g.output_shape))
        return (floats(*g.output_shape),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None] * len(node.inputs)
        dy, extra = self.epilogue.gradient(graph, node, grads[0])
        x, w = node.inputs[:2]
        return [graph.apply(ConvBackwardInput(self.geometry), dy, w), graph.apply(ConvBackwardWeight(self.geometry), x, dy), *extra]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        g = self.geometry
        x, w = (array.astype(np.float64) for array in inputs[:2])
        y = np.zeros(g.output_shape)
        for (r, s), window in _windows(g, x):
            for outs, ins in _groups(g):
                y[..., outs] += window[..., ins] @ w[outs, r, s].T
        return (self.epilogue.reference(y, inputs[2:]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * self.geometry.multiply_adds + self.epilogue.flops(outputs[0])


def _windows(g: ConvGeometry, x: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """For each kernel element the pixels of the padded x that it meets, [n, oh, ow, c]."""
    x = np.pad(x, ((0, 0), *g.padding, (0, 0)))
    for tap in np.ndindex(*g.kernel):
        yield tap, x[_window(g, tap)]


def _window(g: ConvGeometry, tap: tuple[int, ...]) -> tuple[slice, ...]:
    """Where in a padded input one kernel element reads, or the adjoint writes."""
    firsts = [t * d for t, d in zip(tap, g.dilation, strict=True)]
    return (slice(None), *(slice(first, first + (n - 1) * step + 1, step) for first, n, step in zip(firsts, g.out, g.stride, strict=True)))


def _groups(g: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """Output and input channels of every group."""
    k, c = g.out_channels // g.groups, g.channels // g.groups
    for group in range(g.groups):
        yield slice(group * k, (group + 1) * k), slice(group * c, (group + 1) * c)


def _scatter_reference(g: ConvGeometry, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The adjoint of the convolution in its input: every output pixel adds its weights where it read."""
    (top, bottom), (left, right) = g.padding
    h, width = g.size
    dx = np.zeros((g.batch, h + top + bottom, width + left + right, g.channels))
    for r, s in np.ndindex(*g.kernel):
        for outs, ins in _groups(g):
            dx[_window(g, (r, s))][..., ins] += dy[..., outs] @ w[outs, r, s]
    return dx[:, top : top + h, left : left + width]


@record
class ConvBackwardInput(FusedOp):
    """Gradient of a convolution in its input, ``dx = conv^T(dy, w)``: also the transposed convolution."""

    geometry: ConvGeometry
    epilogue: Epilogue = PLAIN

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        g = self.geometry
        require(
            inputs[0].shape == g.output_shape and inputs[1].shape == g.weight_shape,
            "conv_backward_input",
            "shapes must fit the geometry",
            dy=inputs[0].shape,
            weight=inputs[1].shape,
        )
        self.epilogue.check("conv_backward_input", inputs[2:], g.channels, floats(*g.input_shape))
        return (floats(*g.input_shape),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None] * len(node.inputs)
        dx, extra = self.epilogue.gradient(graph, node, grads[0])
        dy, w = node.inputs[:2]
        return [graph.apply(Conv(self.geometry), dx, w), graph.apply(ConvBackwardWeight(self.geometry), dx, dy), *extra]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, w = (array.astype(np.float64) for array in inputs[:2])
        return (self.epilogue.reference(_scatter_reference(self.geometry, dy, w), inputs[2:]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * self.geometry.multiply_adds + self.epilogue.flops(outputs[0])


@record
class ConvBackwardWeight(Op):
    """Gradient of a convolution in its weights: the input correlated with the output gradient."""

    geometry: ConvGeometry

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        g = self.geometry
        require(
            inputs[0].shape == g.input_shape and inputs[1].shape == g.output_shape,
            "conv_backward_weight",
            "shapes must fit the geometry",
            x=inputs[0].shape,
            dy=inputs[1].shape,
        )
        return (floats(*g.weight_shape),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None, None]
        x, dy = node.inputs
        return [graph.apply(ConvBackwardInput(self.geometry), dy, grads[0]), graph.apply(Conv(self.geometry), x, grads[0])]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        g = self.geometry
        x, dy = (array.astype(np.float64) for array in inputs)
        dw = np.zeros(g.weight_shape)
        for (r, s), window in _windows(g, x):
            for outs, ins in _groups(g):
                dw[outs, r, s] = np.tensordot(dy[..., outs], window[..., ins], ((0, 1, 2), (0, 1, 2)))
        return (dw,)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * self.geometry.multiply_adds
