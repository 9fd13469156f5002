"""Elementwise operations with OpenCL. See kernels_cl/pointwise.cl."""

from __future__ import annotations

import math

import numpy as np

from ...ops.base import Op
from ...ops.pointwise import BINARY_KINDS, Binary, Unary, UnaryBackward
from ..strided import broadcast_strides, merge_axes
from .call import Call, Context, Node, OpenClAlgorithm, Table
from .sizes import CPU_ITEM, blocks, clamp, grid, stream, vector


class UnaryLoop(OpenClAlgorithm):
    name = "vector loop"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Unary | UnaryBackward)
        f = node.op.function
        (y,) = node.outputs
        items, span = stream(context, y.spec.size, vector(context, "pointwise"))
        arguments = {"count": y.spec.size, "span": span, "alpha": f.alpha, "beta": f.beta}
        if isinstance(node.op, Unary):
            entry, buffers = "unary", {"x": node.inputs[0], "y": y}
        else:
            entry, buffers = "unary_backward", {"dy": node.inputs[0], "x": node.inputs[1], "dx": y}
        return [Call("pointwise", entry, *grid(context, items), {**buffers, **arguments}, {"ACTIVATION": f.number})]


class BinaryLoop(OpenClAlgorithm):
    name = "vector loop"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Binary)
        a, b = node.inputs
        (y,) = node.outputs
        f = node.op.activation
        shape, (sa, sb) = merge_axes(y.shape, broadcast_strides(a.shape, y.shape), broadcast_strides(b.shape, y.shape))
        rows, inner = math.prod(shape[:-1]), shape[-1]
        items, span = stream(context, inner, vector(context, "pointwise"))
        rows_per_item = 1 if context.device.is_gpu else clamp(CPU_ITEM // max(1, inner), 1, max(1, rows))
        arguments = {
            "a": a,
            "b": b,
            "y": y,
            "outer": Table(np.array(list(zip(shape[:-1], sa[:-1], sb[:-1], strict=True)) or [(1, 0, 0)], np.int32)),
            "outer_rank": len(shape) - 1,
            "rows": rows,
            "rows_per_item": rows_per_item,
            "inner": inner,
            "a_inner_stride": sa[-1],
            "b_inner_stride": sb[-1],
            "span": span,
            "alpha": f.alpha if f else 0.0,
            "beta": f.beta if f else 0.0,
        }
        defines = {"BINARY": BINARY_KINDS[node.op.kind], "ACTIVATION": f.number if f else 0}
        return [Call("pointwise", "binary", *grid(context, items, blocks(rows, rows_per_item)), arguments, defines)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Unary: [UnaryLoop()], UnaryBackward: [UnaryLoop()], Binary: [BinaryLoop()]}
