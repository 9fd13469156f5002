"""Arrays as users give them."""

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
