"""Initial weights, with PyTorch's formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..random import generator


def uniform(shape: Sequence[int], bound: float) -> np.ndarray:
    """Uniform in [-bound, bound)."""
    return generator().uniform(-bound, bound, tuple(shape)).astype(np.float32)


def normal(shape: Sequence[int], std: float) -> np.ndarray:
    """Normal with mean 0."""
    return (generator().standard_normal(tuple(shape)) * std).astype(np.float32)


def fan_in(shape: Sequence[int]) -> int:
    """Products summed into one output of a weight [out, in, ...]."""
    return math.prod(shape[1:])


def kaiming_uniform(shape: Sequence[int], gain: float = math.sqrt(1 / 3)) -> np.ndarray:
    """Uniform with bound ``gain * sqrt(3 / fan_in)`` (He et al., 2015); the default gain is that of PyTorch's layers (a = sqrt(5))."""
    return uniform(shape, gain * math.sqrt(3 / max(fan_in(shape), 1)))


def kaiming_normal(shape: Sequence[int], fan: int, gain: float = math.sqrt(2)) -> np.ndarray:
    """Normal with standard deviation ``gain / sqrt(fan)`` (He et al., 2015); the default gain is that of ReLU."""
    return normal(shape, gain / math.sqrt(max(fan, 1)))
