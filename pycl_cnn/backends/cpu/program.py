"""Programs of the CPU backend: a plan as an array of C steps that one call runs without the interpreter.

Everything that is kept between runs (states, constants, packed weights) lies in one block that clones share; what lives
within a run lies in the arena; inputs and outputs are the caller's arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...graph import Value
from ...ops.leaf import Constant
from ...plan import ALIGNMENT, Kind, Plan, Step, Storage
from ..base import Device, Program
from . import _kernels
from .launch import At, Buffer, CpuAlgorithm, Launch
from .threads import get_num_threads

KEPT = (Kind.STATE, Kind.CONSTANT, Kind.SETUP)
ARENA, BLOCK, FIRST = 0, 1, 2  # bases of a kernel program; from FIRST on arrays that are bound


def aligned_zeros(nbytes: int) -> np.ndarray:
    """Bytes as float32, beginning on a cache line."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(np.float32)


class CpuProgram(Program):
    """See the module's docstring."""

    def __init__(self, plan: Plan, device: Device, shared: CpuProgram | None = None) -> None:
        super().__init__(plan, device)
        self.places: dict[Storage, int] = {}
        place = 0
        for storage in plan.storages:
            if storage.kind in KEPT:
                self.places[storage] = place
                place += -(-storage.nbytes // ALIGNMENT) * ALIGNMENT
        self.block: np.ndarray = shared.block if shared else aligned_zeros(place)
        graph = plan.graph
        self.bases = {plan.places[value]: FIRST + i for i, value in enumerate(graph.inputs)}
        first_output = FIRST + len(graph.inputs)
        self.output_storages = list(dict.fromkeys(plan.places[value] for value in graph.outputs))
        self.bases |= {storage: first_output + i for i, storage in enumerate(self.output_storages)}
        sizes = [plan.arena_bytes, self.block.nbytes] + [storage.nbytes for storage in self.bases]
        outputs = range(first_output, first_output + len(self.output_storages))
        self.kernels, self.launch_steps = self._kernel_program(plan.run, self.bases, sizes, [BLOCK, *outputs])
        self.kernels.bind(BLOCK, self.block)
        if shared is None:
            for value, storage in plan.places.items():
                if isinstance(value.op, Constant) and storage.kind is Kind.CONSTANT:
                    self._kept(storage, value)[...] = value.op.array

    def _kept(self, storage: Storage, value: Value) -> np.ndarray:
        """The array of a storage in the block."""
        first = self.places[storage] // 4
        return self.block[first : first + storage.nbytes // 4].view(value.dtype).reshape(storage.value.shape)

    def _kernel_program(
        self, steps: Sequence[Step], bases: Mapping[Storage, int], sizes: list[int], written: Iterable[int]
    ) -> tuple[_kernels.Program, list[int]]:
        """The kernel calls of `steps`, and for each call the number of its step."""
        calls, owners, scratch = [], [], 0

        def locate(step: Step, buffer: Buffer) -> tuple[int, int] | None:
            if buffer is None:
                return None
            value, offset = (buffer.value, buffer.offset) if isinstance(buffer, At) else (buffer, 0)
            storage = step.workspace if value is None else self.plan.places[value]
            assert storage is not None
            if storage in self.places:
                return BLOCK, self.places[storage] + offset
            return (bases[storage], offset) if storage in bases else (ARENA, storage.offset + offset)

        for number, step in enumerate(steps):
            algorithm = step.node.algorithm
            assert isinstance(algorithm, CpuAlgorithm)
            launches: list[Launch] = [call for call in algorithm.launches(step.node) if call.tasks > 0]
            for call in launches:
                calls.append((call.kernel, call.params, [locate(step, buffer) for buffer in call.buffers], call.tasks))
                owners.append(number)
                scratch = max(scratch, call.scratch)
        return _kernels.Program(calls, sizes, scratch, written=written), owners

    # ---- the contract of Program ---------------------------------------------------------------------------------------

    def _store_states(self, stored: Mapping[str, np.ndarray]) -> None:
        plan = self.plan
        external: dict[Storage, np.ndarray] = {}
        for name, array in stored.items():
            storage = plan.places[plan.graph.states[name]]
            if storage.kind is Kind.STATE:
                self._kept(storage, plan.graph.states[name])[...] = array
            else:
                external[storage] = array
        if not plan.setup:
            return
        for value, storage in plan.places.items():
            if isinstance(value.op, Constant) and storage.kind is Kind.SCRATCH:
                external[storage] = np.asarray(value.op.array, order="C")
        bases = {storage: FIRST + i for i, storage in enumerate(external)}
        sizes = [plan.setup_bytes, self.block.nbytes] + [array.nbytes for array in external.values()]
        program, _ = self._kernel_program(plan.setup, bases, sizes, [BLOCK])
        program.bind(BLOCK, self.block)
        for storage, array in external.items():
            program.bind(bases[storage], array)
        program.run(get_num_threads())

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        states = self.plan.graph.states
        return {name: self._kept(self.plan.places[states[name]], states[name]).copy() for name in names}

    def _bind(self, inputs: Sequence[np.ndarray]) -> dict[Storage, np.ndarray]:
        """Let the kernels read `inputs` and write fresh arrays; these."""
        for base, array in enumerate(inputs, FIRST):
            self.kernels.bind(base, array)
        arrays = {}
        for storage in self.output_storages:
            arrays[storage] = np.empty(storage.value.shape, storage.value.dtype)
            self.kernels.bind(self.bases[storage], arrays[storage])
        return arrays

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = self._bind(inputs)
        self.kernels.run(get_num_threads())
        return [arrays[self.plan.places[value]].reshape(value.shape) for value in self.plan.graph.outputs]

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[float]:
        self._bind(inputs)
        seconds = [0.0] * len(self.plan.run)
        for number, nanoseconds in zip(self.launch_steps, self.kernels.run_profiled(get_num_threads()), strict=True):
            seconds[number] += nanoseconds * 1e-9
        return seconds

    def clone(self) -> Program:
        return CpuProgram(self.plan, self.device, shared=self)
