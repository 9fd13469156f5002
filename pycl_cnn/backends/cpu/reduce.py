"""Reductions on the CPU: axes are merged, and long ones split into parts by size alone. See src/reduce.h."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.reduce import Reduce
from ..axes import collapsed, gather_axes
from . import _kernels
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, launch

KERNEL_KINDS = {"sum": 0, "mean": 0, "max": 1, "min": 2, "prod": 3}


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
