"""The steps of a program on the CPU: runs of kernel calls, each one call of the C runner, and host steps between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ...graph import Value
from ...plan import ALIGNMENT, Plan, Step, Storage
from ..host import WORD, HostStep, evaluate
from . import _kernels
from .launch import At, Buffer, CpuAlgorithm, Launch

ARENA, BLOCK, FIRST = 0, 1, 2  # bases of a kernel program; from FIRST on arrays that are bound


def aligned_zeros(nbytes: int) -> np.ndarray:
    """Bytes as float32, beginning on a cache line; a whole number of cache lines."""
    nbytes = -(-nbytes // ALIGNMENT) * ALIGNMENT
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(np.float32)


@dataclass
class Segment:
    """Kernel calls that one call runs, or a step for the host."""

    steps: list[int]  # of each kernel call its step's number; of a host step its own
    kernels: _kernels.Program | None = None
    host: Step | None = None


class Segments:
    """`steps` of a plan, ready to run on memory that is bound.

    `places` are storages in `block` (byte offsets), `external` the storages of arrays that are given with `bind`, `written` those
    of them that steps write. What else there is lives in the arena.
    """

    def __init__(
        self, plan: Plan, steps: Sequence[Step], places: Mapping[Storage, int], block: np.ndarray, external: Sequence[Storage], written: Iterable[Storage], arena_bytes: int
    ) -> None:
        self.plan, self.places, self.block = plan, places, block
        hosted = any(isinstance(step.node.algorithm, HostStep) for step in steps)
        # Kernels alone have the arena of their runner; host steps need one that NumPy sees, too.
        self.arena = aligned_zeros(arena_bytes) if hosted else None
        outside = [storage for storage in external if storage.value.dtype.itemsize == WORD]  # nothing else do kernels read
        self.bases = {storage: FIRST + i for i, storage in enumerate(outside)}
        sizes = [0 if hosted else arena_bytes, block.nbytes, *(storage.nbytes for storage in outside)]
        self._shared_arena = len(sizes)
        if self.arena is not None:
            sizes.append(self.arena.nbytes)
        targets = [BLOCK, self._shared_arena, *(self.bases[storage] for storage in written if storage in self.bases)]
        self.arrays: dict[Storage, np.ndarray] = {}
        self.segments = [self._segment(steps, numbers, sizes, targets) for numbers in self._runs(steps)]
        self.programs = [segment.kernels for segment in self.segments if segment.kernels is not None]
        for kernels in self.programs:
            kernels.bind(BLOCK, block)
            if self.arena is not None:
                kernels.bind(self._shared_arena, self.arena)

    @staticmethod
    def _runs(steps: Sequence[Step]) -> Iterator[list[int]]:
        """Numbers of consecutive steps for kernels, and of single ones for the host."""
        run: list[int] = []
        for number, step in enumerate(steps):
            if isinstance(step.node.algorithm, HostStep):
                if run:
                    yield run
                yield [number]
                run = []
            else:
                run.append(number)
        if run or not steps:
            yield run

    def _segment(self, steps: Sequence[Step], numbers: list[int], sizes: Sequence[int], written: Sequence[int]) -> Segment:
        if numbers and isinstance(steps[numbers[0]].node.algorithm, HostStep):
            return Segment(numbers, host=steps[numbers[0]])
        calls: list[tuple[str, bytes, list[tuple[int, int] | None], int]] = []
        owners, follows, scratch = list[int](), list[int](), 0
        for number in numbers:
            step = steps[number]
            algorithm = step.node.algorithm
            assert isinstance(algorithm, CpuAlgorithm)
            launches: list[Launch] = [call for call in algorithm.launches(step.node) if call.tasks > 0]
            for call in launches:
                behind = (call.follows and owners[-1:] == [number]) or (step.follows and call is launches[0] and owners[-1:] == [number - 1])
                if behind and calls[-1][3] == call.tasks:
                    follows.append(len(calls))
                calls.append((call.kernel, call.params, [self._locate(step, buffer) for buffer in call.buffers], call.tasks))
                owners.append(number)
                scratch = max(scratch, call.scratch)
        return Segment(owners, _kernels.Program(calls, sizes, scratch, written=[base for base in written if base < len(sizes)], follows=follows))

    def _locate(self, step: Step, buffer: Buffer) -> tuple[int, int] | None:
        if buffer is None:
            return None
        value, offset = (buffer.value, buffer.offset) if isinstance(buffer, At) else (buffer, 0)
        storage = step.workspace if value is None else self.plan.places[value]
        assert storage is not None
        if storage in self.places:
            return BLOCK, self.places[storage] + offset
        if storage in self.bases:
            return self.bases[storage], offset
        return (ARENA if self.arena is None else self._shared_arena), storage.offset + offset

    def bind(self, storage: Storage, array: np.ndarray) -> None:
        """Let steps read or write `array` for `storage`."""
        self.arrays[storage] = array
        base = self.bases.get(storage)
        if base is not None:
            for kernels in self.programs:
                kernels.bind(base, array)

    def _array(self, value: Value) -> np.ndarray:
        """The elements of a value, where they are."""
        storage = self.plan.places[value]
        if value.nbytes == 0:
            return np.zeros(value.shape, value.dtype)
        if storage in self.arrays:
            return self.arrays[storage].reshape(value.shape)
        memory, offset = (self.block, self.places[storage]) if storage in self.places else (self.arena, storage.offset)
        assert memory is not None
        return memory.view(np.uint8)[offset : offset + value.nbytes].view(value.dtype).reshape(value.shape)

    def _write(self, value: Value, array: np.ndarray) -> None:
        self._array(value)[...] = array

    def run(self, threads: int) -> None:
        """All steps, in order."""
        for segment in self.segments:
            if segment.kernels is not None:
                segment.kernels.run(threads)
            elif segment.host is not None:
                evaluate(segment.host.node.op.reference, segment.host.node, self._array, self._write)

    def profile(self, threads: int) -> Iterator[tuple[int, float]]:
        """All steps, in order: (number of the step, seconds) of every call."""
        for segment in self.segments:
            if segment.kernels is not None:
                for number, nanoseconds in zip(segment.steps, segment.kernels.run_profiled(threads), strict=True):
                    yield number, nanoseconds * 1e-9
            elif segment.host is not None:
                start = perf_counter()
                evaluate(segment.host.node.op.reference, segment.host.node, self._array, self._write)
                yield segment.steps[0], perf_counter() - start
