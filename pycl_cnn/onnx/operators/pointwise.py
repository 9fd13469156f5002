"""Functions of one array, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.pointwise import GELU_A, GELU_C, Activation, Binary, Unary
from ...trace import Symbol, emit
from ..node import Call, symbol
from .table import evaluated, lowered

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def unary(x: Symbol, kind: str, alpha: float = 0.0, beta: float = 0.0) -> Symbol:
    """A function of the graph applied to a symbol."""
    return emit(Unary(Activation(kind, float(alpha), float(beta))), x.value)


def binary(kind: str, a: Symbol, b: Symbol) -> Symbol:
    """Arithmetic of the graph on two symbols."""
    return emit(Binary(kind), a.value, b.value)


def wide(x: np.ndarray) -> np.ndarray:
    """float32 or more, for functions whose inner steps need the digits."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def _same(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Evaluate in float32 at least, give the input's dtype back."""

    def evaluate(call: Call, x: np.ndarray, *rest: Any) -> np.ndarray:
        return np.asarray(function(call, wide(x), *rest)).astype(x.dtype)

    return evaluate


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function of Python's library; NumPy has none."""
    return np.vectorize(math.erf, otypes=[np.float64])(x) if x.size else x


def _logistic(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu(call: Call, x: np.ndarray) -> np.ndarray:
    if call.text("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(GELU_C * (x + GELU_A * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _shrink(call: Call, x: np.ndarray) -> np.ndarray:
    bound, bias = call.number("lambd", 0.5), call.number("bias", 0.0)
    return np.where(x < -bound, x + bias, np.where(x > bound, x - bias, np.zeros_like(x)))


#: Functions of the array alone, or of it and the node's attributes.
_FUNCTIONS: dict[str, Callable[[Call, np.ndarray], np.ndarray]] = {
    "Sqrt": lambda call, x: np.sqrt(x),
    "Exp": lambda call, x: np.exp(x),
    "Log": lambda call, x: np.log(x),
    "Reciprocal": lambda call, x: 1 / x,
    "Floor": lambda call, x: np.floor(x),
    "Ceil": lambda call, x: np.ceil(x),
    "Round": lambda call, x: np.rint(x),
    "Erf": lambda call, x: _erf(x),
    "Sigmoid": lambda call, x: _logistic(x),
    "Tanh": lambda call, x: np.tanh(x),
    "Softplus": lambda call, x: _softplus(x),
    "Softsign": lambda call, x: x / (1 + np.abs(x)),
    "Mish": lambda call, x: x * np.tanh(_softplus(x)),
    "Gelu": _gelu,
    "Swish": lambda call, x: x * _logistic(call.number("alpha", 1.0) * x),
    "LeakyRelu": lambda call, x: np.where(x < 0, call.number("alpha", 0.01) * x, x),
    "Elu": lambda call, x: np.where(x < 0, call.number("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x),
    "Selu": lambda call, x: call.number("gamma", SELU_GAMMA) * np.where(x > 0, x, call.number("alpha", SELU_ALPHA) * np.expm1(np.minimum(x, 0))),
    "Celu": lambda call, x: np.maximum(x, 0) + np.minimum(0, call.number("alpha", 1.0) * np.expm1(x / call.number("alpha", 1.0))),
    "ThresholdedRelu": lambda call, x: np.where(x > call.number("alpha", 1.0), x, 0),
    "HardSigmoid": lambda call, x: np.clip(call.number("alpha", 0.2) * x + call.number("beta", 0.5), 0, 1),
    "HardSwish": lambda call, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Sin": lambda call, x: np.sin(x),
    "Cos": lambda call, x: np.cos(x),
    "Tan": lambda call, x: np.tan(x),
    "Asin": lambda call, x: np.arcsin(x),
    "Acos": lambda call, x: np.arccos(x),
    "Atan": lambda call, x: np.arctan(x),
    "Sinh": lambda call, x: np.sinh(x),
    "Cosh": lambda call, x: np.cosh(x),
    "Asinh": lambda call, x: np.arcsinh(x),
    "Acosh": lambda call, x: np.arccosh(x),
    "Atanh": lambda call, x: np.arctanh(x),
}
for _name, _function in _FUNCTIONS.items():
    evaluated(_name)(_same(_function))

#: Functions that keep integers integers.
_EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Abs": np.abs,
    "Neg": lambda x: -x,
    "Sign": np.sign,
    "Relu": lambda x: np.maximum(x, np.zeros((), x.dtype)),
    "Not": np.logical_not,
    "BitwiseNot": np.invert,
    "IsNaN": np.isnan,
}
for _name, _exact in _EXACT.items():
    evaluated(_name)(lambda call, x, *, _exact=_exact: _exact(x))


@evaluated("Shrink")
def shrink(call: Call, x: np.ndarray) -> np.ndarray:
    return _shrink(call, x).astype(x.dtype)


@evaluated("IsInf")
def is_infinite(call: Call, x: np.ndarray) -> np.ndarray:
    wanted = (x > 0) & bool(call.integer("detect_positive", 1)) | (x < 0) & bool(call.integer("detect_negative", 1))
    return np.isinf(x) & wanted


@evaluated("PRelu")
def prelu(call: Call, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x < 0, x * slope, x).astype(x.dtype)


def _limit(call: Call, tensor: Any, attribute: str) -> Any:
    """A bound of Clip: an attribute before opset 11, an input since; None where it is open."""
    if call.opset < 11:
        return np.float32(call.number(attribute)) if call.has(attribute) else None
    return tensor


@evaluated("Clip")
def clip(call: Call, x: np.ndarray, low: Any = None, high: Any = None) -> np.ndarray:
    low, high = _limit(call, low, "min"), _limit(call, high, "max")
    y = x if low is None else np.maximum(x, low)
    return (y if high is None else np.minimum(y, high)).astype(x.dtype)


# ---- lowered to the graph ---------------------------------------------------------------------------------------------

#: Operators that the graph has as they are.
_KINDS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Abs": "abs",
    "Neg": "neg",
    "Sign": "sign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Erf": "erf",
    "Softplus": "softplus",
    "HardSwish": "hardswish",
}
for _name, _kind in _KINDS.items():
    lowered(_name)(lambda call, x, *, _kind=_kind: unary(x, _kind))


@lowered("LeakyRelu")
def lower_leaky_relu(call: Call, x: Symbol) -> Symbol:
    return unary(x, "leaky_relu", call.number("alpha", 0.01))


@lowered("Elu")
def lower_elu(call: Call, x: Symbol) -> Symbol:
    return unary(x, "elu", call.number("alpha", 1.0))


@lowered("Selu")
def lower_selu(call: Call, x: Symbol) -> Symbol:
    return unary(unary(x, "elu", call.number("alpha", SELU_ALPHA)), "affine", call.number("gamma", SELU_GAMMA))


@lowered("Celu")
def lower_celu(call: Call, x: Symbol) -> Any:
    """``alpha * elu(x / alpha)``."""
    alpha = call.number("alpha", 1.0)
    if alpha <= 0:
        return NotImplemented
    return unary(unary(unary(x, "affine", 1 / alpha), "elu", 1.0), "affine", alpha)


@lowered("ThresholdedRelu")
def lower_thresholded_relu(call: Call, x: Symbol) -> Any:
    alpha = call.number("alpha", 1.0)
    if alpha < 0:
        return NotImplemented
    return binary("mul", unary(x, "relu"), binary("gt", x, symbol(np.float32(alpha), call)))


@lowered("HardSigmoid")
def lower_hard_sigmoid(call: Call, x: Symbol) -> Symbol:
    return unary(unary(x, "affine", call.number("alpha", 0.2), call.number("beta", 0.5)), "clip", 0, 1)


@lowered("Softsign")
def lower_softsign(call: Call, x: Symbol) -> Symbol:
    return binary("div", x, unary(unary(x, "abs"), "affine", 1, 1))


@lowered("Mish")
def lower_mish(call: Call, x: Symbol) -> Symbol:
    return binary("mul", x, unary(unary(x, "softplus"), "tanh"))


@lowered("Swish")
def lower_swish(call: Call, x: Symbol) -> Symbol:
    alpha = call.number("alpha", 1.0)
    return unary(x, "silu") if alpha == 1 else binary("mul", x, unary(unary(x, "affine", alpha), "sigmoid"))


@lowered("Gelu")
def lower_gelu(call: Call, x: Symbol) -> Symbol:
    return unary(x, "gelu_tanh" if call.text("approximate", "none") == "tanh" else "gelu")


@lowered("PRelu")
def lower_prelu(call: Call, x: Any, slope: Any) -> Any:
    """``max(x, 0) + slope * min(x, 0)``."""
    if isinstance(slope, np.ndarray) and slope.size == 1 and isinstance(x, Symbol):
        return unary(x, "leaky_relu", float(slope.reshape(())))
    x = symbol(x, call)
    return binary("add", unary(x, "relu"), binary("mul", unary(x, "clip", -math.inf, 0), symbol(slope, call)))


@lowered("Clip")
def lower_clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = _limit(call, low, "min"), _limit(call, high, "max")
    x = symbol(x, call)
    known = [limit for limit in (low, high) if not isinstance(limit, Symbol)]
    if len(known) == 2 and all(limit is None or np.size(limit) == 1 for limit in known):
        bounds = [fallback if limit is None else float(np.reshape(limit, ())) for limit, fallback in ((low, -math.inf), (high, math.inf))]
        if bounds == [-math.inf, math.inf]:
            return x
        if bounds[0] <= bounds[1]:
            return unary(x, "relu") if bounds == [0, math.inf] else unary(x, "clip", *bounds)
    y = x if low is None else binary("max", x, symbol(low, call))
    return y if high is None else binary("min", y, symbol(high, call))
