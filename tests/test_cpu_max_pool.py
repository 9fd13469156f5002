"""The CPU's max pooling kernels on every instruction set, against loops over windows."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run


def sliding(size, window, stride, pad, dilation, ceil):
    """Starts and ends of windows along an axis, clipped to it; with `ceil` the last one may stick out."""
    reach = (window - 1) * dilation + 1
    span = size + 2 * pad - reach
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + pad:
        count -= 1
    starts = [i * stride - pad for i in range(count)]
    ends = [min(start + reach, size) for start in starts]
    return [start if start >= 0 else start + -(start // dilation) * dilation for start in starts], ends


def adaptive(size, out):
    return [i * size // out for i in range(out)], [-(-(i + 1) * size // out) for i in range(out)]


def covers(size, axis):
    """First and end of the windows over every position."""
    over = [[i for i, (start, end) in enumerate(zip(*axis, strict=True)) if start <= p < end] for p in range(size)]
    return [o[0] if o else 0 for o in over], [o[-1] + 1 if o else 0 for o in over]


def table(*parts):
    return np.concatenate(parts).astype(np.int32)


def reference(x, rows, cols, dilation):
    """Largest elements and their places: the first of equals, the last of NaNs."""
    n, _h, w, c = x.shape
    y = np.full((n, len(rows[0]), len(cols[0]), c), -np.inf, np.float32)
    indices = np.zeros(y.shape, np.int32)
    for a, b in np.ndindex(y.shape[1:3]):
        indices[:, a, b] = rows[0][a] * w + cols[0][b]
        for i in range(rows[0][a], rows[1][a], dilation):
            for j in range(cols[0][b], cols[1][b], dilation):
                wins = (x[:, i, j] > y[:, a, b]) | np.isnan(x[:, i, j])
                y[:, a, b] = np.where(wins, x[:, i, j], y[:, a, b])
                indices[:, a, b] = np.where(wins, i * w + j, indices[:, a, b])
    return y, indices


def check(isa, x, rows, cols, dilation):
    n, h, w, c = x.shape
    oh, ow = len(rows[0]), len(cols[0])
    exact, places = reference(x, rows, cols, dilation)
    dy = np.random.default_rng(1).normal(size=exact.shape).astype(np.float32)
    gradient = np.zeros((n, h * w, c))
    for index in np.ndindex(exact.shape):
        gradient[index[0], places[index], index[3]] += dy[index]
    shape = {"n": n, "h": h, "w": w, "c": c, "oh": oh, "ow": ow, "row_dilation": dilation, "col_dilation": dilation}
    windows, cover = table(*rows, *cols), table(*covers(h, rows), *covers(w, cols))
    for blocks in (kernels.window_blocks(n * oh, ow, c, 4), {"rows_per_task": 3, "channel_block": min(c, 5)}):
        y, indices, dx = empty(*exact.shape), empty(*exact.shape, dtype=np.int32), empty(*x.shape)
        run(isa, "max_pool", shape | blocks, x, windows, y, indices)
        np.testing.assert_array_equal(y, exact)
        np.testing.assert_array_equal(indices, places)
        y[...] = np.nan
        run(isa, "max_pool", shape | blocks, x, windows, y, None)
        np.testing.assert_array_equal(y, exact)
        run(isa, "max_pool_backward", shape | blocks, dy, indices, cover, dx)
        np.testing.assert_allclose(dx.reshape(gradient.shape), gradient, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "shape, window, stride, pad, dilation, ceil",
    [
        ((1, 7, 7, 1), 2, 2, 0, 1, False),
        ((2, 9, 11, 3), 3, 2, 1, 1, True),
        ((1, 17, 15, 17), 3, 1, 1, 2, False),
        ((1, 8, 8, 64), 2, 2, 0, 1, False),
        ((1, 5, 5, 255), 3, 3, 1, 1, True),
        ((1, 14, 10, 70), 5, 2, 2, 2, True),
        ((3, 6, 5, 7), 4, 3, 2, 1, True),
    ],
)
def test_windows(isa, shape, window, stride, pad, dilation, ceil):
    x = np.random.default_rng(0).integers(-9, 9, size=shape).astype(np.float32)  # small integers: many ties
    x[0, 3, 2] = np.nan
    x[0, 3, 3, 0] = np.nan
    x[0, :3, :3, -1] = -np.inf
    check(isa, x, *(sliding(size, window, stride, pad, dilation, ceil) for size in shape[1:3]), dilation)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size, out, c", [((7, 7), (3, 2), 5), ((10, 7), (10, 3), 16), ((5, 5), (1, 1), 33), ((4, 6), (7, 9), 3)])
def test_adaptive_windows(isa, size, out, c):
    x = np.random.default_rng(0).normal(size=(2, *size, c)).astype(np.float32)
    check(isa, x, adaptive(size[0], out[0]), adaptive(size[1], out[1]), 1)
