"""How work is cut into work-items: few long ones on CPUs, many short neighbouring ones on GPUs. By sizes alone."""

from __future__ import annotations

from .programs import Context

CPU_ITEM = 8192  # floats that a work-item of a CPU handles, where work is elementwise


def blocks(count: int, block: int) -> int:
    """How many blocks cover `count`."""
    return -(-count // block)


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def vector(context: Context, stem: str) -> int:
    """Floats of a vector in the kernels of `stem`."""
    return context.define(stem, "VEC")


def side_by_side(context: Context, vectors: int) -> int:
    """Of a row of `vectors` vectors, how many a work-item takes at once: up to four on a CPU, where long pieces stream."""
    return 1 if context.device.is_gpu else clamp(vectors, 1, 4)


def stream(context: Context, count: int, width: int = 1) -> tuple[int, int]:
    """(work-items, vectors of `width` floats for each) for `count` elements in a row."""
    vectors = blocks(count, width)
    span = 1 if context.device.is_gpu else clamp(CPU_ITEM // width, 1, max(1, vectors))
    return blocks(vectors, span), span


def grid(context: Context, items: int, *others: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """(global size, local size) of independent work-items: one for each work-group on a CPU, the driver's choice on a GPU."""
    return (items, *others), None if context.device.is_gpu else (1,) * (1 + len(others))


def rows_per_group(context: Context, stem: str, rows: int, length: int) -> tuple[int, tuple[int], tuple[int]]:
    """(rows of a work-group, global size, local size) of kernels whose work-items share rows of `length`."""
    group = context.define(stem, "WORK_GROUP")
    per_group = 1 if context.device.is_gpu else clamp(CPU_ITEM // max(1, length), 1, max(1, rows))
    return per_group, (blocks(rows, per_group) * group,), (group,)


def channels_per_item(context: Context, stem: str, channels: int, rows: int) -> int:
    """Channels of a pixel that a work-item of `stem` handles, a multiple of its vectors: all on a CPU, where there are many rows of pixels."""
    width = vector(context, stem)
    return width if context.device.is_gpu or rows < 32 else width * max(1, blocks(channels, width))


def pixels_per_item(context: Context, pixels: int) -> int:
    """Neighbouring pixels of a row that a work-item handles."""
    return 1 if context.device.is_gpu else clamp(pixels, 1, 64)
