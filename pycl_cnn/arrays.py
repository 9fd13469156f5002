"""Arrays as users give them, and arrays that are shared instead of copied, because nobody writes to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DtypeError


def as_input_array(array: Any, operation: str) -> np.ndarray:
    """What a user gave as an array: float64 and float16 become float32, integers (labels) int32.

    Raises DtypeError for complex numbers, objects and text.
    """
    if hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray) and not hasattr(array, "__array__"):
        array = np.from_dlpack(array)
    array = np.asarray(array)
    if array.dtype == np.float32 or array.dtype == np.int32:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        info = np.iinfo(np.int32)
        if array.size and (array.max() > info.max or array.min() < info.min):
            raise DtypeError(f"{operation}: integers must fit 32 bits; received {array.dtype} up to {array.max()}")
        return array.astype(np.int32)
    raise DtypeError(f"{operation}: arrays must hold real numbers; received dtype {array.dtype}")


def is_frozen(array: np.ndarray) -> bool:
    """Whether nobody can write to the array: it is read-only, and so is the array whose memory it shows, if that is another one."""
    owner = array if array.base is None else array.base
    return not array.flags.writeable and isinstance(owner, np.ndarray) and owner.flags.owndata and not owner.flags.writeable


def frozen(array: np.ndarray) -> np.ndarray:
    """`array` if nobody can write to it, else a copy."""
    return array if is_frozen(array) else array.copy()
