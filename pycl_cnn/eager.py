"""Single operations on arrays: traced, compiled and cached by what the plan depends on."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from .arrays import as_input_array
from .backends import backend
from .backends.base import Device, Program
from .graph import Graph
from .nn.parameter import Parameter
from .passes import canonical, optimised
from .placement import device as find_device
from .records import record
from .trace import Tracer, tracing

P = TypeVar("P")  # a program, or what stands for one
R = TypeVar("R")


class ProgramCache(Generic[P]):
    """The most recently used programs. Safe for threads: a program is taken out while it runs."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free: OrderedDict[Any, list[P]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, key: Any, make: Callable[[], P], call: Callable[[P], R]) -> R:
        """`call` on a program for `key` that no other thread uses."""
        with self._lock:
            free = self._free.get(key)
            program = free.pop() if free else None
        if program is None:
            program = make()
        try:
            return call(program)
        finally:
            with self._lock:
                self._free.setdefault(key, []).append(program)
                self._free.move_to_end(key)
                while len(self._free) > self.capacity:
                    self._free.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._free.clear()


_cache: ProgramCache[Program] = ProgramCache(128)


def finish(graph: Graph, device: Device, states: dict[str, np.ndarray], force: dict[str, str] | None = None, precision: str = "fast") -> Program:
    """The passes behind the gradients, then the backend."""
    return backend(device.backend).compile(optimised(graph), device, states, force, precision)


#: Arguments that hold arrays; all others are attributes, numbers known when the plan is made.
ARRAYS = frozenset({"input", "other", "exponent", "weight", "bias", "target", "running_mean", "running_var"})


def run_operation(function: Callable[..., Any], bound: inspect.BoundArguments, device: Any) -> Any:
    """Run `function`, written for symbols, on the arrays among its arguments."""
    where = find_device(device)
    name = function.__name__
    arrays: list[np.ndarray] = []

    def slot(value: Any) -> Any:
        """An array's place (its number, shape, dtype); None and single numbers become part of the key."""
        if isinstance(value, np.integer | np.bool_):
            value = value.item()
        if value is None or (isinstance(value, bool | int | float) and not isinstance(value, np.floating)):
            return value
        arrays.append(np.asarray(as_input_array(value.data if isinstance(value, Parameter) else value, name), order="C"))
        return _Slot(len(arrays) - 1, arrays[-1].shape, arrays[-1].dtype.str)

    def split(key: str, value: Any) -> Any:
        if key in ARRAYS:
            return slot(value)
        if key == "tensors":
            return tuple(slot(item) for item in value)
        return _attribute(value)

    arguments = {key: split(key, value) for key, value in bound.arguments.items()}
    if not arrays:
        raise TypeError(f"{name}: at least one argument must be an array; received {', '.join(type(v).__name__ for v in bound.arguments.values())}")
    key = (function, where, tuple((k, _hashable(v)) for k, v in arguments.items()))

    def make() -> Program:
        tracer = Tracer()
        symbols = [tracer.input(f"array{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]

        def join(value: Any) -> Any:
            if isinstance(value, _Slot):
                return symbols[value.index]
            return tuple(join(item) for item in value) if isinstance(value, tuple) else value

        with tracing(tracer):
            result = function(**{k: join(v) for k, v in arguments.items()})
        results = result if isinstance(result, tuple) else (result,)
        tracer.graph.outputs = [symbol.value for symbol in results]
        return finish(canonical(tracer.graph), where, {})

    def call(program: Program) -> Any:
        extra = [np.zeros(2, np.int32)] if "rng" in program.input_values else []
        return program.run(*arrays, *extra)

    return _cache.run(key, make, call)


def _attribute(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, sequences as tuples."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(_attribute(item) for item in value) if isinstance(value, list | tuple) else value


@record
class _Slot:
    """The place of an array among the arguments, with what the plan depends on."""

    index: int
    shape: tuple[int, ...]
    dtype: str


def _hashable(value: Any) -> Any:
    """`value` with slices made comparable (they have no hash before Python 3.12) and 1 told from 1.0 and True."""
    if isinstance(value, tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    return (type(value).__name__, value)
