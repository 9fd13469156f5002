"""Shapes and strides as kernels want them: as few axes as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import UnsupportedError

MAX_RANK = 6


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a dense row-major array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_strides(shape: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense array of `shape` read along the axes of `out`: 0 where it is repeated."""
    padded = (1,) * (len(out) - len(shape)) + tuple(shape)
    return tuple(0 if n == 1 else stride for n, stride in zip(padded, dense_strides(padded), strict=True))


def merge_axes(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Drop axes of length 1 and merge neighbours that lie behind one another in every operand; at least one axis remains.

    Raises UnsupportedError where more than six axes remain.
    """
    merged: list[int] = []
    merged_strides: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if merged and all(kept[-1] == s[axis] * n for kept, s in zip(merged_strides, strides, strict=True)):
            merged[-1] *= n
            for kept, s in zip(merged_strides, strides, strict=True):
                kept[-1] = s[axis]
        else:
            merged.append(n)
            for kept, s in zip(merged_strides, strides, strict=True):
                kept.append(s[axis])
    if not merged:
        return [1], [[0] for _ in strides]
    if len(merged) > MAX_RANK:
        raise UnsupportedError(f"arrays of shape {tuple(shape)} need {len(merged)} axes here; at most {MAX_RANK} are supported")
    return merged, merged_strides


def bits_of(value: float, dtype: np.dtype) -> int:
    """`value` as an element of `dtype`, its four bytes read as an int32: what fills are given."""
    return int(np.array(value, dtype).view(np.int32))


def padded_axes(values: Sequence[int], fill: int) -> list[int]:
    """`values` for the kernels' arrays of six."""
    return [*values, *[fill] * (MAX_RANK - len(values))]


def collapse(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """(elements before, along and after `axis`)."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
