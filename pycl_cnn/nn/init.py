"""Initial weights, with PyTorch's formulas.

Drawn in float32. Large arrays are drawn in pieces of a fixed size, each from a stream of its own, by several threads: the
numbers follow from `manual_seed` and the shape alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from ..random import generator

#: Elements of one piece: large enough that a thread is worth it, small enough that all processors find work.
PIECE = 1 << 20

_skipped: ContextVar[bool] = ContextVar("pycl_cnn_init_skipped", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Layers made inside get zeros for weights: for those that a model initialises itself, or loads."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def _drawn(shape: Sequence[int], draw: Callable[[np.random.Generator, np.ndarray], None]) -> np.ndarray:
    """A read-only float32 array of `shape` that `draw` filled piece by piece; a Parameter takes it over without a copy."""
    array = np.zeros(tuple(shape), np.float32)
    if not _skipped.get():
        _fill(array.reshape(-1), draw)
    array.flags.writeable = False
    return array


def _fill(flat: np.ndarray, draw: Callable[[np.random.Generator, np.ndarray], None]) -> None:
    if flat.size <= PIECE:
        draw(generator(), flat)
        return
    from concurrent.futures import ThreadPoolExecutor

    pieces = [flat[first : first + PIECE] for first in range(0, flat.size, PIECE)]
    seeds = np.random.SeedSequence(generator().integers(1 << 32, size=4).tolist()).spawn(len(pieces))
    streams = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(draw, streams, pieces))


def uniform(shape: Sequence[int], bound: float) -> np.ndarray:
    """Uniform in [-bound, bound)."""

    def draw(stream: np.random.Generator, out: np.ndarray) -> None:
        stream.random(out=out, dtype=np.float32)
        out *= 2 * bound
        out -= bound

    return _drawn(shape, draw)


def normal(shape: Sequence[int], std: float) -> np.ndarray:
    """Normal with mean 0."""

    def draw(stream: np.random.Generator, out: np.ndarray) -> None:
        stream.standard_normal(out=out, dtype=np.float32)
        out *= std

    return _drawn(shape, draw)


def fan_in(shape: Sequence[int]) -> int:
    """Products summed into one output of a weight [out, in, ...]."""
    return math.prod(shape[1:])


def fan_out(shape: Sequence[int]) -> int:
    """Outputs that one input of a weight [out, in, ...] is multiplied into."""
    return shape[0] * math.prod(shape[2:])


def kaiming_uniform(shape: Sequence[int], gain: float = math.sqrt(1 / 3)) -> np.ndarray:
    """Uniform with bound ``gain * sqrt(3 / fan_in)`` (He et al., 2015); the default gain is that of PyTorch's layers (a = sqrt(5))."""
    return uniform(shape, gain * math.sqrt(3 / max(fan_in(shape), 1)))


def kaiming_normal(shape: Sequence[int], fan: int, gain: float = math.sqrt(2)) -> np.ndarray:
    """Normal with standard deviation ``gain / sqrt(fan)`` (He et al., 2015); the default gain is that of ReLU."""
    return normal(shape, gain / math.sqrt(max(fan, 1)))
