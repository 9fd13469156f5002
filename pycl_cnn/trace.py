"""From Python calls to a graph: while a trace is active, operations on symbols append nodes.

A `Symbol` stands for an array that is not there yet; it has a shape and takes part in arithmetic, so that a module's
`forward` reads as if it worked on arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import as_input_array
from .errors import DtypeError, ShapeError
from .graph import Graph, Value
from .ops.base import Op
from .ops.leaf import State
from .records import record

if TYPE_CHECKING:
    from .nn.module import Module
    from .nn.parameter import Parameter

_active: ContextVar[Tracer | None] = ContextVar("pycl_cnn_tracer", default=None)


class Symbol:
    """An array of a trace: shape and dtype are known, elements are not. Arithmetic follows NumPy."""

    __slots__ = ("value",)
    __array_priority__ = 1000.0
    __array_ufunc__ = None

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        return self.value.dtype

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    def size(self, axis: int | None = None) -> Any:
        """The shape, or the length of one axis (as in PyTorch)."""
        return self.shape if axis is None else self.shape[axis]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Symbol({self.dtype}{list(self.shape)})"

    def __bool__(self) -> bool:
        raise TypeError("a symbol has no truth value: the graph is traced once, so control flow cannot depend on array elements")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("a symbol has no elements yet: inside forward() use pycl_cnn.functional instead of NumPy")

    def __add__(self, other: Any) -> Symbol:
        return _functional().add(self, other)

    def __radd__(self, other: Any) -> Symbol:
        return _functional().add(other, self)

    def __sub__(self, other: Any) -> Symbol:
        return _functional().sub(self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return _functional().sub(other, self)

    def __mul__(self, other: Any) -> Symbol:
        return _functional().mul(self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return _functional().mul(other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return _functional().div(self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return _functional().div(other, self)

    def __pow__(self, other: Any) -> Symbol:
        return _functional().pow(self, other)

    def __neg__(self) -> Symbol:
        return _functional().neg(self)

    def __matmul__(self, other: Any) -> Symbol:
        return _functional().matmul(self, other)

    def __getitem__(self, index: Any) -> Symbol:
        return _functional().getitem(self, index)

    def reshape(self, *shape: Any) -> Symbol:
        return _functional().reshape(self, _shape_arguments(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Symbol:
        return _functional().flatten(self, start_dim, end_dim)

    def permute(self, *dims: Any) -> Symbol:
        return _functional().permute(self, _shape_arguments(dims))

    def transpose(self, dim0: int, dim1: int) -> Symbol:
        return _functional().transpose(self, dim0, dim1)

    def sum(self, dim: Any = None, keepdim: bool = False) -> Symbol:
        return _functional().sum(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Symbol:
        return _functional().mean(self, dim, keepdim)

    def amax(self, dim: Any = None, keepdim: bool = False) -> Symbol:
        return _functional().amax(self, dim, keepdim)


def _shape_arguments(arguments: tuple) -> Any:
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], Sequence) else arguments


def _functional() -> Any:
    from . import functional

    return functional


@record
class Call:
    """One call of a module in a trace: its nodes are those with serial numbers in ``first < serial <= last``."""

    name: str  # dotted
    module: Module
    first: int
    last: int
    result: Any  # what its forward returned


class Tracer:
    """A graph being written, and what the traced code needs to know about it."""

    def __init__(self, mode: bool | None = None, gradients: bool = False) -> None:
        self.graph = Graph()
        self.mode = mode  # training behaviour of all modules; None: each module's own
        self.gradients = gradients  # whether gradients will be taken, so that pooling notes where it took its values
        self.names: dict[int, str] = {}  # modules' dotted names by identity
        self.parameters: dict[int, tuple[str, Parameter]] = {}
        self.calls: list[Call] = []  # of modules, in the order in which they returned
        self.rng: Value | None = None
        self._streams = 0

    def register(self, name: str, parameter: Parameter) -> None:
        """Let `parameter` be the state `name` of the graph."""
        self.parameters.setdefault(id(parameter), (name, parameter))

    def call(self, module: Module, inputs: Sequence[Any]) -> Any:
        """Append what `module` computes, in its own scope."""
        name, first = self.names.get(id(module), ""), self.graph.serial
        with self.graph.scope(name):
            result = module.forward(*inputs)
        self.calls.append(Call(name, module, first, self.graph.serial, result))
        return result

    def state(self, parameter: Parameter) -> Symbol:
        """The state that stands for a registered parameter or buffer."""
        entry = self.parameters.get(id(parameter))
        if entry is None:
            raise ShapeError("trace", "this parameter belongs to no module of the traced model", shape=parameter.shape)
        name, _ = entry
        return Symbol(self.graph.state(State.plain(name, parameter.shape, parameter.requires_grad)))

    def input(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> Symbol:
        return Symbol(self.graph.input(name, shape, dtype))

    def random(self) -> tuple[Value, int]:
        """The generator's input (seed, step) and a stream number of one's own."""
        if self.rng is None:
            self.rng = self.graph.input("rng", (2,), np.int32)
        self._streams += 1
        return self.rng, self._streams


@contextmanager
def tracing(tracer: Tracer) -> Iterator[Tracer]:
    """Make `tracer` the active one of this thread."""
    token = _active.set(tracer)
    try:
        yield tracer
    finally:
        _active.reset(token)


def active_tracer() -> Tracer | None:
    """The trace that operations append to now, if any."""
    return _active.get()


def as_symbol(value: Any, operation: str) -> Symbol:
    """A symbol as it is; a parameter as its state; an array or number as a constant of the active trace."""
    if isinstance(value, Symbol):
        return value
    tracer = active_tracer()
    assert tracer is not None, "as_symbol needs an active trace"
    from .nn.parameter import Parameter

    if isinstance(value, Parameter):
        return tracer.state(value)
    array = np.asarray(value, np.float32) if isinstance(value, int | float) else as_input_array(value, operation)
    return Symbol(tracer.graph.constant(np.asarray(array, order="C")))


def floating(symbol: Symbol, operation: str, argument: str = "input") -> Value:
    """The symbol's value, which must be float32. Raises DtypeError."""
    if symbol.dtype != np.float32:
        raise DtypeError(f"{operation}: {argument} must be a floating-point array; received dtype {symbol.dtype}, shape {symbol.shape}")
    return symbol.value


def emit(op: Op, *inputs: Value) -> Symbol:
    """Append an operation with one output to the active trace."""
    tracer = active_tracer()
    assert tracer is not None
    return Symbol(tracer.graph.apply(op, *inputs))
