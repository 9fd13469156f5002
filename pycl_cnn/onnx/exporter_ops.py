"""What each operation is in ONNX. A rule is a function of the `Writer` and the node; `RULES` has them all.

Operations that do not mind the layout are written for the tensors as they lie: `Op.permuted` says what they are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..geometry import AxisRule
from ..graph import Node
from ..ops.base import Op
from ..ops.batch_norm import BatchNormTraining
from ..ops.conv import Conv, ConvBackwardInput
from ..ops.host import HostOp
from ..ops.loss import CrossEntropy, LabelMask
from ..ops.matmul import MatMul
from ..ops.max_pool import MaxPool
from ..ops.movement import Concat, Copy, Expand, Flip, Pad, Reshape, Slice
from ..ops.pointwise import Activation, Binary, Unary
from ..ops.reduce import Reduce
from ..ops.resample import Resample, axis_matrix
from ..ops.softmax import Softmax
from ..records import record
from .writer import OPSET, Writer

#: Slices with this stop go to the end, whatever the size.
_END = (1 << 63) - 1


# ---- anything in any layout ----------------------------------------------------------------------------------------------


def _any_layout(rule: Callable[[Writer, Any, list[str], Node], str]) -> Callable[[Writer, Node], None]:
    """A rule for an operation with one output that `permuted` can move: its inputs stay as they lie."""

    def write(writer: Writer, node: Node) -> None:
        rank = max((len(value.shape) for value in node.inputs), default=0)
        straight = tuple(range(rank))
        lying = [writer.tensors[value][1] for value in node.inputs if len(value.shape) == rank]
        permutation = next((order for order in lying if order != straight), straight)
        moved = node.op.permuted(permutation, node.inputs) if permutation != straight else None
        op, behind = moved or (node.op, None)
        names = writer.operands(node, permutation if moved else straight)
        writer.give(node.outputs[0], rule(writer, op, names, node), behind)

    return write


def unary(writer: Writer, function: Activation, x: str) -> str:
    """A function of one variable."""
    a, b = function.alpha, function.beta
    emit, scalar = writer.emit, writer.scalar
    kind = function.kind
    if kind in _PLAIN:
        return emit(_PLAIN[kind], [x])
    if kind == "none":
        return x
    if kind == "leaky_relu":
        return emit("LeakyRelu", [x], alpha=a)
    if kind == "elu":
        return emit("Elu", [x], alpha=a)
    if kind == "hardsigmoid":
        return emit("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
    if kind == "gelu_tanh":
        return emit("Gelu", [x], approximate="tanh")
    if kind == "clip":
        return emit("Clip", [x, *([scalar(a) if a > -math.inf else ""] + [scalar(b)] * (b < math.inf))])
    if kind == "silu":
        return emit("Mul", [x, emit("Sigmoid", [x])])
    if kind == "rsqrt":
        return emit("Reciprocal", [emit("Sqrt", [x])])
    if kind == "square":
        return emit("Mul", [x, x])
    if kind == "pow":
        return emit("Pow", [x, scalar(a)])
    if kind == "signed_root":
        return emit("Mul", [emit("Sign", [x]), emit("Pow", [emit("Abs", [x]), scalar(a)])])
    assert kind == "affine", kind
    y = emit("Mul", [x, scalar(a)]) if a != 1 else x
    return emit("Add", [y, scalar(b)]) if b != 0 or a == 1 else y


_PLAIN = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu", "hardswish": "HardSwish", "softplus": "Softplus", "neg": "Neg",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "abs": "Abs", "sign": "Sign", "erf": "Erf", "floor": "Floor",
    "ceil": "Ceil", "round": "Round",
}  # fmt: skip
_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "eq": "Equal", "gt": "Greater",
    "ge": "GreaterOrEqual",
}  # fmt: skip
_REDUCE = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}


@_any_layout
def _unary(writer: Writer, op: Unary, names: list[str], node: Node) -> str:
    return unary(writer, op.function, names[0])


@_any_layout
def _binary(writer: Writer, op: Binary, names: list[str], node: Node) -> str:
    if op.kind == "keep":
        y = writer.emit("Where", [writer.emit("Cast", [names[1]], to=9), names[0], writer.scalar(0.0)])
    else:
        y = writer.emit(_BINARY[op.kind], names)
    if op.kind in ("eq", "gt", "ge"):
        y = writer.emit("Cast", [y], to=1)
    return y if op.activation is None else unary(writer, op.activation, y)


@_any_layout
def _reduce(writer: Writer, op: Reduce, names: list[str], node: Node) -> str:
    if not op.axes:
        return names[0]
    return writer.emit(_REDUCE[op.kind], [names[0], writer.integers(op.axes)], keepdims=int(op.keepdims))


@_any_layout
def _softmax(writer: Writer, op: Softmax, names: list[str], node: Node) -> str:
    return writer.emit("LogSoftmax" if op.log else "Softmax", names, axis=op.axis)


@_any_layout
def _concat(writer: Writer, op: Concat, names: list[str], node: Node) -> str:
    return writer.emit("Concat", names, axis=op.axis)


@_any_layout
def _copy(writer: Writer, op: Copy, names: list[str], node: Node) -> str:
    return names[0]


def _sliced(writer: Writer, x: str, bounds: Sequence[tuple[int, int, int, int]]) -> str:
    """(axis, start, stop, step) of each axis that is cut."""
    if not bounds:
        return x
    axes, starts, stops, steps = zip(*bounds, strict=True)
    return writer.emit("Slice", [x, writer.integers(starts), writer.integers(stops), writer.integers(axes), writer.integers(steps)])


def _slice(writer: Writer, node: Node) -> None:
    op, (x,) = node.op, node.inputs
    assert isinstance(op, Slice)
    bounds = [
        (axis, start, stop if stop < n else _END, step)
        for axis, (start, stop, step, n) in enumerate(zip(op.starts, op.stops, op.steps, x.shape, strict=True))
        if (start, stop, step) != (0, n, 1)
    ]
    writer.give(node.outputs[0], _sliced(writer, writer.name(x), bounds))


@_any_layout
def _flip(writer: Writer, op: Flip, names: list[str], node: Node) -> str:
    return _sliced(writer, names[0], [(axis, -1, -_END, -1) for axis in op.axes])


@_any_layout
def _pad(writer: Writer, op: Pad, names: list[str], node: Node) -> str:
    if any(op.interior):
        writer.refuse(node, "ONNX has no padding between elements")
    if not any((*op.low, *op.high)):
        return names[0]
    return writer.emit("Pad", [names[0], writer.integers((*op.low, *op.high)), writer.scalar(op.value)])


def _expand(writer: Writer, node: Node) -> None:
    (x,) = node.inputs
    shape = [1 if n == m else m for n, m in zip(x.shape, node.outputs[0].shape, strict=True)]  # 1 keeps what is there
    name = writer.name(x)
    writer.give(node.outputs[0], writer.emit("Expand", [name, writer.integers(shape)]) if max(shape, default=1) != 1 or 0 in shape else name)


def _reshape(writer: Writer, node: Node) -> None:
    (x,), y = node.inputs, node.outputs[0]
    writer.give(y, writer.name(x) if x.shape == y.shape else writer.reshape(writer.name(x), y.shape))


# ---- convolutions and matrix products --------------------------------------------------------------------------------------


def _fused(writer: Writer, node: Node, name: str) -> str:
    """A residual and an activation behind the bias. (Traced graphs have none; optimised ones do.)"""
    epilogue = node.op.epilogue  # type: ignore[attr-defined]
    if epilogue.residual or epilogue.activation:
        writer.refuse(node, "a fused epilogue is no part of a traced graph")
    return name


def _convolution(writer: Writer, node: Node, op: str, **more: Any) -> None:
    g = node.op.geometry  # type: ignore[attr-defined]
    x, w, *bias = node.inputs
    (top, bottom), (left, right) = g.padding
    inputs = [writer.channels_first(x), writer.channels_first(w), *(writer.name(value) for value in bias)]
    y = writer.emit(op, inputs, kernel_shape=g.kernel, strides=g.stride, pads=(top, left, bottom, right), dilations=g.dilation, group=g.groups, **more)
    writer.give_channels_last(node.outputs[0], _fused(writer, node, y))


def _conv(writer: Writer, node: Node) -> None:
    _convolution(writer, node, "Conv")


def _conv_transpose(writer: Writer, node: Node) -> None:
    g = node.op.geometry  # type: ignore[attr-defined]
    extra = [
        size - ((out - 1) * stride - sum(pads) + dilation * (kernel - 1) + 1)
        for size, out, stride, pads, dilation, kernel in zip(g.size, g.out, g.stride, g.padding, g.dilation, g.kernel, strict=True)
    ]
    _convolution(writer, node, "ConvTranspose", **({"output_padding": extra} if any(extra) else {}))


def _matmul(writer: Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, MatMul)
    names = [writer.name(value) for value in node.inputs]
    if len(names) == 2 and not (op.transpose_a or op.transpose_b):
        y = writer.emit("MatMul", names)
    else:
        y = writer.emit("Gemm", names, transA=int(op.transpose_a), transB=int(op.transpose_b))
    writer.give(node.outputs[0], _fused(writer, node, y))


# ---- pooling and interpolation -----------------------------------------------------------------------------------------------


def _window_pads(size: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> tuple[int, int]:
    """Padding with which ONNX places exactly `out` windows."""
    return before, max((out - 1) * stride + dilation * (kernel - 1) + 1 - size - before, 0)


def _max_pool(writer: Writer, node: Node) -> None:
    g = node.op.geometry  # type: ignore[attr-defined]
    x = writer.channels_first(node.inputs[0])
    if all(axis.kernel == 0 and axis.out == 1 for axis in (g.rows, g.cols)) and len(node.outputs) == 1:
        writer.give_channels_last(node.outputs[0], writer.emit("GlobalMaxPool", [x]))
        return
    attributes: list[tuple[int, int, tuple[int, int], int]] = []
    for axis in (g.rows, g.cols):
        kernel, stride = (axis.kernel, axis.stride) if axis.kernel else (axis.size // axis.out,) * 2
        if axis.kernel == 0 and axis.size % axis.out:
            writer.refuse(node, f"ONNX has no windows of different lengths ({axis.size} elements to {axis.out})")
        attributes.append((kernel, stride, _window_pads(axis.size, axis.out, kernel, stride, axis.before, axis.dilation), axis.dilation))
    kernels, strides, ((top, bottom), (left, right)), dilations = zip(*attributes, strict=True)
    y, *indices = writer.emit_several(
        "MaxPool", [x], len(node.outputs), kernel_shape=kernels, strides=strides, pads=(top, left, bottom, right), dilations=dilations
    )
    writer.give_channels_last(node.outputs[0], y)
    for value, name in zip(node.outputs[1:], indices, strict=True):  # ONNX counts from the tensor's first element
        plane = writer.emit("Mod", [name, writer.constant(np.int64(g.rows.size * g.cols.size))])
        writer.give_channels_last(value, writer.emit("Cast", [plane], to=6))


def _resample(writer: Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, Resample)
    x = writer.channels_first(node.inputs[0])
    rules = (op.rows, op.cols)
    y = _resize(writer, x, rules) or _average_pool(writer, x, rules) or _repeated(writer, x, rules) or _products(writer, x, rules)
    writer.give_channels_last(node.outputs[0], y)


def _average_pool(writer: Writer, x: str, rules: tuple[AxisRule, AxisRule]) -> str | None:
    """As average pooling, if that is what it is."""
    if all(rule.shape[0] == 1 and rule.table == AxisRule("adaptive", rule.shape[1], 1).table for rule in rules):
        return writer.emit("GlobalAveragePool", [x])
    rows, cols = (regular_windows(rule) for rule in rules)
    if rows is None or cols is None:
        return None
    pads = (rows.before, cols.before, rows.after, cols.after)
    if max(rows.before, rows.after) >= rows.kernel or max(cols.before, cols.after) >= cols.kernel:
        return None
    counts = {bool(windows.per_kernel) for windows in (rows, cols) if windows.before or windows.after}
    if len(counts) == 2:
        return None
    count = True in counts
    factor = rows.per_kernel * cols.per_kernel if count else rows.per_element * cols.per_element
    y = writer.emit(
        "AveragePool", [x], kernel_shape=(rows.kernel, cols.kernel), strides=(rows.stride, cols.stride), pads=pads, count_include_pad=int(count)
    )
    return y if abs(factor - 1) < 1e-9 else writer.emit("Mul", [y, writer.scalar(factor)])


@record
class Windows:
    """Regular windows along an axis, and what their elements weigh: `per_kernel` / kernel, or `per_element` / (elements inside).

    0 stands for the one that is not the same for all windows; without padding both are.
    """

    kernel: int
    stride: int
    before: int
    after: int
    per_kernel: float
    per_element: float


def regular_windows(rule: AxisRule) -> Windows | None:
    """The windows of a rule, whatever its kind, if all are of one length, a stride apart and clipped only at the ends."""
    starts, index, weight = rule.table
    out, size = rule.shape
    spans = []
    for i in range(out):
        row, weights = index[starts[i] : starts[i + 1]], weight[starts[i] : starts[i + 1]]
        if not row or row != tuple(range(row[0], row[-1] + 1)) or max(weights) - min(weights) > 1e-12:
            return None
        spans.append((row[0], row[-1] + 1, weights[0]))
    longest = max(end - first for first, end, _ in spans)
    inner = [i for i, (first, _, _) in enumerate(spans) if first > 0]  # not clipped in front
    strides = {spans[b][0] - spans[a][0] for a, b in pairwise(inner)} or {spans[i][0] for i in inner} or {size}
    if len(strides) > 1:
        return None
    (stride,) = strides
    for kernel in range(longest, 2 * longest):
        before = inner[0] * stride - spans[inner[0]][0] if inner else kernel - spans[0][1]
        _, after = _window_pads(size, out, kernel, stride, before, 1)
        windows = [(max(i * stride - before, 0), min(i * stride - before + kernel, size)) for i in range(out)]
        if before < 0 or windows != [(first, end) for first, end, _ in spans] or (size + before + after - kernel) // stride + 1 != out:
            continue
        by_kernel, by_element = ([w * (kernel if whole else end - first) for first, end, w in spans] for whole in (True, False))
        per_kernel, per_element = (values[0] if max(values) - min(values) < 1e-9 else 0.0 for values in (by_kernel, by_element))
        if per_kernel or per_element:
            return Windows(kernel, stride, before, after, per_kernel, per_element)
    return None


_RESIZE: dict[str, dict[str, str]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "linear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "linear_corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
}


def _resize(writer: Writer, x: str, rules: tuple[AxisRule, AxisRule]) -> str | None:
    """As interpolation, if that is what it is."""
    kind, scales = rules[0].kind, [rule.scale for rule in rules]
    if kind not in _RESIZE or rules[1].kind != kind or any(rule.transposed for rule in rules):
        return None
    if kind == "nearest" and not all(_nearest_agrees(rule) for rule in rules):
        return None
    if all(scales) and kind != "linear_corners":
        factors = writer.constant(np.array([1, 1, *(1 / scale for scale in scales)], np.float32))
        return writer.emit("Resize", [x, "", factors], **_RESIZE[kind])
    if any(scales) and kind != "linear_corners":
        return None
    return writer.emit("Resize", [x, "", "", writer.integers(rule.out for rule in rules)], axes=(2, 3), **_RESIZE[kind])


def _nearest_agrees(rule: AxisRule) -> bool:
    """Whether float32 arithmetic, as runtimes do it, finds the same nearest elements."""
    scale = np.float32(1 / rule.scale) if rule.scale else np.float32(rule.out) / np.float32(rule.size)
    found = np.floor(np.arange(rule.out, dtype=np.float32) / scale).astype(int)
    return np.array_equal(np.minimum(found, rule.size - 1), rule.table[1])


def _repeated(writer: Writer, x: str, rules: tuple[AxisRule, AxisRule]) -> str | None:
    """As interpolation by the nearest, if that is what averages come to: of fewer elements than there are outputs."""
    nearest = tuple(AxisRule("nearest", *rule.shape[::-1]) for rule in rules)
    return _resize(writer, x, nearest) if all(rule.table == twin.table for rule, twin in zip(rules, nearest, strict=True)) else None  # type: ignore[arg-type]


def _products(writer: Writer, x: str, rules: tuple[AxisRule, AxisRule]) -> str:
    """As what it is: a matrix for the columns and one for the rows."""
    rows, cols = (np.ascontiguousarray(axis_matrix(rule).T, np.float32) for rule in rules)
    turned = writer.emit("Transpose", [writer.emit("MatMul", [x, writer.constant(cols)])], perm=(0, 1, 3, 2))
    return writer.emit("Transpose", [writer.emit("MatMul", [turned, writer.constant(rows)])], perm=(0, 1, 3, 2))


# ---- normalisation and losses ------------------------------------------------------------------------------------------------


def _batch_norm_training(writer: Writer, node: Node) -> None:
    """With the statistics of the batch: as arithmetic."""
    op, (x, gamma, beta, *_) = node.op, node.inputs
    assert isinstance(op, BatchNormTraining)
    if any(writer.is_needed(value) for value in node.outputs[1:]):
        writer.refuse(node, "ONNX cannot keep running statistics; export the model as it infers")
    rank = len(x.shape)
    order = (0, rank - 1, *range(1, rank - 1))
    name = writer.tensor(x, order)
    axes = writer.integers(axis for axis in range(rank) if axis != 1)
    emit = writer.emit
    centred = emit("Sub", [name, emit("ReduceMean", [name, axes])])
    variance = emit("ReduceMean", [emit("Mul", [centred, centred]), axes])
    deviation = emit("Sqrt", [emit("Add", [variance, writer.scalar(op.eps)])])
    gamma_name, beta_name = (writer.reshape(writer.name(value), (-1, *(1,) * (rank - 2))) for value in (gamma, beta))
    y = emit("Add", [emit("Mul", [emit("Div", [centred, deviation]), gamma_name]), beta_name])
    writer.give(node.outputs[0], y if op.activation is None else unary(writer, op.activation, y), (0, *range(2, rank), 1))


def _label_mask(writer: Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, LabelMask)
    ignored = writer.emit("Equal", [writer.name(node.inputs[0]), writer.constant(np.int32(op.ignore_index))])
    writer.give(node.outputs[0], writer.emit("Cast", [writer.emit("Not", [ignored])], to=1))


def _cross_entropy(writer: Writer, node: Node) -> None:
    op, (logits, labels) = node.op, node.inputs
    assert isinstance(op, CrossEntropy)
    emit, rest = writer.emit, op.label_smoothing
    x, goal = writer.name(logits), writer.name(labels)
    loss = emit("SoftmaxCrossEntropyLoss", [x, goal], reduction="none", ignore_index=op.ignore_index)
    if rest:
        spread = emit("Neg", [emit("ReduceMean", [emit("LogSoftmax", [x], axis=1), writer.integers([1])], keepdims=0)])
        counted = emit("Cast", [emit("Not", [emit("Equal", [goal, writer.constant(np.int32(op.ignore_index))])])], to=1)
        smooth = emit("Mul", [emit("Mul", [spread, counted]), writer.scalar(rest)])
        loss = emit("Add", [emit("Mul", [loss, writer.scalar(1 - rest)]), smooth])
    writer.give(node.outputs[0], loss)


# ---- what NumPy evaluates --------------------------------------------------------------------------------------------------

#: Since which opset (and before which) operators mean what they mean in the one that is written, where neither attributes nor inputs tell.
_SAME_MEANING = {"Hardmax": (13, 99), "Softmax": (13, 99), "LogSoftmax": (13, 99), "RoiAlign": (16, 99), "Resize": (11, 99), "GroupNormalization": (18, 21)}

#: Values of attributes that were renamed.
_RENAMED = {("GridSample", "mode"): {"bilinear": "linear", "bicubic": "cubic"}}


def _host(writer: Writer, node: Node) -> None:
    """The operator that the step came from, if it still means the same."""
    from onnx import TensorProto, defs, helper, numpy_helper

    assert isinstance(node.op, HostOp)
    source = node.op.onnx
    first, behind = _SAME_MEANING.get(source.op, (0, 99))
    try:
        schema = defs.get_schema(source.op, OPSET)
    except defs.SchemaError:
        writer.refuse(node, f"opset {OPSET}, which is written, has no such operator")
    same = first <= source.opset < behind and schema.min_input <= len(source.inputs) <= schema.max_input and set(source.attributes) <= set(schema.attributes)
    if not same or schema.deprecated:
        writer.refuse(node, f"opset {source.opset} says it otherwise than opset {OPSET}, which is written")
    dtypes = [None if item is None else item.dtype if isinstance(item, np.ndarray) else node.inputs[item].dtype for item in source.inputs]
    for known, used in ((schema.inputs, dtypes), (schema.outputs, [value.dtype for value in node.outputs])):
        for place, dtype in enumerate(used):
            types = known[min(place, len(known) - 1)].types
            if dtype is not None and (dtype.hasobject or f"tensor({TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(dtype)).lower()})" not in types):
                writer.refuse(node, f"opset {OPSET}, which is written, knows it not for {dtype}")
    if source.op == "Mod" and not source.attributes.get("fmod") and any(dtype is not None and dtype.kind in "fV" for dtype in dtypes):
        writer.refuse(node, f"opset {OPSET}, which is written, knows it not for {dtypes[0]} with fmod=0")
    names = ["" if item is None else writer.constant(item) if isinstance(item, np.ndarray) else writer.name(node.inputs[item]) for item in source.inputs]
    attributes = []
    for name, value in source.attributes.items():
        value = _RENAMED.get((source.op, name), {}).get(value, value) if isinstance(value, str) else value
        value = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        attributes.append(helper.make_attribute(name, value, attr_type=schema.attributes[name].type.value))  # type: ignore[attr-defined]
    for value, name in zip(node.outputs, writer.emit_several(source.op, names, len(node.outputs), written=attributes), strict=True):
        writer.give(value, name)


RULES: dict[type[Op], Callable[[Writer, Node], None]] = {
    BatchNormTraining: _batch_norm_training,
    Binary: _binary,
    Concat: _concat,
    Conv: _conv,
    ConvBackwardInput: _conv_transpose,
    Copy: _copy,
    CrossEntropy: _cross_entropy,
    Expand: _expand,
    Flip: _flip,
    HostOp: _host,
    LabelMask: _label_mask,
    MatMul: _matmul,
    MaxPool: _max_pool,
    Pad: _pad,
    Reduce: _reduce,
    Reshape: _reshape,
    Resample: _resample,
    Slice: _slice,
    Softmax: _softmax,
    Unary: _unary,
}
