"""Pooling and interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ShapeError
from ..geometry import AxisRule, Pair, PoolAxis, PoolGeometry, pool_out, positive, resolve_padding
from ..graph import Value
from ..ops.max_pool import MaxPool
from ..ops.pointwise import Activation, Unary
from ..ops.resample import Resample
from ..trace import Symbol, active_tracer, emit
from .door import image, line_attribute, operation, result_image


def _pool_sizes(
    name: str, x: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[tuple[int, int, int, int, Pair, int]]:
    """Per axis: size, windows, kernel, stride, padding, dilation."""
    kernel = positive(name, "kernel_size", kernel_size, 2)
    step = positive(name, "stride", kernel if stride is None else stride, 2)
    dil = positive(name, "dilation", dilation, 2)
    size = x.shape[1:3]
    pads = resolve_padding(name, padding, size, kernel, step, dil)
    return [
        (n, pool_out(name, n, k, s, p, d, ceil_mode), k, s, p, d)  # type: ignore[arg-type]
        for n, k, s, p, d in zip(size, kernel, step, pads, dil, strict=True)
    ]


def _max_pool(x: Value, rows: PoolAxis, cols: PoolAxis, return_indices: bool) -> tuple[Symbol, ...]:
    tracer = active_tracer()
    assert tracer is not None
    geometry = PoolGeometry(x.shape[0], x.shape[3], rows, cols)
    return tuple(Symbol(value) for value in tracer.graph.add(MaxPool(geometry, return_indices or tracer.gradients), x))


def _max_pool_nd(name: str, input: Any, sizes: tuple, ceil_mode: bool, return_indices: bool, layout: str, rank: int) -> Any:
    x = image(name, input, layout, rank)
    kernel_size, stride, padding, dilation = sizes
    axes = _pool_sizes(name, x, kernel_size, stride, padding, dilation, ceil_mode)
    rows, cols = (PoolAxis(n, out, k, s, before, d) for n, out, k, s, (before, _), d in axes)
    y, *indices = _max_pool(x, rows, cols, return_indices)
    result = result_image(y, layout, rank)
    return (result, result_image(indices[0], layout, rank)) if return_indices else result


def _lines(name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple:
    """The attributes of a 1-D pooling for the 2-D one."""
    step = None if stride is None else line_attribute(name, "stride", stride, 1)
    return (
        line_attribute(name, "kernel_size", kernel_size, 1),
        step,
        line_attribute(name, "padding", padding, 0),
        line_attribute(name, "dilation", dilation, 1),
    )


@operation
def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """Largest element of each window of [n,c,h,w]; with `return_indices` also its index ``row*w + column``.

    `stride` defaults to the kernel size; `ceil_mode` lets the last window stick out. A NaN in a window wins. Raises ShapeError.
    """
    return _max_pool_nd("max_pool2d", input, (kernel_size, stride, padding, dilation), ceil_mode, return_indices, layout, 4)


@operation
def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCL",
) -> Any:
    """Largest element of each window of [n,c,l]. See :func:`max_pool2d`."""
    sizes = _lines("max_pool1d", kernel_size, stride, padding, dilation)
    return _max_pool_nd("max_pool1d", input, sizes, ceil_mode, return_indices, layout, 3)


def _avg_pool_nd(
    name: str, input: Any, sizes: tuple, ceil_mode: bool, count_pad: bool, divisor: int | None, layout: str, rank: int
) -> Symbol:
    x = image(name, input, layout, rank)
    kernel_size, stride, padding = sizes
    axes = _pool_sizes(name, x, kernel_size, stride, padding, 1, ceil_mode)
    kind = "average" if divisor is None else "sum"
    rows, cols = (AxisRule(kind, n, out, k, s, before, after, count_pad) for n, out, k, s, (before, after), _ in axes)  # type: ignore[arg-type]
    y = emit(Resample(rows, cols), x)
    if divisor is not None:
        if divisor == 0:
            raise ShapeError(name, "divisor_override must not be zero", divisor_override=divisor)
        y = emit(Unary(Activation("affine", 1.0 / divisor)), y.value)
    return result_image(y, layout, rank)


@operation
def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> Any:
    """Mean of each window of [n,c,h,w]; zeros of the padding count unless ``count_include_pad=False``. Raises ShapeError."""
    sizes = (kernel_size, stride, padding)
    return _avg_pool_nd("avg_pool2d", input, sizes, ceil_mode, count_include_pad, divisor_override, layout, 4)


@operation
def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCL",
) -> Any:
    """Mean of each window of [n,c,l]. See :func:`avg_pool2d`."""
    sizes = _lines("avg_pool1d", kernel_size, stride, padding)[:3]
    return _avg_pool_nd("avg_pool1d", input, sizes, ceil_mode, count_include_pad, None, layout, 3)


def _lp_pool_nd(name: str, input: Any, norm_type: float, sizes: tuple, ceil_mode: bool, layout: str, rank: int) -> Symbol:
    if not norm_type > 0 or math.isinf(norm_type):
        raise ShapeError(name, "norm_type must be a positive number", norm_type=norm_type)
    x = image(name, input, layout, rank)
    kernel_size, stride = sizes
    axes = _pool_sizes(name, x, kernel_size, stride, 0, 1, ceil_mode)
    rows, cols = (AxisRule("full", n, out, k, s) for n, out, k, s, _, _ in axes)
    powers = emit(Unary(Activation("square") if norm_type == 2 else Activation("pow", float(norm_type))), x)
    total = emit(Resample(rows, cols), powers.value)
    return result_image(emit(Unary(Activation("signed_root", 1.0 / norm_type)), total.value), layout, rank)


@operation
def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, layout: str = "NCHW") -> Any:
    """``(sum x**p)**(1/p)`` over each window of [n,c,h,w], p = `norm_type`.

    As in PyTorch a window that sticks out (`ceil_mode`) counts the mean inside it for every element outside, and odd p keep the
    sign of the elements; a negative sum has a negative root. The gradient where the sum is 0 is 0. Raises ShapeError.
    """
    return _lp_pool_nd("lp_pool2d", input, norm_type, (kernel_size, stride), ceil_mode, layout, 4)


@operation
def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, layout: str = "NCL") -> Any:
    """``(sum x**p)**(1/p)`` over each window of [n,c,l]. See :func:`lp_pool2d`."""
    sizes = _lines("lp_pool1d", kernel_size, stride, 0)[:2]
    return _lp_pool_nd("lp_pool1d", input, norm_type, sizes, ceil_mode, layout, 3)


def _adaptive_sizes(name: str, x: Value, output_size: Any) -> list[tuple[int, int]]:
    sizes = list(output_size) if isinstance(output_size, Sequence) else [output_size, output_size]
    if len(sizes) != 2:
        raise ShapeError(name, "output_size must be an integer or one per axis", output_size=output_size)
    sizes = [n if size is None else size for n, size in zip(x.shape[1:3], sizes, strict=True)]
    return list(zip(x.shape[1:3], positive(name, "output_size", sizes, 2), strict=True))


@operation
def adaptive_avg_pool2d(input: Any, output_size: Any, *, layout: str = "NCHW") -> Any:
    """Mean over windows floor(i*n/out) .. ceil((i+1)*n/out) of [n,c,h,w]; None keeps an axis. Raises ShapeError."""
    x = image("adaptive_avg_pool2d", input, layout)
    rows, cols = (AxisRule("adaptive", n, out) for n, out in _adaptive_sizes("adaptive_avg_pool2d", x, output_size))
    return result_image(emit(Resample(rows, cols), x), layout)


@operation
def adaptive_avg_pool1d(input: Any, output_size: Any, *, layout: str = "NCL") -> Any:
    """Mean over windows floor(i*n/out) .. ceil((i+1)*n/out) of [n,c,l]. Raises ShapeError."""
    x = image("adaptive_avg_pool1d", input, layout, 3)
    sizes = _adaptive_sizes("adaptive_avg_pool1d", x, (1, output_size[0] if isinstance(output_size, Sequence) else output_size))
    rows, cols = (AxisRule("adaptive", n, out) for n, out in sizes)
    return result_image(emit(Resample(rows, cols), x), layout, 3)


@operation
def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False, *, layout: str = "NCHW") -> Any:
    """Largest element of windows floor(i*n/out) .. ceil((i+1)*n/out) of [n,c,h,w]. Raises ShapeError."""
    x = image("adaptive_max_pool2d", input, layout)
    rows, cols = (PoolAxis(n, out) for n, out in _adaptive_sizes("adaptive_max_pool2d", x, output_size))
    y, *indices = _max_pool(x, rows, cols, return_indices)
    return (result_image(y, layout), result_image(indices[0], layout)) if return_indices else result_image(y, layout)


@operation
def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    *,
    layout: str = "NCHW",
) -> Any:
    """Resize [n,c,h,w] to `size` or by `scale_factor`; mode "nearest" or "bilinear" (PyTorch's rules). Raises ShapeError."""
    name = "interpolate"
    x = image(name, input, layout)
    if (size is None) == (scale_factor is None):
        raise ShapeError(name, "exactly one of size and scale_factor must be given", size=size, scale_factor=scale_factor)
    if mode not in ("nearest", "bilinear"):
        raise ShapeError(name, 'mode must be "nearest" or "bilinear"', mode=mode)
    if mode == "nearest" and align_corners is not None:
        raise ShapeError(name, "align_corners applies to bilinear only", align_corners=align_corners)
    kind = "nearest" if mode == "nearest" else "linear_corners" if align_corners else "linear"
    scales = [0.0, 0.0]
    if size is None:
        factors = list(scale_factor) if isinstance(scale_factor, Sequence) else [scale_factor] * 2
        if len(factors) != 2 or min(factors) <= 0:
            raise ShapeError(name, "scale_factor must be one or two positive numbers", scale_factor=scale_factor)
        size = [math.floor(n * factor) for n, factor in zip(x.shape[1:3], factors, strict=True)]
        scales = [1.0 / factor for factor in factors]
    size = positive(name, "size", size, 2)
    rows, cols = (AxisRule(kind, n, out, scale=scale) for n, out, scale in zip(x.shape[1:3], size, scales, strict=True))  # type: ignore[arg-type]
    return result_image(emit(Resample(rows, cols), x), layout)
