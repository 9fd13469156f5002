"""How work is cut into work-items: few long ones on CPUs, many short neighbouring ones on GPUs. By sizes alone."""

from __future__ import annotations

from .programs import Context

CPU_ITEM = 8192  # floats that a work-item of a CPU handles, where work is elementwise
GROUP = 64  # work-items of a GPU's work-group, where the kernel leaves it open


def blocks(count: int, block: int) -> int:
    """How many blocks cover `count`."""
    return -(-count // block)


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def vector(context: Context, stem: str) -> int:
    """Floats of a vector in the kernels of `stem`."""
    return context.define(stem, "VEC")


def stream(context: Context, count: int, width: int = 1) -> tuple[int, int]:
    """(work-items, vectors of `width` floats for each) for `count` elements in a row."""
    vectors = blocks(count, width)
    span = 1 if context.device.is_gpu else clamp(CPU_ITEM // width, 1, max(1, vectors))
    return blocks(vectors, span), span


def grid(context: Context, items: int, *others: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(global size, local size) of independent work-items; on a GPU the first axis is rounded up to whole work-groups.

    For kernels that ignore work-items past the end.
    """
    if not context.device.is_gpu:
        return (items, *others), (1,) * (1 + len(others))
    group = min(GROUP, context.device.max_work_group)
    return (blocks(items, group) * group, *others), (group, *(1 for _ in others))
