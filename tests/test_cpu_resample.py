"""The CPU's resampling kernel on every instruction set, against products with dense matrices in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run


def average(size, window, stride, pad):
    matrix = np.zeros(((size + 2 * pad - window) // stride + 1, size))
    for i, row in enumerate(matrix):
        row[max(0, i * stride - pad) : i * stride - pad + window] = 1 / window
    return matrix


def bilinear(size):
    matrix = np.zeros((2 * size, size))
    for i, row in enumerate(matrix):
        position = max(0.0, (i + 0.5) / 2 - 0.5)
        row[int(position)] += 1 - position % 1
        row[min(int(position) + 1, size - 1)] += position % 1
    return matrix


def sparse(matrix):
    """CSR: starts, indices, weights."""
    rows, cols = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(len(matrix) + 1))
    return starts.astype(np.int32), cols.astype(np.int32), matrix[rows, cols].astype(np.float32)


MATRICES = {
    "average 2": lambda n: average(n, 2, 2, 0),
    "average 3": lambda n: average(n, 3, 1, 1),
    "global average": lambda n: np.full((1, n), 1 / n),
    "nearest": lambda n: np.repeat(np.eye(n), 2, 0),
    "bilinear": bilinear,
    "bilinear transposed": lambda n: bilinear(n).T,
    "nothing": lambda n: np.zeros((2, n)),
}


def resample(isa, x, rows, cols, **blocks):
    n, h, w, c = x.shape
    oh, ow = len(rows), len(cols)
    taps = np.count_nonzero(rows) * np.count_nonzero(cols) // (oh * ow)
    members = {"n": n, "h": h, "w": w, "c": c, "oh": oh, "ow": ow, **kernels.window_blocks(n * oh, ow, c, taps), **blocks}
    y = empty(n, oh, ow, c)
    run(isa, "resample", members, x, *sparse(rows), *sparse(cols), y)
    return y


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("n, h, w, c", [(1, 7, 7, 1), (2, 9, 11, 3), (1, 12, 10, 17), (2, 8, 8, 64), (1, 3, 4, 300)])
def test_resample(isa, kind, n, h, w, c):
    rows, cols = MATRICES[kind](h), MATRICES[kind](w)
    x = np.random.default_rng(0).normal(size=(n, rows.shape[1], cols.shape[1], c)).astype(np.float32)
    exact, size = (np.einsum("ah,bw,nhwc->nabc", rows, cols, values.astype(np.float64)) for values in (x, np.abs(x)))
    for blocks in ({}, {"rows_per_task": 3, "channel_block": min(c, 7)}):
        np.testing.assert_allclose(resample(isa, x, rows, cols, **blocks), exact, rtol=0, atol=4e-7 * size.max())


@pytest.mark.parametrize("isa", ISAS)
def test_a_large_global_average_keeps_its_digits(isa):
    x = (np.random.default_rng(0).normal(size=(1, 224, 200, 5)) + 3).astype(np.float32)
    y = resample(isa, x, np.full((1, 224), 1 / 224), np.full((1, 200), 1 / 200))
    np.testing.assert_allclose(y[:, 0, 0], x.astype(np.float64).mean((1, 2)), rtol=4e-7)
