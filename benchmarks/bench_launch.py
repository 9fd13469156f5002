"""What a step costs beside its kernel: a program of hundreds of tiny steps, on every kind of device.

The figure is the time of a run with STEPS softmaxes of six numbers, less that of a run with one, for each step: enqueueing, the driver's
way to the kernel, and the kernel itself, which is almost nothing.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from .cases import DEVICES, device

STEPS = 400
SHAPE = (2, 3)


def chain(steps: int, where: Any) -> Any:
    """A program of so many softmaxes, one behind the other."""
    import pycl_cnn as pc
    import pycl_cnn.functional as F

    class Chain(pc.nn.Module):
        def forward(self, x: Any) -> Any:
            for _ in range(steps):
                x = F.softmax(x, 1)
            return x

    return pc.compile(Chain(), SHAPE, device=where)


def seconds_per_step(where: Any, samples: int = 50) -> float:
    """The least of so many samples of both programs, in turns."""
    programs, best = (chain(1, where), chain(STEPS, where)), [float("inf")] * 2
    x = np.arange(6, dtype=np.float32).reshape(SHAPE)
    for _ in range(samples):
        for index, program in enumerate(programs):
            start = perf_counter()
            y = program.run(x)
            best[index] = min(best[index], perf_counter() - start)
    if not np.allclose(y, 1 / 3, atol=1e-5):
        raise AssertionError(f"a chain of softmaxes ends at equal shares, not at {y}")
    return (best[1] - best[0]) / (STEPS - 1)


class Step:
    params = (DEVICES,)
    param_names = ("device",)
    unit = "us"

    def track_step(self, where: str) -> float:
        """Microseconds for each step."""
        return 1e6 * seconds_per_step(device(where))
