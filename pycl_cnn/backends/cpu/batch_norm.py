"""Training batch norm on the CPU: partial sums, their combination in fixed order, the normalisation. See src/batch_norm.h.

Statistics are of what a convolution has written, as a rule, whose tasks write whole rows: the parts are then those tasks' rows, and whoever has
written a part sums it up at once, out of the core's cache. (Gradients do not gain: beside dy they read x, which no task has just written.)
"""

from __future__ import annotations

import math
from typing import Any

from ...ops.base import Op
from ...ops.batch_norm import BatchNormBackward, BatchNormTraining
from . import _kernels
from .launch import At, CpuAlgorithm, Device, Launch, Node, launch

LEAST_ROWS = 32  # of a part: joining smaller ones to the others takes as long as is won


def _written_in(node: Node) -> tuple[int, int] | None:
    """The rows of an image and of a task (CpuAlgorithm.task_rows) of what statistics are of, where parts can be such tasks' rows."""
    source = node.inputs[0].node
    if isinstance(node.op, BatchNormBackward) or not isinstance(source.algorithm, CpuAlgorithm):
        return None
    written = source.algorithm.task_rows(source)
    return written if written and written[1] >= LEAST_ROWS else None


def _sizes(node: Node) -> dict[str, int]:
    x = node.inputs[0]
    rows, c = math.prod(x.shape[:-1]), x.shape[-1]
    sizes = {"rows": rows, "c": c, **_kernels.batch_norm_blocks(rows, c)}
    if written := _written_in(node):
        sizes.update(image_rows=written[0], part_rows=written[1], near=1)
    return sizes


def members_of(node: Node) -> dict[str, Any]:
    """The parameters of the kernels of a batch norm or its gradient."""
    op = node.op
    assert isinstance(op, BatchNormTraining | BatchNormBackward)
    f = op.activation
    return {
        **_sizes(node),
        "activation": f.number if f else 0,
        "alpha": f.alpha if f else 0.0,
        "beta": f.beta if f else 0.0,
        "eps": getattr(op, "eps", 0.0),
        "momentum": getattr(op, "momentum", 0.0),
    }


def statistics(node: Node, partial: At) -> list[Launch]:
    """The calls that compute the statistics of a training batch norm."""
    x, _, _, running_mean, running_var = node.inputs
    _, mean, rstd, _, _ = node.outputs
    members = members_of(node)
    return [
        launch("batch_norm_statistics", (x, partial), **members),
        launch("batch_norm_finalize", (partial, x, mean, rstd, running_mean, running_var), **members),
    ]


class Parts(CpuAlgorithm):
    """What sums up in parts."""

    name = "partial sums"

    def workspace(self, node: Node, device: Device) -> int:
        return _kernels.batch_norm_workspace(_kernels.batch_norm_params(**members_of(node)))

    def follows(self, node: Node) -> Node | None:
        return node.inputs[0].node if _written_in(node) else None


class PartialSums(Parts):
    reason = "parts by size alone, combined in order"

    def launches(self, node: Node) -> list[Launch]:
        members, partial = members_of(node), At(None)
        if isinstance(node.op, BatchNormTraining):
            x, gamma, beta, _, _ = node.inputs
            y, mean, rstd, _, _ = node.outputs
            return [*statistics(node, partial), launch("batch_norm_normalise", (x, gamma, beta, mean, rstd, y), **members)]
        x, dy, gamma, beta, mean, rstd = node.inputs
        dx, dgamma, dbeta = node.outputs
        return [
            launch("batch_norm_backward_partial", (x, dy, gamma, beta, mean, rstd, partial), **members),
            launch("batch_norm_backward_finalize", (partial, dgamma, dbeta), **members),
            launch("batch_norm_backward_input", (x, dy, gamma, beta, mean, rstd, dgamma, dbeta, dx), **members),
        ]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {BatchNormTraining: [PartialSums()], BatchNormBackward: [PartialSums()]}
