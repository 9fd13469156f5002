"""Element by element: functions of one array, and arithmetic of two with NumPy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..records import record
from .base import Op, Spec, require
from .movement import Reshape, Transpose, invert

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value

#: Numbers that the kernels of every backend share.
KINDS = {
    "none": 0,
    "relu": 1,
    "leaky_relu": 2,
    "clip": 3,
    "sigmoid": 4,
    "tanh": 5,
    "gelu": 6,
    "silu": 7,
    "hardswish": 8,
    "gelu_tanh": 9,
    "elu": 10,
    "softplus": 11,
    "hardsigmoid": 12,
    "neg": 20,
    "exp": 21,
    "log": 22,
    "sqrt": 23,
    "rsqrt": 24,
    "reciprocal": 25,
    "abs": 26,
    "sign": 27,
    "pow": 28,
    "affine": 29,
    "signed_root": 30,
    "square": 31,
    "erf": 32,
    "floor": 33,
    "ceil": 34,
    "round": 35,
}
#: Kinds that the store of a convolution or matrix product can apply.
FUSABLE = frozenset(name for name, number in KINDS.items() if 1 <= number <= 12)
#: Kinds whose derivative may be taken at the output instead of the input: the same sign, the same interval.
FROM_OUTPUT = frozenset({"relu", "clip"})

BINARY_KINDS = {"add": 0, "sub": 1, "mul": 2, "div": 3, "max": 4, "min": 5, "pow": 6, "eq": 7, "gt": 8, "ge": 9, "keep": 10}


@record
class Activation:
    """A function of one variable with up to two parameters, e.g. clip(alpha, beta)."""

    kind: str
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def number(self) -> int:
        return KINDS[self.kind]

    @property
    def at_output(self) -> bool:
        """Whether the derivative can be computed from the function's value."""
        return self.kind in FROM_OUTPUT or (self.kind == "leaky_relu" and self.alpha > 0)

    def __str__(self) -> str:
        parameters = [f"{value:g}" for value in (self.alpha, self.beta) if value]
        return self.kind + (f"({', '.join(parameters)})" if parameters else "")


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _pow(x: np.ndarray, exponent: float) -> np.ndarray:
    return np.power(x, exponent)


GELU_C, GELU_A = np.sqrt(2 / np.pi), 0.044715  # the tanh approximation of Hendrycks and Gimpel, "Gaussian Error Linear Units"

_FUNCTIONS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "none": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "leaky_relu": lambda x, a, b: np.where(x > 0, x, a * x),
    "clip": lambda x, a, b: np.clip(x, a, b),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "gelu": lambda x, a, b: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "silu": lambda x, a, b: x * _sigmoid(x),
    "hardswish": lambda x, a, b: x * np.clip(x + 3, 0, 6) / 6,
    "gelu_tanh": lambda x, a, b: 0.5 * x * (1 + np.tanh(GELU_C * (x + GELU_A * x**3))),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "softplus": lambda x, a, b: _softplus(x),
    "hardsigmoid": lambda x, a, b: np.clip(x / 6 + 0.5, 0, 1),
    "neg": lambda x, a, b: -x,
    "exp": lambda x, a, b: np.exp(x),
    "log": lambda x, a, b: np.log(x),
    "sqrt": lambda x, a, b: np.sqrt(x),
    "rsqrt": lambda x, a, b: 1 / np.sqrt(x),
    "reciprocal": lambda x, a, b: 1 / x,
    "abs": lambda x, a, b: np.abs(x),
    "sign": lambda x, a, b: np.sign(x),
    "pow": lambda x, a, b: _pow(x, a),
    "affine": lambda x, a, b: a * x + b,
    "signed_root": lambda x, a, b: np.sign(x) * np.abs(x) ** a,
    "square": lambda x, a, b: x * x,
    "erf": lambda x, a, b: _erf(x),
    "floor": lambda x, a, b: np.floor(x),
    "ceil": lambda x, a, b: np.ceil(x),
    "round": lambda x, a, b: np.rint(x),
}


def _gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    t = np.tanh(GELU_C * (x + GELU_A * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU_C * (1 + 3 * GELU_A * x * x)


_SLOPES: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "none": lambda x, a, b: np.ones_like(x),
    "relu": lambda x, a, b: (x > 0) * 1.0,
    "leaky_relu": lambda x, a, b: np.where(x > 0, 1.0, a),
    "clip": lambda x, a, b: ((x > a) & (x < b)) * 1.0,
    "sigmoid": lambda x, a, b: _sigmoid(x) * _sigmoid(-x),
    "tanh": lambda x, a, b: 1 - np.tanh(x) ** 2,
    "gelu": lambda x, a, b: 0.5 * (1 + _erf(x / np.sqrt(2))) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi),
    "silu": lambda x, a, b: _sigmoid(x) * (1 + x * _sigmoid(-x)),
    "hardswish": lambda x, a, b: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    "gelu_tanh": lambda x, a, b: _gelu_tanh_slope(x),
    "elu": lambda x, a, b: np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0))),
    "softplus": lambda x, a, b: _sigmoid(x),
    "hardsigmoid": lambda x, a, b: ((x > -3) & (x < 3)) / 6.0,
    "neg": lambda x, a, b: -np.ones_like(x),
    "exp": lambda x, a, b: np.exp(x),
    "log": lambda x, a, b: 1 / x,
    "sqrt": lambda x, a, b: 0.5 / np.sqrt(x),
    "rsqrt": lambda x, a, b: -0.5 * x**-1.5,
    "reciprocal": lambda x, a, b: -1 / (x * x),
    "abs": lambda x, a, b: np.sign(x),
    "sign": lambda x, a, b: np.zeros_like(x),
    "pow": lambda x, a, b: a * _pow(x, a - 1) if a != 0 else np.zeros_like(x),
    "affine": lambda x, a, b: np.full_like(x, a),
    "signed_root": lambda x, a, b: np.where(x == 0, 0.0, a * np.abs(np.where(x == 0, 1.0, x)) ** (a - 1)),
    "square": lambda x, a, b: 2 * x,
    "erf": lambda x, a, b: 2 / np.sqrt(np.pi) * np.exp(-x * x),
    "floor": lambda x, a, b: np.zeros_like(x),
    "ceil": lambda x, a, b: np.zeros_like(x),
    "round": lambda x, a, b: np.zeros_like(x),
}


def unary_reference(activation: Activation, x: np.ndarray) -> np.ndarray:
    """The function in float64."""
    with np.errstate(all="ignore"):
        return _FUNCTIONS[activation.kind](x.astype(np.float64), activation.alpha, activation.beta)


def slope_reference(activation: Activation, x: np.ndarray) -> np.ndarray:
    """The derivative in float64; at a kink PyTorch's choice."""
    with np.errstate(all="ignore"):
        return _SLOPES[activation.kind](x.astype(np.float64), activation.alpha, activation.beta)


@record
class Unary(Op):
    """``y = f(x)``."""

    function: Activation
    reuses: ClassVar[tuple[int, ...]] = (0,)

    @property
    def name(self) -> str:
        return str(self.function)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (inputs[0],)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        if grads[0] is None:
            return [None]
        if self.function.kind == "exp":
            return [graph.apply(Binary("mul"), grads[0], node.outputs[0])]
        at = node.outputs[0] if self.function.at_output else node.inputs[0]
        return [graph.apply(UnaryBackward(self.function), grads[0], at)]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (unary_reference(self.function, inputs[0]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return outputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return self, permutation


@record
class UnaryBackward(Op):
    """``dx = dy * f'(x)``."""

    function: Activation
    reuses: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        require(inputs[0] == inputs[1], self.name, "gradient and value must agree in shape", dy=inputs[0].shape, x=inputs[1].shape)
        return (inputs[0],)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (inputs[0] * slope_reference(self.function, inputs[1]),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 2 * outputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return self, permutation


def sum_to(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    """`value` summed over the axes along which an operand of `shape` was broadcast: the adjoint of broadcasting."""
    from .reduce import Reduce

    extra = len(value.shape) - len(shape)
    padded = (1,) * extra + shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(value.shape, padded, strict=True)) if n != m)
    if axes:
        value = graph.apply(Reduce("sum", axes, True), value)
    return graph.apply(Reshape(shape), value) if value.shape != shape else value


@record
class Binary(Op):
    """``y = activation(a op b)`` with NumPy's broadcasting; comparisons give 1.0 and 0.0, "keep" a where b is not 0, else 0."""

    kind: str
    activation: Activation | None = None
    reuses: ClassVar[tuple[int, ...]] = (0, 1)

    @property
    def name(self) -> str:
        return self.kind

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        a, b = inputs
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ShapeError(self.kind, "shapes must agree or be 1 on every axis, counted from the last", a=a.shape, b=b.shape) from None
        return (Spec(tuple(shape), a.dtype),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        (dy,) = grads
        if dy is None or self.kind in ("eq", "gt", "ge"):
            return [None, None]
        require(self.activation is None, self.kind, "differentiate before activations are fused")
        a, b = node.inputs

        def times(x: Value, y: Value) -> Value:
            return graph.apply(Binary("mul"), x, y)

        if self.kind == "add":
            da, db = dy, dy
        elif self.kind == "sub":
            da, db = dy, graph.apply(Unary(Activation("neg")), dy)
        elif self.kind == "mul":
            da, db = times(dy, b), times(dy, a)
        elif self.kind == "div":
            da = graph.apply(Binary("div"), dy, b)
            db = graph.apply(Unary(Activation("neg")), graph.apply(Binary("div"), times(da, a), b))
        elif self.kind == "keep":
            return [sum_to(graph, graph.apply(Binary("keep"), dy, b), a.shape), None]
        elif self.kind in ("max", "min"):
            # Ties share the gradient, as in PyTorch: the mask of a is (a > b) + (a == b) / 2.
            first, second = (a, b) if self.kind == "max" else (b, a)
            half = graph.apply(Unary(Activation("affine", 0.5)), graph.apply(Binary("eq"), a, b))
            mask_a = graph.apply(Binary("add"), graph.apply(Binary("gt"), first, second), half)
            mask_b = graph.apply(Unary(Activation("affine", -1.0, 1.0)), mask_a)
            da, db = times(dy, mask_a), times(dy, mask_b)
        else:  # pow; as in PyTorch 0 for the base where the exponent is 0, and for the exponent where the base is 0
            y = node.outputs[0]

            def or_one(x: Value) -> Value:
                zero = graph.apply(Binary("eq"), x, graph.constant(np.zeros((), np.float32)))
                return graph.apply(Binary("add"), x, zero)

            lower = graph.apply(Binary("pow"), a, graph.apply(Unary(Activation("affine", 1.0, -1.0)), or_one(b)))
            da = times(dy, times(b, lower))
            db = times(dy, times(y, graph.apply(Unary(Activation("log")), or_one(a))))
        return [sum_to(graph, da, a.shape), sum_to(graph, db, b.shape)]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = (array.astype(np.float64) for array in inputs)
        functions: dict[str, Callable] = {
            "add": np.add,
            "sub": np.subtract,
            "mul": np.multiply,
            "div": np.divide,
            "max": np.maximum,
            "min": np.minimum,
            "pow": np.power,
            "eq": np.equal,
            "gt": np.greater,
            "ge": np.greater_equal,
            "keep": lambda a, b: np.where(b != 0, a, 0.0),
        }
        with np.errstate(all="ignore"):
            y = functions[self.kind](a, b).astype(np.float64)
        return (y if self.activation is None else unary_reference(self.activation, y),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return outputs[0].size * (1 + (self.activation is not None))

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        return self, permutation


def align(graph: Graph, value: Value, permutation: tuple[int, ...]) -> Value:
    """An operand z with ``transpose(z, permutation)`` equal to `value` under broadcasting."""
    rank = len(permutation)
    if len(value.shape) < rank:
        value = graph.apply(Reshape((1,) * (rank - len(value.shape)) + value.shape), value)
    backward = Transpose(invert(permutation))
    if backward.is_view(value.shape):
        (spec,) = backward.infer(value.spec)
        return graph.apply(Reshape(spec.shape), value)
    twin = next((user for user in value.users if user.op == backward), None)
    return graph.apply(backward, value) if twin is None else twin.outputs[0]


