"""Cross entropy on the CPU. See src/loss.h."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.loss import CrossEntropy, CrossEntropyBackward, LabelMask
from . import _kernels
from .launch import CpuAlgorithm, Launch, Node, launch


class CrossEntropyRows(CpuAlgorithm):
    name = "rows"

    def launches(self, node: Node) -> list[Launch]:
        op = node.op
        assert isinstance(op, CrossEntropy | CrossEntropyBackward)
        rows, classes = node.inputs[0].shape
        return [
            launch(
                "cross_entropy" if isinstance(op, CrossEntropy) else "cross_entropy_backward",
                (*node.inputs, node.outputs[0]),
                rows=rows,
                classes=classes,
                **_kernels.cross_entropy_blocks(rows, classes),
                ignore_index=op.ignore_index,
                label_smoothing=op.label_smoothing,
            )
        ]


class LabelMaskLoop(CpuAlgorithm):
    name = "loop"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, LabelMask)
        size = node.outputs[0].spec.size
        return [launch("label_mask", (node.inputs[0], node.outputs[0]), size=size, ignore_index=node.op.ignore_index)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    CrossEntropy: [CrossEntropyRows()],
    CrossEntropyBackward: [CrossEntropyRows()],
    LabelMask: [LabelMaskLoop()],
}
