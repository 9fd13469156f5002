"""What the backends' Winograd convolutions share: which convolutions they are for, tiles, and how an input gradient is a convolution.

Winograd's minimal filtering F(t x t, 3x3) computes tiles of t x t outputs from (t + 2) x (t + 2) inputs with one product for each of as many
frequencies (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
"""

from __future__ import annotations

import math

import numpy as np

from ..geometry import ConvGeometry
from ..ops.conv import Conv, ConvBackwardInput
from ..records import record

TILES = (2, 4, 6, 7)  # outputs a side


def three_by_three(g: ConvGeometry) -> bool:
    """Whether Winograd's method is for this convolution."""
    return g.kernel == (3, 3) and g.stride == (1, 1) and g.dilation == (1, 1) and g.groups == 1


def frequencies(tile: int) -> int:
    """Of a tile of tile x tile outputs."""
    return (tile + 2) ** 2


def tile_grid(outputs: tuple[int, ...], tile: int) -> tuple[int, int]:
    """(rows, columns) of tiles in an image of `outputs` [n, rows, columns, outs]."""
    return -(-outputs[1] // tile), -(-outputs[2] // tile)


def tiles_of(outputs: tuple[int, ...], tile: int) -> int:
    """Tiles of tile x tile outputs in images of shape `outputs`."""
    return outputs[0] * math.prod(tile_grid(outputs, tile))


def filter_matrix(tile: int, taps: int) -> np.ndarray:
    """G [frequencies a side, taps]: rows of taps become frequencies (Toom and Cook; points and their order as in kernels_cl/winograd_tile.cl)."""
    side = tile + taps - 1
    pairs = (1.0, 2.0, 1 / 2)[: (side - 1) // 2] if side < 9 else (1 / 4, 5 / 8, 9 / 8, 9 / 4)
    points = np.array([*(sign * point for point in pairs for sign in (1, -1)), *([0.0] if side % 2 == 0 else [])])
    distances = points[:, None] - points + np.eye(len(points))
    return np.vstack([np.vander(points, taps, increasing=True) / distances.prod(1, keepdims=True), np.eye(taps)[-1]])


def transformed_filters(taps: np.ndarray, tile: int) -> np.ndarray:
    """G g G^T [frequencies, filters] of square filters' taps [taps, filters]."""
    g = filter_matrix(tile, math.isqrt(len(taps)))
    both = np.kron(g, g).astype(np.float32)
    filters = taps.shape[1]
    result = np.empty((len(both), filters), np.float32)
    # In small products: a BLAS that gives one of so few terms to several threads takes ten times as long.
    few = math.gcd(filters, 256)
    np.matmul(both, taps.reshape(len(taps), -1, few).swapaxes(0, 1), out=result.reshape(len(both), -1, few).swapaxes(0, 1))
    return result


@record
class FilterView:
    """Filter (out, i) has tap (r, s) at offset + out*out_stride + i*red_stride + r*tap_row_stride + s*tap_column_stride floats of the weight
    [outs, 3, 3, channels].
    """

    offset: int
    out_stride: int
    red_stride: int
    tap_row_stride: int
    tap_column_stride: int


def filter_view(op: Conv | ConvBackwardInput) -> FilterView:
    """The filters that `op` convolves what it reads with: an input gradient has them turned around, outputs and channels exchanged."""
    channels = op.geometry.channels
    if isinstance(op, Conv):
        return FilterView(0, 9 * channels, 1, 3 * channels, channels)
    return FilterView(8 * channels, 1, 9 * channels, -3 * channels, -channels)


def padding_before(op: Conv | ConvBackwardInput) -> tuple[int, int]:
    """(rows, columns) of zeros above and left of what `op` reads."""
    (top, _), (left, _) = op.geometry.padding
    return (top, left) if isinstance(op, Conv) else (2 - top, 2 - left)
