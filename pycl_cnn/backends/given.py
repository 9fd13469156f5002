"""What a run was given: the same arrays, given once more, need not be looked at as closely."""

from __future__ import annotations

from typing import Any

import numpy as np


class Given:
    """Checked inputs in order, and arrays for the results or None."""

    def __init__(self, inputs: list[np.ndarray], out: Any = None, targets: list[np.ndarray] | None = None) -> None:
        self.inputs, self.out, self.targets = inputs, out, targets
        self.forms = [(array, array.shape, array.dtype) for array in (*inputs, *(targets or ()))]

    def again(self, arrays: tuple[Any, ...], out: Any) -> bool:
        """Whether these are the arrays, and still what they were; where they lie may have changed."""
        if out is not self.out or len(arrays) != len(self.inputs):
            return False
        if out is not None:
            if not out.flags.writeable:
                return False
            arrays = (*arrays, out)
        for array, (known, shape, dtype) in zip(arrays, self.forms, strict=True):
            if array is not known or array.shape != shape or array.dtype is not dtype or not array.flags.c_contiguous:
                return False
        return True
