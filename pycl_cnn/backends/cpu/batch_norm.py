"""Training batch norm on the CPU: partial sums, their combination in fixed order, the normalisation. See src/batch_norm.h."""

from __future__ import annotations

import math
from typing import Any

from ...graph import Value
from ...ops.base import Op
from ...ops.batch_norm import BatchNormBackward, BatchNormTraining
from . import _kernels
from .launch import At, CpuAlgorithm, Device, Launch, Node, launch


def _sizes(x: Value) -> dict[str, int]:
    rows, c = math.prod(x.shape[:-1]), x.shape[-1]
    return {"rows": rows, "c": c, **_kernels.batch_norm_blocks(rows, c)}


def members_of(node: Node) -> dict[str, Any]:
    """The parameters of the kernels of a batch norm or its gradient."""
    op = node.op
    assert isinstance(op, BatchNormTraining | BatchNormBackward)
    f = op.activation
    return {
        **_sizes(node.inputs[0]),
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


class PartialSums(CpuAlgorithm):
    name = "partial sums"
    reason = "parts by size alone, combined in order"

    def workspace(self, node: Node, device: Device) -> int:
        sizes = _sizes(node.inputs[0])
        return 4 * sizes["parts"] * 2 * sizes["c"]

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
