"""Convolutions and transposed convolutions."""

from __future__ import annotations

from typing import Any

from ..geometry import ConvGeometry
from ..graph import Value
from ..ops.conv import Conv, ConvBackwardInput, Epilogue
from ..ops.movement import Flip
from ..trace import Symbol, emit
from .door import bias_values, filters, image, line_attribute, operation, result_image


def _conv(name: str, x: Value, w: Value, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, flip: bool) -> Symbol:
    if flip:
        w = emit(Flip((1, 2)), w).value
    extra = bias_values(name, bias)
    geometry = ConvGeometry.forward(name, x.shape, w.shape, stride, padding, dilation, groups)
    return emit(Conv(geometry, Epilogue(bias=bool(extra))), x, w, *extra)


@operation
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    layout: str = "NCHW",
) -> Any:
    """Two-dimensional convolution (cross-correlation) of input [n,c,h,w] with weight [k,c/groups,r,s]: [n,k,oh,ow].

    `padding`: an integer, (rows, columns), ((top, bottom), (left, right)), "valid", or "same" (output ``ceil(n/stride)``; an odd
    total puts the extra row and column last). `flip` turns the kernel by 180 degrees: the convolution of mathematics.
    Output size ``floor((n + p - dilation*(k-1) - 1) / stride) + 1``. Raises ShapeError.
    """
    y = _conv("conv2d", image("conv2d", input, layout), filters("conv2d", weight, 4), bias, stride, padding, dilation, groups, flip)
    return result_image(y, layout)


@operation
def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    layout: str = "NCL",
) -> Any:
    """One-dimensional convolution (cross-correlation) of input [n,c,l] with weight [k,c/groups,s]: [n,k,ol].

    `padding`: an integer, (before, after), "valid" or "same". See :func:`conv2d`. Raises ShapeError.
    """
    stride, dilation = (line_attribute("conv1d", key, value, 1) for key, value in (("stride", stride), ("dilation", dilation)))
    padding = line_attribute("conv1d", "padding", padding, 0)
    x, w = image("conv1d", input, layout, 3), filters("conv1d", weight, 3)
    return result_image(_conv("conv1d", x, w, bias, stride, padding, dilation, groups, flip), layout, 3)


def _conv_transpose(
    name: str, x: Value, w: Value, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any
) -> Symbol:
    extra = bias_values(name, bias)
    geometry = ConvGeometry.transposed(name, x.shape, w.shape, stride, padding, output_padding, dilation, groups)
    return emit(ConvBackwardInput(geometry, Epilogue(bias=bool(extra))), x, w, *extra)


@operation
def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCHW",
) -> Any:
    """Transposed convolution of input [n,c,h,w] with weight [c,k/groups,r,s]: the gradient of :func:`conv2d` in its input.

    Output size ``(n-1)*stride - 2*padding + dilation*(k-1) + output_padding + 1``. Raises ShapeError.
    """
    x, w = image("conv_transpose2d", input, layout), filters("conv_transpose2d", weight, 4)
    return result_image(_conv_transpose("conv_transpose2d", x, w, bias, stride, padding, output_padding, groups, dilation), layout)


@operation
def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    layout: str = "NCL",
) -> Any:
    """One-dimensional transposed convolution of input [n,c,l] with weight [c,k/groups,s]. See :func:`conv_transpose2d`."""
    name = "conv_transpose1d"
    stride, dilation = (line_attribute(name, key, value, 1) for key, value in (("stride", stride), ("dilation", dilation)))
    padding, output_padding = (
        line_attribute(name, key, value, 0) for key, value in (("padding", padding), ("output_padding", output_padding))
    )
    x, w = image(name, input, layout, 3), filters(name, weight, 3)
    return result_image(_conv_transpose(name, x, w, bias, stride, padding, output_padding, groups, dilation), layout, 3)
