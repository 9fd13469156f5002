"""Programs of the CPU backend: a plan as an array of C steps that one call runs without the interpreter.

Everything that is kept between runs (states, constants, packed weights) lies in one block that clones share; what lives
within a run lies in the arena; inputs and outputs are the caller's arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...graph import Value
from ...ops.leaf import Constant
from ...plan import ALIGNMENT, Kind, Plan, Storage
from ...report.profile import Span
from ..base import Device, Program
from .segments import Segments, aligned_zeros
from .threads import get_num_threads

KEPT = (Kind.STATE, Kind.CONSTANT, Kind.SETUP)


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
        self.input_storages = [plan.places[value] for value in graph.inputs]
        self.output_storages = list(dict.fromkeys(plan.places[value] for value in graph.outputs))
        external = [*self.input_storages, *self.output_storages]
        self.segments = Segments(plan, plan.run, self.places, self.block, external, self.output_storages, plan.arena_bytes)
        if shared is None:
            for value, storage in plan.places.items():
                if isinstance(value.op, Constant) and storage.kind is Kind.CONSTANT:
                    self._kept(storage, value)[...] = value.op.array

    def _kept(self, storage: Storage, value: Value) -> np.ndarray:
        """The array of a storage in the block."""
        first = self.places[storage]
        return self.block.view(np.uint8)[first : first + storage.nbytes].view(value.dtype).reshape(storage.value.shape)

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
        setup = Segments(plan, plan.setup, self.places, self.block, list(external), (), plan.setup_bytes)
        for storage, array in external.items():
            setup.bind(storage, array)
        setup.run(get_num_threads())

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        states = self.plan.graph.states
        return {name: self._kept(self.plan.places[states[name]], states[name]).copy() for name in names}

    def _bind(self, inputs: Sequence[np.ndarray]) -> dict[Storage, np.ndarray]:
        """Let the steps read `inputs` and write fresh arrays; these."""
        for storage, array in zip(self.input_storages, inputs, strict=True):
            self.segments.bind(storage, array)
        arrays = {}
        for storage in self.output_storages:
            arrays[storage] = np.empty(storage.value.shape, storage.value.dtype)
            self.segments.bind(storage, arrays[storage])
        return arrays

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = self._bind(inputs)
        self.segments.run(get_num_threads())
        return [arrays[self.plan.places[value]].reshape(value.shape) for value in self.plan.graph.outputs]

    def _run_into(self, inputs: Sequence[np.ndarray], targets: list[np.ndarray]) -> list[np.ndarray]:
        for storage, array in zip(self.input_storages, inputs, strict=True):
            self.segments.bind(storage, array)
        for value, target in zip(self.plan.graph.outputs, targets, strict=True):
            self.segments.bind(self.plan.places[value], target)
        self.segments.run(get_num_threads())
        return targets

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        self._bind(inputs)
        spans, start = [], 0.0
        for number, seconds in self.segments.profile(get_num_threads()):
            spans.append(Span(number, start, seconds))  # one kernel begins when the one before has ended
            start += seconds
        return spans

    def clone(self) -> Program:
        return CpuProgram(self.plan, self.device, shared=self)
