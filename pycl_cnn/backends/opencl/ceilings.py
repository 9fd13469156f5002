"""The ceilings of an OpenCL device, by the loops of kernels_cl/ceilings.cl."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import DeviceError
from ..ceilings import Ceilings, measured
from .check import Verdict, device_check, source_mark
from .launch import Launch
from .programs import Context
from .sources import source_text
from .trials import MEMORY, Payload, decoded, run

CHAINS = 12  # of kernels_cl/ceilings.cl
ITEMS_OF_GPU_UNIT = 2048  # enough to hide latency
ITEMS_OF_CPU_UNIT = 256  # drivers deal work-items out in large shares, and only many of them keep all cores busy
GPU_GROUP = 128


def problem(context: Context) -> str:
    """What is wrong with the loops on the device of `context`, tried in a child process once; nothing where they work."""
    return device_check(context.device.index).remembered(f"ceilings #{source_mark('ceilings')}", lambda: _tried(context)).problem


def _tried(context: Context) -> Verdict:
    items, rounds, span, width = 3, 5, 2, context.define("ceilings", "VEC")
    group = (1,)
    x = np.random.default_rng(0).standard_normal(items * span * width).astype(np.float32)
    payload, text, options = Payload(), source_text("ceilings"), context.options("ceilings", {})
    source, target, sums = payload.place(x), payload.place(np.zeros_like(x)), payload.place(np.zeros(items, np.float32))
    loop = {"y": (MEMORY, sums), "rounds": rounds, "factor": 0.5, "summand": 0.25}
    payload.launch("ceilings", "multiply_adds", text, options, (items,), group, loop)
    copy = {"x": (MEMORY, source), "y": (MEMORY, target), "span": span, "rounds": rounds, "item_step": 1, "step": items}
    payload.launch("ceilings", "copies", text, options, (items,), group, copy)
    (outcome,) = run(context.device, [{"run": payload.request()}])
    what, kernels = "ceilings", ("ceilings.multiply_adds", "ceilings.copies")
    if outcome.problem:
        return Verdict(what, kernels, False, problem=f"ceilings.{outcome.entry} {outcome.problem}")
    chains = np.arange(CHAINS) + 0.25
    for _ in range(rounds):
        chains = 0.5 * chains + 0.25
    memory = decoded(outcome.result).view(np.float32)
    right = np.allclose(memory[sums : sums + items], chains.sum(), rtol=1e-6) and np.array_equal(memory[target : target + x.size], x)
    return Verdict(what, kernels, right, problem="" if right else "ceilings.multiply_adds or ceilings.copies is wrong")


def measure(context: Context) -> Ceilings:
    """Ceilings of the device of `context`. Raises DeviceError where the loops do not work there."""
    if trouble := problem(context):
        raise DeviceError(f"[opencl] the ceilings of {context.device.name} cannot be measured: {trouble}")
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
