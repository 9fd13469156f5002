"""Gradients as more graph: reverse accumulation (Linnainmaa, 1970) over the operations' own gradient rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import ShapeError
from .graph import Graph, Node, Value
from .ops.pointwise import Binary


def gradients(graph: Graph, loss: Value, wanted: Sequence[Value]) -> list[Value | None]:
    """Append the gradients of the scalar `loss` in `wanted`; None where the loss does not depend on a value.

    The backward nodes stand behind the loss in the reverse of the forward order, so that each activation is last read
    soon and a parameter's gradient is complete as early as it can be.
    """
    if loss.shape != ():
        raise ShapeError("gradients", "the loss must be a single number; reduce it first", shape=loss.shape)
    assert graph.is_root(loss), "a graph ends at its outputs: make the loss one of them first"
    order = graph.nodes()
    sources = set(wanted)
    depends = _dependents(order, sources)
    total: dict[Value, Value] = {loss: graph.constant(np.ones((), np.float32))}
    for node in reversed(order):
        if node not in depends or not any(output in total for output in node.outputs):
            continue
        with graph.scope(node.scope):
            grads = node.op.gradient(graph, node, [total.get(output) for output in node.outputs])
            for value, grad in zip(node.inputs, grads, strict=True):
                if grad is None or (value.node not in depends and value not in sources):
                    continue
                total[value] = graph.apply(Binary("add"), total[value], grad) if value in total else grad
    return [total.get(value) for value in wanted]


def _dependents(order: Sequence[Node], sources: set[Value]) -> set[Node]:
    """The nodes that some source flows into."""
    depends: set[Node] = set()
    for node in order:
        if any(value in sources or value.node in depends for value in node.inputs):
            depends.add(node)
    return depends
