"""Reductions over any axes as ones over a single axis: what every backend does before it reduces."""

from __future__ import annotations

import math
from itertools import groupby

from ..graph import Graph, Node
from ..ops.movement import Transpose
from ..ops.reduce import Reduce


def _runs(node: Node) -> list[tuple[bool, int]]:
    """Neighbouring axes merged: (reduced?, length)."""
    assert isinstance(node.op, Reduce)
    axes = node.op.axes
    marked = [(axis in axes, n) for axis, n in enumerate(node.inputs[0].shape) if n != 1]
    return [(flag, math.prod(n for _, n in group)) for flag, group in groupby(marked, key=lambda item: item[0])]


def collapsed(node: Node) -> tuple[int, int, int]:
    """(outer, reduced, inner) of a reduction whose axes are neighbours (axes of length 1 do not matter)."""
    runs = _runs(node)
    flags = [flag for flag, _ in runs]
    if True not in flags:
        return math.prod(size for _, size in runs), 1, 1
    at = flags.index(True)
    return math.prod(size for _, size in runs[:at]), runs[at][1], math.prod(size for _, size in runs[at + 1 :])


def gather_axes(graph: Graph, node: Node) -> None:
    """Bring reduced axes that lie apart together, by a transpose before the reduction."""
    assert isinstance(node.op, Reduce)
    if sum(flag for flag, _ in _runs(node)) < 2:
        return
    rank = len(node.inputs[0].shape)
    order = [axis for axis in range(rank) if axis not in node.op.axes] + list(node.op.axes)
    with graph.at(node):
        graph.rewire(node, 0, graph.apply(Transpose(tuple(order)), node.inputs[0]))
    node.op = Reduce(node.op.kind, tuple(range(rank - len(node.op.axes), rank)), node.op.keepdims)
