"""Average pooling and interpolation on the CPU: sparse rows and columns from tables. See src/resample.h."""

from __future__ import annotations

import numpy as np

from ...geometry import AxisRule
from ...ops.base import Op
from ...ops.resample import Resample
from . import _kernels
from .launch import CpuAlgorithm, Device, Graph, Launch, Node, launch


def tables(rule: AxisRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """starts, index, weight as arrays."""
    starts, index, weight = rule.table
    return np.array(starts, np.int32), np.array(index, np.int32), np.array(weight, np.float32)


class SparseAxes(CpuAlgorithm):
    name = "sparse axes"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        assert isinstance(node.op, Resample)
        with graph.at(node):
            graph.extend(node, *(graph.constant(table) for rule in (node.op.rows, node.op.cols) for table in tables(rule)))
        return node

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Resample)
        n, oh, ow, c = node.outputs[0].shape
        _, h, w, _ = node.inputs[0].shape
        taps = len(node.op.rows.table[1]) * len(node.op.cols.table[1]) // max(1, oh * ow)
        sizes = _kernels.window_blocks(n * oh, ow, c, taps)
        return [launch("resample", (*node.inputs, node.outputs[0]), n=n, h=h, w=w, c=c, oh=oh, ow=ow, **sizes)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {Resample: [SparseAxes()]}
