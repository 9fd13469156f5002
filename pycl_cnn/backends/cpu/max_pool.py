"""Max pooling on the CPU: windows come in tables, so that regular and adaptive ones are one. See src/max_pool.h."""

from __future__ import annotations

import numpy as np

from ...geometry import PoolAxis, PoolGeometry
from ...ops.base import Op
from ...ops.max_pool import MaxPool, MaxPoolBackward
from . import _kernels
from .launch import CpuAlgorithm, Device, Graph, Launch, Node, launch


def window_table(g: PoolGeometry) -> np.ndarray:
    """int32 row starts, row ends, column starts, column ends of the windows."""
    parts = [[window[end] for window in axis.windows] for axis in (g.rows, g.cols) for end in (0, 1)]
    return np.array([position for part in parts for position in part], np.int32)


def cover_table(g: PoolGeometry) -> np.ndarray:
    """int32 first and end row, first and end column of the windows that may hold an input row or column."""
    parts = [list(values) for axis in (g.rows, g.cols) for values in zip(*(_covering(axis, i) for i in range(axis.size)), strict=True)]
    return np.array([position for part in parts for position in part], np.int32)


def _covering(axis: PoolAxis, position: int) -> tuple[int, int]:
    over = [i for i, (first, end) in enumerate(axis.windows) if first <= position < end]
    return (over[0], over[-1] + 1) if over else (0, 0)


def window_size(axis: PoolAxis) -> int:
    """Elements of the longest window."""
    return max((-(-(end - first) // axis.dilation) for first, end in axis.windows), default=1)


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
            return [launch("max_pool", (*node.inputs, node.outputs[0], indices), **members, **sizes)]
        sizes = _kernels.window_blocks(g.batch * g.rows.size, g.cols.size, g.channels, 1)
        return [launch("max_pool_backward", (*node.inputs, node.outputs[0]), **members, **sizes)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {MaxPool: [WindowTables()], MaxPoolBackward: [WindowTables()]}
