"""What a step costs beside its kernel, and that a run waits for the device once, at its end."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks.bench_launch import SHAPE, chain, seconds_per_step  # noqa: E402


def test_a_step_costs_less_than_ten_microseconds(device):
    if device.backend == "reference":
        pytest.skip("NumPy in float64 is not about speed")
    if "rusticl" in device.platform or "Oclgrind" in device.platform:
        pytest.skip("its kernels alone take longer")
    assert min(seconds_per_step(device, 20) for _ in range(3)) < 10e-6


def test_a_run_waits_once(device, monkeypatch):
    """Everything goes into the queue without waiting; the results are waited for."""
    if device.backend != "opencl":
        pytest.skip("there is no queue")
    program = chain(5, device)
    calls = []

    class Queue:
        """Counts what waits; whoever enqueues has the real queue, or asks for it."""

        def __init__(self, queue):
            self.queue = queue

        def finish(self):
            calls.append("finish")
            self.queue.finish()

    copy = program.cl.enqueue_copy

    def enqueue_copy(queue, *arguments, is_blocking=True, **others):
        calls.append("blocking copy" if is_blocking else "copy")
        return copy(getattr(queue, "queue", queue), *arguments, is_blocking=is_blocking, **others)

    monkeypatch.setattr(program.context, "queue", Queue(program.context.queue))
    monkeypatch.setattr(program.cl, "enqueue_copy", enqueue_copy)
    x = np.arange(6, dtype=np.float32).reshape(SHAPE)
    np.testing.assert_allclose(program.run(x), chain_result(x), rtol=1e-5)
    assert calls == ["copy", "copy", "finish"]


def chain_result(x):
    for _ in range(5):
        e = np.exp(x - x.max(1, keepdims=True))
        x = e / e.sum(1, keepdims=True)
    return x
