"""Reductions on the CPU: axes are merged, and long ones split into parts by size alone. See src/reduce.h."""

from __future__ import annotations

import math
from itertools import groupby

from ...ops.base import Op
from ...ops.movement import Transpose
from ...ops.reduce import Reduce
from . import _kernels
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, launch

KERNEL_KINDS = {"sum": 0, "mean": 0, "max": 1, "min": 2, "prod": 3}


def collapsed(node: Node) -> tuple[int, int, int]:
    """(outer, reduce, inner) of a reduction whose axes are neighbours (axes of length 1 do not matter)."""
    assert isinstance(node.op, Reduce)
    runs = runs_of_axes(node)
    flags = [flag for flag, _ in runs]
    if True not in flags:
        return math.prod(size for _, size in runs), 1, 1
    at = flags.index(True)
    return math.prod(size for _, size in runs[:at]), runs[at][1], math.prod(size for _, size in runs[at + 1 :])


def runs_of_axes(node: Node) -> list[tuple[bool, int]]:
    """Neighbouring axes merged: (reduced?, length)."""
    assert isinstance(node.op, Reduce)
    axes = node.op.axes
    shape = node.inputs[0].shape
    marked = [(axis in axes, n) for axis, n in enumerate(shape) if n != 1]
    return [(flag, math.prod(n for _, n in group)) for flag, group in groupby(marked, key=lambda item: item[0])]


def gather_axes(graph: Graph, node: Node) -> None:
    """Bring reduced axes that lie apart together, by a transpose before the reduction."""
    assert isinstance(node.op, Reduce)
    if sum(flag for flag, _ in runs_of_axes(node)) < 2:
        return
    rank = len(node.inputs[0].shape)
    order = [axis for axis in range(rank) if axis not in node.op.axes] + list(node.op.axes)
    with graph.at(node):
        graph.rewire(node, 0, graph.apply(Transpose(tuple(order)), node.inputs[0]))
    node.op = Reduce(node.op.kind, tuple(range(rank - len(node.op.axes), rank)), node.op.keepdims)


def reduce_launches(source: Buffer, target: Buffer, outer: int, length: int, inner: int, kind: str) -> list[Launch]:
    """One or two stages; parts lie at the start of the workspace."""
    sizes = _kernels.reduce_blocks(outer, length, inner)
    parts = sizes["parts"]
    members = {"outer": outer, "reduce": length, "inner": inner, "kind": KERNEL_KINDS[kind], "divisor": float(length) if kind == "mean" else 1.0}
    if parts == 1:
        return [launch("reduce", (source, target), **members, **sizes)]
    first = launch("reduce", (source, At(None)), **(members | {"divisor": 1.0}), **sizes)
    second = {"outer": 1, "reduce": parts, "inner": outer * inner}
    return [first, launch("reduce", (At(None), target), **(members | second), **(_kernels.reduce_blocks(1, parts, outer * inner) | {"parts": 1}))]


class BlockedReduction(CpuAlgorithm):
    name = "blocked"
    reason = "blocks of blocks, so that the error grows like the logarithm of the length"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        gather_axes(graph, node)
        return node

    def workspace(self, node: Node, device: Device) -> int:
        outer, length, inner = collapsed(node)
        parts = _kernels.reduce_blocks(outer, length, inner)["parts"]
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Reduce)
        return reduce_launches(node.inputs[0], node.outputs[0], *collapsed(node), node.op.kind)


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {Reduce: [BlockedReduction()]}
