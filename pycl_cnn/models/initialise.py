"""Initial weights that several of the published networks share."""

from __future__ import annotations

import numpy as np

from ..nn import BatchNorm2d, Conv2d, Linear, Module, init


def kaiming_fan_out(model: Module) -> None:
    """Convolutions normal with variance 2 / fan_out and zero biases, batch norms the identity (He et al., 2015)."""
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.weight.data = init.kaiming_normal(module.weight.shape, init.fan_out(module.weight.shape))
            if module.bias is not None:
                module.bias.data = np.zeros(module.bias.shape)
        elif isinstance(module, BatchNorm2d) and module.weight is not None and module.bias is not None:
            module.weight.data, module.bias.data = np.ones(module.weight.shape), np.zeros(module.bias.shape)


def normal_linear(model: Module, std: float = 0.01) -> None:
    """Dense layers normal with deviation `std` and zero biases."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.weight.data = init.normal(module.weight.shape, std)
            if module.bias is not None:
                module.bias.data = np.zeros(module.bias.shape)
