"""Arithmetic, comparison and logic of two and more arrays with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ...graph import Value
from ...ops.base import FLOAT, Spec
from ...ops.host import HostOp, OnnxNode
from ...trace import Symbol, emit
from ..node import Call, symbol
from .pointwise import binary, unary
from .table import evaluated, lowered


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division; that of integers drops the fraction, as in C."""
    if a.dtype.kind not in "iu":
        return a / b
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "u":
        return quotient
    return (quotient + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and (b >= 0).all():
        return np.power(a, b.astype(a.dtype)).astype(a.dtype)
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)


def _modulo(call: Call, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, b) if call.integer("fmod", 0) else np.mod(a, b)


def _shift(call: Call, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.left_shift(a, b) if call.text("direction", "") == "LEFT" else np.right_shift(a, b)


_FUNCTIONS: dict[str, Callable[[Call, np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": lambda call, a, b: a + b,
    "Sub": lambda call, a, b: a - b,
    "Mul": lambda call, a, b: a * b,
    "Div": lambda call, a, b: divide(a, b),
    "Pow": lambda call, a, b: _power(a, b),
    "Mod": _modulo,
    "BitShift": _shift,
    "BitwiseAnd": lambda call, a, b: a & b,
    "BitwiseOr": lambda call, a, b: a | b,
    "BitwiseXor": lambda call, a, b: a ^ b,
    "Equal": lambda call, a, b: np.equal(a, b),
    "Greater": lambda call, a, b: np.greater(a, b),
    "GreaterOrEqual": lambda call, a, b: np.greater_equal(a, b),
    "Less": lambda call, a, b: np.less(a, b),
    "LessOrEqual": lambda call, a, b: np.less_equal(a, b),
    "And": lambda call, a, b: np.logical_and(a, b),
    "Or": lambda call, a, b: np.logical_or(a, b),
    "Xor": lambda call, a, b: np.logical_xor(a, b),
}

#: Of any number of operands.
_MANY_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "Min": lambda call, *arrays: reduce(np.minimum, arrays),
    "Max": lambda call, *arrays: reduce(np.maximum, arrays),
    "Sum": lambda call, *arrays: reduce(np.add, arrays),
    "Mean": lambda call, *arrays: (reduce(np.add, arrays) / len(arrays)).astype(arrays[0].dtype),
    "Where": lambda call, condition, x, y: np.asarray(np.where(condition, x, y)),
}


@evaluated(*_FUNCTIONS, *_MANY_FUNCTIONS)
def broadcast(call: Call, *arrays: np.ndarray) -> np.ndarray:
    """Operands whose broadcast result memory can hold, whatever they are shaped like."""
    call.bounded(np.broadcast_shapes(*(array.shape for array in arrays)))
    return {**_FUNCTIONS, **_MANY_FUNCTIONS}[call.op](call, *arrays)


# ---- masks: booleans that float kernels compute with ------------------------------------------------------------------


class Mask(Symbol):
    """A boolean array that is there as float32 ones and zeros; it becomes booleans where somebody needs them so."""

    __slots__ = ("ones",)

    def __init__(self, ones: Symbol) -> None:
        self.ones = ones

    @property
    def value(self) -> Value:  # type: ignore[override]
        spec = Spec(self.ones.shape, np.dtype(bool))
        return emit(HostOp(OnnxNode("Cast", 13, {"to": 9}, (0,)), lambda ones: (ones != 0,), (spec,)), self.ones.value).value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.ones.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(bool)

    @property
    def ndim(self) -> int:
        return len(self.ones.shape)


def _inverse(ones: Symbol) -> Symbol:
    return unary(ones, "affine", -1, 1)


def _ones(mask: Any, call: Call) -> Symbol | None:
    """A boolean operand as ones and zeros; None for one that a kernel would have to make floats of."""
    if isinstance(mask, Mask):
        return mask.ones
    return None if isinstance(mask, Symbol) else symbol(mask.astype(np.float32), call)


_COMPARISONS = {"Equal": ("eq", False), "Greater": ("gt", False), "GreaterOrEqual": ("ge", False), "Less": ("gt", True), "LessOrEqual": ("ge", True)}


@lowered(*_COMPARISONS)
def lower_comparison(call: Call, a: Any, b: Any) -> Mask:
    kind, turned = _COMPARISONS[call.op]
    a, b = symbol(a, call), symbol(b, call)
    return Mask(binary(kind, b, a) if turned else binary(kind, a, b))


@lowered("And", "Or", "Xor", any_dtype=True)
def lower_logic(call: Call, a: Any, b: Any) -> Any:
    first, second = _ones(a, call), _ones(b, call)
    if first is None or second is None:
        return NotImplemented
    if call.op == "Xor":
        return Mask(_inverse(binary("eq", first, second)))
    return Mask(binary("mul" if call.op == "And" else "max", first, second))


@lowered("Not", any_dtype=True)
def lower_not(call: Call, a: Any) -> Any:
    return Mask(_inverse(a.ones)) if isinstance(a, Mask) else NotImplemented


@lowered("Where", any_dtype=True)
def lower_where(call: Call, condition: Any, x: Any, y: Any) -> Any:
    """What is kept of x where the mask is 1, plus what is kept of y where it is 0: nothing of the other side gets through, no NaN either."""
    ones = _ones(condition, call)
    if ones is None or x.dtype != FLOAT or y.dtype != FLOAT:
        return NotImplemented
    return binary("add", binary("keep", symbol(x, call), ones), binary("keep", symbol(y, call), _inverse(ones)))


# ---- lowered to the graph ---------------------------------------------------------------------------------------------

_KINDS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
_MANY = {"Min": "min", "Max": "max", "Sum": "add"}


for _name, _kind in _KINDS.items():
    lowered(_name)(lambda call, a, b, *, _kind=_kind: binary(_kind, symbol(a, call), symbol(b, call)))
for _name, _kind in _MANY.items():
    lowered(_name)(lambda call, *arrays, _kind=_kind: reduce(lambda a, b: binary(_kind, a, b), [symbol(array, call) for array in arrays]))


@lowered("Mean")
def lower_mean(call: Call, *arrays: Any) -> Symbol:
    added = reduce(lambda a, b: binary("add", a, b), [symbol(array, call) for array in arrays])
    return unary(added, "affine", 1 / len(arrays))


@lowered("Pow", any_dtype=True)
def lower_power(call: Call, x: Any, exponent: Any) -> Any:
    if x.dtype != FLOAT:
        return NotImplemented
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and len(exponent.shape) <= len(x.shape) and isinstance(x, Symbol):
        value = float(exponent.reshape(()))
        if value == 0.5:
            return unary(x, "sqrt")
        return x if value == 1 else unary(x, "square") if value == 2 else unary(x, "pow", value)
    if exponent.dtype != FLOAT:
        return NotImplemented
    return binary("pow", symbol(x, call), symbol(exponent, call))
