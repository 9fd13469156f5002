"""Dropout with OpenCL. See kernels_cl/dropout.cl."""

from __future__ import annotations

import math

import numpy as np

from ...ops.base import Op
from ...ops.dropout import Dropout
from .call import Call, Context, Node, OpenClAlgorithm
from .sizes import blocks, grid, stream


class Philox(OpenClAlgorithm):
    name = "philox"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Dropout)
        count = node.outputs[0].spec.size
        items, span = stream(context, blocks(count, 4), 4)
        arguments = {
            "x": node.inputs[0],
            "rng": node.inputs[1],
            "y": node.outputs[0],
            "count": count,
            "stream": node.op.stream,
            "threshold": math.ceil(float(np.float32(node.op.p)) * 2**24),
            "span": 4 * span,
            "scale": 1.0 / (1.0 - node.op.p),
        }
        return [Call("dropout", "dropout", *grid(context, items), arguments)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Dropout: [Philox()]}
