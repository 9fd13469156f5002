"""Programs of the CPU backend: a plan as an array of C steps that one call runs without the interpreter.

What runs update, constants and packed weights lie in one block that clones share. States that no run updates are read where they
are given: the model's own arrays, which nobody writes to. What lives within a run lies in the arena; inputs and outputs are the
caller's arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...arrays import frozen
from ...graph import Value
from ...ops.leaf import Constant
from ...plan import ALIGNMENT, Kind, Plan, Storage
from ...report.profile import Span
from ..base import Device, Program
from .segments import Segments, aligned_zeros
from .threads import get_num_threads

KEPT = (Kind.STATE, Kind.CONSTANT, Kind.SETUP)


@dataclass(eq=False)
class Kept:
    """What a program and its clones share."""

    block: np.ndarray
    given: dict[Storage, np.ndarray] = field(default_factory=dict)  # states that are read where they are
    loads: int = 0  # how often they were given


class CpuProgram(Program):
    """See the module's docstring."""

    def __init__(self, plan: Plan, device: Device, shared: CpuProgram | None = None) -> None:
        super().__init__(plan, device)
        self.places: dict[Storage, int] = {}
        place = 0
        graph = plan.graph
        self.given = [plan.places[value] for value in graph.states.values() if value not in graph.updates and plan.places[value].kind is Kind.STATE]
        for storage in plan.storages:
            if storage.kind in KEPT and storage not in self.given:
                self.places[storage] = place
                place += -(-storage.nbytes // ALIGNMENT) * ALIGNMENT
        self.kept: Kept = shared.kept if shared else Kept(aligned_zeros(place))
        self.loads = 0  # of those arrays that steps read now
        self.input_storages = [plan.places[value] for value in graph.inputs]
        self.output_storages = list(dict.fromkeys(plan.places[value] for value in graph.outputs))
        external = [*self.input_storages, *self.output_storages, *self.given]
        self.segments = Segments(plan, plan.run, self.places, self.kept.block, external, self.output_storages, plan.arena_bytes)
        if shared is None:
            for value, storage in plan.places.items():
                if isinstance(value.op, Constant) and storage.kind is Kind.CONSTANT:
                    self._kept(storage, value)[...] = value.op.array

    def _kept(self, storage: Storage, value: Value) -> np.ndarray:
        """The array of a storage in the block."""
        first = self.places[storage]
        return self.kept.block.view(np.uint8)[first : first + storage.nbytes].view(value.dtype).reshape(storage.value.shape)

    # ---- the contract of Program ---------------------------------------------------------------------------------------

    def _store_states(self, stored: Mapping[str, np.ndarray]) -> None:
        plan = self.plan
        external: dict[Storage, np.ndarray] = {}
        for name, array in stored.items():
            storage = plan.places[plan.graph.states[name]]
            if storage in self.places:
                self._kept(storage, plan.graph.states[name])[...] = array
            else:
                external[storage] = frozen(array) if storage in self.given else array
        self.kept.given = {storage: external[storage] for storage in self.given}
        self.kept.loads += 1
        if not plan.setup:
            return
        for value, storage in plan.places.items():
            if isinstance(value.op, Constant) and storage.kind is Kind.SCRATCH:
                external[storage] = np.asarray(value.op.array, order="C")
        setup = Segments(plan, plan.setup, self.places, self.kept.block, list(external), (), plan.setup_bytes)
        for storage, array in external.items():
            setup.bind(storage, array)
        setup.run(get_num_threads())

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        states = self.plan.graph.states
        return {name: self._kept(self.plan.places[states[name]], states[name]).copy() for name in names}

    def _bind_inputs(self, inputs: Sequence[np.ndarray]) -> None:
        """Let the steps read `inputs`, and states that were given since the last run."""
        if self.loads != self.kept.loads:
            for storage, array in self.kept.given.items():
                self.segments.bind(storage, array)
            self.loads = self.kept.loads
        for storage, array in zip(self.input_storages, inputs, strict=True):
            self.segments.bind(storage, array)

    def _bind(self, inputs: Sequence[np.ndarray]) -> dict[Storage, np.ndarray]:
        """Let the steps read `inputs` and write fresh arrays; these."""
        self._bind_inputs(inputs)
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
        self._bind_inputs(inputs)
        for value, target in zip(self.plan.graph.outputs, targets, strict=True):
            self.segments.bind(self.plan.places[value], target)
        self.segments.run(get_num_threads())
        return targets

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        self._bind(inputs)
        spans, start = [], 0.0
        for number, seconds in self.segments.profile(get_num_threads()):
            spans.append(Span(number, start, seconds))  # one behind the other, though steps that follow run within the one before
            start += seconds
        return spans

    def clone(self) -> Program:
        return CpuProgram(self.plan, self.device, shared=self)
