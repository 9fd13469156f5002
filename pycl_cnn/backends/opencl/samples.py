"""Small nodes of the same kind as a given one: what the device check computes instead of a user's large one.

`samples` offers them in growing sizes, odd where they can be; the device check takes the first whose kernels are those of the large node.
Sizes come in classes, because algorithms choose vector widths and register blocks by them; a class is stood for by one odd number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ...errors import ShapeError
from ...geometry import AxisRule, ConvGeometry, PoolAxis, PoolGeometry
from ...ops.base import FLOAT, INT, Op, Spec
from ...ops.batch_norm import BatchNormBackward, BatchNormTraining
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight
from ...ops.dropout import Dropout
from ...ops.loss import CrossEntropy, CrossEntropyBackward, LabelMask
from ...ops.matmul import MatMul
from ...ops.max_pool import MaxPool, MaxPoolBackward
from ...ops.movement import Expand, Slice
from ...ops.optimizer import RMSprop, UpdateRule
from ...ops.pointwise import Binary, Unary, UnaryBackward
from ...ops.resample import Resample

Sample = tuple[Op, tuple[Spec, ...]]

MOST_ELEMENTS = 1 << 20  # of all inputs of a sample
#: (images, rows, columns) of a convolution's result: multiples of every register block's height, in pixels and in Winograd's tiles. What
#: large images come to stands first.
GRIDS = (
    *((2, 1, 7), (2, 1, 3), (2, 2, 27), (2, 2, 11), (2, 3, 5), (1, 4, 4), (2, 5, 7), (2, 2, 5), (1, 3, 4), (1, 1, 2), (1, 1, 1)),
    *((1, 3, 13), (2, 7, 9), (1, 2, 7), (1, 6, 7), (2, 2, 19), (1, 5, 19), (1, 9, 13), (1, 2, 36), (1, 23, 23), (1, 47, 47)),
)
#: Rows of a matrix, likewise.
ROWS = (7, 5, 3, 2, 1, 4, 6, 8, 9, 10, 12, 14, 15, 21, 28, 33, 35, 67, 131)


def class_of(channels: int) -> int:
    """The number that stands for as many channels."""
    for most, stands in ((5, channels), (8, 7), (11, channels), (16, 13), (32, 19)):
        if channels <= most:
            return min(stands, channels)
    return 35


def samples(op: Op, specs: Sequence[Spec]) -> Iterator[Sample]:
    """Nodes of the same operation with its attributes, smaller than this one."""
    for small, shapes in _MAKERS.get(type(op), _renamed)(op, specs):
        chosen = tuple(Spec(tuple(shape), spec.dtype) for shape, spec in zip(shapes, specs, strict=True))
        if sum(spec.size for spec in chosen) > MOST_ELEMENTS:
            continue
        try:
            small.infer(*chosen)
        except (ShapeError, ValueError, IndexError):
            continue
        yield small, chosen


Shapes = tuple[Op, Sequence[Sequence[int]]]


def _renamed(op: Op, specs: Sequence[Spec]) -> Iterator[Shapes]:
    """Equal sizes stay equal, sizes up to 4 stay, of larger ones the last axis gets more than the others."""
    for rename in _renamings(specs):
        yield op, [tuple(map(rename, spec.shape)) for spec in specs]


def _renamings(specs: Sequence[Spec]) -> Iterator[Callable[[int], int]]:
    last = {spec.shape[-1] for spec in specs if spec.shape}
    others = sorted({n for spec in specs for n in spec.shape} - last)
    for most in (5, 19, 37, 53, 67, 131, 515):
        names = {n: min(n, 5 + index % 3) for index, n in enumerate(others)} | {n: min(n, most) for n in last}
        yield lambda n, names=names: n if n <= 4 else names[n]  # type: ignore[misc]


def _geometries(g: ConvGeometry) -> Iterator[ConvGeometry]:
    groups = min(g.groups, 3)
    c, k = g.channels // g.groups, g.out_channels // g.groups
    if g.is_depthwise:
        groups_of = [class_of(g.groups), 67]
        sizes = [(1, 1, n) for n in groups_of]
    else:
        classes = [(class_of(c), class_of(k)), (min(c, 131), class_of(k)), (class_of(c), min(k, 67)), (min(c, 67), min(k, 131))]
        sizes = [(a, b, groups) for a, b in dict.fromkeys(classes)]
    uneven = (1, 0) if max(g.stride) > 1 else (0,)  # a column that no window reaches
    for (per_group, outs, count), (batch, rows, columns), extra in product(sizes, GRIDS, uneven):
        size = [
            max(1, (out - 1) * step + dilation * (kernel - 1) + 1 - sum(padding) + extra * (step - 1))
            for out, step, dilation, kernel, padding in zip((rows, columns), g.stride, g.dilation, g.kernel, g.padding, strict=True)
        ]
        try:
            yield ConvGeometry.forward("check", (batch, *size, per_group * count), (outs * count, *g.kernel, per_group), g.stride, g.padding, g.dilation, count)
        except ShapeError:
            continue


def _convolutions(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    for g in _geometries(op.geometry):
        shapes = {
            Conv: (g.input_shape, g.weight_shape, (g.out_channels,), g.output_shape),
            ConvBackwardInput: (g.output_shape, g.weight_shape, (g.channels,), g.input_shape),
            ConvBackwardWeight: (g.input_shape, g.output_shape, (), ()),
        }[type(op)]
        epilogue = getattr(op, "epilogue", None)
        extra = [] if epilogue is None else [shapes[2]] * epilogue.bias + [shapes[3]] * epilogue.residual
        yield replace(op, geometry=g), [*shapes[:2], *extra]


def _products(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    m, n, k = op.sizes(*specs[:2])
    for outs, terms, rows in product((class_of(n), min(n, 67)), (min(k, 7), min(k, 517), min(k, 2100)), (class_of(m), *(r for r in ROWS if r <= m))):
        a, b = (rows, terms), (terms, outs)
        extra = [(outs,)] * op.epilogue.bias + [(rows, outs)] * op.epilogue.residual
        yield op, [a[::-1] if op.transpose_a else a, b[::-1] if op.transpose_b else b, *extra]


def _pool_axis(axis: PoolAxis) -> PoolAxis:
    if axis.kernel == 0:
        return PoolAxis(min(axis.size, 9), min(axis.out, 4))
    out = min(axis.out, 3)
    size = max(axis.before + 1, (out - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1 - axis.before)
    return replace(axis, size=min(size, axis.size), out=out)


def _pools(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    g: PoolGeometry = op.geometry
    for channels in (class_of(g.channels), 67):
        small = PoolGeometry(2, channels, _pool_axis(g.rows), _pool_axis(g.cols))
        shapes = [small.input_shape] if isinstance(op, MaxPool) else [small.output_shape] * 2
        yield replace(op, geometry=small), shapes


def _resamples(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    """Rows and columns come in tables, so that one rule stands for all."""
    for channels in (class_of(specs[0].shape[3]), 67):
        yield Resample(AxisRule("linear", 5, 9), AxisRule("average", 7, 3, 3, 2)), [(2, 5, 7, channels)]


def _expansions(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    for rename in _renamings([*specs, Spec(op.shape, specs[0].dtype)]):
        yield Expand(tuple(map(rename, op.shape))), [tuple(map(rename, specs[0].shape))]


def _slices(op: Any, specs: Sequence[Spec]) -> Iterator[Shapes]:
    """Cut where the large one is cut."""
    for rename in _renamings(specs):
        shape = tuple(map(rename, specs[0].shape))
        starts = [min(a, 1, n - 1) for a, n in zip(op.starts, shape, strict=True)]
        stops = [n if b == whole else max(a + 1, n - 1) for a, b, n, whole in zip(starts, op.stops, shape, specs[0].shape, strict=True)]
        yield Slice(tuple(starts), tuple(stops), tuple(min(s, 2) for s in op.steps)), [shape]


_MAKERS: dict[type[Op], Callable[[Any, Sequence[Spec]], Iterator[Shapes]]] = {
    Conv: _convolutions,
    ConvBackwardInput: _convolutions,
    ConvBackwardWeight: _convolutions,
    MatMul: _products,
    MaxPool: _pools,
    MaxPoolBackward: _pools,
    Resample: _resamples,
    Expand: _expansions,
    Slice: _slices,
}


# ---- what goes in ---------------------------------------------------------------------------------------------------------


def operands(op: Op, specs: Sequence[Spec]) -> list[np.ndarray]:
    """Inputs that the operation is defined for and at which it is no jump: sizes of one half to two, of both signs where that makes sense."""
    random = np.random.default_rng(5)
    arrays = [_floats(random, spec.shape) if spec.dtype == FLOAT else random.integers(0, 3, spec.shape, INT) for spec in specs]
    if isinstance(op, CrossEntropy | CrossEntropyBackward):
        arrays[1] = random.integers(0, specs[0].shape[1], specs[1].shape, INT)
        arrays[1][: 1 if len(arrays[1]) > 2 else 0] = op.ignore_index
    elif isinstance(op, LabelMask):
        arrays[0] = np.where(arrays[0] == 0, INT.type(op.ignore_index), arrays[0]).astype(INT)
    elif isinstance(op, Dropout):
        arrays[1] = np.array([7, 3], INT)
    elif isinstance(op, MaxPoolBackward):
        arrays[1] = MaxPool(op.geometry, True).reference(_floats(random, op.geometry.input_shape))[1]
    elif isinstance(op, BatchNormTraining | BatchNormBackward):
        arrays = [array if array.ndim > 1 else np.abs(array) for array in arrays]
    elif isinstance(op, UpdateRule):
        arrays = [arrays[0], arrays[1], *(np.abs(array) for array in arrays[2:])]
        if isinstance(op, RMSprop):
            arrays[2] += 5  # the mean of squares is larger than the square of the mean
    elif (isinstance(op, Unary | UnaryBackward) and op.function.kind in ("log", "sqrt", "rsqrt", "pow")) or (isinstance(op, Binary) and op.kind == "pow"):
        arrays = [np.abs(array) for array in arrays]
    elif isinstance(op, Binary) and op.kind in ("eq", "gt", "ge", "keep"):
        arrays = [np.round(array) for array in arrays]  # some are equal, some 0
    return arrays


def _floats(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return (random.uniform(0.5, 2, shape) * random.choice([-1, 1], shape)).astype(FLOAT)


def terms(op: Op, specs: Sequence[Spec], output: Spec, outputs: Sequence[Spec]) -> int:
    """How many operations stand behind an element of `output` at most."""
    return math.ceil(op.flops(specs, outputs) / max(1, output.size))
