"""Runs one CPU kernel directly, without graph or plan, between guard zones."""

from __future__ import annotations

import numpy as np

from pycl_cnn.backends.cpu import _kernels as kernels

ISAS = kernels.isa_list()
GUARD = 64  # elements on either side of every array
PATTERN = 0x7FC0DEAD  # of the guards: as a float it is a NaN


def empty(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """An output of NaN, or for integers of a number that no kernel writes."""
    return np.full(shape, np.nan if dtype is np.float32 else -(2**30), dtype)


def run(isa: str, kernel: str, members: dict, *buffers: np.ndarray | None) -> None:
    """Runs all tasks of a kernel in place on its buffers, on 1 and 2 threads: the bits must agree and the guards stay whole.

    An array that is given twice is one buffer to the kernel as well.
    """
    arrays = list({id(buffer): buffer for buffer in buffers if buffer is not None}.values())
    place = {id(array): (base, 4 * GUARD) for base, array in enumerate(arrays, 1)}
    params = getattr(kernels, f"{kernel}_params")(**members)
    step = (kernel, params, [None if b is None else place[id(b)] for b in buffers], kernels.kernel_tasks(kernel, params))
    program = kernels.Program([step], [64] + [a.nbytes + 8 * GUARD for a in arrays], written=range(1, len(arrays) + 1), isa=isa)
    results = []
    for threads in (1, 2):
        memories = [np.full(array.size + 2 * GUARD, PATTERN, np.int32) for array in arrays]
        for base, (memory, array) in enumerate(zip(memories, arrays, strict=True), 1):
            memory[GUARD:-GUARD] = np.ravel(array).view(np.int32)
            program.bind(base, memory)
        program.run(threads)
        for memory in memories:
            assert (memory[:GUARD] == PATTERN).all() and (memory[-GUARD:] == PATTERN).all(), f"{kernel} wrote outside a buffer"
        results.append([memory[GUARD:-GUARD].copy() for memory in memories])
    for one, two in zip(*results, strict=True):
        assert (one == two).all(), f"{kernel} depends on the number of threads"
    for array, words in zip(arrays, results[0], strict=True):
        array[...] = words.view(array.dtype).reshape(array.shape)


def padded(values: object) -> list[int]:
    """A shape or strides as a kernel takes them: six numbers."""
    return [*values, *[0] * (6 - len(values))]  # type: ignore[misc, arg-type]


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distances in units of the last place; infinities and NaN must agree."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(got[np.isinf(rounded)], rounded[np.isinf(rounded)])
    finite = np.isfinite(rounded)
    unit = np.spacing(np.maximum(np.abs(rounded[finite]), np.finfo(np.float32).tiny)).astype(np.float64)
    return np.abs(got[finite].astype(np.float64) - exact[finite]) / unit
