"""The leaves of a graph: inputs, constants and states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..records import record
from .base import Op, Spec, floats


@record
class Input(Op):
    """An array given at every run."""

    label: str
    shape: tuple[int, ...]
    dtype: str

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (Spec(self.shape, np.dtype(self.dtype)),)


@record(eq=False)
class Constant(Op):
    """An array known when the graph is made."""

    array: np.ndarray

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (Spec(self.array.shape, self.array.dtype),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.array,)

    def attributes(self) -> str:
        return str(self.array) if self.array.size == 1 else ""


@record
class State(Op):
    """An array that the program keeps between runs: a parameter, a running statistic, an optimizer's slot.

    The user knows it as an array of `user_shape`; `moves` are the reshapes and transposes that lead from there to the array
    of `shape` that is stored.
    """

    label: str
    shape: tuple[int, ...]
    user_shape: tuple[int, ...]
    trainable: bool = False
    moves: tuple[Op, ...] = ()
    fixed: bool = False  # no run updates it

    @classmethod
    def plain(cls, label: str, shape: tuple[int, ...], trainable: bool = False) -> State:
        """A state stored as the user knows it."""
        return cls(label, tuple(shape), tuple(shape), trainable)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(*self.shape),)

    def moved(self, move: Op) -> State:
        """The same state stored one `move` further."""
        (spec,) = move.infer(floats(*self.shape))
        return replace(self, shape=spec.shape, moves=(*self.moves, move))

    def inverse(self) -> tuple[Op, ...]:
        """The moves from the stored array back to the user's."""
        backward: list[Op] = []
        shape = self.user_shape
        for move in self.moves:
            backward.append(move.inverse(shape))  # type: ignore[attr-defined]
            shape = move.infer(floats(*shape))[0].shape
        return tuple(reversed(backward))

    def store(self, array: np.ndarray) -> np.ndarray:
        """The user's array as it is stored."""
        for move in self.moves:
            (array,) = move.reference(array)
        return np.asarray(array, np.float32, order="C")

    def load(self, array: np.ndarray) -> np.ndarray:
        """The stored array as the user knows it."""
        for move in self.inverse():
            (array,) = move.reference(array)
        return np.asarray(array, order="C")
