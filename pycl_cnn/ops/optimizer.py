"""Update rules, in place: PyTorch's, operation by operation.

Every rule reads ``hyper``, four floats given at each step; what they mean is said at the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import record
from .base import Op, Spec, require


@record
class UpdateRule(Op):
    """``param, gradient, slots..., hyper -> param, slots...``, all in place but the gradient and hyper."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept beside a parameter, as large as it is."""
        raise NotImplementedError

    @property
    def aliases(self) -> dict[int, int]:  # type: ignore[override]
        return {0: 0} | {1 + i: 2 + i for i in range(len(self.slots))}

    def hyper(self, lr: float, step: int) -> tuple[float, float, float, float]:
        """The four floats of update number `step`, counted from 1."""
        return (lr, 1.0 if step == 1 else 0.0, 0.0, 0.0)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        param, *others, hyper = inputs
        require(
            len(others) == 1 + len(self.slots) and all(o.shape == param.shape for o in others) and hyper.shape == (4,),
            self.name,
            "gradient and slots must have the parameter's shape",
            param=param.shape,
            others=[o.shape for o in others],
        )
        return (param, *others[1:])

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return (4 + 4 * len(self.slots)) * outputs[0].size


@record
class SGD(UpdateRule):
    """Stochastic gradient descent (torch.optim.SGD). hyper: lr, 1 at the first update else 0.

    ``g += weight_decay * p; v = g at the first update, else momentum * v + (1 - dampening) * g;
    g = g + momentum * v (nesterov) or v; p -= lr * g``.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        p, g, *slots, hyper = (array.astype(np.float64) for array in inputs)
        g = g + self.weight_decay * p
        if not self.momentum:
            return (p - hyper[0] * g,)
        v = g if hyper[1] else self.momentum * slots[0] + (1 - self.dampening) * g
        return (p - hyper[0] * (g + self.momentum * v if self.nesterov else v), v)


@record
class Adam(UpdateRule):
    """Adam (Kingma and Ba, 2015) and, `decoupled`, AdamW (Loshchilov and Hutter, 2019). hyper: lr, 1-beta1^t, 1-beta2^t.

    ``m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2; p -= lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + eps)``.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def hyper(self, lr: float, step: int) -> tuple[float, float, float, float]:
        return (lr, 1 - self.beta1**step, 1 - self.beta2**step, 0.0)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        p, g, m, v, hyper = (array.astype(np.float64) for array in inputs)
        if self.decoupled:
            p = p * (1 - hyper[0] * self.weight_decay)
        else:
            g = g + self.weight_decay * p
        m = m + (1 - self.beta1) * (g - m)
        v = self.beta2 * v + (1 - self.beta2) * g * g
        return (p - hyper[0] / hyper[1] * m / (np.sqrt(v) / np.sqrt(hyper[2]) + self.eps), m, v)


@record
class RMSprop(UpdateRule):
    """RMSprop (Hinton, lecture 6e; torch.optim.RMSprop). hyper: lr.

    ``s = alpha s + (1-alpha) g^2``; centered: ``a = lerp(a, g, 1-alpha)``, ``d = sqrt(s - a^2) + eps``, else ``d = sqrt(s) + eps``;
    ``b = momentum b + g/d; p -= lr b`` or, without momentum, ``p -= lr g/d``.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        return ("square_avg", *(["grad_avg"] if self.centered else []), *(["momentum_buffer"] if self.momentum else []))

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        p, g, *slots, hyper = (array.astype(np.float64) for array in inputs)
        g = g + self.weight_decay * p
        s = self.alpha * slots[0] + (1 - self.alpha) * g * g
        result = [s]
        average = s
        if self.centered:
            a = slots[1] + (1 - self.alpha) * (g - slots[1])
            average = s - a * a
            result.append(a)
        update = g / (np.sqrt(average) + self.eps)
        if self.momentum:
            update = self.momentum * slots[-1] + update
            result.append(update)
        return (p - hyper[0] * update, *result)
