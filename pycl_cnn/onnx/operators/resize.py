"""Resize and Upsample: separable linear maps, one sparse matrix for each axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...functional.door import NCHW_TO_NHWC, NHWC_TO_NCHW
from ...geometry import AxisRule
from ...ops.movement import Transpose
from ...ops.resample import Resample
from ...records import record
from ...trace import Symbol, emit
from ..node import MOST_COMPUTED, Call
from .pointwise import wide
from .shapes import reshaped
from .table import evaluated, lowered

Row = list[tuple[int, float]]


@record
class Axis:
    """How one axis is resized."""

    axis: int
    size: int
    out: int
    inputs: float  # so many are as long
    outputs: float  # as so many: their ratio may be no float, a place computed from both is rounded once
    sized: bool  # whether sizes were given, and not scales
    first: float = 0.0  # region of interest, in parts of the axis
    last: float = 1.0

    @property
    def scale(self) -> float:
        """Outputs per input."""
        return self.outputs / self.inputs

    @property
    def stretched(self) -> float:
        """The input's length, measured in outputs."""
        return self.size * self.outputs / self.inputs

    def back(self, place: float) -> float:
        """A place in the output as one in the input."""
        return place * self.inputs / self.outputs


@record
class Rules:
    """What all axes of a node share."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float
    old: bool  # before opset 11 "nearest" had no modes


def _rules(call: Call) -> Rules:
    default = "asymmetric" if call.op == "Upsample" or call.opset < 11 else "half_pixel"
    mode = call.text("mode", "nearest")
    nearest = "floor" if call.op == "Upsample" or call.opset < 11 else "round_prefer_floor"
    rules = Rules(
        mode,
        call.text("coordinate_transformation_mode", default),
        call.text("nearest_mode", nearest),
        call.number("cubic_coeff_a", -0.75),
        bool(call.integer("exclude_outside", 0)),
        bool(call.integer("antialias", 0)),
        call.number("extrapolation_value", 0.0),
        call.op == "Resize" and call.opset < 11,
    )
    call.require(mode in ("nearest", "linear", "cubic"), "mode must be nearest, linear or cubic", mode=mode)
    call.require(rules.coordinates in _COORDINATES, f"coordinate_transformation_mode must be one of {sorted(_COORDINATES)}", coordinate_transformation_mode=rules.coordinates)
    call.require(rules.nearest in _NEAREST, f"nearest_mode must be one of {sorted(_NEAREST)}", nearest_mode=rules.nearest)
    return rules


#: The place in the input of output i.
_COORDINATES: dict[str, Callable[[Axis, int], float]] = {
    "half_pixel": lambda a, i: a.back(i + 0.5) - 0.5,
    "asymmetric": lambda a, i: a.back(i),
    "pytorch_half_pixel": lambda a, i: a.back(i + 0.5) - 0.5 if a.out > 1 else 0.0,
    "align_corners": lambda a, i: i * (a.size - 1) / (a.stretched - 1) if a.out > 1 else 0.0,
    "half_pixel_symmetric": lambda a, i: a.back(i + 0.5) - 0.5 + a.size / 2 * (1 - a.out / a.stretched),
    "tf_half_pixel_for_nn": lambda a, i: a.back(i + 0.5),
    "tf_crop_and_resize": lambda a, i: (
        a.first * (a.size - 1) + i * (a.last - a.first) * (a.size - 1) / (a.out - 1) if a.out > 1 else 0.5 * (a.first + a.last) * (a.size - 1)
    ),
}
_NEAREST: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def cubic(a: float, x: float) -> float:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _taps(rules: Rules, axis: Axis, place: float) -> Row:
    """(source, weight) pairs, sources perhaps outside."""
    if rules.mode == "nearest":
        place = place if axis.sized else float(np.float32(place))  # no nearer to a whole number than the scale itself is
        return [(_NEAREST["ceil" if rules.old and axis.scale < 1 else rules.nearest](place), 1.0)]
    stretch = min(axis.scale, 1.0) if rules.antialias else 1.0  # the filter grows when the image shrinks
    reach = (1 if rules.mode == "linear" else 2) / stretch
    low = math.floor(place)
    if stretch == 1.0:
        sources = range(low, low + 2) if rules.mode == "linear" else range(low - 1, low + 3)
    else:
        sources = range(math.floor(place - reach) + 1, math.ceil(place + reach))
    weight = (lambda d: max(0.0, 1 - abs(d))) if rules.mode == "linear" else (lambda d: cubic(rules.cubic, d))
    row = [(j, weight((j - place) * stretch)) for j in sources]
    if stretch != 1.0:
        total = sum(w for _, w in row)
        row = [(j, w / total) for j, w in row]
    return row


def axis_rows(rules: Rules, axis: Axis) -> tuple[list[Row], list[bool]]:
    """For every output the (source, weight) pairs inside the axis, and whether it lies outside the input (crop and resize)."""
    rows, outside = [], []
    for i in range(axis.out):
        place = _COORDINATES[rules.coordinates](axis, i)
        outside.append(rules.coordinates == "tf_crop_and_resize" and not 0 <= place <= axis.size - 1)
        taps = _taps(rules, axis, place)
        if rules.exclude_outside:
            taps = [(j, w) for j, w in taps if 0 <= j < axis.size]
            total = sum(w for _, w in taps) or 1.0
            taps = [(j, w / total) for j, w in taps]
        merged: dict[int, float] = {}
        for j, w in taps:
            inside = min(max(j, 0), axis.size - 1)
            merged[inside] = merged.get(inside, 0.0) + w
        rows.append(sorted((j, w) for j, w in merged.items() if w))
    return rows, outside


def _axes(call: Call, x: Any, roi: Any, scales: Any, sizes: Any) -> list[Axis]:
    """The axes that change or are cropped."""
    rank = len(x.shape)
    if call.op == "Upsample" and call.opset < 9:
        scales = np.asarray(call.get("scales"), np.float32)
    elif call.op == "Upsample" or call.opset < 11:
        roi, scales = None, roi if scales is None else scales
    chosen = tuple(call.axis(axis, rank) for axis in call.integers("axes", range(rank)))
    factors = () if scales is None else tuple(float(v) for v in call.known(scales, "scales").reshape(-1))
    lengths = () if sizes is None else call.ints(sizes, "sizes")
    call.require(bool(factors) != bool(lengths), "either scales or sizes must be given", scales=factors, sizes=lengths)
    call.require(len(factors or lengths) == len(chosen), "one number is needed for every axis", scales=factors, sizes=lengths, input=x.shape)
    call.require(min(factors or lengths) > 0 and all(x.shape[axis] > 0 for axis in chosen), "sizes and scales must be positive", scales=factors, sizes=lengths, input=x.shape)
    bounds = _regions(call, roi, rank, chosen)
    if lengths:
        ratios = [(float(x.shape[axis]), float(length)) for length, axis in zip(lengths, chosen, strict=True)]
        policy = call.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            best = (min if policy == "not_larger" else max)(ratios, key=lambda ratio: ratio[1] / ratio[0])
            ratios = [best] * len(ratios)
            lengths = tuple(math.floor(best[1] * x.shape[axis] / best[0] + 0.5) for axis in chosen)
    else:
        ratios = [(1.0, factor) for factor in factors]
    outs = lengths or tuple(  # in float32 like the scales, in which 30 * 1.9 is 57
        math.floor(np.float32(x.shape[axis] * ((bounds[axis][1] - bounds[axis][0]) if bounds else 1) * factor)) for axis, factor in zip(chosen, factors, strict=True)
    )
    call.bounded([*outs, *(n for axis, n in enumerate(x.shape) if axis not in chosen)], 4, MOST_COMPUTED)
    axes = [Axis(axis, x.shape[axis], out, *ratio, bool(lengths), *(bounds[axis] if bounds else (0.0, 1.0))) for axis, out, ratio in zip(chosen, outs, ratios, strict=True)]
    return [axis for axis in axes if axis.scale != 1 or axis.out != axis.size or bounds]


def _regions(call: Call, roi: Any, rank: int, chosen: Sequence[int]) -> dict[int, tuple[float, float]] | None:
    """First and last of the region of interest for each axis, where the coordinates ask for it."""
    if call.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return None
    numbers = [float(v) for v in call.known(roi, "roi").reshape(-1)]
    call.require(len(numbers) == 2 * len(chosen), "roi must be two numbers for every axis", roi=numbers)
    return {axis: (numbers[i], numbers[i + len(chosen)]) for i, axis in enumerate(chosen)} | {axis: (0.0, 1.0) for axis in range(rank) if axis not in chosen}


def _values(call: Call, x: Any, arguments: Sequence[Any]) -> tuple[Rules, list[Axis]]:
    roi, scales, sizes = (*arguments, None, None, None)[:3]
    roi, scales, sizes = (None if isinstance(v, np.ndarray) and v.size == 0 else v for v in (roi, scales, sizes))
    rules, axes = _rules(call), _axes(call, x, roi, scales, sizes)
    for axis in axes:  # tables of Python's numbers, about 100 bytes for each
        reach = {"nearest": 1, "linear": 2}.get(rules.mode, 4) / (min(axis.scale, 1.0) if rules.antialias else 1.0)
        call.bounded((axis.out, 1 + math.ceil(reach)), 100, what="the table of its weights")
    return rules, axes


@evaluated("Resize", "Upsample", values=(1, 2, 3))
def resize(call: Call, x: np.ndarray, *arguments: Any) -> np.ndarray:
    rules, axes = _values(call, x, arguments)
    y, outside = wide(x), np.zeros((1,) * x.ndim, bool)
    for axis in axes:
        rows, beyond = axis_rows(rules, axis)
        if rules.mode == "nearest":
            y = np.take(y, [row[0][0] for row in rows], axis.axis)
        else:
            matrix = np.zeros(call.bounded((axis.out, axis.size), what="the matrix of its weights"), np.float64)
            for i, row in enumerate(rows):
                for j, weight in row:
                    matrix[i, j] = weight
            y = np.moveaxis(np.tensordot(matrix, y.astype(np.float64), (1, axis.axis)), 0, axis.axis)
        outside = outside | np.array(beyond).reshape([-1 if i == axis.axis else 1 for i in range(x.ndim)])
    y = np.where(outside, rules.extrapolation, y) if outside.any() else y
    if x.dtype.kind in "iu" and y.dtype.kind == "f":
        y = np.rint(y).clip(np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype)


@lowered("Resize", "Upsample", values=(1, 2, 3))
def lower_resize(call: Call, x: Symbol, *arguments: Any) -> Any:
    rules, axes = _values(call, x, arguments)
    maps: dict[int, AxisRule] = {}
    for axis in axes:
        rows, beyond = axis_rows(rules, axis)
        if any(beyond) or not all(rows):
            return NotImplemented
        maps[axis.axis] = AxisRule.of_rows(axis.size, rows)
    if 0 in x.shape:
        return NotImplemented
    if x.ndim == 4 and set(maps) <= {2, 3} and maps:
        rows_map, cols_map = (maps.get(axis) or _unchanged(call, x.shape[axis]) for axis in (2, 3))
        images = emit(Transpose(NCHW_TO_NHWC), x.value)
        return emit(Transpose(NHWC_TO_NCHW), emit(Resample(rows_map, cols_map), images.value).value)
    for place, rule in maps.items():  # one axis after the other, everything behind it as channels
        lead, inner = math.prod(x.shape[:place]), math.prod(x.shape[place + 1 :])
        y = emit(Resample(rule, _unchanged(call, 1)), reshaped(x, (lead, x.shape[place], 1, inner)).value)
        x = reshaped(y, (*x.shape[:place], rule.out, *x.shape[place + 1 :]))
    return x


def _unchanged(call: Call, size: int) -> AxisRule:
    call.bounded((size,), 100, what="the table of its weights")
    return AxisRule.of_rows(size, [[(i, 1.0)] for i in range(size)])
