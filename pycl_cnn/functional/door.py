"""The door of the functions: what is run on arrays and traced on symbols, layouts, dtypes, axes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import ShapeError
from ..graph import Value
from ..ops.movement import Reshape, Transpose
from ..trace import Symbol, active_tracer, as_symbol, emit, floating

F = TypeVar("F", bound=Callable[..., Any])

NCHW_TO_NHWC, NHWC_TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
KCRS_TO_KRSC = (0, 2, 3, 1)


def operation(function: F) -> F:
    """Let `function`, written for symbols, also take arrays and a `device`: then it is compiled, cached and run."""
    signature = inspect.signature(function)
    parameters = [*signature.parameters.values(), inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None)]

    @functools.wraps(function)
    def call(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        if active_tracer() is not None:
            return function(*args, **kwargs)
        from ..eager import run_operation

        bound = signature.bind(*args, **kwargs)
        return run_operation(function, bound, device)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def image(operation_name: str, x: Any, layout: str, rank: int = 4) -> Value:
    """A batch of images or signals as [n,h,w,c]; a 1-D signal gets a height of 1."""
    value = floating(as_symbol(x, operation_name), operation_name)
    last = {4: "NHWC", 3: "NLC"}[rank]
    first = {4: "NCHW", 3: "NCL"}[rank]
    if layout not in (first, last, "NCHW", "NHWC"):
        raise ShapeError(operation_name, f'layout must be "{first}" or "{last}"', layout=layout)
    if len(value.shape) != rank:
        raise ShapeError(operation_name, f"the input must have {rank} axes ({first})", input=value.shape)
    channels_first = layout in (first, "NCHW")
    if rank == 3:
        n, a, b = value.shape
        shape = (n, a, 1, b) if channels_first else (n, 1, a, b)
        value = emit(Reshape(shape), value).value
    return emit(Transpose(NCHW_TO_NHWC), value).value if channels_first else value


def result_image(y: Symbol, layout: str, rank: int = 4) -> Symbol:
    """[n,h,w,c] as the user's layout; the inverse of `_image`."""
    channels_first = layout in ("NCHW", "NCL")
    if channels_first:
        y = emit(Transpose(NHWC_TO_NCHW), y.value)
    if rank == 3:
        n, a, b, c = y.shape
        y = emit(Reshape((n, a, c) if channels_first else (n, b, c)), y.value)
    return y


def filters(operation_name: str, weight: Any, rank: int) -> Value:
    """Weights [k, c/groups, (r,) s] as [k, r, s, c/groups]."""
    value = floating(as_symbol(weight, operation_name), operation_name, "weight")
    if len(value.shape) != rank:
        raise ShapeError(operation_name, f"the weight must have {rank} axes", weight=value.shape)
    if rank == 3:
        value = emit(Reshape((*value.shape[:2], 1, value.shape[2])), value).value
    return emit(Transpose(KCRS_TO_KRSC), value).value


def bias_values(operation_name: str, bias: Any) -> tuple[Value, ...]:
    return () if bias is None else (floating(as_symbol(bias, operation_name), operation_name, "bias"),)


def line_attribute(operation_name: str, name: str, value: Any, neutral: Any) -> Any:
    """An attribute of a 1-D operation for the 2-D one with a height of 1."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and len(value) == 2 and name == "padding":
        return ((neutral, neutral), tuple(value))
    if isinstance(value, Sequence):
        if len(value) != 1:
            raise ShapeError(operation_name, f"{name} must be an integer or one integer", **{name: value})
        value = value[0]
        if isinstance(value, Sequence):
            return ((neutral, neutral), tuple(value))
    return (neutral, value)


def axis_number(name: str, dim: Any, rank: int) -> int:
    (axis,) = (int(dim),)
    if not -rank <= axis < rank:
        raise ShapeError(name, "the axis must be one of the input's", dim=dim, axes=rank)
    return axis % rank
