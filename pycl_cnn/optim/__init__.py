"""Optimizers with PyTorch's names, arguments and update rules. They hold settings; the arrays live in the training program."""

from __future__ import annotations

from ..errors import ShapeError
from ..ops import optimizer as rules
from ..ops.optimizer import UpdateRule


def _check(operation: str, **values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ShapeError(operation, f"{name} must not be negative", **{name: value})


class Optimizer:
    """A learning rate that may be changed between steps, and an update rule."""

    def __init__(self, lr: float, rule: UpdateRule) -> None:
        _check(type(self).__name__, lr=lr)
        self.lr, self.rule = lr, rule

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr}, {self.rule.attributes()})".replace(", )", ")")


class SGD(Optimizer):
    """torch.optim.SGD: stochastic gradient descent with momentum, dampening, weight decay and Nesterov's variant."""

    def __init__(self, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> None:
        _check("SGD", momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ShapeError("SGD", "nesterov needs a momentum and no dampening", momentum=momentum, dampening=dampening)
        super().__init__(lr, rules.SGD(momentum, dampening, weight_decay, nesterov))


class Adam(Optimizer):
    """torch.optim.Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        _check("Adam", eps=eps, weight_decay=weight_decay)
        super().__init__(lr, rules.Adam(*_betas("Adam", betas), eps, weight_decay, False))


class AdamW(Optimizer):
    """torch.optim.AdamW (Loshchilov and Hutter, 2019); weight decay shrinks the parameter itself."""

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> None:
        _check("AdamW", eps=eps, weight_decay=weight_decay)
        super().__init__(lr, rules.Adam(*_betas("AdamW", betas), eps, weight_decay, True))


class RMSprop(Optimizer):
    """torch.optim.RMSprop (Hinton, lecture 6e of "Neural networks for machine learning")."""

    def __init__(
        self, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False
    ) -> None:
        _check("RMSprop", alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(lr, rules.RMSprop(alpha, eps, weight_decay, momentum, centered))


def _betas(operation: str, betas: tuple[float, float]) -> tuple[float, float]:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ShapeError(operation, "betas must be two numbers of at least 0 and below 1", betas=betas)
    return betas[0], betas[1]


__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]
