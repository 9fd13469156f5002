"""Inputs and targets at the door of training: checked once, then read batch by batch, so that a memory-mapped set stays on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError


def as_rows(operation: str, what: str, source: Any) -> Any:
    """`source` as something with shape, dtype and indexing by rows: itself where it has them, else an array.

    Raises DtypeError for what holds no real numbers, ShapeError for what has no rows.
    """
    if not (isinstance(getattr(source, "dtype", None), np.dtype) and hasattr(source, "shape") and hasattr(source, "__getitem__")):
        source = np.asarray(source)
    if source.dtype.kind not in "biuf":
        raise DtypeError(f"{operation}: {what} must hold real numbers; received dtype {source.dtype}")
    if not source.shape or source.shape[0] == 0:
        raise ShapeError(operation, f"{what} must hold at least one row", shape=tuple(source.shape))
    return source


def check_batch_size(operation: str, batch_size: Any) -> int:
    """`batch_size` as an integer of at least 1. Raises ShapeError."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ShapeError(operation, "batch_size must be an integer of at least 1", batch_size=batch_size)
    return int(batch_size)


def _take(source: Any, rows: np.ndarray) -> np.ndarray:
    """Some rows. What lies on disk is read in its own order, which is faster, and the only order that some libraries allow."""
    if type(source) is np.ndarray:
        return source[rows]
    order = np.argsort(rows, kind="stable")
    read = np.asarray(source[rows[order]])
    taken = np.empty_like(read)
    taken[order] = read
    return taken


class Samples:
    """Rows of inputs [n, ...] and, where given, of targets: integer labels, or floats of the loss's liking."""

    def __init__(self, operation: str, x: Any, target: Any = None) -> None:
        self.operation = operation
        self.x = as_rows(operation, "x", x)
        self.target: Any = None if target is None else as_rows(operation, "labels", target)
        if self.target is not None:
            if self.target.dtype.kind == "b":
                raise DtypeError(f"{operation}: labels must be integers, or floats for losses of floats; received dtype {self.target.dtype}")
            if len(self) != self.target.shape[0]:
                raise ShapeError(operation, "x and labels must have the same length", x=len(self), labels=self.target.shape[0])

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def labelled(self) -> bool:
        """Whether the targets are the numbers of classes."""
        return self.target is not None and self.target.dtype.kind in "iu"

    def sizes(self, batch_size: int) -> list[int]:
        """The one or two sizes of batch that occur."""
        full, rest = divmod(len(self), batch_size)
        return [batch_size] * (full > 0) + [rest] * (rest > 0)

    def x_spec(self, size: int) -> tuple[tuple[int, ...], Any]:
        return (size, *self.x.shape[1:]), np.float32

    def target_spec(self, size: int) -> tuple[tuple[int, ...], Any]:
        return (size, *self.target.shape[1:]), np.int32 if self.labelled else np.float32

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """These inputs as float32; integers keep their value."""
        return np.ascontiguousarray(_take(self.x, rows), np.float32)

    def targets(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(_take(self.target, rows), self.target_spec(1)[1])

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Row numbers in order."""
        rows = np.arange(len(self))
        return (rows[start : start + batch_size] for start in range(0, len(self), batch_size))

    def check_labels(self, classes: int, ignored: int) -> None:
        """Raise ShapeError, naming the first label that is neither a class nor `ignored`."""
        labels = np.asarray(self.target)
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
        if wrong.any():
            place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
            raise ShapeError(
                self.operation,
                f"labels must lie between 0 and {classes - 1}, for the model tells {classes} classes apart",
                label=int(labels[place]),
                at=place[0] if len(place) == 1 else place,
            )
