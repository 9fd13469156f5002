"""Training programs, one for each size of batch, that go on with one set of weights and optimizer's arrays.

While an epoch lasts, those live in the program that ran last. Another size of batch takes them over through the host, exactly:
they are float32 here and there. `write_back` brings them to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.base import Device, Program
from ..compiler import Spec, training_program
from ..nn.module import Module
from ..ops.optimizer import UpdateRule

PREFIX = "optimizer."


def versions(model: Module) -> tuple[int, ...]:
    """Changes whenever a parameter or buffer of the model is given a new array."""
    return tuple(parameter.version for _, parameter in model.named_tensors())


class TrainingSteps:
    """See the module's docstring."""

    def __init__(self, model: Module, loss: Module, rule: UpdateRule, device: Device, layout: str, precision: str) -> None:
        self.model, self.loss, self.rule, self.device, self.layout, self.precision = model, loss, rule, device, layout, precision
        self.slots: dict[str, np.ndarray] = {}  # the optimizer's arrays as of the last write_back, by state name
        self._programs: dict[Any, Program] = {}
        self._current: Program | None = None  # the one that holds the newest states
        self._ahead = False  # whether it ran since the last write_back
        self._versions: tuple[int, ...] = ()

    def prepare(self, specs: Sequence[tuple[Spec, Spec]]) -> list[Program]:
        """Programs for these shapes of input and target, to start from the model's present weights."""
        trainable = tuple(name for name, parameter in self.model.named_parameters() if parameter.requires_grad)
        modes = tuple(module._training for module in self.model.modules())
        keys = [(x[0], target[0], np.dtype(target[1]).str, trainable, modes) for x, target in specs]
        self._programs = {key: program for key, program in self._programs.items() if key in keys}
        if self._versions != versions(self.model) or self._current not in self._programs.values():
            self._current = None
        for key, (x, target) in zip(keys, specs, strict=True):
            if key not in self._programs:
                self._programs[key] = training_program(
                    self.model, self.loss, self.rule, [x], target, self.device, self.layout, precision=self.precision, slots=self.slots
                )
        return [self._programs[key] for key in keys]

    def run(self, program: Program, x: np.ndarray, target: np.ndarray, hyper: Sequence[float], rng: tuple[int, int]) -> tuple[float, np.ndarray]:
        """One step; its loss and the model's result."""
        if program is not self._current:
            self._take_over(program)
        named: dict[str, np.ndarray] = {"x": x, "target": target, "hyper": np.array(hyper, np.float32)}
        if "rng" in program.input_values:
            named["rng"] = np.array(rng, np.int32)
        self._ahead = True
        loss, result = program.run(**named)
        return float(loss), result

    def _take_over(self, program: Program) -> None:
        """Give `program` the newest states."""
        states = self.model.state_dict() | self.slots
        if self._current is not None and self._ahead:
            states |= self._current.states()
        for name, value in program.plan.graph.states.items():
            if name.startswith(PREFIX):
                states.setdefault(name, np.zeros(value.op.user_shape, np.float32))  # type: ignore[attr-defined]
        program.load(states)
        self._current = program
        self._versions = versions(self.model)

    def write_back(self) -> bool:
        """Bring the newest states to the model and to `slots`; False, and nothing done, where a weight is no finite number."""
        if self._current is None or not self._ahead:
            return True
        states = self._current.states()
        if not all(np.isfinite(array).all() for array in states.values()):
            return False
        tensors = dict(self.model.named_tensors())
        for name, array in states.items():
            if name.startswith(PREFIX):
                self.slots[name] = array
            else:
                tensors[name].data = array
        self._versions = versions(self.model)
        self._ahead = False
        return True

    def forget(self) -> None:
        """Drop what was not written back."""
        self._current, self._ahead = None, False
