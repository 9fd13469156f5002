"""The ceilings of an OpenCL device, by the loops of kernels_cl/ceilings.cl."""

from __future__ import annotations

from collections.abc import Callable

from ..ceilings import Ceilings, measured
from .launch import Launch
from .programs import Context

CHAINS = 12  # of kernels_cl/ceilings.cl
ITEMS_OF_GPU_UNIT = 2048  # enough to hide latency
ITEMS_OF_CPU_UNIT = 256  # drivers deal work-items out in large shares, and only many of them keep all cores busy
GPU_GROUP = 128


def measure(context: Context) -> Ceilings:
    """Ceilings of the device of `context`."""
    device = context.device
    group = min(GPU_GROUP, device.max_work_group) if device.is_gpu else 1
    items = device.compute_units * (ITEMS_OF_GPU_UNIT if device.is_gpu else ITEMS_OF_CPU_UNIT)
    width = context.define("ceilings", "VEC")
    sums = context.buffer(4 * items)

    def multiply_adds(rounds: int) -> float:
        Launch(context, "ceilings", "multiply_adds", (items,), (group,), y=(sums, 0), rounds=rounds, factor=0.5, summand=0.25).enqueue()
        context.queue.finish()
        return 2.0 * rounds * CHAINS * width * items

    def copy_of(size: int) -> Callable[[int], float]:
        span = max(1, size // (8 * width * items))
        nbytes = 4 * span * width * items
        x, y = context.buffer(nbytes), context.buffer(nbytes)
        steps = {"item_step": 1, "step": items} if device.is_gpu else {"item_step": span, "step": 1}

        def work(rounds: int) -> float:
            Launch(context, "ceilings", "copies", (items,), (group,), x=(x, 0), y=(y, 0), span=span, rounds=rounds, **steps).enqueue()
            context.queue.finish()
            return 2.0 * nbytes * rounds

        return work

    return measured(multiply_adds, copy_of, min(device.max_allocation, device.global_memory // 4))
