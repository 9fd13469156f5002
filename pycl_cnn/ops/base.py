"""The contract of an operation: four questions, answered on one screen of one file.

* `infer`: which shapes and dtypes come out? (also the last check of what goes in)
* `gradient`: which other operations give the gradients?
* `reference`: what is the result, in float64 NumPy/SciPy, written to be understood?
* `cost`: how many floating-point operations? (bytes follow from the shapes)

Two more are about layout and memory: `permuted` and `reuses`/`aliases`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..errors import ShapeError
from ..records import record

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


class Spec(NamedTuple):
    """Shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


FLOAT = np.dtype(np.float32)
INT = np.dtype(np.int32)


def floats(*shape: int) -> Spec:
    """A float32 spec."""
    return Spec(tuple(shape), FLOAT)


@record
class Op:
    """An operation with its attributes."""

    #: output index -> input index whose storage it is written to (an update of a state in place)
    aliases: ClassVar[dict[int, int]] = {}

    @property
    def reuses(self) -> tuple[int, ...]:
        """Inputs whose storage output 0 may take over when this is their last use and the sizes agree."""
        return ()

    @property
    def name(self) -> str:
        return type(self).__name__

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        """Specs of the outputs. Raises ShapeError."""
        raise NotImplementedError

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        """Gradients of the inputs from those of the outputs, as more graph; None where there is none."""
        raise ShapeError(self.name, "this operation has no gradient")

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs in float64 (integers stay integers)."""
        raise NotImplementedError

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        """Floating-point operations, a multiply-add counted as two."""
        return 0

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        """For moving a transpose from before this operation to behind it.

        Given that the tensor operands are ``transpose(z, permutation)``: the operation on the z's whose outputs, transposed by
        the returned permutation, are this operation's outputs; None when there is none.
        """
        return None

    def attributes(self) -> str:
        """The attributes that differ from their defaults, for people."""
        parts = []
        for item in fields(self):
            value: Any = getattr(self, item.name)
            if value != item.default:
                parts.append(f"{item.name}={value}")
        return ", ".join(parts)


def require(condition: bool, operation: str, rule: str, **received: object) -> None:
    """Raise ShapeError unless `condition`."""
    if not condition:
        raise ShapeError(operation, rule, **received)
