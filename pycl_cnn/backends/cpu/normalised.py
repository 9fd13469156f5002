"""Training batch norms whose result is never written: what reads it normalises as it reads. See src/normalise.h.

In training a batch norm's result z is read by the next convolution and by that one's weight gradient, or by max pooling; its own
gradient takes x. If its readers copy their input into scratch in any case, or gladly would, or touch it but once or twice, they read x and a table of the channels' factors instead, and
the pass over memory that reads x and writes z is gone, and so is z:

    x -- BatchNormTraining --> z --> Conv, ConvBackwardWeight
    x -- BatchNormStatistics --> table;    x, table --> Conv, ConvBackwardWeight
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...ops.base import Op, Spec, floats
from ...ops.batch_norm import BatchNormTraining
from ...ops.conv import Conv, ConvBackwardWeight
from ...ops.max_pool import MaxPool
from ...records import record
from . import _kernels
from .batch_norm import Parts, members_of, statistics
from .conv import ImplicitGemm, WeightGradient
from .conv_depthwise import Depthwise, DepthwiseWeightGradient
from .launch import At, CpuAlgorithm, Graph, Launch, Node, Value, launch
from .max_pool import WindowTables

if TYPE_CHECKING:
    from ...geometry import ConvGeometry

TABLE_ROWS = 5  # of src/normalise.h: mean, scale, shift and the bounds of the activation
BOUNDS = (None, "relu", "clip")  # activations that are a clip


@record
class BatchNormStatistics(BatchNormTraining):
    """A training batch norm up to its statistics: the table that normalises takes the place of y."""

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        _, *vectors = super().infer(*inputs)
        return (floats(TABLE_ROWS, inputs[0].shape[-1]), *vectors)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 4 * inputs[0].size


class StatisticsAlone(Parts):
    reason = "what reads the result normalises it as it reads"

    def launches(self, node: Node) -> list[Launch]:
        _, gamma, beta, _, _ = node.inputs
        table, mean, rstd, _, _ = node.outputs
        return [*statistics(node, At(None)), launch("batch_norm_normaliser", (gamma, beta, mean, rstd, table), **members_of(node))]


class NormalisedRead(CpuAlgorithm):
    """An algorithm whose kernel normalises its input as it reads; the last input is the table."""

    def launches(self, node: Node) -> list[Launch]:
        first, *rest = super().launches(node)
        kernel = f"{first.kernel}_normalised"
        return [replace(first, kernel=kernel, buffers=(*first.buffers, node.inputs[-1]), scratch=self.scratch(kernel, first.params)), *rest]

    def scratch(self, kernel: str, params: bytes) -> int:
        return _kernels.conv_sizes(kernel, params)[1]


class NormalisedGemm(NormalisedRead, ImplicitGemm):
    pass


class NormalisedDepthwise(NormalisedRead, Depthwise):
    pass


class NormalisedWeightGradient(NormalisedRead, WeightGradient):
    pass


class NormalisedDepthwiseWeightGradient(NormalisedRead, DepthwiseWeightGradient):
    pass


class NormalisedMaxPool(NormalisedRead, WindowTables):
    def scratch(self, kernel: str, params: bytes) -> int:
        return 0


READERS: dict[type[CpuAlgorithm], CpuAlgorithm] = {
    ImplicitGemm: NormalisedGemm(),
    Depthwise: NormalisedDepthwise(),
    WeightGradient: NormalisedWeightGradient(),
    DepthwiseWeightGradient: NormalisedDepthwiseWeightGradient(),
    WindowTables: NormalisedMaxPool(),
}


def pixels_alone(g: ConvGeometry) -> bool:
    """Whether each output is computed from one pixel: 1x1, stride 1, not padded."""
    return g.kernel == (1, 1) and g.stride == (1, 1) and g.padding == ((0, 0), (0, 0))


def reads_normalised(node: Node, value: Value) -> bool:
    """Whether `node`, which reads `value`, could read what it was normalised from."""
    op = node.op
    if not isinstance(op, Conv | ConvBackwardWeight | MaxPool) or type(node.algorithm) not in READERS:
        return False
    able = isinstance(op, MaxPool) or isinstance(node.algorithm, Depthwise | DepthwiseWeightGradient) or pixels_alone(op.geometry)
    return able and node.inputs[0] is value and value not in node.inputs[1:]


def normalise_at_readers(graph: Graph) -> bool:
    """Let readers normalise, where all readers of a training batch norm's result can; whether there were any."""
    found = False
    for node in graph.nodes():
        op, y = node.op, node.outputs[0]
        if type(op) is not BatchNormTraining or (op.activation.kind if op.activation else None) not in BOUNDS:
            continue
        if graph.is_root(y) or not y.users or not all(reads_normalised(user, y) for user in y.users):
            continue
        with graph.at(node):
            table, *vectors = graph.add(BatchNormStatistics(op.eps, op.momentum, op.activation), *node.inputs)
        for user in list(y.users):
            graph.rewire(user, 0, node.inputs[0])
            graph.extend(user, table)
            user.algorithm = READERS[type(user.algorithm)]
            user.reason += f"; normalises {node.scope or 'its input'} as it reads"
        for old, new in zip(node.outputs[1:], vectors, strict=True):
            graph.replace(old, new)
        found = True
    return found


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {BatchNormStatistics: [StatisticsAlone()]}
