"""What is one operator in ONNX and several operations here: batch normalisation with fixed statistics, local response normalisation.

They are recognised in the traced graph by the arithmetic that they are traced as.
"""

from __future__ import annotations

from typing import Protocol

from ..graph import Graph, Node, Value
from ..ops.movement import Reshape
from ..ops.pointwise import Binary, Unary
from ..ops.resample import Resample
from ..records import record
from .exporter_ops import regular_windows
from .writer import Writer


class Pattern(Protocol):
    """Stands for the node that ends it; reads `inputs` instead of that node's."""

    @property
    def inputs(self) -> tuple[Value, ...]: ...

    def write(self, writer: Writer, node: Node) -> None:
        """Write the operator for `node`."""


def patterns(graph: Graph) -> dict[Node, Pattern]:
    """The patterns in the graph, by the node that ends each."""
    found: dict[Node, Pattern] = {}
    for node in graph.nodes():
        pattern = _batch_norm(node) or _response_norm(node)
        if pattern is not None:
            found[node] = pattern
    return found


def _arguments(value: Value, kind: str) -> tuple[Value, ...] | None:
    """The operands of the arithmetic that gives `value`, if it is of this kind."""
    op = value.op
    same = (isinstance(op, Binary) and op.kind == kind and op.activation is None) or (isinstance(op, Unary) and op.function.kind == kind)
    return value.node.inputs if same else None


# ---- batch normalisation -------------------------------------------------------------------------------------------------


@record
class BatchNorm:
    """x, weight, bias, mean, variance; x is channels last."""

    inputs: tuple[Value, ...]
    epsilon: float

    def write(self, writer: Writer, node: Node) -> None:
        x, *vectors = self.inputs
        names = [writer.name(value) for value in vectors]
        last = len(x.shape) - 1
        first = writer.tensor(x, (0, last, *range(1, last)))
        y = writer.emit("BatchNormalization", [first, *names], epsilon=self.epsilon)
        writer.give(node.outputs[0], y, (0, *range(2, last + 1), 1))


def _batch_norm(node: Node) -> BatchNorm | None:
    """``x * scale + (bias - mean * scale)`` with ``scale = weight * rsqrt(variance + epsilon)``: see functional.batch_norm."""
    if not (ends := _arguments(node.outputs[0], "add")) or not (product := _arguments(ends[0], "mul")):
        return None
    x, scale = product
    if not (parts := _arguments(scale, "mul")) or not (deviation := _arguments(parts[1], "rsqrt")) or not (variance := _arguments(deviation[0], "affine")):
        return None
    if not (shift := _arguments(ends[1], "sub")) or not (moved := _arguments(shift[1], "mul")) or moved[1] is not scale:
        return None
    function = deviation[0].op.function  # type: ignore[attr-defined]
    vectors = (parts[0], shift[0], moved[0], variance[0])
    if function.alpha != 1 or any(value.shape != x.shape[-1:] for value in vectors) or len(x.shape) < 2:
        return None
    return BatchNorm((x, *vectors), function.beta)


# ---- local response normalisation ----------------------------------------------------------------------------------------


@record
class ResponseNorm:
    """x [n,c,...] and the operator's attributes."""

    inputs: tuple[Value, ...]
    size: int
    alpha: float
    beta: float
    bias: float

    def write(self, writer: Writer, node: Node) -> None:
        y = writer.emit("LRN", [writer.name(self.inputs[0])], size=self.size, alpha=self.alpha, beta=self.beta, bias=self.bias)
        writer.give(node.outputs[0], y)


def _unshaped(value: Value) -> Value:
    """The value before reshapes."""
    while isinstance(value.op, Reshape):
        value = value.node.inputs[0]
    return value


def _response_norm(node: Node) -> ResponseNorm | None:
    """``x * (bias + alpha / size * sum of squares of neighbouring channels) ** -beta``, the sums a map along the axis of the channels."""
    if not (product := _arguments(node.outputs[0], "mul")):
        return None
    x, power = product[0], _unshaped(product[1])
    if not (scaled := _arguments(power, "pow")) or not (sums := _arguments(scaled[0], "affine")) or not isinstance(sums[0].op, Resample):
        return None
    rows, cols = sums[0].op.rows, sums[0].op.cols
    windows = regular_windows(rows)
    if not (squared := _arguments(_unshaped(sums[0].node.inputs[0]), "square")) or squared[0] is not x or len(x.shape) < 3:
        return None
    channels = x.shape[1]
    straight = cols.shape == (1, 1) and cols.table[2] == (1.0,) and rows.shape == (channels, channels) and sums[0].shape[:2] == x.shape[:2]
    if not straight or windows is None or windows.stride != 1 or abs(windows.per_kernel - windows.kernel) > 1e-9 or windows.before != (windows.kernel - 1) // 2:
        return None
    affine, root = scaled[0].op.function, power.op.function  # type: ignore[attr-defined]
    return ResponseNorm((x,), windows.kernel, affine.alpha * windows.kernel, -root.alpha, affine.beta)
