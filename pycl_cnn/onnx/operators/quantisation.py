"""Element types: Cast, quantisation, dequantisation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from ...ops.base import FLOAT
from ...trace import Symbol
from ..node import Call
from ..tensors import element_type
from .arithmetic import Mask
from .table import evaluated, lowered


def onnx_dtype(call: Call, number: int) -> np.dtype:
    """The dtype that ONNX numbers so."""
    try:
        return element_type(number)
    except ValueError as error:
        raise UnsupportedError(f"{call.node.label}: {error}") from None


@cache
def finite_limits(dtype: np.dtype) -> tuple[float, float]:
    """The least and the largest finite element."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return info.min, info.max
    import ml_dtypes

    if dtype.name in ("int4", "uint4", "int2", "uint2"):
        narrow = ml_dtypes.iinfo(dtype)
        return int(narrow.min), int(narrow.max)
    limits = ml_dtypes.finfo(dtype)
    return float(limits.min), float(limits.max)


def is_integer(dtype: np.dtype) -> bool:
    """Whether elements are whole numbers, NumPy's or four and two bits wide."""
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")


def is_float8(dtype: np.dtype) -> bool:
    return dtype.name.startswith("float8")


def converted(x: np.ndarray, dtype: np.dtype, saturate: bool = True) -> np.ndarray:
    """Elements in another type as ONNX's Cast has it: floats to integers lose their fraction, float8 saturate if asked."""
    if dtype.kind == "b":
        return x != 0
    if dtype.hasobject:
        return _texts(x)
    if is_float8(dtype):
        return _to_float8(x, dtype, saturate)
    if dtype.name.startswith("float4"):
        low, high = finite_limits(dtype)
        return x.astype(np.float32).clip(low, high).astype(dtype)
    if dtype.name in ("int4", "uint4", "int2", "uint2"):
        if not is_integer(x.dtype) and x.dtype.kind != "b":
            x = np.trunc(x.astype(np.float32))
        return x.astype(np.int32).astype(dtype)
    if is_integer(dtype) and x.dtype.kind not in "iub" and not is_integer(x.dtype):
        whole = x if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x.astype(np.float32)
        return whole.astype(np.int64).astype(dtype) if dtype.itemsize < 8 and dtype.kind in "iu" else whole.astype(dtype)
    if x.dtype.kind not in "iubf" and dtype.kind == "f":
        return x.astype(np.float32).astype(dtype)
    return x.astype(dtype)


def _texts(x: np.ndarray) -> np.ndarray:
    """Numbers as texts: eight digits of floats, as onnxruntime writes them."""
    if x.dtype.hasobject:
        return x
    whole = is_integer(x.dtype) or x.dtype.kind == "b"
    numbers = x.astype(np.int64) if whole and x.dtype != np.uint64 else x if whole else x.astype(np.float64)
    texts = [str(number) if whole else _FLOATS.get(text := f"{number:.8g}", text) for number in numbers.reshape(-1).tolist()]
    result = np.empty(len(texts), object)
    result[:] = texts
    return result.reshape(x.shape)


_FLOATS = {"inf": "INF", "-inf": "-INF", "nan": "NaN"}


def _to_float8(x: np.ndarray, dtype: np.dtype, saturate: bool) -> np.ndarray:
    wide = x.astype(np.float32) if x.dtype != np.float64 else x
    if dtype.name.startswith("float8_e8m0"):
        return wide.astype(dtype)
    _, high = finite_limits(dtype)
    if not saturate:
        return wide.astype(dtype)
    clipped = np.where(np.isnan(wide), wide, np.clip(wide, -high, high))
    return clipped.astype(dtype)


def _target(call: Call, like: Any = None) -> np.dtype:
    return onnx_dtype(call, call.integer("to")) if call.op == "Cast" else like.dtype


@evaluated("Cast", "CastLike")
def cast(call: Call, x: np.ndarray, like: Any = None) -> np.ndarray:
    dtype = _target(call, like)
    if dtype.name.startswith("float8_e8m0"):
        return _to_scale(np.asarray(x, np.float32), dtype, call.text("round_mode", "up"), bool(call.integer("saturate", 1)))
    return converted(x, dtype, bool(call.integer("saturate", 1)))


def _to_scale(x: np.ndarray, dtype: np.dtype, mode: str, saturate: bool) -> np.ndarray:
    """Powers of two (float8e8m0): `up`, `down` or `nearest` says which of the two neighbours."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    exponent = (bits >> 23).astype(np.int32) & 0xFF
    rest = bits & 0x7FFFFF
    if mode == "up":
        raised = (rest > 0) & ((exponent > 0) | (rest > 0x400000))
    elif mode == "nearest":
        raised = (rest >= 0x400000) & ((exponent > 0) | (rest > 0x400000))
    else:
        raised = np.zeros_like(rest, bool)
    exponent = exponent + (raised & (exponent < 254 if saturate else exponent < 255))
    special = ~np.isfinite(x)
    return np.where(np.isinf(x) & saturate, 0xFE, np.where(special, 0xFF, exponent)).astype(np.uint8).view(dtype)


@lowered("Cast", "CastLike", any_dtype=True)
def lower_cast(call: Call, x: Symbol, like: Any = None) -> Any:
    if isinstance(x, Mask) and _target(call, like) == FLOAT:
        return x.ones
    return x if _target(call, like) == x.dtype else NotImplemented


@evaluated("BitCast")
def bit_cast(call: Call, x: np.ndarray) -> np.ndarray:
    dtype = onnx_dtype(call, call.integer("to"))
    call.require(dtype.itemsize == x.dtype.itemsize, "the elements must be equally wide", input=str(x.dtype), to=str(dtype))
    return np.ascontiguousarray(x).view(dtype).reshape(x.shape)


# ---- quantisation -----------------------------------------------------------------------------------------------------


def _spread(call: Call, x: np.ndarray, scale: np.ndarray) -> Any:
    """A function that brings scales and zero points to the elements of x: one for all, one per axis element, or one per block."""
    block = call.integer("block_size", 0)
    if scale.ndim == 0 or (scale.size == 1 and not block):
        return lambda value: value.reshape(())
    axis = call.axis(call.integer("axis", 1), x.ndim)
    if scale.ndim == 1 and not block:
        call.require(scale.size == x.shape[axis], "one scale is needed for each element of the axis", input=x.shape, axis=axis, scales=scale.shape)
        return lambda value: value.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    call.require(block > 0 and scale.ndim == x.ndim, "scales per block need block_size and the input's axes", input=x.shape, scales=scale.shape, block_size=block)
    blocks = tuple(-(-n // block) if i == axis else n for i, n in enumerate(x.shape))
    call.require(scale.shape == blocks, "scales per block must make up the input", input=x.shape, scales=scale.shape, block_size=block, needed=blocks)
    return lambda value: np.take(value, np.arange(x.shape[axis]) // block, axis)


@evaluated("QuantizeLinear")
def quantize(call: Call, x: np.ndarray, scale: np.ndarray, zero: Any = None) -> np.ndarray:
    number = call.integer("output_dtype", 0)
    dtype = zero.dtype if zero is not None else onnx_dtype(call, number) if number else np.dtype(np.uint8)
    spread = _spread(call, x, scale)
    precision = onnx_dtype(call, call.integer("precision", 0)) if call.integer("precision", 0) else None
    working = np.float32 if precision is None else precision
    y = (x.astype(working) / spread(scale).astype(working)).astype(np.float32)
    offset = np.float32(0) if zero is None else spread(zero).astype(np.float32)
    if is_integer(dtype):
        low, high = finite_limits(dtype)
        whole = (np.rint(y) + offset).clip(low, high)
        return whole.astype(np.int32).astype(dtype)
    return converted(y + offset, dtype, bool(call.integer("saturate", 1)))


@evaluated("DequantizeLinear")
def dequantize(call: Call, x: np.ndarray, scale: np.ndarray, zero: Any = None) -> np.ndarray:
    number = call.integer("output_dtype", 0)
    dtype = onnx_dtype(call, number) if number else scale.dtype
    spread = _spread(call, x, scale)
    if is_integer(x.dtype):
        centred = (x.astype(np.int64) - (0 if zero is None else spread(zero).astype(np.int64))).astype(np.float32)
    else:
        centred = x.astype(np.float32) - (np.float32(0) if zero is None else spread(zero).astype(np.float32))
    return (centred * spread(scale).astype(np.float32)).astype(dtype)


@evaluated("DynamicQuantizeLinear")
def quantize_dynamically(call: Call, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = min(0.0, float(x.min(initial=0))), max(0.0, float(x.max(initial=0)))
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = np.rint(np.clip((0 - np.float32(low)) / scale, 0, 255)) if scale else np.float32(0)
    y = np.clip(np.rint(x / scale) + zero, 0, 255) if scale else np.zeros_like(x)
    return y.astype(np.uint8), np.asarray(scale, FLOAT), np.asarray(zero, np.uint8)
