"""Transposes sink: they move behind every operation that can do without them until they meet their inverse.

A convolution network written in NCHW traces into transposes around each channels-last operation. Moving each transpose
down through pointwise operations, concatenations, reductions and the like brings inverse pairs together, and they vanish;
what remains are the transposes at the doors.
"""

from __future__ import annotations

import math

from ..graph import Graph, Node, Value
from ..ops.base import Op
from ..ops.dropout import Dropout
from ..ops.matmul import MatMul
from ..ops.movement import Copy, Reshape, Transpose, invert
from ..ops.pointwise import Binary, align


def settle_layout(graph: Graph, redraw: bool) -> None:
    """Sink, merge and drop transposes and reshapes.

    A dropout numbers its elements as they are stored, so that a transpose moved behind it changes the draw. That is allowed
    (`redraw`) only before gradients are taken: afterwards a dropout and its gradient must go on drawing the same.
    """
    for node in graph.nodes():
        if not node.inputs or not any(output.users or graph.is_root(output) for output in node.outputs):
            continue
        op = node.op
        if isinstance(op, Transpose):
            _simplify_transpose(graph, node, op)
        elif isinstance(op, Reshape):
            _simplify_reshape(graph, node, op)
        elif redraw or not isinstance(op, Dropout):
            _sink(graph, node)


def _simplify_transpose(graph: Graph, node: Node, op: Transpose) -> None:
    (x,) = node.inputs
    with graph.at(node):
        permutation = op.permutation
        if isinstance(x.op, Transpose):
            permutation = tuple(x.op.permutation[axis] for axis in permutation)
            x = x.node.inputs[0]
        merged = Transpose(permutation)
        if merged.keeps_order:
            graph.replace(node.outputs[0], x)
        elif merged.is_view(x.shape):
            graph.replace(node.outputs[0], _view(graph, x, node.outputs[0].shape))
        else:
            # One transpose of a value is enough for all who want it.
            twin = next((u for u in x.users if u is not node and u.op == merged and u.order < node.order), None)
            if twin is not None:
                graph.replace(node.outputs[0], twin.outputs[0])
            elif x is not node.inputs[0]:
                graph.replace(node.outputs[0], graph.apply(merged, x))


def _view(graph: Graph, x: Value, shape: tuple[int, ...]) -> Value:
    """`x` reshaped, through as few reshapes as possible."""
    while isinstance(x.op, Reshape):
        x = x.node.inputs[0]
    return x if x.shape == shape else graph.apply(Reshape(shape), x)


def _simplify_reshape(graph: Graph, node: Node, op: Reshape) -> None:
    (x,) = node.inputs
    if x.shape == op.shape or isinstance(x.op, Reshape):
        with graph.at(node):
            graph.replace(node.outputs[0], _view(graph, x, op.shape))


def _sink(graph: Graph, node: Node) -> None:
    """Move the transposes before `node` behind it, if the operation allows it."""
    found = [value.op.permutation for value in node.inputs if isinstance(value.op, Transpose)]
    if not found or isinstance(node.op, Copy):
        return
    permutation = found[0]
    moved = node.op.permuted(permutation, node.inputs)
    if moved is None or not _worthwhile(node, permutation):
        return
    op, behind = moved
    with graph.at(node):
        outputs = graph.add(op, *_operands(graph, node, permutation))
        for old, new in zip(node.outputs, outputs, strict=True):
            graph.replace(old, new if behind == tuple(range(len(behind))) else graph.apply(Transpose(behind), new))


def _is_small(node: Node, value: Value, permutation: tuple[int, ...]) -> bool:
    """Whether an operand is no matter for the layout: broadcast, or no tensor at all, e.g. a generator's state."""
    return len(value.shape) != len(permutation) or (isinstance(node.op, Binary) and math.prod(value.shape) < math.prod(node.outputs[0].shape))


def _worthwhile(node: Node, permutation: tuple[int, ...]) -> bool:
    """Operands that have no transpose get the inverse one: not more of them than transposes go, and on a tie only towards
    channels last. One that is there already, as behind the door of a residual block's input, costs nothing."""
    tensors = {value for value in node.inputs if not _is_small(node, value, permutation)}
    gone = {value for value in tensors if isinstance(value.op, Transpose) and value.op.permutation == permutation}
    backward = Transpose(invert(permutation))
    new = {value for value in tensors - gone if not any(user.op == backward for user in value.users)}
    return not new or len(new) < len(gone) or (len(new) == len(gone) and permutation[1:2] == (len(permutation) - 1,))


def _operands(graph: Graph, node: Node, permutation: tuple[int, ...]) -> list[Value]:
    """The inputs without their transposes; operands that had none get the inverse one."""
    operands = []
    for value in node.inputs:
        if isinstance(value.op, Transpose) and value.op.permutation == permutation:
            operands.append(value.node.inputs[0])
        elif isinstance(node.op, Binary) or len(value.shape) == len(permutation):
            operands.append(align(graph, value, permutation))
        else:
            operands.append(value)
    return operands


def fold_flatten(graph: Graph) -> None:
    """A matrix product of flattened, transposed images: the weight is permuted instead of the images."""
    for node in graph.nodes():
        op = node.op
        if not isinstance(op, MatMul) or op.transpose_a:
            continue
        flat, weight = node.inputs[:2]
        if not isinstance(flat.op, Reshape) or not isinstance(flat.node.inputs[0].op, Transpose):
            continue
        transposed = flat.node.inputs[0]
        move: Op = transposed.op
        assert isinstance(move, Transpose)
        if move.permutation[0] != 0 or flat.shape[0] != transposed.shape[0] or len(flat.shape) != 2:
            continue
        z = transposed.node.inputs[0]
        inner = tuple(axis - 1 for axis in move.permutation[1:])
        inverse = sorted(range(len(inner)), key=lambda axis: inner[axis])
        with graph.at(node):
            rows = [weight.shape[0]] if op.transpose_b else []
            cols = [] if op.transpose_b else [weight.shape[1]]
            spread = graph.apply(Reshape((*rows, *transposed.shape[1:], *cols)), weight)
            first = len(rows)
            order = (*range(first), *(axis + first for axis in inverse), *range(first + len(inner), len(spread.shape)))
            permuted = graph.apply(Reshape(weight.shape), graph.apply(Transpose(order), spread))
            images = graph.apply(Reshape(flat.shape), z)
            (y,) = graph.add(op, images, permuted, *node.inputs[2:])
            graph.replace(node.outputs[0], y)
