"""The ceilings of the processor, by the kernels of src/ceilings.h on all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ceilings import COPY_SIZES, Ceilings, measured
from . import _kernels
from .threads import get_num_threads

CHAINS = 12  # CEILING_CHAINS


def _loop(kernel: str, arrays: list[np.ndarray], tasks: int, **members: int) -> Callable[[int], None]:
    """``run(rounds)`` of a kernel of src/ceilings.h."""

    def run(rounds: int) -> None:
        params = getattr(_kernels, f"{kernel}_params")(tasks=tasks, rounds=rounds, **members)
        program = _kernels.Program([(kernel, params, [(base, 0) for base in range(1, len(arrays) + 1)], tasks)], [0, *(a.nbytes for a in arrays)])
        for base, array in enumerate(arrays, 1):
            program.bind(base, array)
        program.run(threads)

    threads = get_num_threads()
    return run


def measure() -> Ceilings:
    """Ceilings of as many threads as programs use."""
    threads, lanes = get_num_threads(), _kernels.vector_length()

    def multiply_adds(rounds: int) -> float:
        loop(rounds)
        return 2.0 * rounds * CHAINS * lanes * threads

    def copy_of(size: int) -> Callable[[int], float]:
        items = size // 8 // threads
        run = _loop("copies", [np.ones(items * threads, np.float32), np.ones(items * threads, np.float32)], threads, items=items)

        def work(rounds: int) -> float:
            run(rounds)
            return 8.0 * items * threads * rounds

        return work

    loop = _loop("multiply_adds", [np.zeros(threads, np.float32)], threads)
    return measured(multiply_adds, copy_of, COPY_SIZES[-1])
