"""Elementwise operations on the CPU. See src/pointwise.h."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.pointwise import BINARY_KINDS, Binary, Unary, UnaryBackward
from ..strided import broadcast_strides, merge_axes, padded_axes
from .launch import CpuAlgorithm, Launch, Node, launch


class UnaryLoop(CpuAlgorithm):
    name = "vector loop"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Unary | UnaryBackward)
        f = node.op.function
        kernel = "unary" if isinstance(node.op, Unary) else "unary_backward"
        size = node.outputs[0].spec.size
        return [launch(kernel, (*node.inputs, node.outputs[0]), size=size, kind=f.number, alpha=f.alpha, beta=f.beta)]


class BinaryLoop(CpuAlgorithm):
    name = "vector loop"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Binary)
        a, b = node.inputs
        (y,) = node.outputs
        f = node.op.activation
        shape, (sa, sb) = merge_axes(y.shape, broadcast_strides(a.shape, y.shape), broadcast_strides(b.shape, y.shape))
        size = y.spec.size
        return [
            launch(
                "binary",
                (a, b, y),
                size=size,
                rank=len(shape),
                shape=padded_axes(shape, 1),
                a_stride=padded_axes(sa, 0),
                b_stride=padded_axes(sb, 0),
                kind=BINARY_KINDS[node.op.kind],
                activation=f.number if f else 0,
                alpha=f.alpha if f else 0.0,
                beta=f.beta if f else 0.0,
            )
        ]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {Unary: [UnaryLoop()], UnaryBackward: [UnaryLoop()], Binary: [BinaryLoop()]}
