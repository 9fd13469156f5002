"""The loops that measure the processor's ceilings do what they are timed for, on every instruction set."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, run

from pycl_cnn.backends.cpu import ceilings


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("items", [1, 15, 64, 1003])
def test_copies(isa, items):
    x, y = np.random.default_rng(0).normal(size=3 * items).astype(np.float32), empty(3 * items)
    run(isa, "copies", {"tasks": 3, "items": items, "rounds": 2}, x, y)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("isa", ISAS)
def test_multiply_adds(isa):
    """The chains begin at y, y + 1, ..., and a round makes a/2 + y of each a: 2y in the end."""
    y = empty(2)
    run(isa, "multiply_adds", {"tasks": 2, "rounds": 3}, y)
    starts = np.array([0.25, 1.25])[:, None] + np.arange(ceilings.CHAINS)
    for _ in range(3):
        starts = starts * 0.5 + np.array([[0.25], [1.25]])
    np.testing.assert_allclose(y, starts.sum(1), rtol=1e-6)
