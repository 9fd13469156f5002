"""Training batch norm with OpenCL: moments of parts, joined in order; then the normalisation. See kernels_cl/batch_norm.cl."""

from __future__ import annotations

import math
from typing import Any

from ...graph import Value
from ...ops.base import Op
from ...ops.batch_norm import BatchNormBackward, BatchNormTraining
from .call import At, Call, Context, Device, Node, OpenClAlgorithm
from .sizes import CPU_ITEM, blocks, clamp, grid, side_by_side, vector

MOST_PARTS = 64


def _sizes(x: Value) -> tuple[int, int, int, int]:
    """(rows, channels, rows of a part, parts), by sizes alone."""
    rows, c = math.prod(x.shape[:-1]), x.shape[-1]
    parts = clamp(rows * min(c, 256) // 16384, 1, min(MOST_PARTS, rows))
    per_part = blocks(rows, parts)
    return rows, c, per_part, blocks(rows, per_part)


class PartialMoments(OpenClAlgorithm):
    name = "partial sums"
    reason = "parts by size alone, combined in order"

    def workspace(self, node: Node, device: Device) -> int:
        _, c, _, parts = _sizes(node.inputs[0])
        return 4 * 2 * c * parts

    def calls(self, node: Node, context: Context) -> list[Call]:
        op = node.op
        assert isinstance(op, BatchNormTraining | BatchNormBackward)
        rows, c, per_part, parts = _sizes(node.inputs[0])
        f = op.activation
        activation = {"activation_alpha": f.alpha if f else 0.0, "activation_beta": f.beta if f else 0.0}
        lanes = blocks(c, vector(context, "batch_norm"))
        together = side_by_side(context, lanes)
        defines = {"ACTIVATION": f.number if f else 0, "VECTORS": together}
        rows_per_item = 1 if context.device.is_gpu else clamp(CPU_ITEM // c, 1, rows)
        partial = At(None)
        sizes: dict[str, Any] = {"rows": rows, "channels": c}

        def call(entry: str, items: tuple[int, ...], **arguments: Any) -> Call:
            return Call("batch_norm", entry, *grid(context, *items), {**sizes, **arguments}, defines)

        by_rows = (blocks(lanes, together), blocks(rows, rows_per_item))
        by_parts = (blocks(lanes, together), parts)
        if isinstance(op, BatchNormTraining):
            x, gamma, beta, running_mean, running_var = node.inputs
            y, mean, rstd, _, _ = node.outputs
            return [
                call("batch_norm_moments", by_parts, x=x, moments=partial, rows_per_part=per_part),
                call(
                    "batch_norm_statistics",
                    (lanes,),
                    moments=partial,
                    running_mean=running_mean,
                    running_variance=running_var,
                    mean=mean,
                    rstd=rstd,
                    rows_per_part=per_part,
                    parts=parts,
                    epsilon=op.eps,
                    momentum=op.momentum,
                ),
                call("batch_norm_normalise", by_rows, x=x, gamma=gamma, beta=beta, mean=mean, rstd=rstd, y=y, rows_per_item=rows_per_item, **activation),
            ]
        x, dy, gamma, beta, mean, rstd = node.inputs
        dx, dgamma, dbeta = node.outputs
        shared = {"x": x, "dy": dy, "gamma": gamma, "beta": beta, "mean": mean, "rstd": rstd}
        return [
            call("batch_norm_backward_sums", by_parts, **shared, sums=partial, rows_per_part=per_part, **activation),
            Call("batch_norm", "batch_norm_backward_join", *grid(context, lanes), {"channels": c, "sums": partial, "dgamma": dgamma, "dbeta": dbeta, "parts": parts}, defines),
            call("batch_norm_backward", by_rows, **shared, dgamma=dgamma, dbeta=dbeta, dx=dx, rows_per_item=rows_per_item, **activation),
        ]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {BatchNormTraining: [PartialMoments()], BatchNormBackward: [PartialMoments()]}
