"""Cross entropy with OpenCL. See kernels_cl/loss.cl."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.loss import CrossEntropy, CrossEntropyBackward, LabelMask
from .call import Call, Context, Node, OpenClAlgorithm
from .sizes import grid, rows_per_group, stream


class CrossEntropyRows(OpenClAlgorithm):
    name = "rows"

    def calls(self, node: Node, context: Context) -> list[Call]:
        op = node.op
        assert isinstance(op, CrossEntropy | CrossEntropyBackward)
        rows, classes = node.inputs[0].shape
        per_group, size, local = rows_per_group(context, "loss", rows, classes)
        arguments = {
            "logits": node.inputs[0],
            "labels": node.inputs[1],
            "rows": rows,
            "classes": classes,
            "rows_per_group": per_group,
            "ignore_index": op.ignore_index,
            "smoothing": op.label_smoothing,
        }
        if isinstance(op, CrossEntropy):
            return [Call("loss", "cross_entropy", size, local, {**arguments, "loss": node.outputs[0]})]
        return [Call("loss", "cross_entropy_backward", size, local, {**arguments, "dloss": node.inputs[2], "dlogits": node.outputs[0]})]


class LabelMaskLoop(OpenClAlgorithm):
    name = "loop"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, LabelMask)
        count = node.outputs[0].spec.size
        items, span = stream(context, count)
        arguments = {"labels": node.inputs[0], "y": node.outputs[0], "count": count, "span": span, "ignore_index": node.op.ignore_index}
        return [Call("loss", "label_mask", *grid(context, items), arguments)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {
    CrossEntropy: [CrossEntropyRows()],
    CrossEntropyBackward: [CrossEntropyRows()],
    LabelMask: [LabelMaskLoop()],
}
