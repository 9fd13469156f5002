"""The table of operators: what each is in NumPy, and how those of float networks become operations of the graph.

An operator has up to two functions, both called with the node (a :class:`~pycl_cnn.onnx.node.Call`) and its inputs:

* ``evaluated``: NumPy arrays in, NumPy arrays out, in their own dtypes. It folds what is known when a plan is made, and is a host
  step of the program where elements or forms have no kernel.
* ``lowered``: symbols of a trace in, symbols out, for float32 (with ``any_dtype`` for all elements). It may return NotImplemented for
  a form that it has no operations for; then the evaluated one is taken.

Inputs among `values` are needed as numbers when the plan is made. `dynamic` operators have results whose shapes depend on elements:
they split the model. `structural` ones ask only for shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

FAMILIES = ("arithmetic", "convolution", "indexing", "normalisation", "pointwise", "pooling", "quantisation", "reductions", "resize", "sequences", "shapes", "vision")


@dataclass
class Operator:
    """One operator of ONNX's own domain. See the module's docstring."""

    name: str
    evaluate: Callable[..., Any] | None = None
    lower: Callable[..., Any] | None = None
    any_dtype: bool = False
    values: tuple[int, ...] = ()
    dynamic: bool = False
    structural: bool = False

    @property
    def elementwise(self) -> bool:
        """Whether results have the shape that the inputs broadcast to."""
        return getattr(self.evaluate, "__module__", "").rpartition(".")[2] in ("arithmetic", "pointwise")


_TABLE: dict[str, Operator] = {}


def _entry(name: str) -> Operator:
    return _TABLE.setdefault(name, Operator(name))


def evaluated(*names: str, values: tuple[int, ...] = (), dynamic: bool = False, structural: bool = False) -> Callable[[Callable], Callable]:
    """Register a NumPy evaluation for operators; it finds the operator's name in ``call.op``."""

    def register(function: Callable) -> Callable:
        for name in names:
            entry = _entry(name)
            entry.evaluate, entry.dynamic, entry.structural = function, dynamic, structural
            entry.values = tuple(sorted({*entry.values, *values}))
        return function

    return register


def lowered(*names: str, any_dtype: bool = False, values: tuple[int, ...] = ()) -> Callable[[Callable], Callable]:
    """Register a lowering to the graph for operators."""

    def register(function: Callable) -> Callable:
        for name in names:
            entry = _entry(name)
            entry.lower, entry.any_dtype = function, any_dtype
            entry.values = tuple(sorted({*entry.values, *values}))
        return function

    return register


@cache
def operators() -> dict[str, Operator]:
    """All operators by name."""
    for family in FAMILIES:
        import_module(f"{__package__}.{family}")
    return _TABLE
