"""A program that answers at once from the CPU, and from its device as soon as the device's kernels are built: ``compile(..., wait=False)``."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np

from ..errors import DeviceWarning
from ..report.profile import Profile, StepReport
from .base import Device, Memory, Program


class SwitchingProgram(Program):
    """Runs `first` until `make`, which a thread of its own calls, has made the program for `device`; switches between two runs.

    Whatever runs have updated (running statistics, weights in training) and whatever `load` was given goes over. `device` and
    `explain` tell which one answers. If `make` fails, `first` goes on: a DeviceWarning says so once, `wait` raises the error.
    At the interpreter's end the thread is waited for, since drivers do not survive being stopped within their compiler.
    """

    def __init__(self, first: Program, make: Callable[[], Program], device: Device, states: Mapping[str, np.ndarray]) -> None:
        self._current = first
        self._target = device
        self._states = {name: np.array(array) for name, array in states.items()}  # the caller may go on changing them
        self._given = bool(first.plan.graph.updates)  # whether the new program must be given states
        self._guard = threading.RLock()
        self._made: Program | None = None
        self._error: Exception | None = None
        self._told = False
        self._seconds = 0.0
        self._begin = perf_counter()
        self._thread = threading.Thread(target=self._build, args=(make,), name=f"pycl_cnn builds for {device.label}")
        self._thread.start()

    def _build(self, make: Callable[[], Program]) -> None:
        try:
            made, error = make(), None
        except Exception as failure:  # told at the next run, and raised by wait
            made, error = None, failure
        with self._guard:
            self._made, self._error, self._seconds = made, error, perf_counter() - self._begin

    def _answering(self) -> Program:
        """The program for the next run."""
        with self._guard:
            if self._made is not None:
                if self._given:
                    self._made.load({**self._states, **self._current.states()})
                self._current, self._made, self._states = self._made, None, {}
            error = self._error if not self._told else None
            self._told |= error is not None
        if error is not None:
            warnings.warn(f"{self._target} cannot be used, {self._current.device} goes on: {error}", DeviceWarning, stacklevel=3)
        return self._current

    @property
    def pending(self) -> bool:
        """Whether the device's program is still being made."""
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the device's program is made, at most `timeout` seconds; whether it is. Raises the error that making it met."""
        self._thread.join(timeout)
        if self._error is not None:
            self._told = True
            raise self._error
        return not self.pending

    def run(self, *arrays: Any, **named: Any) -> Any:
        return self._answering().run(*arrays, **named)

    def profile(self, *arrays: Any, repeat: int = 10, **named: Any) -> Profile:
        return self._answering().profile(*arrays, repeat=repeat, **named)

    def load(self, states: Mapping[str, np.ndarray]) -> None:
        with self._guard:
            self._answering().load(states)
            if self._states:
                self._states, self._given = {name: np.array(array) for name, array in states.items()}, True

    def states(self) -> dict[str, np.ndarray]:
        return self._answering().states()

    def clone(self) -> Program:
        """A clone of the program that answers now; it does not switch."""
        return self._answering().clone()

    @property
    def steps(self) -> list[StepReport]:
        return self._answering().steps

    @property
    def setup_steps(self) -> list[StepReport]:
        return self._answering().setup_steps

    @property
    def memory(self) -> Memory:
        return self._answering().memory

    def explain(self) -> str:
        current = self._answering()
        if self._error is not None:
            state = f"{self._target} cannot be used, {current.device} goes on: {self._error}"
        elif self.pending:
            state = f"{current.device} answers while {self._target} is prepared, for {perf_counter() - self._begin:.1f} s now"
        else:
            state = f"{current.device} answers since its kernels were ready, after {self._seconds:.1f} s"
        return f"{current.explain()}\n{state}"

    def __getattr__(self, name: str) -> Any:
        """Whatever else a program has: plan, device, input_values, ..."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._answering(), name)

    def __repr__(self) -> str:
        return repr(self._answering())
