"""Convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import functional as F
from ...ops.conv import Epilogue
from ...ops.matmul import MatMul
from ...ops.movement import Pad
from ...ops.pointwise import Binary
from ...trace import Symbol, emit
from ..node import MOST_COMPUTED, Call, symbol
from .pointwise import unary, wide
from .shapes import joined, reshaped, sliced
from .table import evaluated, lowered
from .windows import bound_windows, given_pads, positive, sliding

#: Batched matrix products of up to so many matrices become products of the graph, one each.
MOST_PRODUCTS = 64

#: An Einsum of more than two operands multiplies them one by one, so many times as slowly.
SLOWLY = 64


def _slowness(x: np.ndarray) -> int:
    """Integers are multiplied one by one, floats by BLAS."""
    return 1 if x.dtype.kind == "f" else 4


def _kernel(call: Call, weight: Any) -> tuple[int, ...]:
    kernel = call.integers("kernel_shape", weight.shape[2:])
    call.require(kernel == tuple(weight.shape[2:]), "kernel_shape must be the weight's", kernel_shape=kernel, weight=weight.shape)
    return kernel


def _check_conv(call: Call, x: Any, weight: Any) -> int:
    groups = call.integer("group", 1)
    call.require(
        len(x.shape) == len(weight.shape) >= 3 and groups > 0 and weight.shape[0] % groups == 0 and weight.shape[1] * groups == x.shape[1],
        "input [n,c,...], weight [k,c/group,...] and group must fit",
        input=x.shape,
        weight=weight.shape,
        group=groups,
    )
    return groups


@evaluated("Conv")
def conv(call: Call, x: np.ndarray, weight: np.ndarray, bias: Any = None) -> np.ndarray:
    groups = _check_conv(call, x, weight)
    windows = sliding(call, x.shape, _kernel(call, weight))
    rank, dtype = len(windows.kernel), x.dtype
    bound_windows(call, x, windows, 8)
    call.summed(math.prod((x.shape[0], weight.size, *windows.out)), _slowness(x))
    view = windows.windows(windows.padded(wide(x), 0))
    view = view.reshape(view.shape[0], groups, -1, *view.shape[2:]) if groups == 1 else np.stack(np.split(view, groups, 1), 1)
    filters = wide(weight).reshape(groups, -1, *weight.shape[1:])
    space, taps = "xyzuv"[:rank], "rstpq"[:rank]
    y = np.einsum(f"ngc{space}{taps},gkc{taps}->ngk{space}", view, filters, optimize=True)
    y = y.reshape(x.shape[0], weight.shape[0], *windows.out)
    return (y if bias is None else y + bias.reshape(-1, *(1,) * rank)).astype(dtype)


@lowered("Conv")
def lower_conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    groups, rank = _check_conv(call, x, weight), len(x.shape) - 2
    windows = sliding(call, x.shape, _kernel(call, weight))
    if rank > 2 or min(pad for pair in windows.pads for pad in pair) < 0 or 0 in x.shape:
        return NotImplemented
    x, weight = symbol(x, call), symbol(weight, call)
    bias = None if bias is None else symbol(bias, call)
    if rank == 1:
        return F.conv1d(x, weight, bias, windows.stride[0], (windows.pads[0],), windows.dilation[0], groups)
    return F.conv2d(x, weight, bias, windows.stride, windows.pads, windows.dilation, groups)


# ---- transposed -------------------------------------------------------------------------------------------------------


def _transposed(call: Call, x: Any, weight: Any) -> tuple[int, tuple, tuple, list[tuple[int, int, int]]]:
    """Groups, strides, dilations, and for each axis (cropped before, cropped behind, appended behind)."""
    groups, rank = call.integer("group", 1), len(x.shape) - 2
    call.require(
        len(weight.shape) == rank + 2 >= 3 and groups > 0 and weight.shape[0] == x.shape[1] and x.shape[1] % groups == 0,
        "input [n,c,...], weight [c,k/group,...] and group must fit",
        input=x.shape,
        weight=weight.shape,
        group=groups,
    )
    kernel = _kernel(call, weight)
    stride, dilation = positive(call, "strides", (1,) * rank, rank), positive(call, "dilations", (1,) * rank, rank)
    extra = call.integers("output_padding", (0,) * rank)
    call.require(len(extra) == rank and min(extra, default=0) >= 0, "output_padding must be one integer for each axis", output_padding=extra)
    mode, pads = call.text("auto_pad", "NOTSET"), given_pads(call, rank)
    wanted = call.integers("output_shape") if call.has("output_shape") else None
    edges = []
    for i in range(rank):
        full = (x.shape[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        before, after = pads[i]
        if wanted is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
            length = wanted[-rank:][i] if wanted is not None else x.shape[2 + i] * stride[i]
            total = full + extra[i] - length
            before = total // 2 if mode == "SAME_UPPER" or total < 0 else total - total // 2
            before, after = (max(before, 0), total - max(before, 0)) if total > 0 else (0, total)
        elif mode == "VALID":
            before = after = 0
        after -= extra[i]
        call.require(full - before - after > 0 and before >= 0, "the output would be empty", input=x.shape, kernel_shape=kernel, pads=pads)
        edges.append((before, max(after, 0), max(-after, 0)))
    call.bounded((x.shape[0], weight.shape[1] * groups, *((x.shape[2 + i] - 1) * stride[i] + dilation[i] * kernel[i] + edges[i][2] for i in range(rank))), 4, MOST_COMPUTED)
    return groups, stride, dilation, edges


@evaluated("ConvTranspose")
def conv_transpose(call: Call, x: np.ndarray, weight: np.ndarray, bias: Any = None) -> np.ndarray:
    groups, stride, dilation, edges = _transposed(call, x, weight)
    rank, kernel = len(stride), weight.shape[2:]
    call.summed(x.size * math.prod(weight.shape[1:]), _slowness(x))
    full = [(n - 1) * s + d * (k - 1) + 1 + more for n, s, d, k, (_, _, more) in zip(x.shape[2:], stride, dilation, kernel, edges, strict=True)]
    y = np.zeros((x.shape[0], groups, weight.shape[1], *full), wide(x).dtype)
    images = wide(x).reshape(x.shape[0], groups, -1, *x.shape[2:])
    filters = wide(weight).reshape(groups, -1, *weight.shape[1:])
    for taps in np.ndindex(*kernel):
        tap: tuple[Any, ...] = (..., *taps)
        reached: tuple[Any, ...] = (..., *(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(taps, dilation, x.shape[2:], stride, strict=True)))
        y[reached] += np.einsum("ngc...,gck->ngk...", images, filters[tap], optimize=True)
    kept: tuple[Any, ...] = (..., *(slice(before, n - after) for n, (before, after, _) in zip(full, edges, strict=True)))
    y = y.reshape(x.shape[0], -1, *full)[kept]
    return (y if bias is None else y + bias.reshape(-1, *(1,) * rank)).astype(x.dtype)


@lowered("ConvTranspose")
def lower_conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    groups, stride, dilation, edges = _transposed(call, x, weight)
    rank = len(stride)
    if rank > 2 or 0 in x.shape:
        return NotImplemented
    x, weight = symbol(x, call), symbol(weight, call)
    pads = tuple((before, after) for before, after, _ in edges)
    if all(more < max(s, d) for (_, _, more), s, d in zip(edges, stride, dilation, strict=True)):
        extra, late = tuple(more for _, _, more in edges), None
    else:  # rows and columns that no element reaches: only the bias stands there
        extra, late = (0,) * rank, [more for _, _, more in edges]
    own = None if bias is None or late else symbol(bias, call)
    if rank == 1:
        y = F.conv_transpose1d(x, weight, own, stride[0], (pads[0],), extra[0], groups, dilation[0])
    else:
        y = F.conv_transpose2d(x, weight, own, stride, pads, extra, groups, dilation)
    if late:
        y = emit(Pad((0,) * y.ndim, (0, 0, *late), (0,) * y.ndim), y.value)
        if bias is not None:
            y = emit(Binary("add"), y.value, reshaped(symbol(bias, call), (bias.shape[0], *(1,) * rank)).value)
    return y


# ---- matrices ---------------------------------------------------------------------------------------------------------


@evaluated("Gemm")
def gemm(call: Call, a: np.ndarray, b: np.ndarray, c: Any = None) -> np.ndarray:
    call.require(a.ndim == b.ndim == 2, "both operands must be matrices", a=a.shape, b=b.shape)
    left, right = a.T if call.integer("transA", 0) else a, b.T if call.integer("transB", 0) else b
    call.require(left.shape[1] == right.shape[0], "inner sizes must agree", a=a.shape, b=b.shape)
    call.bounded((left.shape[0], right.shape[1]))
    call.summed(left.size * right.shape[1], _slowness(a))
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if a.dtype.kind in "iu":
        y = (alpha * (left @ right)) if alpha != 1 else left @ right
    else:
        y = alpha * (wide(left) @ wide(right))
    return (y if c is None else y + beta * c).astype(a.dtype)


@lowered("Gemm")
def lower_gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    call.require(len(a.shape) == len(b.shape) == 2, "both operands must be matrices", a=a.shape, b=b.shape)
    if 0 in (*a.shape, *b.shape):
        return NotImplemented
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    transposed = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))
    columns = b.shape[:1] if transposed[1] else b.shape[1:]
    if alpha == beta == 1 and c is not None and c.shape == columns:
        return emit(MatMul(*transposed, Epilogue(bias=True)), *(symbol(item, call).value for item in (a, b, c)))
    y = emit(MatMul(*transposed), symbol(a, call).value, symbol(b, call).value)
    if alpha != 1:
        y = unary(y, "affine", alpha)
    if c is None or beta == 0:
        return y
    added = symbol(c, call)
    return emit(Binary("add"), y.value, (added if beta == 1 else unary(added, "affine", beta)).value)


@evaluated("MatMul")
def matmul(call: Call, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shape = call.bounded((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())), 4)
    call.summed(math.prod((*shape, *a.shape[-1:])), _slowness(a))
    return np.matmul(wide(a), wide(b)).astype(a.dtype) if a.dtype.kind in "fV" else np.matmul(a, b)


@lowered("MatMul")
def lower_matmul(call: Call, a: Any, b: Any) -> Any:
    """Vectors as matrices; a stack times one matrix is one product; stacks of few matrices are products one by one."""
    if 0 in (*a.shape, *b.shape) or not a.shape or not b.shape:
        return NotImplemented
    a, b = symbol(a, call), symbol(b, call)
    left = reshaped(a, (1, *a.shape)) if a.ndim == 1 else a
    right = reshaped(b, (*b.shape, 1)) if b.ndim == 1 else b
    call.require(left.shape[-1] == right.shape[-2], "inner sizes must agree", a=a.shape, b=b.shape)
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    if right.ndim == 2:
        y = _product(reshaped(left, (math.prod(left.shape[:-1]), k)), right)
        y = reshaped(y, (*left.shape[:-1], n))
    else:
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        if math.prod(lead) > MOST_PRODUCTS:
            return NotImplemented
        lefts, rights = _stack(left), _stack(right)
        parts = [
            _product(lefts[i], rights[j])
            for i, j in zip(
                np.broadcast_to(np.arange(len(lefts)).reshape(left.shape[:-2]), lead).ravel().tolist(),
                np.broadcast_to(np.arange(len(rights)).reshape(right.shape[:-2]), lead).ravel().tolist(),
                strict=True,
            )
        ]
        y = reshaped(joined(parts, 0), (*lead, m, n))
    shape = [*y.shape[:-2], *([m] if a.ndim > 1 else []), *([n] if b.ndim > 1 else [])]
    return reshaped(y, shape)


def _product(a: Symbol, b: Symbol) -> Symbol:
    return emit(MatMul(), a.value, b.value)


def _stack(x: Symbol) -> list[Symbol]:
    """The matrices of a stack."""
    flat = reshaped(x, (math.prod(x.shape[:-2]), *x.shape[-2:]))
    return [reshaped(sliced(flat, 0, i, i + 1), x.shape[-2:]) for i in range(flat.shape[0])]


def _einsum_sizes(call: Call, terms: list[str], arrays: Sequence[np.ndarray]) -> tuple[dict[str, int], tuple[int, ...]]:
    """The sizes that letters stand for, and those of the axes that "..." stands for."""
    sizes: dict[str, int] = {}
    rest: tuple[int, ...] = ()
    for term, array in zip(terms, arrays, strict=True):
        head, dots, tail = term.partition("...")
        behind = array.ndim - len(tail)
        call.require(len(head) <= behind if dots else len(head) == array.ndim, "a term must have one letter for each axis", term=term, input=array.shape)
        for letter, n in (*zip(head, array.shape, strict=False), *zip(tail, array.shape[behind:], strict=True)):
            sizes[letter] = n if sizes.get(letter, 1) == 1 else sizes[letter]  # NumPy repeats axes of one element
        if dots:
            rest = np.broadcast_shapes(rest, array.shape[len(head) : behind])
    return sizes, rest


@evaluated("Einsum")
def einsum(call: Call, *arrays: np.ndarray) -> np.ndarray:
    equation = call.text("equation", "").replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    call.require(len(terms) == len(arrays), "one term is needed for every input", equation=equation, inputs=len(arrays))
    if not arrow:  # letters that occur once, in order, behind the axes that "..." stands for
        letters = [c for c in inputs if c.isalpha()]
        output = ("..." if "..." in inputs else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    sizes, rest = _einsum_sizes(call, terms, arrays)
    call.bounded([*(sizes.get(letter, 1) for letter in output), *(rest if "..." in output else ())])
    call.summed(math.prod(sizes.values()) * math.prod(rest), SLOWLY if len(terms) > 2 else 1)
    try:
        return np.asarray(np.einsum(f"{inputs}->{output}", *map(wide, arrays), optimize=False)).astype(arrays[0].dtype)
    except ValueError as error:
        call.refuse(f"the equation does not fit ({error})", equation=equation, shapes=[array.shape for array in arrays])
