"""Max pooling on the CPU: windows come in tables, so that regular and adaptive ones are one. See src/max_pool.h."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.max_pool import MaxPool, MaxPoolBackward
from ..windows import cover_table, window_size, window_table
from . import _kernels
from .launch import CpuAlgorithm, Device, Graph, Launch, Node, launch


class WindowTables(CpuAlgorithm):
    name = "windows"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g = node.op.geometry  # type: ignore[attr-defined]
        with graph.at(node):
            graph.extend(node, graph.constant(window_table(g) if isinstance(node.op, MaxPool) else cover_table(g)))
        return node

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, MaxPool | MaxPoolBackward)
        g = node.op.geometry
        members = {
            "n": g.batch,
            "h": g.rows.size,
            "w": g.cols.size,
            "c": g.channels,
            "oh": g.rows.out,
            "ow": g.cols.out,
            "row_dilation": g.rows.dilation,
            "col_dilation": g.cols.dilation,
        }
        if isinstance(node.op, MaxPool):
            sizes = _kernels.window_blocks(g.batch * g.rows.out, g.cols.out, g.channels, window_size(g.rows) * window_size(g.cols))
            indices = node.outputs[1] if node.op.indices else None
            return [launch("max_pool", (*node.inputs[:2], node.outputs[0], indices), **members, **sizes)]
        sizes = _kernels.window_blocks(g.batch * g.rows.size, g.cols.size, g.channels, 1)
        return [launch("max_pool_backward", (*node.inputs, node.outputs[0]), **members, **sizes)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {MaxPool: [WindowTables()], MaxPoolBackward: [WindowTables()]}
