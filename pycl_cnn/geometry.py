"""Sizes of convolutions and pooling: the only place that validates them.

A geometry is a frozen value that travels from the front end through gradient, planning and every backend.
Axes are ``n h w c`` for images, ``k r s c`` for weights; a pair is always ``(rows, columns)``, a padding
``((top, bottom), (left, right))``. One-dimensional operations are two-dimensional ones with a height of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from .errors import ShapeError
from .records import record

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def _integers(operation: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    """`value` as `count` integers: one integer is repeated, a sequence must have the right length."""
    items = [value] * count if not isinstance(value, Sequence) or isinstance(value, str) else list(value)
    if len(items) == 1:
        items = items * count
    try:
        numbers = tuple(int(item) for item in items)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or any(number != item for number, item in zip(numbers, items, strict=True)):
        raise ShapeError(operation, f"{name} must be an integer or {count} integers", **{name: value})
    return numbers


def positive(operation: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    """`value` as `count` integers of at least 1."""
    numbers = _integers(operation, name, value, count)
    if min(numbers) < 1:
        raise ShapeError(operation, f"{name} must be at least 1", **{name: value})
    return numbers


def non_negative(operation: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    """`value` as `count` integers of at least 0."""
    numbers = _integers(operation, name, value, count)
    if min(numbers) < 0:
        raise ShapeError(operation, f"{name} must not be negative", **{name: value})
    return numbers


def resolve_padding(
    operation: str, padding: Any, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Pair, ...]:
    """Every accepted form of `padding` as one (before, after) pair per axis.

    Accepted: an integer, one integer per axis, one (before, after) pair per axis, ``"valid"`` (none) and ``"same"``
    (output size ``ceil(n / stride)``; an odd total puts the extra element last).
    """
    axes = len(size)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * axes
        if padding == "same":
            pairs = []
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
                total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
                pairs.append((total // 2, total - total // 2))
            return tuple(pairs)
        raise ShapeError(operation, 'padding as text must be "same" or "valid"', padding=padding)
    if isinstance(padding, Sequence) and len(padding) == axes and all(isinstance(p, Sequence) for p in padding):
        return tuple((before, after) for before, after in (non_negative(operation, "padding", p, 2) for p in padding))
    return tuple((p, p) for p in non_negative(operation, "padding", padding, axes))


@record
class PhaseAxis:
    """Output positions along one axis that all read the same taps.

    Position a of the `grid` reads source ``a * step + start + t * tap_step`` with kernel element ``index + t * index_step`` for
    t in ``range(taps)``, and is stored at ``a * out_step + out_offset``. Positions outside the source read zero.
    """

    grid: int
    step: int
    out_step: int
    out_offset: int
    taps: int
    start: int
    tap_step: int
    index: int
    index_step: int


@record
class Phase:
    """A grid of output pixels that all read the same taps: the implicit GEMM runs once for each."""

    rows: PhaseAxis
    cols: PhaseAxis


@record
class ConvGeometry:
    """Sizes of a convolution ``x[n,h,w,c] * w[k,r,s,c/groups] -> y[n,oh,ow,k]``.

    The same geometry describes the two gradients; a transposed convolution is the input gradient of the convolution that
    maps its output to its input (:meth:`transposed`).
    """

    batch: int
    size: Pair  # h, w
    channels: int
    out_channels: int
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    out: Pair  # oh, ow

    @classmethod
    def forward(
        cls,
        operation: str,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> ConvGeometry:
        """From x[n,h,w,c] and w[k,r,s,c/groups]; output size ``floor((n + p - d*(k-1) - 1) / s) + 1``.

        Raises ShapeError naming `operation`.
        """
        n, h, w, c = input_shape
        k, r, s, c_per_group = weight_shape
        stride = positive(operation, "stride", stride, 2)
        dilation = positive(operation, "dilation", dilation, 2)
        (groups,) = positive(operation, "groups", groups, 1)
        if c % groups or k % groups:
            raise ShapeError(
                operation, "groups must divide the input and the output channels", groups=groups, in_channels=c, out_channels=k
            )
        if c_per_group * groups != c:
            raise ShapeError(
                operation,
                "the weight's input channels times groups must equal the input's channels",
                in_channels=c,
                weight_in_channels=c_per_group,
                groups=groups,
            )
        if min(r, s, k, c) < 1:
            raise ShapeError(operation, "channels and kernel size must be at least 1", input=tuple(input_shape), weight=tuple(weight_shape))
        pairs = resolve_padding(operation, padding, (h, w), (r, s), stride, dilation)
        out = []
        for size, kernel, step, (before, after), dil in zip((h, w), (r, s), stride, pairs, dilation, strict=True):
            extent = dil * (kernel - 1) + 1
            if size < 1 or size + before + after < extent:
                raise ShapeError(
                    operation,
                    "the kernel must not be larger than the padded input",
                    input_size=(h, w),
                    kernel_size=(r, s),
                    padding=padding,
                    dilation=dilation,
                )
            out.append((size + before + after - extent) // step + 1)
        return cls(n, (h, w), c, k, (r, s), stride, pairs, dilation, groups, (out[0], out[1]))  # type: ignore[arg-type]

    @classmethod
    def transposed(
        cls,
        operation: str,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> ConvGeometry:
        """Of the convolution whose input gradient is the transposed convolution of x[n,h,w,k] with w[k,r,s,c/groups].

        The result's `size` is the transposed convolution's output: ``(n-1)*s - p + d*(k-1) + output_padding + 1``.
        """
        n, h, w, k = input_shape
        weight_k, r, s, c_per_group = weight_shape
        stride = positive(operation, "stride", stride, 2)
        dilation = positive(operation, "dilation", dilation, 2)
        output_padding = non_negative(operation, "output_padding", output_padding, 2)
        (groups,) = positive(operation, "groups", groups, 1)
        if k % groups:
            raise ShapeError(operation, "groups must divide the input channels", groups=groups, in_channels=k)
        if weight_k != k:
            raise ShapeError(operation, "the weight's first axis must equal the input's channels", in_channels=k, weight=weight_k)
        if min(r, s, k, c_per_group, h, w) < 1:
            raise ShapeError(operation, "sizes must be at least 1", input=tuple(input_shape), weight=tuple(weight_shape))
        if isinstance(padding, str):
            raise ShapeError(operation, "padding must be given in numbers", padding=padding)
        pairs = resolve_padding(operation, padding, (h, w), (r, s), stride, dilation)
        size = []
        for n_in, kernel, step, (before, after), dil, extra in zip((h, w), (r, s), stride, pairs, dilation, output_padding, strict=True):
            if extra >= max(step, dil):
                raise ShapeError(
                    operation, "output_padding must be smaller than stride or dilation", output_padding=output_padding, stride=stride, dilation=dilation
                )
            length = (n_in - 1) * step - before - after + dil * (kernel - 1) + extra + 1
            if length < 1:
                raise ShapeError(operation, "the output would be empty", input_size=(h, w), kernel_size=(r, s), padding=padding)
            size.append(length)
        return cls(n, (size[0], size[1]), c_per_group * groups, k, (r, s), stride, pairs, dilation, groups, (h, w))  # type: ignore[arg-type]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.size, self.channels)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.out_channels, *self.kernel, self.channels // self.groups)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.out, self.out_channels)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the direct method, counting taps that fall on padding."""
        return math.prod(self.output_shape) * math.prod(self.weight_shape[1:])

    @property
    def reduction(self) -> int:
        """Products summed into one output element."""
        return math.prod(self.weight_shape[1:])

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved with its own single filter."""
        return self.groups > 1 and self.groups == self.channels == self.out_channels

    @cached_property
    def forward_phases(self) -> tuple[Phase, ...]:
        """The forward pass: one phase, the output grid itself."""
        rows, cols = (
            PhaseAxis(self.out[axis], self.stride[axis], 1, 0, self.kernel[axis], -self.padding[axis][0], self.dilation[axis], 0, 1)
            for axis in (0, 1)
        )
        return (Phase(rows, cols),)

    @cached_property
    def backward_input_phases(self) -> tuple[Phase, ...]:
        """The input gradient: input pixels of one residue class modulo the stride are reached by the same taps.

        A phase without taps stays: its pixels receive zero.
        """
        return tuple(Phase(rows, cols) for rows in self._backward_axis(0) for cols in self._backward_axis(1))

    def _backward_axis(self, axis: int) -> list[PhaseAxis]:
        """Input position i receives kernel element r from output (i + before - r*dilation) / stride where that is exact.

        The exact r are every (stride / gcd(stride, dilation))-th.
        """
        size, stride, dilation, before = self.size[axis], self.stride[axis], self.dilation[axis], self.padding[axis][0]
        result = []
        for offset in range(min(stride, size)):
            reached = [r for r in range(self.kernel[axis]) if (offset + before - r * dilation) % stride == 0]
            index_step = stride // math.gcd(stride, dilation)
            first = reached[0] if reached else 0
            start = (offset + before - first * dilation) // stride
            grid = -(-(size - offset) // stride)
            result.append(PhaseAxis(grid, 1, stride, offset, len(reached), start, -index_step * dilation // stride, first, index_step))
        return result


@record
class PoolAxis:
    """The windows of max pooling along one axis: either regular (kernel, stride, padding, dilation) or adaptive."""

    size: int
    out: int
    kernel: int = 0  # 0: adaptive windows, floor(i*n/out) to ceil((i+1)*n/out)
    stride: int = 1
    before: int = 0
    dilation: int = 1

    @cached_property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """(first, end) of every window inside the input; positions go up by `dilation`."""
        if self.kernel == 0:
            return tuple((i * self.size // self.out, -(-(i + 1) * self.size // self.out)) for i in range(self.out))
        windows = []
        for i in range(self.out):
            first = i * self.stride - self.before
            end = min(first + self.dilation * (self.kernel - 1) + 1, self.size)
            if first < 0:
                first += -(first // self.dilation) * self.dilation
            windows.append((first, end))
        return tuple(windows)


@record
class PoolGeometry:
    """Sizes of max pooling ``x[n,h,w,c] -> y[n,oh,ow,c]``."""

    batch: int
    channels: int
    rows: PoolAxis
    cols: PoolAxis

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.rows.size, self.cols.size, self.channels)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.rows.out, self.cols.out, self.channels)


def pool_out(operation: str, size: int, kernel: int, stride: int, padding: Pair, dilation: int, ceil_mode: bool) -> int:
    """Number of windows along an axis, PyTorch's rule: with `ceil_mode` a window may stick out at the end, but must start
    inside the input or the leading padding."""
    before, after = padding
    if 2 * max(before, after) > kernel:
        raise ShapeError(operation, "padding must be at most half of the kernel size", padding=padding, kernel_size=kernel)
    span = size + before + after - dilation * (kernel - 1) - 1
    if size < 1 or (span < 0 and not (ceil_mode and span > -stride)):
        raise ShapeError(operation, "the window must not be larger than the padded input", input_size=size, kernel_size=kernel, padding=padding)
    for first in range(-before, 0, stride):  # windows that begin in the padding
        inside = first % dilation  # the first of their elements that is not padding
        if inside >= min(size, first + dilation * (kernel - 1) + 1):
            raise ShapeError(operation, "every window must hold an element of the input", input_size=size, kernel_size=kernel, padding=padding, dilation=dilation)
    out = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (out - 1) * stride >= size + before:
        out -= 1
    return out


AxisKind = Literal["average", "sum", "full", "adaptive", "nearest", "linear", "linear_corners", "rows"]


@record
class AxisRule:
    """A linear map along one axis, a sparse matrix of `out` rows and `size` columns named by its rule.

    * ``average``, ``sum``, ``full``: windows of `kernel` elements every `stride`, the first starting at ``-before``. ``average``
      divides by the window's length clipped to the input, or, with `count_pad`, to the padded input (PyTorch's
      count_include_pad); ``full`` is `kernel` times the average of what is inside.
    * ``adaptive``: averages over floor(i*n/out) .. ceil((i+1)*n/out).
    * ``nearest``: source floor(i*scale), ``linear``: half-pixel centres, ``linear_corners``: end points aligned (PyTorch's
      interpolate with mode nearest, bilinear, bilinear and align_corners=True).
    * ``rows``: the (source, weight) pairs of every output are given (:meth:`of_rows`).
    """

    kind: AxisKind
    size: int
    out: int
    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    count_pad: bool = False
    scale: float = 0.0  # source elements per output element of the interpolations; 0: size / out
    transposed: bool = False
    rows: tuple[tuple[tuple[int, float], ...], ...] = ()

    @classmethod
    def of_rows(cls, size: int, rows: Sequence[Sequence[tuple[int, float]]]) -> AxisRule:
        """The map from `size` elements with these (source, weight) pairs of each output, sources ascending."""
        return cls("rows", size, len(rows), rows=tuple(tuple(row) for row in rows))

    @property
    def shape(self) -> Pair:
        """(outputs, inputs) of the map as it is applied."""
        return (self.size, self.out) if self.transposed else (self.out, self.size)

    def transpose(self) -> AxisRule:
        """The adjoint map."""
        return replace(self, transposed=not self.transposed)

    def _row(self, i: int) -> list[tuple[int, float]]:
        """(source index, weight) of output i of the untransposed map, ascending."""
        if self.kind == "rows":
            return list(self.rows[i])
        if self.kind == "adaptive":
            first, end = i * self.size // self.out, -(-(i + 1) * self.size // self.out)
            return [(j, 1.0 / (end - first)) for j in range(first, end)]
        if self.kind in ("average", "sum", "full"):
            first = i * self.stride - self.before
            end = first + self.kernel
            inside = range(max(first, 0), min(end, self.size))
            count = min(end, self.size + self.after) - first if self.count_pad else len(inside)
            weight = 1.0 if self.kind == "sum" else (self.kernel if self.kind == "full" else 1.0) / max(count, 1)
            return [(j, weight) for j in inside]
        scale = self.scale or self.size / self.out
        if self.kind == "nearest":
            return [(min(int(i * scale), self.size - 1), 1.0)]
        if self.kind == "linear_corners":
            position = i * (self.size - 1) / (self.out - 1) if self.out > 1 else 0.0
        else:
            position = max((i + 0.5) * scale - 0.5, 0.0)
        low = min(int(position), self.size - 1)
        fraction = position - low
        if low + 1 >= self.size or fraction == 0.0:
            return [(low, 1.0)]
        return [(low, 1.0 - fraction), (low + 1, fraction)]

    @cached_property
    def table(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
        """The matrix as it is applied, in CSR form: starts[outputs + 1], index[...], weight[...]."""
        rows: list[list[tuple[int, float]]] = [self._row(i) for i in range(self.out)]
        if self.transposed:
            columns: list[list[tuple[int, float]]] = [[] for _ in range(self.size)]
            for i, row in enumerate(rows):
                for j, weight in row:
                    columns[j].append((i, weight))
            rows = columns
        starts = [0]
        for row in rows:
            starts.append(starts[-1] + len(row))
        return tuple(starts), tuple(j for row in rows for j, _ in row), tuple(w for row in rows for _, w in row)
