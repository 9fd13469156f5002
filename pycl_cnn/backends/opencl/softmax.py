"""Softmax with OpenCL. See kernels_cl/softmax.cl."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.softmax import Softmax, SoftmaxBackward
from ..strided import collapse
from .call import Call, Context, Node, OpenClAlgorithm
from .sizes import blocks, grid, rows_per_group, vector


class SoftmaxRows(OpenClAlgorithm):
    name = "rows"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Softmax | SoftmaxBackward)
        outer, axis, inner = collapse(node.outputs[0].shape, node.op.axis)
        if isinstance(node.op, Softmax):
            kernel, buffers = "softmax", {"x": node.inputs[0], "y": node.outputs[0]}
        else:
            kernel, buffers = "softmax_backward", {"y": node.inputs[0], "dy": node.inputs[1], "dx": node.outputs[0]}
        defines = {"LOG": int(node.op.log)}
        if inner == 1:
            rows, size, local = rows_per_group(context, "softmax", outer, axis)
            return [Call("softmax", f"{kernel}_rows", size, local, {**buffers, "outer": outer, "axis": axis, "rows_per_group": rows}, defines)]
        columns = grid(context, blocks(inner, vector(context, "softmax")), outer)
        return [Call("softmax", f"{kernel}_columns", *columns, {**buffers, "axis": axis, "inner": inner}, defines)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Softmax: [SoftmaxRows()], SoftmaxBackward: [SoftmaxRows()]}
