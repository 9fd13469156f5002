"""How many threads programs run on. Results do not depend on it."""

from __future__ import annotations

import os

from ...errors import ShapeError
from . import _kernels

_threads = 0


def set_num_threads(count: int) -> None:
    """Let programs of the CPU backend use `count` threads. Raises ShapeError for less than 1."""
    global _threads
    if int(count) != count or count < 1:
        raise ShapeError("set_num_threads", "the number must be an integer of at least 1", count=count)
    _threads = int(count)


def get_num_threads() -> int:
    """Threads that programs of the CPU backend use: as set, else PYCL_CNN_NUM_THREADS, else one per processor of this process."""
    if not _threads:
        text = os.environ.get("PYCL_CNN_NUM_THREADS", "")
        if text and not (text.isdigit() and int(text) > 0):
            raise ShapeError("PYCL_CNN_NUM_THREADS", "must be an integer of at least 1", value=text)
        set_num_threads(int(text) if text else _kernels.default_threads())
    return _threads
