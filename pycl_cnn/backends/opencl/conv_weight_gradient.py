"""Weight gradients of convolutions with OpenCL. See kernels_cl/conv_weight_gradient.cl, conv_depthwise.cl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...geometry import ConvGeometry, Phase
from ...ops.base import Op
from ...ops.conv import ConvBackwardWeight
from ...tuning.space import Family, Limits, Problem, Rule, Space, Variant
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, Value, device_context
from .conv import RowTaps, pad_columns, padded_shape, reads_rows, row_phase, source_arguments, tap_count, target_strides
from .reduce import reduce_call
from .sizes import blocks, clamp, grid, vector
from .tiles import WIDTH, Tile, local_space, registers

CACHED_PIXELS = 2048  # whose blocks of x and dy stay in a core's cache
PIXELS = {"PIXELS": (512, 1024, 2048, 4096, 8192)}


def direct_usual(problem: Problem, limits: Limits) -> Variant:
    """As large as the registers allow, not wider than the channels."""
    outs, reds, width = problem["outs"], problem["reds"], limits.width
    while width > reds:
        width //= 2
    rows = min(outs, 12 if width >= 16 else 6)
    return Variant.of("conv_weight_gradient", MO=rows, NV=2 if 2 * width <= reds else 1, VEC=width, PIXELS=CACHED_PIXELS)


# The last block of channels and of outputs starts earlier so that it is full: neither may be larger than what there is.
DIRECT = Space(
    "conv_weight_gradient",
    {"MO": tuple(range(1, 15)), "NV": (1, 2), "VEC": (1, 2, 4, 8, 16), **PIXELS},
    direct_usual,
    (
        WIDTH,
        registers("MO"),
        Rule("MO is at most outs", lambda v, p, d: v["MO"] <= p["outs"]),
        Rule("VEC*NV is at most reds", lambda v, p, d: v["VEC"] * v["NV"] <= p["reds"]),
    ),
)
_LOCAL = local_space("conv_weight_gradient_tiled", "MO", "outs", "reds", 0)
TILED = replace(
    _LOCAL, parameters={**_LOCAL.parameters, **PIXELS}, usual=lambda problem, limits: _LOCAL.usual(problem, limits).but("PIXELS", CACHED_PIXELS)
)
WEIGHT_GRADIENT = Family("weight_gradient", (TILED, DIRECT))


def gradient_problem(pixels: int, outs: int, reds: int, taps: int, groups: int) -> Problem:
    """Sums over pixels for outs by taps * reds, in each group."""
    return Problem.of("weight_gradient", pixels=pixels, outs=outs, reds=reds, taps=taps, groups=groups)


def weight_gradient_parts(variant: Variant, problem: Problem) -> int:
    """Shares of the pixels: small enough for the cache, and enough work-items, but long."""
    pixels = problem["pixels"]
    tasks = problem["taps"] * problem["groups"] * blocks(problem["reds"], 32) * blocks(problem["outs"], 12)
    return clamp(max(blocks(pixels, variant["PIXELS"]), min(64 // max(1, tasks), pixels // 256)), 1, 64)


def gradient_call(variant: Variant, parts: int, arguments: dict[str, Any]) -> Call:
    """The sums of x times dy over pixels, `parts` of them, in the form that the variant names."""
    taps, reds, outs, groups = (arguments[name] for name in ("tap_count", "reds", "outs", "groups"))
    tile, stem = Tile.of(variant, "MO"), variant.kernel
    defines = {name: value for name, value in variant.parameters if name != "PIXELS"}
    size = (taps * blocks(reds, tile.panel) * tile.columns, groups * blocks(outs, tile.pixels) * tile.lines, parts)
    return Call(stem, stem, size, tile.local_size, arguments, defines)


def weight_gradient_calls(
    context: Context, variant: Variant, x: Value, dy: Value, dw: Value, source: Sequence[int], target: Sequence[int], phase: Phase, groups: int, reds: int
) -> list[Call]:
    """dw[k, taps, reds] from x and dy seen as images of `source` and `target`; parts lie in the workspace."""
    outs = target[3] // groups
    pixels = source[0] * phase.rows.grid * phase.cols.grid
    parts = weight_gradient_parts(variant, gradient_problem(pixels, outs, reds, tap_count(phase), groups))
    arguments = {
        "x": x,
        "dy": dy,
        "parts": dw if parts == 1 else At(None),
        "images": source[0],
        **source_arguments(source, phase),
        **target_strides(target, phase, "dy"),
        "reds": reds,
        "outs": outs,
        "groups": groups,
        "pixels_per_part": blocks(pixels, parts),
    }
    calls = [gradient_call(variant, parts, arguments)]
    if parts > 1:
        calls.append(reduce_call(context, At(None), dw, 1, parts, dw.spec.size, 1, "sum", 1.0))
    return calls


class WeightGradient(OpenClAlgorithm):
    """Weight gradient: pixels are the long sum; they are split into parts that are added in a fixed order."""

    name = "weight_gradient"
    reason = "sums over pixels, split by size alone"

    def view(self, g: ConvGeometry) -> tuple[tuple[int, ...], Phase, int]:
        """(shape of x, phase, channels of a tap)."""
        (phase,) = g.forward_phases
        return g.input_shape, phase, g.channels // g.groups

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        _, phase, reds = self.view(g)
        return [(WEIGHT_GRADIENT, gradient_problem(g.batch * g.out[0] * g.out[1], g.out_channels // g.groups, reds, tap_count(phase), g.groups))]

    def workspace(self, node: Node, device: Device) -> int:
        context = device_context(device)
        ((_, problem),) = self.tuned(node, context)
        parts = weight_gradient_parts(self.variant(node, context), problem)
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        shape, phase, reds = self.view(g)
        x, dy = node.inputs
        variant = self.variant(node, context)
        return weight_gradient_calls(context, variant, x, dy, node.outputs[0], shape, g.output_shape, phase, g.groups, reds)


class RowTapsWeightGradient(WeightGradient):
    """Weight gradient of a convolution of an image with few channels."""

    name = "weight_gradient_rows"
    reason = RowTaps.reason

    def supports(self, node: Node, device: Device) -> bool:
        return reads_rows(node.op.geometry)  # type: ignore[attr-defined]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        pad_columns(graph, node, node.op.geometry)  # type: ignore[attr-defined]
        return node

    def view(self, g: ConvGeometry) -> tuple[tuple[int, ...], Phase, int]:
        return padded_shape(g), row_phase(g), g.kernel[1] * g.channels


class DepthwiseWeightGradient(OpenClAlgorithm):
    """Weight gradient of a depthwise convolution."""

    name = "depthwise_weight_gradient"
    reason = "one filter for each channel: channels are vector lanes"

    def supports(self, node: Node, device: Device) -> bool:
        return node.op.geometry.is_depthwise  # type: ignore[attr-defined]

    def _parts(self, g: ConvGeometry) -> int:
        return clamp(min(64 // max(1, blocks(g.channels, 16) * g.kernel[0] * g.kernel[1]), g.batch * g.out[0]), 1, 64)

    def workspace(self, node: Node, device: Device) -> int:
        parts = self._parts(node.op.geometry)  # type: ignore[attr-defined]
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        (phase,) = g.forward_phases
        parts = self._parts(g)
        dw = node.outputs[0]
        arguments = {
            "x": node.inputs[0],
            "dy": node.inputs[1],
            "parts": dw if parts == 1 else At(None),
            "images": g.batch,
            **source_arguments(g.input_shape, phase),
            **target_strides(g.output_shape, phase, "dy"),
            "channels": g.channels,
            "rows_per_part": blocks(g.batch * g.out[0], parts),
        }
        size = (blocks(g.channels, vector(context, "conv_depthwise")), tap_count(phase), parts)
        calls = [Call("conv_depthwise", "conv_depthwise_weight_gradient", *grid(context, *size), arguments, {"ACTIVATION": 0})]
        if parts > 1:
            calls.append(reduce_call(context, At(None), dw, 1, parts, dw.spec.size, 1, "sum", 1.0))
        return calls


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {ConvBackwardWeight: [DepthwiseWeightGradient(), RowTapsWeightGradient(), WeightGradient()]}
