"""Layers, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..errors import ShapeError
from ..geometry import positive
from . import init
from .module import Module
from .parameter import Buffer, Parameter


class _ConvBase(Module):
    """What convolutions and transposed convolutions have in common."""

    axes: int
    transposed: bool
    #: the door of `pycl_cnn.functional`
    function: Callable[..., Any]
    stride: Any

    def _make(self, in_channels: int, out_channels: int, kernel_size: Any, groups: int, bias: bool) -> None:
        name = type(self).__name__
        (in_channels,), (out_channels,), (groups,) = (
            positive(name, key, value, 1) for key, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups))
        )
        if in_channels % groups or out_channels % groups:
            raise ShapeError(name, "groups must divide in_channels and out_channels", in_channels=in_channels, out_channels=out_channels, groups=groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = positive(name, "kernel_size", kernel_size, self.axes)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(init.kaiming_uniform(shape))
        self.bias = Parameter(init.uniform((out_channels,), 1 / math.sqrt(init.fan_in(shape)))) if bias else None

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for key, default in (("padding", 0), ("output_padding", 0), ("dilation", 1), ("groups", 1), ("flip", False)):
            value = getattr(self, key, default)
            if value != default:
                text += f", {key}={value}"
        return text if self.bias is not None else f"{text}, bias=False"


class _Conv(_ConvBase):
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        flip: bool = False,
    ) -> None:
        self._make(in_channels, out_channels, kernel_size, groups, bias)
        self.stride, self.padding, self.dilation, self.flip = stride, padding, dilation, flip

    def forward(self, input: Any) -> Any:
        return type(self).function(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, flip=self.flip)


class _ConvTranspose(_ConvBase):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        self._make(in_channels, out_channels, kernel_size, groups, bias)
        self.stride, self.padding, self.output_padding, self.dilation = stride, padding, output_padding, dilation

    def forward(self, input: Any) -> Any:
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class Conv2d(_Conv):
    """Two-dimensional convolution. See :func:`pycl_cnn.functional.conv2d` for padding, dilation, groups and `flip`."""

    axes, function = 2, staticmethod(F.conv2d)


class Conv1d(_Conv):
    """One-dimensional convolution of [n,c,l]. See :func:`pycl_cnn.functional.conv1d`."""

    axes, function = 1, staticmethod(F.conv1d)


class ConvTranspose2d(_ConvTranspose):
    """Two-dimensional transposed convolution. See :func:`pycl_cnn.functional.conv_transpose2d`."""

    axes, function = 2, staticmethod(F.conv_transpose2d)


class ConvTranspose1d(_ConvTranspose):
    """One-dimensional transposed convolution of [n,c,l]. See :func:`pycl_cnn.functional.conv_transpose1d`."""

    axes, function = 1, staticmethod(F.conv_transpose1d)


class Linear(Module):
    """``y = x W^T + b`` for x [..., in_features]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        (self.in_features,) = positive("Linear", "in_features", in_features, 1)
        (self.out_features,) = positive("Linear", "out_features", out_features, 1)
        self.weight = Parameter(init.kaiming_uniform((out_features, in_features)))
        self.bias = Parameter(init.uniform((out_features,), 1 / math.sqrt(in_features))) if bias else None

    def forward(self, input: Any) -> Any:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}" + ("" if self.bias is not None else ", bias=False")


class _BatchNorm(Module):
    ranks: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, track_running_stats: bool = True) -> None:
        (self.num_features,) = positive(type(self).__name__, "num_features", num_features, 1)
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(np.ones(num_features)) if affine else None
        self.bias = Parameter(np.zeros(num_features)) if affine else None
        self.running_mean = Buffer(np.zeros(num_features)) if track_running_stats else None
        self.running_var = Buffer(np.ones(num_features)) if track_running_stats else None

    def forward(self, input: Any) -> Any:
        if input.ndim not in self.ranks:
            raise ShapeError(type(self).__name__, f"the input must have {' or '.join(map(str, self.ranks))} axes", input=input.shape)
        batch_statistics = self.training or self.running_mean is None
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [n,c,h,w] per channel."""

    ranks = (4,)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [n,c] or [n,c,l] per channel."""

    ranks = (2, 3)


class Dropout(Module):
    """Zeroes elements with probability `p` in training. See :func:`pycl_cnn.functional.dropout`."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0 <= p <= 1:
            raise ShapeError("Dropout", "the probability must lie between 0 and 1", p=p)
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Any:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """Axes `start_dim` to `end_dim` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return F.flatten(input, self.start_dim, self.end_dim)


class Identity(Module):
    """The input."""

    def forward(self, input: Any) -> Any:
        return input


class Upsample(Module):
    """Resize images by `size` or `scale_factor`. See :func:`pycl_cnn.functional.interpolate`."""

    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None) -> None:
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, input: Any) -> Any:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale_factor={self.scale_factor}, mode={self.mode!r}"
