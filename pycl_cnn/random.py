"""The one source of randomness: initial weights, shuffling and dropout follow from `manual_seed`."""

from __future__ import annotations

import threading

import numpy as np

_lock = threading.Lock()
_seed = 0
_generator: np.random.Generator | None = None  # made when it is first drawn from: numpy.random takes a while to import
_step = 0


def manual_seed(seed: int) -> None:
    """Start the generator of initial weights, shuffles and dropout anew (as torch.manual_seed; the numbers are other ones)."""
    global _seed, _generator, _step
    with _lock:
        _seed, _generator, _step = int(seed), None, 0


def generator() -> np.random.Generator:
    """The NumPy generator that initialisation and shuffling draw from."""
    global _generator
    with _lock:
        if _generator is None:
            _generator = np.random.default_rng(_seed)
        return _generator


def next_state() -> np.ndarray:
    """int32 (seed, step) for the dropouts of one run; the step goes up by one at each call."""
    global _step
    with _lock:
        _step += 1
        return np.array([_seed & 0x7FFFFFFF, _step & 0x7FFFFFFF], np.int32)
