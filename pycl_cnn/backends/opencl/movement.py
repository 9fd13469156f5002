"""Moving elements with OpenCL: one strided copy serves all, matrices have a tiled transpose. See kernels_cl/movement.cl."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...ops.base import Op
from ...ops.movement import Concat, Copy, Expand, Flip, Pad, Slice, Transpose
from ..host import kernels_move
from ..strided import bits_of, broadcast_strides, dense_strides, merge_axes
from .call import At, Call, Context, Device, Node, OpenClAlgorithm, Table, Value
from .sizes import CPU_ITEM, blocks, clamp, grid, stream

TILE = 16  # edge of the square that a work-group transposes


def copy_calls(
    context: Context,
    source: Value | At,
    target: Value | At,
    shape: Sequence[int],
    source_strides: Sequence[int],
    target_strides: Sequence[int],
    source_offset: int = 0,
    target_offset: int = 0,
) -> list[Call]:
    """Copy `shape` elements; strides and offsets in elements."""
    if math.prod(shape) == 0:
        return []
    merged, (s, t) = merge_axes(shape, source_strides, target_strides)
    x, y = _shifted(source, source_offset), _shifted(target, target_offset)
    matrix = _dense_matrix(merged, s, t)
    if matrix is not None:
        return [_transpose(context, x, y, *matrix)]
    outer = np.array(list(zip(merged[:-1], s[:-1], t[:-1], strict=True)) or [(1, 0, 0)], np.int32)
    rows, inner = math.prod(merged[:-1]), merged[-1]
    if context.device.is_gpu:
        items, span, rows_per_item = inner, 1, 1
    else:
        items, span = stream(context, inner)
        rows_per_item = clamp(CPU_ITEM // max(1, inner), 1, rows)
    arguments = {
        "x": x,
        "y": y,
        "outer": Table(outer),
        "outer_rank": len(merged) - 1,
        "rows": rows,
        "rows_per_item": rows_per_item,
        "inner": inner,
        "x_inner": s[-1],
        "y_inner": t[-1],
        "span": span,
    }
    return [Call("movement", "copy", *grid(context, items, blocks(rows, rows_per_item)), arguments, {"TILE": TILE})]


def _shifted(place: Value | At, offset: int) -> At:
    return At(place, offset) if isinstance(place, Value) else At(place.value, place.offset + offset)


def _dense_matrix(shape: Sequence[int], s: Sequence[int], t: Sequence[int]) -> tuple[int, int, int] | None:
    """(batch, rows, columns) of the source, where the copy transposes a dense batch of matrices."""
    if len(shape) == 2:
        shape, s, t = (1, *shape), (shape[0] * shape[1], *s), (shape[0] * shape[1], *t)
    if len(shape) != 3:
        return None
    batch, columns, rows = shape
    dense = rows * columns
    if tuple(s) == (dense, 1, columns) and tuple(t) == (dense, rows, 1) and batch:
        return batch, rows, columns
    return None


def _transpose(context: Context, x: At, y: At, batch: int, rows: int, columns: int) -> Call:
    groups = (blocks(columns, TILE), blocks(rows, TILE), batch)
    local = (TILE, TILE // 4, 1) if context.device.is_gpu else (1, 1, 1)
    size = tuple(g * n for g, n in zip(groups, local, strict=True))
    return Call("movement", "transpose", size, local, {"x": x, "y": y, "rows": rows, "columns": columns}, {"TILE": TILE})


def fill_call(context: Context, y: Value, value: float) -> Call:
    """Every element of y becomes `value`."""
    items, span = stream(context, y.spec.size)
    return Call("movement", "fill", *grid(context, items), {"y": y, "count": y.spec.size, "value": bits_of(value, y.dtype), "span": span}, {"TILE": TILE})


class StridedCopy(OpenClAlgorithm):
    name = "strided copy"

    def supports(self, node: Node, device: Device) -> bool:
        return kernels_move(node)

    def calls(self, node: Node, context: Context) -> list[Call]:
        op, (y,) = node.op, node.outputs
        x = node.inputs[0]
        source, target = dense_strides(x.shape), dense_strides(y.shape)
        if isinstance(op, Transpose):
            return copy_calls(context, x, y, y.shape, [source[axis] for axis in op.permutation], target)
        if isinstance(op, Copy):
            return copy_calls(context, x, y, x.shape, source, target)
        if isinstance(op, Expand):
            return copy_calls(context, x, y, y.shape, broadcast_strides(x.shape, y.shape), target)
        if isinstance(op, Slice):
            offset = sum(start * stride for start, stride in zip(op.starts, source, strict=True))
            return copy_calls(context, x, y, y.shape, [stride * step for stride, step in zip(source, op.steps, strict=True)], target, offset)
        if isinstance(op, Flip):
            offset = sum((x.shape[axis] - 1) * source[axis] for axis in op.axes)
            return copy_calls(context, x, y, y.shape, [-stride if axis in op.axes else stride for axis, stride in enumerate(source)], target, offset)
        if isinstance(op, Pad):
            window = op.window(x.shape)
            offset = sum(start * stride for start, stride in zip(window.starts, target, strict=True))
            strides = [stride * step for stride, step in zip(target, window.steps, strict=True)]
            return [fill_call(context, y, op.value), *copy_calls(context, x, y, x.shape, source, strides, 0, offset)]
        assert isinstance(op, Concat)
        calls, position = [], 0
        for part in node.inputs:
            calls += copy_calls(context, part, y, part.shape, dense_strides(part.shape), target, 0, position * target[op.axis])
            position += part.shape[op.axis]
        return calls


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {op: [StridedCopy()] for op in (Transpose, Copy, Expand, Slice, Flip, Pad, Concat)}
