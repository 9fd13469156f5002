"""An activation behind an addition (or another binary operation) or a batch normalisation moves into its store.

Behind a training batch normalisation the gradient fuses along: it recomputes what the activation saw.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph
from ..ops.batch_norm import BatchNormBackward, BatchNormTraining
from ..ops.pointwise import FUSABLE, Binary, Unary, UnaryBackward


def fuse_activation(graph: Graph) -> None:
    for binary, unary in list(graph.match(Binary, Unary)):
        if binary.op.activation is None and unary.op.function.kind in FUSABLE:  # type: ignore[attr-defined]
            with graph.at(binary):
                graph.replace(unary.outputs[0], graph.apply(replace(binary.op, activation=unary.op.function), *binary.inputs))  # type: ignore[attr-defined,call-arg]
    for node in graph.nodes():
        if isinstance(node.op, BatchNormTraining) and node.op.activation is None:
            _fuse_batch_norm(graph, node)


def _fuse_batch_norm(graph: Graph, node) -> None:
    """relu(batch_norm(x)) in training: y is read by the activation, and perhaps by its backward node."""
    y, mean = node.outputs[:2]
    if graph.is_root(y):
        return
    forward = [user for user in y.users if isinstance(user.op, Unary) and user.op.function.kind in FUSABLE]
    if len(forward) != 1:
        return
    activation = forward[0].op.function
    others = [user for user in y.users if user is not forward[0]]
    backward = [user for user in mean.users if isinstance(user.op, BatchNormBackward)]
    if len(backward) > 1 or any(not isinstance(user.op, UnaryBackward) or user.op.function != activation for user in others):
        return
    slopes = []
    if backward:
        producer = backward[0].inputs[1].node
        if not isinstance(producer.op, UnaryBackward) or producer.op.function != activation:
            return
        if producer.inputs[1] not in (y, forward[0].outputs[0]) or graph.sole_user(producer.outputs[0]) is not backward[0]:
            return
        slopes = [producer]
    if any(user not in slopes for user in others):
        return
    with graph.at(node):
        fused = graph.add(replace(node.op, activation=activation), *node.inputs)
    graph.replace(forward[0].outputs[0], fused[0])
    for old, new in zip(node.outputs[1:], fused[1:], strict=True):
        graph.replace(old, new)
    if backward:
        x, _, *vectors = backward[0].inputs
        with graph.at(backward[0]):
            merged = graph.add(BatchNormBackward(activation), x, slopes[0].inputs[0], *vectors)
        for old, new in zip(backward[0].outputs, merged, strict=True):
            graph.replace(old, new)
    graph.prune()
