"""Reductions with OpenCL: axes are merged, and long ones split into parts by size alone. See kernels_cl/reduce.cl."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.reduce import Reduce
from ..axes import collapsed, gather_axes
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, Value
from .sizes import CPU_ITEM, blocks, clamp, grid, side_by_side, vector

KERNEL_KINDS = {"sum": 0, "mean": 0, "max": 2, "min": 3, "prod": 4}
PART = 16384  # floats that a part of a split reduction reads
MOST_PARTS = 64


def parts_of(outer: int, length: int, inner: int) -> int:
    """Into how many parts a reduction is split."""
    if outer * blocks(inner, 512) >= 16:
        return 1
    return clamp(outer * length * inner // PART, 1, clamp(length, 1, MOST_PARTS))


def reduce_call(context: Context, x: Value | At, y: Value | At, outer: int, length: int, inner: int, parts: int, kind: str, scale: float) -> Call:
    """One stage: [outer, length, inner] -> [outer, parts, inner]."""
    per_part = blocks(length, parts)
    shared = {"x": x, "y": y, "parts": parts, "reds_per_part": per_part, "scale": scale}
    defines = {"REDUCTION": KERNEL_KINDS[kind]}
    if inner == 1:
        group = context.define("reduce", "WORK_GROUP")
        rows = 1 if context.device.is_gpu else clamp(CPU_ITEM // max(1, per_part), 1, max(1, outer))
        arguments = {**shared, "outer": outer, "reds": length, "rows_per_group": rows}
        return Call("reduce", "reduce_rows", (parts * group, blocks(outer, rows)), (group, 1), arguments, defines)
    together = side_by_side(context, blocks(inner, vector(context, "reduce")))
    width = together * vector(context, "reduce")
    span = 1 if context.device.is_gpu else clamp(CPU_ITEM // max(1, per_part * width), 1, blocks(inner, width))
    arguments = {**shared, "reds": length, "inner": inner, "span": span}
    return Call("reduce", "reduce_columns", *grid(context, blocks(inner, width * span), parts, outer), arguments, {**defines, "VECTORS": together})


def reduce_calls(context: Context, x: Value | At, y: Value | At, outer: int, length: int, inner: int, kind: str) -> list[Call]:
    """One or two stages; parts lie at the start of the workspace."""
    scale = 1.0 / length if kind == "mean" else 1.0
    parts = parts_of(outer, length, inner)
    if parts == 1:
        return [reduce_call(context, x, y, outer, length, inner, 1, kind, scale)]
    first = reduce_call(context, x, At(None), outer, length, inner, parts, kind, 1.0)
    return [first, reduce_call(context, At(None), y, outer, parts, inner, 1, kind, scale)]


class SplitReduction(OpenClAlgorithm):
    name = "split"
    reason = "parts by size alone, combined in order"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        gather_axes(graph, node)
        return node

    def workspace(self, node: Node, device: Device) -> int:
        parts = parts_of(*collapsed(node))
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Reduce)
        return reduce_calls(context, node.inputs[0], node.outputs[0], *collapsed(node), node.op.kind)


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Reduce: [SplitReduction()]}
