"""Moving elements on the CPU: one strided copy serves all, matrices have a blocked transpose. See src/movement.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...graph import Value
from ...ops.base import Op
from ...ops.movement import Concat, Copy, Expand, Flip, Pad, Slice, Transpose
from ..host import kernels_move
from ..strided import bits_of, broadcast_strides, dense_strides, merge_axes, padded_axes
from . import _kernels
from .launch import At, CpuAlgorithm, Device, Launch, Node, launch


def copy_launch(
    source: Value | At,
    target: Value | At,
    shape: Sequence[int],
    source_strides: Sequence[int],
    target_strides: Sequence[int],
    source_offset: int = 0,
    target_offset: int = 0,
) -> list[Launch]:
    """Copy `shape` elements; strides and offsets in elements."""
    size = math.prod(shape)
    if size == 0:
        return []
    merged, (s, t) = merge_axes(shape, source_strides, target_strides)
    matrix = _as_matrix(merged, s, t)
    if matrix is not None:
        batch, rows, cols, source_batch, source_row, target_batch, target_row = matrix
        return [
            launch(
                "transpose",
                (_shifted(source, source_offset), _shifted(target, target_offset)),
                batch=batch,
                rows=rows,
                cols=cols,
                src_batch_stride=source_batch,
                src_row_stride=source_row,
                dst_batch_stride=target_batch,
                dst_row_stride=target_row,
                **_kernels.transpose_blocks(rows, cols),
            )
        ]
    return [
        launch(
            "strided_copy",
            (source, target),
            size=size,
            rank=len(merged),
            shape=padded_axes(merged, 1),
            src_stride=padded_axes(s, 0),
            dst_stride=padded_axes(t, 0),
            src_offset=source_offset,
            dst_offset=target_offset,
        )
    ]


def _shifted(place: Value | At, offset: int) -> At:
    return At(place, 4 * offset) if isinstance(place, Value) else At(place.value, place.offset + 4 * offset)


def _as_matrix(shape: Sequence[int], s: Sequence[int], t: Sequence[int]) -> tuple[int, int, int, int, int, int, int] | None:
    """(batch, rows, cols, source batch and row stride, target batch and row stride) of a batch of matrix transposes."""
    if len(shape) == 2:
        shape, s, t = (1, *shape), (0, *s), (0, *t)
    if len(shape) != 3 or min(*s, *t) < 0:
        return None
    # The target's axes are batch, j, i; the source runs along j.
    if s[1] == 1 and t[2] == 1 and s[2] > 1:
        return shape[0], shape[2], shape[1], s[0], s[2], t[0], t[1]
    return None


class StridedCopy(CpuAlgorithm):
    name = "strided copy"

    def supports(self, node: Node, device: Device) -> bool:
        return kernels_move(node)

    def launches(self, node: Node) -> list[Launch]:
        op, (y,) = node.op, node.outputs
        x = node.inputs[0]
        source, target = dense_strides(x.shape), dense_strides(y.shape)
        if isinstance(op, Transpose):
            return copy_launch(x, y, y.shape, [source[axis] for axis in op.permutation], target)
        if isinstance(op, Copy):
            return copy_launch(x, y, x.shape, source, target)
        if isinstance(op, Expand):
            return copy_launch(x, y, y.shape, broadcast_strides(x.shape, y.shape), target)
        if isinstance(op, Slice):
            offset = sum(start * stride for start, stride in zip(op.starts, source, strict=True))
            return copy_launch(x, y, y.shape, [stride * step for stride, step in zip(source, op.steps, strict=True)], target, offset)
        if isinstance(op, Flip):
            offset = sum((x.shape[axis] - 1) * source[axis] for axis in op.axes)
            return copy_launch(x, y, y.shape, [-stride if axis in op.axes else stride for axis, stride in enumerate(source)], target, offset)
        if isinstance(op, Pad):
            window = op.window(x.shape)
            offset = sum(start * stride for start, stride in zip(window.starts, target, strict=True))
            strides = [stride * step for stride, step in zip(target, window.steps, strict=True)]
            fill = launch("fill", (y,), size=y.spec.size, bits=bits_of(op.value, y.dtype))
            return [fill, *copy_launch(x, y, x.shape, source, strides, 0, offset)]
        assert isinstance(op, Concat)
        calls, position = [], 0
        for part in node.inputs:
            calls += copy_launch(part, y, part.shape, dense_strides(part.shape), target, 0, position * target[op.axis])
            position += part.shape[op.axis]
        return calls


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {op: [StridedCopy()] for op in (Transpose, Copy, Expand, Slice, Flip, Pad, Concat)}
