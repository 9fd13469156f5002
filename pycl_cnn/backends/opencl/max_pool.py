"""Max pooling with OpenCL: windows come in tables, so that regular and adaptive ones are one. See kernels_cl/max_pool.cl."""

from __future__ import annotations

from typing import Any

from ...ops.base import Op
from ...ops.max_pool import MaxPool, MaxPoolBackward
from ..windows import cover_table, window_table
from .call import Call, Context, Node, OpenClAlgorithm, Table
from .sizes import blocks, channels_per_item, grid, pixels_per_item


class WindowTables(OpenClAlgorithm):
    name = "windows"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, MaxPool | MaxPoolBackward)
        g = node.op.geometry
        arguments: dict[str, Any] = {
            "x_rows": g.rows.size,
            "x_columns": g.cols.size,
            "channels": g.channels,
            "y_rows": g.rows.out,
            "y_columns": g.cols.out,
        }
        if isinstance(node.op, MaxPool):
            pixels = pixels_per_item(context, g.cols.out)
            channels = channels_per_item(context, "max_pool", g.channels, g.batch * g.rows.out)
            arguments |= {
                "x": node.inputs[0],
                "y": node.outputs[0],
                "indices": node.outputs[1] if node.op.indices else None,
                "windows": Table(window_table(g)),
                "row_dilation": g.rows.dilation,
                "column_dilation": g.cols.dilation,
                "channels_per_item": channels,
                "pixels_per_item": pixels,
            }
            size = grid(context, blocks(g.channels, channels), blocks(g.cols.out, pixels), g.batch * g.rows.out)
            return [Call("max_pool", "max_pool", *size, arguments, {"INDICES": int(node.op.indices)})]
        pixels = pixels_per_item(context, g.cols.size)
        channels = channels_per_item(context, "max_pool", g.channels, g.batch * g.rows.size)
        arguments |= {
            "dy": node.inputs[0],
            "indices": node.inputs[1],
            "dx": node.outputs[0],
            "covers": Table(cover_table(g)),
            "channels_per_item": channels,
            "pixels_per_item": pixels,
        }
        size = grid(context, blocks(g.channels, channels), blocks(g.cols.size, pixels), g.batch * g.rows.size)
        return [Call("max_pool", "max_pool_backward", *size, arguments)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {MaxPool: [WindowTables()], MaxPoolBackward: [WindowTables()]}
