"""What every backend's matrix products share: a matrix as one row of pixels for the convolution kernels, and operands as they want them."""

from __future__ import annotations

from ..geometry import Phase, PhaseAxis
from ..graph import Graph, Node
from ..ops.conv import Epilogue
from ..ops.matmul import MatMul
from ..ops.movement import Transpose


def row_of_pixels(count: int) -> Phase:
    """One image of 1 x count pixels, one tap."""
    return Phase(PhaseAxis(1, 1, 1, 0, 1, 0, 1, 0, 1), PhaseAxis(count, 1, 1, 0, 1, 0, 1, 0, 1))


def matrix_sizes(node: Node) -> tuple[int, int, int]:
    """(m, n, k); the second operand may be packed already."""
    assert isinstance(node.op, MatMul)
    m, n = node.outputs[0].shape
    return m, n, node.inputs[0].shape[0 if node.op.transpose_a else 1]


def first_untransposed(graph: Graph, node: Node) -> Node:
    """The product with its first operand stored as it is read: a node that transposes goes in front where it is not."""
    op = node.op
    assert isinstance(op, MatMul)
    if not op.transpose_a:
        return node
    a = graph.apply(Transpose((1, 0)), node.inputs[0])
    (y,) = graph.add(MatMul(False, op.transpose_b, op.epilogue), a, *node.inputs[1:])
    graph.replace(node.outputs[0], y)
    return y.node


def is_outer_products(node: Node) -> bool:
    """Whether it is a^T b and nothing else: a sum of outer products of rows, which the weight gradient's kernel makes without packing."""
    op = node.op
    assert isinstance(op, MatMul)
    return op.transpose_a and not op.transpose_b and op.epilogue == Epilogue()
