"""Update rules on the CPU. See src/optimizer.h."""

from __future__ import annotations

from typing import Any

from ...ops.base import Op
from ...ops.optimizer import SGD, Adam, RMSprop
from .launch import CpuAlgorithm, Launch, Node, launch


class InPlace(CpuAlgorithm):
    name = "in place"

    def launches(self, node: Node) -> list[Launch]:
        op = node.op
        param, grad, *slots, hyper = node.inputs
        size = param.spec.size
        members: dict[str, Any]
        if isinstance(op, SGD):
            kernel, buffers = "sgd", [param, grad, slots[0] if slots else None, hyper]
            members = {"nesterov": int(op.nesterov), "momentum": op.momentum, "one_minus_dampening": 1 - op.dampening}
        elif isinstance(op, Adam):
            kernel, buffers = "adam", [param, grad, *slots, hyper]
            members = {
                "decoupled": int(op.decoupled),
                "one_minus_beta1": 1 - op.beta1,
                "beta2": op.beta2,
                "one_minus_beta2": 1 - op.beta2,
                "eps": op.eps,
            }
        else:
            assert isinstance(op, RMSprop)
            by_name = dict(zip(op.slots, slots, strict=True))
            kernel = "rmsprop"
            buffers = [param, grad, by_name["square_avg"], by_name.get("grad_avg"), by_name.get("momentum_buffer"), hyper]
            members = {"alpha": op.alpha, "one_minus_alpha": 1 - op.alpha, "eps": op.eps, "momentum": op.momentum}
        return [launch(kernel, buffers, size=size, weight_decay=op.weight_decay, **members)]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {SGD: [InPlace()], Adam: [InPlace()], RMSprop: [InPlace()]}
