"""Arrays that belong to a module: trained parameters, and buffers that training only keeps up to date."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np

from ..arrays import is_frozen
from ..errors import ShapeError

_versions = itertools.count(1)


def _own(data: Any) -> np.ndarray:
    """`data` as an array that nobody else writes to: a copy, unless it is a float32 array that nobody can write to."""
    if isinstance(data, np.ndarray) and data.dtype == np.float32 and data.flags.c_contiguous and is_frozen(data):
        return data
    return np.array(data, np.float32, order="C")


class Parameter:
    """A float32 array of a module.

    `data` is read-only: assigning a new array (``p.data = array``) is how it changes, so that programs compiled from it
    notice by `version`. The shape never changes.
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        self.requires_grad = requires_grad
        array = _own(data)
        self._shape = array.shape
        self._set(array)

    def _set(self, array: np.ndarray) -> None:
        array.flags.writeable = False
        self._data = array
        self.version = next(_versions)

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        array = _own(value)
        if array.shape != self._shape:
            raise ShapeError("parameter", "the shape cannot change", shape=self._shape, given=array.shape)
        self._set(array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        return self._data.size

    def numpy(self) -> np.ndarray:
        return self._data

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self._data, dtype, copy=bool(copy)) if copy or dtype not in (None, np.float32) else self._data

    def __deepcopy__(self, memo: dict) -> Parameter:
        """A parameter of its own. The array is shared, since nobody writes to it, until one of the two is given another."""
        twin = copy.copy(self)
        twin.version = next(_versions)
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self._shape})"


class Buffer(Parameter):
    """An array that is part of a module's state but not trained, e.g. a running mean."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=False)
