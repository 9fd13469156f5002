"""Average pooling and interpolation with OpenCL: sparse rows and columns from tables. See kernels_cl/resample.cl."""

from __future__ import annotations

import numpy as np

from ...geometry import AxisRule
from ...ops.base import Op
from ...ops.resample import Resample
from .call import Call, Context, Node, OpenClAlgorithm, Table
from .sizes import blocks, channels_per_item, grid, pixels_per_item


def _tables(rule: AxisRule, axis: str) -> dict[str, Table]:
    starts, index, weight = rule.table
    return {
        f"{axis}_starts": Table(np.array(starts, np.int32)),
        f"{axis}_index": Table(np.array(index, np.int32)),
        f"{axis}_weight": Table(np.array(weight, np.float32)),
    }


class SparseAxes(OpenClAlgorithm):
    name = "sparse axes"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Resample)
        n, oh, ow, c = node.outputs[0].shape
        _, h, w, _ = node.inputs[0].shape
        columns = pixels_per_item(context, ow)
        channels = channels_per_item(context, "resample", c, n * oh)
        arguments = {
            "x": node.inputs[0],
            "y": node.outputs[0],
            **_tables(node.op.rows, "row"),
            **_tables(node.op.cols, "column"),
            "x_rows": h,
            "x_columns": w,
            "channels": c,
            "y_rows": oh,
            "y_columns": ow,
            "channels_per_item": channels,
            "columns_per_item": columns,
        }
        size = grid(context, blocks(c, channels), blocks(ow, columns), n * oh)
        return [Call("resample", "resample", *size, arguments)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Resample: [SparseAxes()]}
