"""The CPU's dropout kernel on every instruction set: bit for bit the Philox generator written out in Python integers."""

import math

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, run


def philox(key, counter):
    """Philox4x32-10: four 32-bit words."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = product1 >> 32 ^ c1 ^ k0, product1 & 0xFFFFFFFF, product0 >> 32 ^ c3 ^ k1, product0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def test_the_generator_gives_the_published_answers():
    """Known answers of Random123, the authors' own implementation."""
    assert philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox((ones, ones), (ones, ones, ones, ones)) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 3, 17, 255, 20007])
def test_dropout(isa, size):
    seed, step, stream = -123456789, 77, 3
    words = [word for i in range(-(-size // 4)) for word in philox((seed & 0xFFFFFFFF, stream), (i, step, 0, 0))]
    fraction = np.array([word >> 8 for word in words[:size]]) * 2.0**-24
    rng = np.array([seed, step], np.int32)
    for p in (0.0, 0.1, 0.5, 0.7, 1.0):
        x, y = np.random.default_rng(0).normal(size=size).astype(np.float32), empty(size)
        members = {"size": size, "stream": stream, "threshold": math.ceil(p * 2**24), "keep": 1 - p}
        run(isa, "dropout", members, x, rng, y)
        kept = fraction >= p
        np.testing.assert_array_equal(y[~kept], 0)
        np.testing.assert_array_equal(y[kept], x[kept] / np.float32(1 - p) if p < 1 else [])
        run(isa, "dropout", members, x, rng, x)
        np.testing.assert_array_equal(x, y)
