"""Convolution and its two gradients: three operations that are each other's derivatives.

Layouts are channels last: x[n,h,w,c], w[k,r,s,c/groups], y[n,oh,ow,k]. "Convolution" is cross-correlation, as everywhere
in deep learning; the flipped, mathematical one is the same operation on flipped weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import ConvGeometry
from .base import Op, Spec, floats, require
from .pointwise import Activation, unary_reference

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class FusedOp(Op):
    """An operation whose store can carry an epilogue; `operands` inputs come first, then bias and residual."""

    def with_epilogue(self, epilogue: Epilogue) -> FusedOp:
        return replace(self, epilogue=epilogue)  # type: ignore[call-arg]


@dataclass(frozen=True)
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
        from scipy.signal import correlate

        g = self.geometry
        x, w = (array.astype(np.float64) for array in inputs[:2])
        (top, bottom), (left, right) = g.padding
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        k, r, s, c = w.shape
        dilated = np.zeros((k, (r - 1) * g.dilation[0] + 1, (s - 1) * g.dilation[1] + 1, c))
        dilated[:, :: g.dilation[0], :: g.dilation[1]] = w
        per_group = g.out_channels // g.groups
        y = np.zeros(g.output_shape)
        for n in range(g.batch):
            for o in range(k):
                first = o // per_group * c
                full = correlate(x[n, :, :, first : first + c], dilated[o], mode="valid", method="direct")[:, :, 0]
                y[n, :, :, o] = full[:: g.stride[0], :: g.stride[1]][: g.out[0], : g.out[1]]
        return (self.epilogue.reference(y, inputs[2:]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * self.geometry.multiply_adds + self.epilogue.flops(outputs[0])


def _scatter_reference(g: ConvGeometry, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The adjoint of the convolution in its input: every output pixel adds its weights where it read."""
    (top, bottom), (left, right) = g.padding
    h, width = g.size
    rows, cols = h + top + bottom, width + left + right
    dx = np.zeros((g.batch, rows, cols, g.channels))
    k_per, c_per = g.out_channels // g.groups, g.channels // g.groups
    for r in range(g.kernel[0]):
        for s in range(g.kernel[1]):
            first_row, first_col = r * g.dilation[0], s * g.dilation[1]
            window = (
                slice(None),
                slice(first_row, first_row + (g.out[0] - 1) * g.stride[0] + 1, g.stride[0]),
                slice(first_col, first_col + (g.out[1] - 1) * g.stride[1] + 1, g.stride[1]),
            )
            for group in range(g.groups):
                outs, ins = slice(group * k_per, (group + 1) * k_per), slice(group * c_per, (group + 1) * c_per)
                dx[window][..., ins] += dy[..., outs] @ w[outs, r, s]
    return dx[:, top : top + h, left : left + width]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
        x = np.pad(x, ((0, 0), *g.padding, (0, 0)))
        k_per, c_per = g.out_channels // g.groups, g.channels // g.groups
        dw = np.zeros(g.weight_shape)
        for r in range(g.kernel[0]):
            for s in range(g.kernel[1]):
                first_row, first_col = r * g.dilation[0], s * g.dilation[1]
                window = x[
                    :,
                    first_row : first_row + (g.out[0] - 1) * g.stride[0] + 1 : g.stride[0],
                    first_col : first_col + (g.out[1] - 1) * g.stride[1] + 1 : g.stride[1],
                ]
                for group in range(g.groups):
                    outs, ins = slice(group * k_per, (group + 1) * k_per), slice(group * c_per, (group + 1) * c_per)
                    dw[outs, r, s] = np.einsum("nabk,nabc->kc", dy[..., outs], window[..., ins])
        return (dw,)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * self.geometry.multiply_adds
