"""A node while it is imported: its attributes, its inputs, and its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..errors import ShapeError
from ..trace import Symbol, as_symbol
from .reader import NodeFile

#: An array that is known when the plan is made, or one of the trace.
Tensor = np.ndarray | Symbol

#: Bytes of a known value that is computed with the plan (shapes, tables and anchors stay far below), and of a result of a run.
MOST_FOLDED, MOST_COMPUTED = 1 << 30, 1 << 34

#: Products that NumPy may add up while a plan is made, seconds of one core.
MOST_SUMMED = 1 << 32


class NeedsValue(Exception):
    """The importer met an operator that needs the elements of `symbol` as numbers."""

    def __init__(self, symbol: Symbol, message: str) -> None:
        super().__init__(message)
        self.symbol = symbol


class Call:
    """A node, the version of its operator set, and what it is asked for."""

    def __init__(self, node: NodeFile, opset: int, training: bool = False) -> None:
        self.node, self.opset, self.op = node, opset, node.op
        self.training = training  # whether the model is in training mode
        self.most = MOST_COMPUTED  # bytes that the result may take
        self.most_products: float = math.inf
        self.products = 0

    @property
    def outputs(self) -> int:
        """How many outputs are wanted."""
        return len(self.node.outputs)

    def wants(self, index: int) -> bool:
        """Whether output `index` is wanted."""
        return index < self.outputs and bool(self.node.outputs[index])

    def refuse(self, rule: str, **received: Any) -> NoReturn:
        """Raise ShapeError that names the node."""
        raise ShapeError(self.node.label, rule, **received)

    def require(self, condition: Any, rule: str, **received: Any) -> None:
        if not condition:
            self.refuse(rule, **received)

    # ---- attributes -----------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return name in self.node.attributes

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute as the file has it."""
        return self.node.attributes.get(name, default)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(f"the attribute {name} must be an integer", **{name: value})
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(f"the attribute {name} must be a number", **{name: value})
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            self.refuse(f"the attribute {name} must be text", **{name: value})
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        value = self.get(name, default)
        if not isinstance(value, Sequence) or isinstance(value, str) or any(isinstance(item, bool) or not isinstance(item, int) for item in value):
            self.refuse(f"the attribute {name} must be a list of integers", **{name: value})
        return tuple(value)

    # ---- inputs ---------------------------------------------------------------------------------------------------------

    def known(self, tensor: Any, what: str) -> np.ndarray:
        """The elements of an input that the plan depends on. Raises NeedsValue."""
        if isinstance(tensor, Symbol):
            raise NeedsValue(tensor, f"{self.node.label} needs the elements of its {what} when the plan is made")
        if tensor is None:
            self.refuse(f"the input {what} is missing")
        return np.asarray(tensor)

    def ints(self, tensor: Any, what: str) -> tuple[int, ...]:
        """A known list of integers."""
        array = self.known(tensor, what)
        self.require(array.ndim <= 1 and array.dtype.kind in "iub", f"{what} must be a list of integers", shape=array.shape, dtype=str(array.dtype))
        return tuple(int(item) for item in array.reshape(-1))

    def scalar(self, tensor: Any, what: str) -> Any:
        """A known single number, as Python's."""
        array = self.known(tensor, what)
        self.require(array.size == 1, f"{what} must be a single number", shape=array.shape)
        return array.reshape(-1)[0].item()

    def axis(self, axis: int, rank: int, inclusive: bool = False) -> int:
        """An axis of an input of `rank` axes, negative ones counted from the end; `inclusive` allows `rank` itself."""
        self.require(-rank <= axis < rank + inclusive, "the axis must be one of the input's", axis=axis, axes=rank)
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Different axes, ascending."""
        found = tuple(sorted(self.axis(axis, rank) for axis in axes))
        self.require(len(set(found)) == len(found), "the axes must differ", axes=tuple(axes))
        return found

    def bounded(self, shape: Sequence[int], itemsize: int = 8, most: int = MOST_FOLDED, what: str = "the result") -> tuple[int, ...]:
        """`shape`, which must be one of at most so many bytes. Raises ShapeError."""
        shape = tuple(int(n) for n in shape)
        self.require(min(shape, default=0) >= 0, "sizes must not be negative", shape=shape)
        self.require(math.prod(shape) * itemsize <= min(most, self.most), f"{what} would be absurdly large", shape=shape)
        return shape

    def summed(self, products: int, slowly: int = 1) -> None:
        """Count work of so many products, each as slow as `slowly` of a plain sum's. Raises ShapeError where it is more than a plan may take."""
        self.products += products * slowly
        self.require(self.products <= self.most_products, "the sum would be absurdly large", products=products)


def symbol(tensor: Any, call: Call) -> Symbol:
    """The tensor in the active trace."""
    return as_symbol(tensor, call.node.label)
