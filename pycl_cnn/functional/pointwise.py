"""Functions of one array and arithmetic of two, element by element; softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..ops.pointwise import Activation, Binary, Unary
from ..ops.softmax import Softmax
from ..trace import as_symbol, emit, floating
from .door import axis_number, operation


def _unary(name: str, activation: Activation, doc: str) -> Callable[..., Any]:
    def function(input: Any) -> Any:
        return emit(Unary(activation), floating(as_symbol(input, name), name))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return operation(function)


def _activation(name: str, activation: Activation, doc: str) -> Callable[..., Any]:
    def function(input: Any, inplace: bool = False) -> Any:
        return emit(Unary(activation), floating(as_symbol(input, name), name))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc} `inplace` is accepted for PyTorch's sake: the planner reuses memory by itself."
    return operation(function)


relu = _activation("relu", Activation("relu"), "``max(x, 0)``.")
relu6 = _activation("relu6", Activation("clip", 0.0, 6.0), "``min(max(x, 0), 6)``.")
sigmoid = _unary("sigmoid", Activation("sigmoid"), "``1 / (1 + exp(-x))``.")
tanh = _unary("tanh", Activation("tanh"), "Hyperbolic tangent.")
silu = _activation("silu", Activation("silu"), "``x * sigmoid(x)``.")
hardswish = _activation("hardswish", Activation("hardswish"), "``x * relu6(x + 3) / 6`` (Howard et al., MobileNetV3).")
hardsigmoid = _activation("hardsigmoid", Activation("hardsigmoid"), "``relu6(x + 3) / 6``.")
neg = _unary("neg", Activation("neg"), "``-x``.")
exp = _unary("exp", Activation("exp"), "``e**x``.")
log = _unary("log", Activation("log"), "Natural logarithm.")
sqrt = _unary("sqrt", Activation("sqrt"), "Square root.")
rsqrt = _unary("rsqrt", Activation("rsqrt"), "``1 / sqrt(x)``.")
reciprocal = _unary("reciprocal", Activation("reciprocal"), "``1 / x``.")
abs = _unary("abs", Activation("abs"), "Absolute value.")
square = _unary("square", Activation("square"), "``x * x``.")
erf = _unary("erf", Activation("erf"), "Error function.")


@operation
def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """``x`` where positive, ``negative_slope * x`` elsewhere."""
    return emit(Unary(Activation("leaky_relu", float(negative_slope))), floating(as_symbol(input, "leaky_relu"), "leaky_relu"))


@operation
def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    return emit(Unary(Activation("elu", float(alpha))), floating(as_symbol(input, "elu"), "elu"))


@operation
def gelu(input: Any, approximate: str = "none") -> Any:
    """``x * Phi(x)`` with the normal distribution's Phi; `approximate` "tanh" takes the usual approximation."""
    if approximate not in ("none", "tanh"):
        raise ShapeError("gelu", 'approximate must be "none" or "tanh"', approximate=approximate)
    return emit(Unary(Activation("gelu" if approximate == "none" else "gelu_tanh")), floating(as_symbol(input, "gelu"), "gelu"))


@operation
def softplus(input: Any) -> Any:
    """``log(1 + exp(x))``."""
    return emit(Unary(Activation("softplus")), floating(as_symbol(input, "softplus"), "softplus"))


@operation
def clamp(input: Any, min: float | None = None, max: float | None = None) -> Any:
    """``min(max(x, lower), upper)``; None leaves a side open. The gradient is 1 strictly between the bounds and 0 elsewhere."""
    if min is None and max is None:
        raise ShapeError("clamp", "at least one of min and max must be given")
    low, high = -math.inf if min is None else float(min), math.inf if max is None else float(max)
    return emit(Unary(Activation("clip", low, high)), floating(as_symbol(input, "clamp"), "clamp"))


@operation
def softmax(input: Any, dim: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along `dim`."""
    x = floating(as_symbol(input, "softmax"), "softmax")
    return emit(Softmax(axis_number("softmax", dim, len(x.shape))), x)


@operation
def log_softmax(input: Any, dim: int = -1) -> Any:
    """``x - log(sum(exp(x)))`` along `dim`."""
    x = floating(as_symbol(input, "log_softmax"), "log_softmax")
    return emit(Softmax(axis_number("log_softmax", dim, len(x.shape)), log=True), x)


def _binary(name: str, kind: str, doc: str) -> Callable[..., Any]:
    def function(input: Any, other: Any) -> Any:
        return emit(Binary(kind), floating(as_symbol(input, name), name), floating(as_symbol(other, name), name, "other"))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return operation(function)


add = _binary("add", "add", "``a + b`` with NumPy's broadcasting.")
sub = _binary("sub", "sub", "``a - b`` with NumPy's broadcasting.")
mul = _binary("mul", "mul", "``a * b`` with NumPy's broadcasting.")
div = _binary("div", "div", "``a / b`` with NumPy's broadcasting.")
maximum = _binary("maximum", "max", "The larger of a and b; equal elements share the gradient.")
minimum = _binary("minimum", "min", "The smaller of a and b; equal elements share the gradient.")


@operation
def pow(input: Any, exponent: Any) -> Any:
    """``a ** b``; a number as exponent is taken as it is (integers keep the sign of negative bases)."""
    x = floating(as_symbol(input, "pow"), "pow")
    if isinstance(exponent, int | float):
        return emit(Unary(Activation("square") if exponent == 2 else Activation("pow", float(exponent))), x)
    return emit(Binary("pow"), x, floating(as_symbol(exponent, "pow"), "pow", "exponent"))
