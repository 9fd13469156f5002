"""Dense layers and matrix products."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ..ops.conv import Epilogue
from ..ops.matmul import MatMul
from ..ops.movement import Reshape
from ..trace import as_symbol, emit, floating
from .door import bias_values, operation


@operation
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """``input @ weight.T + bias`` for input [..., in_features], weight [out_features, in_features]. Raises ShapeError."""
    x = floating(as_symbol(input, "linear"), "linear")
    w = floating(as_symbol(weight, "linear"), "linear", "weight")
    if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        raise ShapeError("linear", "the input's last axis must equal the weight's in_features", input=x.shape, weight=w.shape)
    extra = bias_values("linear", bias)
    rows = math.prod(x.shape[:-1])
    flat = x if len(x.shape) == 2 else emit(Reshape((rows, w.shape[1])), x).value
    y = emit(MatMul(False, True, Epilogue(bias=bool(extra))), flat, w, *extra)
    return y if len(x.shape) == 2 else emit(Reshape((*x.shape[:-1], w.shape[0])), y.value)


@operation
def matmul(input: Any, other: Any) -> Any:
    """Product of two matrices [m,k] and [k,n]. Raises ShapeError."""
    return emit(MatMul(), floating(as_symbol(input, "matmul"), "matmul"), floating(as_symbol(other, "matmul"), "matmul", "other"))
