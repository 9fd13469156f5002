"""Operations as functions, with PyTorch's names, argument order and defaults.

On NumPy arrays a function computes at once, on the device given by ``device=`` (plans are cached by shape). On symbols, inside
a module's ``forward``, it appends to the graph being traced. Images are [n, c, h, w] unless ``layout="NHWC"`` is given; weights
are always PyTorch's [k, c/groups, r, s].
"""

from __future__ import annotations

import builtins
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .errors import ShapeError
from .geometry import AxisRule, ConvGeometry, Pair, PoolAxis, PoolGeometry, non_negative, pool_out, positive, resolve_padding
from .graph import Value
from .ops.batch_norm import BatchNormTraining
from .ops.conv import Conv, ConvBackwardInput, Epilogue
from .ops.dropout import Dropout
from .ops.loss import CrossEntropy, LabelMask
from .ops.matmul import MatMul
from .ops.max_pool import MaxPool
from .ops.movement import Concat, Expand, Flip, Pad, Reshape, Slice, Transpose
from .ops.pointwise import Activation, Binary, Unary
from .ops.reduce import Reduce
from .ops.resample import Resample
from .ops.softmax import Softmax
from .trace import Symbol, active_tracer, as_symbol, emit, floating

F = TypeVar("F", bound=Callable[..., Any])

NCHW_TO_NHWC, NHWC_TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
KCRS_TO_KRSC = (0, 2, 3, 1)


def operation(function: F) -> F:
    """Let `function`, written for symbols, also take arrays and a `device`: then it is compiled, cached and run."""
    signature = inspect.signature(function)
    parameters = [*signature.parameters.values(), inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None)]

    @functools.wraps(function)
    def call(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        if active_tracer() is not None:
            return function(*args, **kwargs)
        from .eager import run_operation

        bound = signature.bind(*args, **kwargs)
        return run_operation(function, bound, device)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


# ---- doors: layout and dtype --------------------------------------------------------------------------------------------


def _image(operation_name: str, x: Any, layout: str, rank: int = 4) -> Value:
    """A batch of images or signals as [n,h,w,c]; a 1-D signal gets a height of 1."""
    value = floating(as_symbol(x, operation_name), operation_name)
    last = {4: "NHWC", 3: "NLC"}[rank]
    first = {4: "NCHW", 3: "NCL"}[rank]
    if layout not in (first, last, "NCHW", "NHWC"):
        raise ShapeError(operation_name, f'layout must be "{first}" or "{last}"', layout=layout)
    if len(value.shape) != rank:
        raise ShapeError(operation_name, f"the input must have {rank} axes ({first})", input=value.shape)
    channels_first = layout in (first, "NCHW")
    if rank == 3:
        n, a, b = value.shape
        shape = (n, a, 1, b) if channels_first else (n, 1, a, b)
        value = emit(Reshape(shape), value).value
    return emit(Transpose(NCHW_TO_NHWC), value).value if channels_first else value


def _result(y: Symbol, layout: str, rank: int = 4) -> Symbol:
    """[n,h,w,c] as the user's layout; the inverse of `_image`."""
    channels_first = layout in ("NCHW", "NCL")
    if channels_first:
        y = emit(Transpose(NHWC_TO_NCHW), y.value)
    if rank == 3:
        n, a, b, c = y.shape
        y = emit(Reshape((n, a, c) if channels_first else (n, b, c)), y.value)
    return y


def _weight(operation_name: str, weight: Any, rank: int) -> Value:
    """Weights [k, c/groups, (r,) s] as [k, r, s, c/groups]."""
    value = floating(as_symbol(weight, operation_name), operation_name, "weight")
    if len(value.shape) != rank:
        raise ShapeError(operation_name, f"the weight must have {rank} axes", weight=value.shape)
    if rank == 3:
        value = emit(Reshape((*value.shape[:2], 1, value.shape[2])), value).value
    return emit(Transpose(KCRS_TO_KRSC), value).value


def _bias(operation_name: str, bias: Any) -> tuple[Value, ...]:
    return () if bias is None else (floating(as_symbol(bias, operation_name), operation_name, "bias"),)


def _line(operation_name: str, name: str, value: Any, neutral: Any) -> Any:
    """An attribute of a 1-D operation for the 2-D one with a height of 1."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and len(value) == 2 and name == "padding":
        return ((neutral, neutral), tuple(value))
    if isinstance(value, Sequence):
        if len(value) != 1:
            raise ShapeError(operation_name, f"{name} must be an integer or one integer", **{name: value})
        value = value[0]
        if isinstance(value, Sequence):
            return ((neutral, neutral), tuple(value))
    return (neutral, value)


# ---- convolution --------------------------------------------------------------------------------------------------------


def _conv(name: str, x: Value, w: Value, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, flip: bool) -> Symbol:
    if flip:
        w = emit(Flip((1, 2)), w).value
    extra = _bias(name, bias)
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
    y = _conv("conv2d", _image("conv2d", input, layout), _weight("conv2d", weight, 4), bias, stride, padding, dilation, groups, flip)
    return _result(y, layout)


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
    stride, dilation = (_line("conv1d", key, value, 1) for key, value in (("stride", stride), ("dilation", dilation)))
    padding = _line("conv1d", "padding", padding, 0)
    x, w = _image("conv1d", input, layout, 3), _weight("conv1d", weight, 3)
    return _result(_conv("conv1d", x, w, bias, stride, padding, dilation, groups, flip), layout, 3)


def _conv_transpose(name: str, x: Value, w: Value, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any) -> Symbol:
    extra = _bias(name, bias)
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
    x, w = _image("conv_transpose2d", input, layout), _weight("conv_transpose2d", weight, 4)
    return _result(_conv_transpose("conv_transpose2d", x, w, bias, stride, padding, output_padding, groups, dilation), layout)


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
    stride, dilation = (_line(name, key, value, 1) for key, value in (("stride", stride), ("dilation", dilation)))
    padding, output_padding = (_line(name, key, value, 0) for key, value in (("padding", padding), ("output_padding", output_padding)))
    x, w = _image(name, input, layout, 3), _weight(name, weight, 3)
    return _result(_conv_transpose(name, x, w, bias, stride, padding, output_padding, groups, dilation), layout, 3)


# ---- dense layers -------------------------------------------------------------------------------------------------------


@operation
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """``input @ weight.T + bias`` for input [..., in_features], weight [out_features, in_features]. Raises ShapeError."""
    x = floating(as_symbol(input, "linear"), "linear")
    w = floating(as_symbol(weight, "linear"), "linear", "weight")
    if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        raise ShapeError("linear", "the input's last axis must equal the weight's in_features", input=x.shape, weight=w.shape)
    extra = _bias("linear", bias)
    rows = math.prod(x.shape[:-1])
    flat = x if len(x.shape) == 2 else emit(Reshape((rows, w.shape[1])), x).value
    y = emit(MatMul(False, True, Epilogue(bias=bool(extra))), flat, w, *extra)
    return y if len(x.shape) == 2 else emit(Reshape((*x.shape[:-1], w.shape[0])), y.value)


@operation
def matmul(input: Any, other: Any) -> Any:
    """Product of two matrices [m,k] and [k,n]. Raises ShapeError."""
    return emit(MatMul(), floating(as_symbol(input, "matmul"), "matmul"), floating(as_symbol(other, "matmul"), "matmul", "other"))


# ---- pooling ------------------------------------------------------------------------------------------------------------


def _pool_sizes(name: str, x: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> list[tuple[int, int, int, int, Pair, int]]:
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
    x = _image(name, input, layout, rank)
    axes = _pool_sizes(name, x, *sizes, ceil_mode)
    rows, cols = (PoolAxis(n, out, k, s, before, d) for n, out, k, s, (before, _), d in axes)
    y, *indices = _max_pool(x, rows, cols, return_indices)
    result = _result(y, layout, rank)
    return (result, _result(indices[0], layout, rank)) if return_indices else result


def _lines(name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple:
    """The attributes of a 1-D pooling for the 2-D one."""
    step = None if stride is None else _line(name, "stride", stride, 1)
    return _line(name, "kernel_size", kernel_size, 1), step, _line(name, "padding", padding, 0), _line(name, "dilation", dilation, 1)


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


def _avg_pool_nd(name: str, input: Any, sizes: tuple, ceil_mode: bool, count_pad: bool, divisor: int | None, layout: str, rank: int) -> Symbol:
    x = _image(name, input, layout, rank)
    kernel_size, stride, padding = sizes
    axes = _pool_sizes(name, x, kernel_size, stride, padding, 1, ceil_mode)
    kind = "average" if divisor is None else "sum"
    rows, cols = (AxisRule(kind, n, out, k, s, before, after, count_pad) for n, out, k, s, (before, after), _ in axes)  # type: ignore[arg-type]
    y = emit(Resample(rows, cols), x)
    if divisor is not None:
        if divisor == 0:
            raise ShapeError(name, "divisor_override must not be zero", divisor_override=divisor)
        y = emit(Unary(Activation("affine", 1.0 / divisor)), y.value)
    return _result(y, layout, rank)


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
    x = _image(name, input, layout, rank)
    axes = _pool_sizes(name, x, *sizes, 0, 1, ceil_mode)
    rows, cols = (AxisRule("full", n, out, k, s) for n, out, k, s, _, _ in axes)
    powers = emit(Unary(Activation("square") if norm_type == 2 else Activation("pow", float(norm_type))), x)
    total = emit(Resample(rows, cols), powers.value)
    return _result(emit(Unary(Activation("signed_root", 1.0 / norm_type)), total.value), layout, rank)


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
    x = _image("adaptive_avg_pool2d", input, layout)
    rows, cols = (AxisRule("adaptive", n, out) for n, out in _adaptive_sizes("adaptive_avg_pool2d", x, output_size))
    return _result(emit(Resample(rows, cols), x), layout)


@operation
def adaptive_avg_pool1d(input: Any, output_size: Any, *, layout: str = "NCL") -> Any:
    """Mean over windows floor(i*n/out) .. ceil((i+1)*n/out) of [n,c,l]. Raises ShapeError."""
    x = _image("adaptive_avg_pool1d", input, layout, 3)
    sizes = _adaptive_sizes("adaptive_avg_pool1d", x, (1, output_size[0] if isinstance(output_size, Sequence) else output_size))
    rows, cols = (AxisRule("adaptive", n, out) for n, out in sizes)
    return _result(emit(Resample(rows, cols), x), layout, 3)


@operation
def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False, *, layout: str = "NCHW") -> Any:
    """Largest element of windows floor(i*n/out) .. ceil((i+1)*n/out) of [n,c,h,w]. Raises ShapeError."""
    x = _image("adaptive_max_pool2d", input, layout)
    rows, cols = (PoolAxis(n, out) for n, out in _adaptive_sizes("adaptive_max_pool2d", x, output_size))
    y, *indices = _max_pool(x, rows, cols, return_indices)
    return (_result(y, layout), _result(indices[0], layout)) if return_indices else _result(y, layout)


# ---- interpolation ------------------------------------------------------------------------------------------------------


@operation
def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None, *, layout: str = "NCHW"
) -> Any:
    """Resize [n,c,h,w] to `size` or by `scale_factor`; mode "nearest" or "bilinear" (PyTorch's rules). Raises ShapeError."""
    name = "interpolate"
    x = _image(name, input, layout)
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
        size = [int(math.floor(n * factor)) for n, factor in zip(x.shape[1:3], factors, strict=True)]
        scales = [1.0 / factor for factor in factors]
    size = positive(name, "size", size, 2)
    rows, cols = (AxisRule(kind, n, out, scale=scale) for n, out, scale in zip(x.shape[1:3], size, scales, strict=True))  # type: ignore[arg-type]
    return _result(emit(Resample(rows, cols), x), layout)


# ---- normalisation and dropout --------------------------------------------------------------------------------------------


@operation
def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: str = "NCHW",
) -> Any:
    """Batch normalisation per channel of [n,c], [n,c,l] or [n,c,h,w]. Raises ShapeError.

    With fixed statistics ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``; in training the statistics of the
    batch, and a module's running ones follow with `momentum` (the variance unbiased).
    """
    name = "batch_norm"
    x = floating(as_symbol(input, name), name)
    rank = len(x.shape)
    if rank not in (2, 3, 4):
        raise ShapeError(name, "the input must be [n,c], [n,c,l] or [n,c,h,w]", input=x.shape)
    last = layout in ("NHWC", "NLC") or rank == 2
    channels = x.shape[-1 if last else 1]
    if not last:
        x = emit(Transpose((0, *range(2, rank), 1)), x).value

    def vector(given: Any, fill: float, argument: str) -> Value:
        value = as_symbol(np.full(channels, fill, np.float32) if given is None else given, name)
        if value.shape != (channels,):
            raise ShapeError(name, f"{argument} must have one element per channel", channels=channels, shape=value.shape)
        return floating(value, name, argument)

    gamma, beta = vector(weight, 1.0, "weight"), vector(bias, 0.0, "bias")
    mean, var = vector(running_mean, 0.0, "running_mean"), vector(running_var, 1.0, "running_var")
    if training:
        tracer = active_tracer()
        assert tracer is not None
        updates = tracer.graph.updates
        present = [updates.get(state, state) for state in (mean, var)]  # a module applied twice goes on from its own update
        y_value, _, _, *updated = tracer.graph.add(BatchNormTraining(eps, momentum), x, gamma, beta, *present)
        for state, new in zip((mean, var), updated, strict=True):
            if any(state is known for known in tracer.graph.states.values()):
                updates[state] = new
        y = Symbol(y_value)
    else:
        deviation = emit(Unary(Activation("affine", 1.0, eps)), var)
        scale = emit(Binary("mul"), gamma, emit(Unary(Activation("rsqrt")), deviation.value).value)
        shift = emit(Binary("sub"), beta, emit(Binary("mul"), mean, scale.value).value)
        y = emit(Binary("add"), emit(Binary("mul"), x, scale.value).value, shift.value)
    return y if last else emit(Transpose((0, rank - 1, *range(1, rank - 1))), y.value)


@operation
def dropout(input: Any, p: float = 0.5, training: bool = True) -> Any:
    """Each element is zeroed with probability `p`, the others scaled by ``1/(1-p)``; the identity unless `training`.

    Outside a model the draw is that of seed 0 and step 0: the same at every call. Raises ShapeError.
    """
    x = floating(as_symbol(input, "dropout"), "dropout")
    if not 0 <= p <= 1:
        raise ShapeError("dropout", "the probability must lie between 0 and 1", p=p)
    if not training or p == 0:
        return Symbol(x)
    if p == 1:
        return emit(Unary(Activation("affine", 0.0)), x)
    tracer = active_tracer()
    assert tracer is not None
    rng, stream = tracer.random()
    return emit(Dropout(float(p), stream), x, rng)


# ---- functions of one array -----------------------------------------------------------------------------------------------


def _unary(name: str, activation: Activation, doc: str) -> Callable[..., Any]:
    def function(input: Any) -> Any:
        return emit(Unary(activation), floating(as_symbol(input, name), name))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return operation(function)


relu = _unary("relu", Activation("relu"), "``max(x, 0)``.")
relu6 = _unary("relu6", Activation("clip", 0.0, 6.0), "``min(max(x, 0), 6)``.")
sigmoid = _unary("sigmoid", Activation("sigmoid"), "``1 / (1 + exp(-x))``.")
tanh = _unary("tanh", Activation("tanh"), "Hyperbolic tangent.")
silu = _unary("silu", Activation("silu"), "``x * sigmoid(x)``.")
hardswish = _unary("hardswish", Activation("hardswish"), "``x * relu6(x + 3) / 6`` (Howard et al., MobileNetV3).")
hardsigmoid = _unary("hardsigmoid", Activation("hardsigmoid"), "``relu6(x + 3) / 6``.")
neg = _unary("neg", Activation("neg"), "``-x``.")
exp = _unary("exp", Activation("exp"), "``e**x``.")
log = _unary("log", Activation("log"), "Natural logarithm.")
sqrt = _unary("sqrt", Activation("sqrt"), "Square root.")
rsqrt = _unary("rsqrt", Activation("rsqrt"), "``1 / sqrt(x)``.")
reciprocal = _unary("reciprocal", Activation("reciprocal"), "``1 / x``.")
abs = _unary("abs", Activation("abs"), "Absolute value.")
square = _unary("square", Activation("square"), "``x * x``.")
erf = _unary("erf", Activation("erf"), "Error function.")


@operation
def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """``x`` where positive, ``negative_slope * x`` elsewhere."""
    return emit(Unary(Activation("leaky_relu", float(negative_slope))), floating(as_symbol(input, "leaky_relu"), "leaky_relu"))


@operation
def elu(input: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    return emit(Unary(Activation("elu", float(alpha))), floating(as_symbol(input, "elu"), "elu"))


@operation
def gelu(input: Any, approximate: str = "none") -> Any:
    """``x * Phi(x)`` with the normal distribution's Phi; `approximate` "tanh" takes the usual approximation."""
    if approximate not in ("none", "tanh"):
        raise ShapeError("gelu", 'approximate must be "none" or "tanh"', approximate=approximate)
    return emit(Unary(Activation("gelu" if approximate == "none" else "gelu_tanh")), floating(as_symbol(input, "gelu"), "gelu"))


@operation
def softplus(input: Any) -> Any:
    """``log(1 + exp(x))``."""
    return emit(Unary(Activation("softplus")), floating(as_symbol(input, "softplus"), "softplus"))


@operation
def clamp(input: Any, min: float | None = None, max: float | None = None) -> Any:
    """``min(max(x, lower), upper)``; None leaves a side open. The gradient is 1 strictly between the bounds and 0 elsewhere."""
    if min is None and max is None:
        raise ShapeError("clamp", "at least one of min and max must be given")
    low, high = -math.inf if min is None else float(min), math.inf if max is None else float(max)
    return emit(Unary(Activation("clip", low, high)), floating(as_symbol(input, "clamp"), "clamp"))


def _axis(name: str, dim: Any, rank: int) -> int:
    (axis,) = (int(dim),)
    if not -rank <= axis < rank:
        raise ShapeError(name, "the axis must be one of the input's", dim=dim, axes=rank)
    return axis % rank


@operation
def softmax(input: Any, dim: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along `dim`."""
    x = floating(as_symbol(input, "softmax"), "softmax")
    return emit(Softmax(_axis("softmax", dim, len(x.shape))), x)


@operation
def log_softmax(input: Any, dim: int = -1) -> Any:
    """``x - log(sum(exp(x)))`` along `dim`."""
    x = floating(as_symbol(input, "log_softmax"), "log_softmax")
    return emit(Softmax(_axis("log_softmax", dim, len(x.shape)), log=True), x)


# ---- arithmetic -----------------------------------------------------------------------------------------------------------


def _binary(name: str, kind: str, doc: str) -> Callable[..., Any]:
    def function(input: Any, other: Any) -> Any:
        return emit(Binary(kind), floating(as_symbol(input, name), name), floating(as_symbol(other, name), name, "other"))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return operation(function)


add = _binary("add", "add", "``a + b`` with NumPy's broadcasting.")
sub = _binary("sub", "sub", "``a - b`` with NumPy's broadcasting.")
mul = _binary("mul", "mul", "``a * b`` with NumPy's broadcasting.")
div = _binary("div", "div", "``a / b`` with NumPy's broadcasting.")
maximum = _binary("maximum", "max", "The larger of a and b; equal elements share the gradient.")
minimum = _binary("minimum", "min", "The smaller of a and b; equal elements share the gradient.")


@operation
def pow(input: Any, exponent: Any) -> Any:
    """``a ** b``; a number as exponent is taken as it is (integers keep the sign of negative bases)."""
    x = floating(as_symbol(input, "pow"), "pow")
    if isinstance(exponent, int | float):
        return emit(Unary(Activation("square") if exponent == 2 else Activation("pow", float(exponent))), x)
    return emit(Binary("pow"), x, floating(as_symbol(exponent, "pow"), "pow", "exponent"))


# ---- reductions -----------------------------------------------------------------------------------------------------------


def _reduce(name: str, kind: str, input: Any, dim: Any, keepdim: bool) -> Symbol:
    x = floating(as_symbol(input, name), name)
    rank = len(x.shape)
    dims = range(rank) if dim is None else dim if isinstance(dim, Sequence) else [dim]
    axes = tuple(sorted(_axis(name, axis, rank) for axis in dims))
    return emit(Reduce(kind, axes, keepdim), x)


@operation
def sum(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Sum over the axes `dim`, by default all."""
    return _reduce("sum", "sum", input, dim, keepdim)


@operation
def mean(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Mean over the axes `dim`, by default all."""
    return _reduce("mean", "mean", input, dim, keepdim)


@operation
def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest element over the axes `dim`, by default all; equal ones share the gradient."""
    return _reduce("amax", "max", input, dim, keepdim)


@operation
def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Smallest element over the axes `dim`, by default all; equal ones share the gradient."""
    return _reduce("amin", "min", input, dim, keepdim)


# ---- shape ------------------------------------------------------------------------------------------------------------------


@operation
def reshape(input: Any, shape: Any) -> Any:
    """The same elements under another shape; one size may be -1. Raises ShapeError."""
    x = as_symbol(input, "reshape")
    sizes = [int(n) for n in (shape if isinstance(shape, Sequence) else [shape])]
    if sizes.count(-1) > 1 or min([0, *sizes]) < -1:
        raise ShapeError("reshape", "sizes must not be negative, but for one -1", shape=tuple(sizes))
    if -1 in sizes:
        known = math.prod(n for n in sizes if n != -1)
        total = math.prod(x.shape)
        if known == 0 or total % known:
            raise ShapeError("reshape", "the number of elements must stay the same", input=x.shape, shape=tuple(sizes))
        sizes[sizes.index(-1)] = total // known
    return emit(Reshape(tuple(sizes)), x.value)


@operation
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Axes `start_dim` to `end_dim` as one."""
    x = as_symbol(input, "flatten")
    start, end = _axis("flatten", start_dim, x.ndim), _axis("flatten", end_dim, x.ndim)
    if start > end:
        raise ShapeError("flatten", "start_dim must not come after end_dim", start_dim=start_dim, end_dim=end_dim)
    return emit(Reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])), x.value)


@operation
def permute(input: Any, dims: Any) -> Any:
    """Axis i of the result is axis ``dims[i]`` of the input."""
    x = as_symbol(input, "permute")
    return emit(Transpose(tuple(_axis("permute", dim, x.ndim) for dim in dims)), x.value)


@operation
def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """The input with two axes exchanged."""
    x = as_symbol(input, "transpose")
    a, b = _axis("transpose", dim0, x.ndim), _axis("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return emit(Transpose(tuple(order)), x.value)


@operation
def cat(tensors: Any, dim: int = 0) -> Any:
    """Arrays one behind the other along `dim`. Raises ShapeError."""
    symbols = [as_symbol(item, "cat") for item in tensors]
    if not symbols:
        raise ShapeError("cat", "at least one array is needed")
    return emit(Concat(_axis("cat", dim, symbols[0].ndim)), *(symbol.value for symbol in symbols))


@operation
def expand(input: Any, shape: Any) -> Any:
    """Axes of length 1 repeated to `shape`; -1 keeps an axis; new axes may stand in front. Raises ShapeError."""
    x = as_symbol(input, "expand")
    if len(shape) < x.ndim:
        raise ShapeError("expand", "the shape must have at least the input's axes", input=x.shape, shape=tuple(shape))
    padded = (1,) * (len(shape) - x.ndim) + x.shape
    target = tuple(n if size == -1 else int(size) for n, size in zip(padded, shape, strict=True))
    return emit(Expand(target), emit(Reshape(padded), x.value).value)


@operation
def flip(input: Any, dims: Any) -> Any:
    """The elements along the axes `dims` in reverse order."""
    x = as_symbol(input, "flip")
    return emit(Flip(tuple(sorted(_axis("flip", dim, x.ndim) for dim in (dims if isinstance(dims, Sequence) else [dims])))), x.value)


@operation
def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Padding with `value` (0); `pad` holds (before, after) pairs from the last axis backwards (as in PyTorch); negative ones crop.

    Raises ShapeError.
    """
    x = as_symbol(input, "pad")
    if mode != "constant":
        raise ShapeError("pad", 'mode must be "constant"', mode=mode)
    value = 0.0 if value is None else value
    amounts = [int(n) for n in pad]
    if len(amounts) % 2 or len(amounts) > 2 * x.ndim:
        raise ShapeError("pad", "pairs (before, after) must be given for at most the input's axes", pad=tuple(pad), input=x.shape)
    low, high = [0] * x.ndim, [0] * x.ndim
    for index in range(len(amounts) // 2):
        low[-1 - index], high[-1 - index] = amounts[2 * index], amounts[2 * index + 1]
    if min([0, *low, *high]) < 0:
        starts = tuple(max(-n, 0) for n in low)
        stops = tuple(size - max(-n, 0) for size, n in zip(x.shape, high, strict=True))
        x = emit(Slice(starts, stops, (1,) * x.ndim), x.value)
    return emit(Pad(tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high), (0,) * x.ndim, float(value)), x.value)


@operation
def getitem(input: Any, index: Any) -> Any:
    """``input[index]`` for integers, slices (steps of any sign), None and Ellipsis. Raises ShapeError."""
    x = as_symbol(input, "getitem")
    items = list(index) if isinstance(index, tuple) else [index]
    given = [item for item in items if item is not None and item is not Ellipsis]
    if len(given) > x.ndim or items.count(Ellipsis) > 1:
        raise ShapeError("getitem", "too many indices", input=x.shape, index=index)
    if Ellipsis not in items:
        items.append(Ellipsis)
    position = items.index(Ellipsis)
    items[position : position + 1] = [slice(None)] * (x.ndim - len(given))
    starts, stops, steps, flips, shape = [], [], [], [], []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(item, slice):
            picked = range(size)[item]
            if len(picked) == 0:
                starts.append(0), stops.append(0), steps.append(1)
            else:
                first, last = min(picked[0], picked[-1]), max(picked[0], picked[-1])
                starts.append(first), stops.append(last + 1), steps.append(builtins.abs(picked.step))
                if picked.step < 0 and len(picked) > 1:
                    flips.append(axis)
            shape.append(len(picked))
        elif isinstance(item, int | np.integer) and not isinstance(item, bool):
            if not -size <= item < size:
                raise ShapeError("getitem", "the index must lie inside the axis", input=x.shape, index=index)
            starts.append(int(item) % size), stops.append(int(item) % size + 1), steps.append(1)
        else:
            raise ShapeError("getitem", "indices must be integers, slices, None or Ellipsis", index=index)
        axis += 1
    y = emit(Slice(tuple(starts), tuple(stops), tuple(steps)), x.value)
    if flips:
        y = emit(Flip(tuple(flips)), y.value)
    return emit(Reshape(tuple(shape)), y.value)


# ---- losses -----------------------------------------------------------------------------------------------------------------


def _reduction(name: str, loss: Symbol, reduction: str) -> Symbol:
    if reduction not in ("mean", "sum", "none"):
        raise ShapeError(name, 'reduction must be "mean", "sum" or "none"', reduction=reduction)
    return loss if reduction == "none" else emit(Reduce(reduction, tuple(range(loss.ndim))), loss.value)


@operation
def cross_entropy(input: Any, target: Any, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> Any:
    """Cross entropy of logits [n,c] or [n,c,h,w] with labels [n] or [n,h,w], or with probabilities of the logits' shape.

    "mean" divides by the number of labels that are not `ignore_index`. Raises ShapeError.
    """
    name = "cross_entropy"
    logits, labels = floating(as_symbol(input, name), name), as_symbol(target, name).value
    if len(logits.shape) < 2:
        raise ShapeError(name, "logits must be [n,c] or [n,c,...]", input=logits.shape)
    if not 0 <= label_smoothing <= 1:
        raise ShapeError(name, "label_smoothing must lie between 0 and 1", label_smoothing=label_smoothing)
    n, classes, *places = logits.shape
    if labels.dtype == np.float32:
        if labels.shape != logits.shape:
            raise ShapeError(name, "probabilities must have the logits' shape (labels must be integers)", input=logits.shape, target=labels.shape)
        if label_smoothing:
            labels = emit(Unary(Activation("affine", 1 - label_smoothing, label_smoothing / classes)), labels).value
        weighted = emit(Binary("mul"), emit(Softmax(1, log=True), logits).value, labels)
        loss = emit(Unary(Activation("neg")), emit(Reduce("sum", (1,)), weighted.value).value)
        if reduction == "mean":
            total = emit(Reduce("sum", tuple(range(loss.ndim))), loss.value)
            return emit(Unary(Activation("affine", 1.0 / max(math.prod(loss.shape), 1))), total.value)
        return _reduction(name, loss, reduction)
    if labels.shape != (n, *places):
        raise ShapeError(name, "one label is needed per row", input=logits.shape, target=labels.shape)
    if places:
        rank = len(logits.shape)
        logits = emit(Transpose((0, *range(2, rank), 1)), logits).value
        logits = emit(Reshape((n * math.prod(places), classes)), logits).value
        labels = emit(Reshape((n * math.prod(places),)), labels).value
    loss = emit(CrossEntropy(float(label_smoothing), int(ignore_index)), logits, labels)
    if reduction == "mean":
        counted = emit(Reduce("sum", (0,)), emit(LabelMask(int(ignore_index)), labels).value)
        return emit(Binary("div"), emit(Reduce("sum", (0,)), loss.value).value, counted.value)
    return emit(Reshape((n, *places)), loss.value) if reduction == "none" else _reduction(name, loss, reduction)


def _difference(name: str, input: Any, target: Any) -> tuple[Value, Value]:
    x, t = floating(as_symbol(input, name), name), floating(as_symbol(target, name), name, "target")
    if x.shape != t.shape:
        raise ShapeError(name, "input and target must have the same shape", input=x.shape, target=t.shape)
    return x, t


@operation
def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Mean of the squared differences."""
    x, t = _difference("mse_loss", input, target)
    square_of = emit(Unary(Activation("square")), emit(Binary("sub"), x, t).value)
    return _reduction("mse_loss", square_of, reduction)


@operation
def binary_cross_entropy_with_logits(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """``softplus(x) - x * t``: the cross entropy of sigmoid(x) with targets between 0 and 1, without overflow."""
    name = "binary_cross_entropy_with_logits"
    x, t = _difference(name, input, target)
    loss = emit(Binary("sub"), emit(Unary(Activation("softplus")), x).value, emit(Binary("mul"), x, t).value)
    return _reduction(name, loss, reduction)
