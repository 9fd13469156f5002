"""Bias, residual and activation behind a convolution or matrix product move into its store."""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node, Value
from ..ops.base import Op
from ..ops.conv import Epilogue, FusedOp
from ..ops.movement import Reshape
from ..ops.pointwise import FUSABLE, Binary, Unary
from .fold_affine import per_channel


def fuse_epilogue(graph: Graph) -> None:
    """Fuse until nothing more fits; each step takes one node into the operation before it."""
    for node in graph.nodes():
        while isinstance(node.op, FusedOp):
            user = graph.sole_user(node.outputs[0])
            fused = user and _fused(graph, node, user)
            if not fused or user is None:
                break
            graph.replace(user.outputs[0], fused)
            node = fused.node


def _fused(graph: Graph, node: Node, user: Node) -> Value | None:
    """`node` and its `user` as one operation, or None."""
    op = node.op
    assert isinstance(op, FusedOp)
    epilogue: Epilogue = op.epilogue  # type: ignore[attr-defined]
    if epilogue.activation is not None:
        return None
    if isinstance(user.op, Unary) and user.op.function.kind in FUSABLE:
        return _rebuilt(graph, node, op.with_epilogue(replace(epilogue, activation=user.op.function)), node.inputs)
    if not isinstance(user.op, Binary) or user.op.kind != "add":
        return None
    y = node.outputs[0]
    other = user.inputs[1] if user.inputs[0] is y else user.inputs[0]
    if other is y or user.outputs[0].shape != y.shape:
        return None
    activation = user.op.activation
    if _depends(other.node, node):
        return None
    if not epilogue.residual and per_channel(other, y):
        with graph.at(node):
            bias = graph.apply(Reshape((y.shape[-1],)), other)
            if epilogue.bias:
                bias = graph.apply(Binary("add"), node.inputs[2], bias)
        return _rebuilt(graph, node, op.with_epilogue(Epilogue(True, False, activation)), (*node.inputs[:2], bias))
    if not epilogue.residual and other.shape == y.shape:
        return _rebuilt(graph, node, op.with_epilogue(replace(epilogue, residual=True, activation=activation)), (*node.inputs, other))
    return None


def _depends(first: Node, second: Node) -> bool:
    """Whether `first` needs what `second` computes; then its result cannot flow into `second`."""
    seen: set[Node] = set()
    stack = [first]
    while stack:
        node = stack.pop()
        if node is second:
            return True
        if node not in seen:
            seen.add(node)
            stack.extend(value.node for value in node.inputs)
    return False


def _rebuilt(graph: Graph, node: Node, op: Op, inputs: tuple[Value, ...]) -> Value:
    with graph.at(node):
        return graph.apply(op, *inputs)
