"""Update rules with OpenCL. See kernels_cl/optimizer.cl."""

from __future__ import annotations

from typing import Any

from ...ops.base import Op
from ...ops.optimizer import SGD, Adam, RMSprop
from .call import Call, Context, Node, OpenClAlgorithm
from .sizes import grid, stream, vector

MOMENTUM, NESTEROV, CENTERED, DECOUPLED = 1, 2, 4, 8  # bits of FLAGS


class InPlace(OpenClAlgorithm):
    name = "in place"

    def calls(self, node: Node, context: Context) -> list[Call]:
        op = node.op
        param, grad, *slots, hyper = node.inputs
        count = param.spec.size
        items, span = stream(context, count, vector(context, "optimizer"))
        arguments: dict[str, Any] = {"param": param, "grad": grad, "hyper": hyper, "count": count, "span": span}
        if isinstance(op, SGD):
            entry, flags = "sgd", MOMENTUM * bool(op.momentum) | NESTEROV * op.nesterov
            arguments |= {"velocity": slots[0] if slots else None, "momentum": op.momentum, "dampening": op.dampening}
        elif isinstance(op, Adam):
            entry, flags = "adam", DECOUPLED * op.decoupled
            arguments |= {"m": slots[0], "v": slots[1], "beta1_rest": 1 - op.beta1, "beta2": op.beta2, "beta2_rest": 1 - op.beta2, "epsilon": op.eps}
        else:
            assert isinstance(op, RMSprop)
            by_name = dict(zip(op.slots, slots, strict=True))
            entry, flags = "rmsprop", MOMENTUM * bool(op.momentum) | CENTERED * op.centered
            arguments |= {
                "square_average": by_name["square_avg"],
                "gradient_average": by_name.get("grad_avg"),
                "velocity": by_name.get("momentum_buffer"),
                "alpha": op.alpha,
                "alpha_rest": 1 - op.alpha,
                "epsilon": op.eps,
                "momentum": op.momentum,
            }
        arguments["weight_decay"] = op.weight_decay
        return [Call("optimizer", entry, *grid(context, items), arguments, {"FLAGS": int(flags)})]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {SGD: [InPlace()], Adam: [InPlace()], RMSprop: [InPlace()]}
