"""Dropout on the CPU. See src/dropout.h."""

from __future__ import annotations

import math

import numpy as np

from ...ops.base import Op
from ...ops.dropout import Dropout
from .launch import CpuAlgorithm, Launch, Node, launch


class Philox(CpuAlgorithm):
    name = "philox"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, Dropout)
        size = node.outputs[0].spec.size
        threshold = math.ceil(float(np.float32(node.op.p)) * 2**24)
        members = {"size": size, "stream": node.op.stream, "threshold": threshold, "keep": 1.0 - node.op.p}
        return [launch("dropout", (*node.inputs, node.outputs[0]), **members)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {Dropout: [Philox()]}
