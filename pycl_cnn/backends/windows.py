"""The windows of max pooling as tables that kernels read, so that regular and adaptive windows are one."""

from __future__ import annotations

import numpy as np

from ..geometry import PoolAxis, PoolGeometry


def window_table(g: PoolGeometry) -> np.ndarray:
    """int32 row starts, row ends, column starts, column ends of the windows."""
    parts = [[window[end] for window in axis.windows] for axis in (g.rows, g.cols) for end in (0, 1)]
    return np.array([position for part in parts for position in part], np.int32)


def cover_table(g: PoolGeometry) -> np.ndarray:
    """int32 first and end row, first and end column of the windows that may hold an input row or column."""
    parts = [list(values) for axis in (g.rows, g.cols) for values in zip(*(_covering(axis, i) for i in range(axis.size)), strict=True)]
    return np.array([position for part in parts for position in part], np.int32)


def _covering(axis: PoolAxis, position: int) -> tuple[int, int]:
    over = [i for i, (first, end) in enumerate(axis.windows) if first <= position < end]
    return (over[0], over[-1] + 1) if over else (0, 0)


def window_size(axis: PoolAxis) -> int:
    """Elements of the longest window."""
    return max((-(-(end - first) // axis.dilation) for first, end in axis.windows), default=1)
