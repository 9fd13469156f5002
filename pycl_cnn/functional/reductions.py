"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ops.reduce import Reduce
from ..trace import Symbol, as_symbol, emit, floating
from .door import axis_number, operation


def _reduce(name: str, kind: str, input: Any, dim: Any, keepdim: bool) -> Symbol:
    x = floating(as_symbol(input, name), name)
    rank = len(x.shape)
    dims = range(rank) if dim is None else dim if isinstance(dim, Sequence) else [dim]
    axes = tuple(sorted(axis_number(name, axis, rank) for axis in dims))
    return emit(Reduce(kind, axes, keepdim), x)


@operation
def sum(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Sum over the axes `dim`, by default all."""
    return _reduce("sum", "sum", input, dim, keepdim)


@operation
def mean(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Mean over the axes `dim`, by default all."""
    return _reduce("mean", "mean", input, dim, keepdim)


@operation
def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest element over the axes `dim`, by default all; equal ones share the gradient."""
    return _reduce("amax", "max", input, dim, keepdim)


@operation
def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Smallest element over the axes `dim`, by default all; equal ones share the gradient."""
    return _reduce("amin", "min", input, dim, keepdim)
