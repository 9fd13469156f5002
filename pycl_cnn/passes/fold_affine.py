"""A factor and a summand per channel behind a convolution or matrix product go into its weight and bias.

This is batch-norm folding, and it covers every other per-channel affine map as well. Only where the factor does not change
during a run (it depends on parameters and constants alone): then the new weight is computed once, before the first run.
"""

from __future__ import annotations

from ..graph import FixedNodes, Graph, Node, Value
from ..ops.conv import Conv, ConvBackwardInput, FusedOp
from ..ops.matmul import MatMul
from ..ops.movement import Expand, Reshape
from ..ops.pointwise import Binary


def per_channel(value: Value, output: Value) -> bool:
    """Whether `value` broadcasts along the last axis of `output` alone."""
    channels = output.shape[-1]
    return value.shape[-1:] == (channels,) and all(n == 1 for n in value.shape[:-1])


def fold_affine(graph: Graph) -> None:
    """Fold factors, then let bias fusion take the summands."""
    fixed = FixedNodes(graph)
    for node in graph.nodes():
        if not isinstance(node.op, Binary) or node.op.kind != "mul" or node.op.activation:
            continue
        for y, factor in (node.inputs, node.inputs[::-1]):
            producer = y.node
            if (
                isinstance(producer.op, Conv | ConvBackwardInput | MatMul)
                and factor.node in fixed
                and producer.inputs[1].node in fixed
                and all(extra.node in fixed for extra in producer.inputs[2:])
                and not producer.op.epilogue.activation
                and not producer.op.epilogue.residual
                and per_channel(factor, y)
                and graph.sole_user(y) is node
            ):
                _fold(graph, producer, node, factor)
                break


def _fold(graph: Graph, producer: Node, product: Node, factor: Value) -> None:
    op, (x, weight, *extra) = producer.op, producer.inputs
    assert isinstance(op, FusedOp)
    with graph.at(producer):
        channels = factor.shape[-1]
        scale = graph.apply(Reshape((channels,)), factor)
        if isinstance(op, Conv):
            along = graph.apply(Reshape((channels, 1, 1, 1)), scale)
        elif isinstance(op, ConvBackwardInput):
            along = _per_input_channel(graph, op, scale)
        else:
            along = graph.apply(Reshape((channels, 1)), scale) if op.transpose_b else scale  # type: ignore[attr-defined]
        scaled = [graph.apply(Binary("mul"), weight, along), *(graph.apply(Binary("mul"), value, scale) for value in extra)]
        graph.replace(product.outputs[0], graph.apply(op, x, *scaled))


def _per_input_channel(graph: Graph, op: ConvBackwardInput, scale: Value) -> Value:
    """The factors of a transposed convolution's outputs, one for each weight w[k,r,s,c/groups]."""
    g = op.geometry
    by_group = graph.apply(Reshape((g.groups, 1, g.channels // g.groups)), scale)
    spread = graph.apply(Expand((g.groups, g.out_channels // g.groups, g.channels // g.groups)), by_group)
    return graph.apply(Reshape((g.out_channels, 1, 1, g.channels // g.groups)), spread)
