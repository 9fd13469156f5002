"""Softmax on the CPU. See src/softmax.h."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.softmax import Softmax, SoftmaxBackward
from ..strided import collapse
from . import _kernels
from .launch import CpuAlgorithm, Launch, Node, launch


class SoftmaxLoop(CpuAlgorithm):
    name = "rows"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Softmax | SoftmaxBackward)
        outer, axis, inner = collapse(node.outputs[0].shape, node.op.axis)
        return [
            launch(
                "softmax" if isinstance(node.op, Softmax) else "softmax_backward",
                (*node.inputs, node.outputs[0]),
                outer=outer,
                axis=axis,
                inner=inner,
                **_kernels.softmax_blocks(outer, axis, inner),
                log=int(node.op.log),
            )
        ]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {Softmax: [SoftmaxLoop()], SoftmaxBackward: [SoftmaxLoop()]}
