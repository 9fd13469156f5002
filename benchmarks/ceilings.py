"""The processor's ceilings, measured: floating-point operations a second of a multiply-add loop, and bytes a second of copying.

The loops are C (ceilings.c) and are compiled for this processor when they are needed; any compiler that builds the package will do.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import perf_counter

import numpy as np

#: Sizes of source and target together, over which copying is measured: from a core's cache to main memory.
COPY_SIZES = tuple(2**exponent for exponent in (17, 19, 21, 23, 25, 28))
SAMPLE_SECONDS = 0.01


@cache
def _library() -> ctypes.CDLL:
    """The compiled loops. Raises RuntimeError where there is no C compiler."""
    compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    source = Path(__file__).with_name("ceilings.c")
    # The library stays loaded after its file is gone.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/ceilings.so"
        command = [compiler, "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", str(source), "-o", path]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise RuntimeError(f"ceilings: there is no C compiler {compiler!r}; set CC") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"ceilings: {compiler} failed: {error.stderr[-300:]}") from None
        library = ctypes.CDLL(path)
    library.multiply_add.restype = library.copy.restype = ctypes.c_int64
    library.multiply_add.argtypes = [ctypes.c_int64, ctypes.c_void_p]
    library.copy.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return library


def _rate(work: Callable[[int, int], int], threads: int, samples: int) -> float:
    """The best rate of several samples of ``work(thread, rounds) -> amount`` on all threads at once."""
    rounds, seconds = 1, 0.0
    while seconds < SAMPLE_SECONDS:
        rounds *= 2
        start = perf_counter()
        work(0, rounds)
        seconds = perf_counter() - start
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(samples):
            start = perf_counter()
            amount = sum(pool.map(lambda thread: work(thread, rounds), range(threads)))
            best = max(best, amount / (perf_counter() - start))
    return best


def flop_rate(threads: int, samples: int = 10) -> float:
    """Floating-point operations a second, a multiply-add counted as two."""
    library, sinks = _library(), np.zeros((threads, 64), np.float32)
    return _rate(lambda thread, rounds: library.multiply_add(rounds, sinks[thread].ctypes.data), threads, samples)


def copy_rate(nbytes: int, threads: int, samples: int = 5) -> float:
    """Bytes read and written a second, by copies whose sources and targets take `nbytes` together."""
    library, part = _library(), nbytes // 2 // threads
    arrays = np.ones((threads, 2, part), np.uint8)

    def work(thread: int, rounds: int) -> int:
        return library.copy(rounds, arrays[thread, 0].ctypes.data, arrays[thread, 1].ctypes.data, part)

    return _rate(work, threads, samples)


class Ceilings:
    """Measured when made, and again with `again`, for clocks drift: the best counts."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.flops = flop_rate(threads)
        self.copies = {size: copy_rate(size, threads) for size in COPY_SIZES}

    def again(self) -> None:
        self.flops = max(self.flops, flop_rate(self.threads))

    def bandwidth(self, nbytes: int) -> float:
        """Bytes a second for a step that touches `nbytes`: of the smallest copy that is as large."""
        size = next((size for size in COPY_SIZES if size >= nbytes), COPY_SIZES[-1])
        return self.copies[size]

    def floor(self, flops: int, nbytes: int) -> float:
        """Seconds that arithmetic or memory need at the least."""
        return max(flops / self.flops, nbytes / self.bandwidth(nbytes))

    def __str__(self) -> str:
        copies = ", ".join(f"{size / 2**20:.3g} MiB {rate / 1e9:.0f}" for size, rate in self.copies.items())
        return f"multiply-add loop {self.flops / 1e9:.0f} GFLOP/s; copying, GB/s read and written: {copies} ({self.threads} threads)"
