"""Runs every operation's float64 reference: the oracle of the tests, the tuner and the device check.

Slow and simple. It goes through the same passes and plan as the other backends, so that those are checked as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..graph import Node, Value
from ..ops.base import Op
from ..ops.leaf import Constant
from ..ops.movement import Reshape
from ..plan import Plan
from ..report.profile import Span
from .base import Algorithm, Backend, Device, Program


class Reference(Algorithm):
    """The operation's own `reference`."""

    name = "reference"
    reason = "the float64 reference"


class _Everything(dict):
    """Every operation is done by its reference."""

    def get(self, key: type[Op], default: object = None) -> list[Algorithm]:  # type: ignore[override]
        return [Reference()]


class ReferenceProgram(Program):
    """Values are NumPy arrays in a dictionary; results are rounded to float32 only at the door."""

    def __init__(self, plan: Plan, device: Device) -> None:
        super().__init__(plan, device)
        self.kept: dict[Value, np.ndarray] = {}
        self.nodes = {step.node for step in plan.setup}

    def _store_states(self, stored: Mapping[str, np.ndarray]) -> None:
        self.kept = {self.plan.graph.states[name]: array.astype(np.float64) for name, array in stored.items()}
        for node in self.plan.graph.nodes():
            if isinstance(node.op, Constant):
                self.kept[node.outputs[0]] = node.op.array
        for step in self.plan.setup:
            self._execute(step.node, self.kept)

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        return {name: self.kept[self.plan.graph.states[name]].astype(np.float32) for name in names}

    def _get(self, value: Value, values: dict[Value, np.ndarray]) -> np.ndarray:
        if value.nbytes == 0:
            return np.zeros(value.shape, value.dtype)
        if value not in values and isinstance(value.op, Reshape):
            return self._get(value.node.inputs[0], values).reshape(value.shape)
        return values[value]

    def _execute(self, node: Node, values: dict[Value, np.ndarray]) -> None:
        results = node.op.reference(*(self._get(value, values) for value in node.inputs))
        for output, result in zip(node.outputs, results, strict=True):
            assert result.shape == output.shape, (node.label, result.shape, output.shape)
            values[output] = result

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._timed(inputs)[0]

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        return self._timed(inputs)[1]

    def _timed(self, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[Span]]:
        values = dict(self.kept)
        for value, array in zip(self.plan.graph.inputs, inputs, strict=True):
            values[value] = array.astype(np.float64) if array.dtype == np.float32 else array
        spans, begin = [], time.perf_counter()
        for number, step in enumerate(self.plan.run):
            start = time.perf_counter()
            self._execute(step.node, values)
            spans.append(Span(number, start - begin, time.perf_counter() - start))
        for state, new in self.plan.graph.updates.items():
            self.kept[state] = self._get(new, values)
        return [np.asarray(self._get(value, values), value.dtype, order="C") for value in self.plan.graph.outputs], spans

    def clone(self) -> Program:
        twin = ReferenceProgram(self.plan, self.device)
        twin.kept = self.kept
        return twin


class ReferenceBackend(Backend):
    """See the module's docstring."""

    name = "reference"
    algorithms = _Everything()

    def devices(self) -> Sequence[Device]:
        return [Device("reference", 0, "float64 reference")]

    def link(self, plan: Plan, device: Device) -> Program:
        return ReferenceProgram(plan, device)


BACKEND = ReferenceBackend()
