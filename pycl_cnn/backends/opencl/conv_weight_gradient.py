"""Weight gradients of convolutions with OpenCL. See kernels_cl/conv_weight_gradient.cl, conv_depthwise.cl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...geometry import ConvGeometry, Phase
from ...ops.base import Op
from ...ops.conv import ConvBackwardWeight
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, Value
from .conv import RowTaps, Tile, gpu_tile, pad_columns, padded_shape, reads_rows, row_phase, source_arguments, tap_count, target_strides
from .reduce import reduce_call
from .sizes import blocks, clamp, grid, vector


def gradient_width(context: Context, reds: int) -> tuple[int, int]:
    """(vector width, vectors) of a block of channels in conv_weight_gradient: not wider than the channels."""
    width = vector(context, "conv_weight_gradient")
    while width > reds:
        width //= 2
    return width, 2 if 2 * width <= reds else 1


CACHED_PIXELS = 2048  # whose blocks of x and dy stay in a core's cache


def weight_gradient_parts(pixels: int, taps: int, reds: int, outs: int, groups: int) -> int:
    """Shares of the pixels, by sizes alone: small enough for the cache, and enough work-items, but long."""
    tasks = taps * groups * blocks(reds, 32) * blocks(outs, 12)
    return clamp(max(blocks(pixels, CACHED_PIXELS), min(64 // max(1, tasks), pixels // 256)), 1, 64)


def gradient_call(context: Context, parts: int, arguments: dict[str, Any]) -> Call:
    """The sums of x times dy over pixels, `parts` of them, in the form that suits the device."""
    taps, reds, outs, groups = (arguments[name] for name in ("tap_count", "reds", "outs", "groups"))
    if context.device.is_gpu:
        tile = gpu_tile(context, outs, reds)
        stem, defines = "conv_weight_gradient_tiled", {"COLUMNS": tile.columns, "LINES": tile.lines}
    else:
        width, vectors = gradient_width(context, reds)
        tile = Tile(min(outs, 12 if width >= 16 else 6), vectors, width)
        stem, defines = "conv_weight_gradient", {}
    defines = {**defines, "MO": tile.rows, "NV": tile.vectors, "VEC": tile.width}
    size = (taps * blocks(reds, tile.panel) * tile.columns, groups * blocks(outs, tile.pixels) * tile.lines, parts)
    return Call(stem, stem, size, tile.local_size, arguments, defines)


def weight_gradient_calls(
    context: Context, x: Value, dy: Value, dw: Value, source: Sequence[int], target: Sequence[int], phase: Phase, groups: int, reds: int
) -> list[Call]:
    """dw[k, taps, reds] from x and dy seen as images of `source` and `target`; parts lie in the workspace."""
    outs = target[3] // groups
    pixels = source[0] * phase.rows.grid * phase.cols.grid
    parts = weight_gradient_parts(pixels, tap_count(phase), reds, outs, groups)
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
    calls = [gradient_call(context, parts, arguments)]
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

    def workspace(self, node: Node, device: Device) -> int:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        _, phase, reds = self.view(g)
        parts = weight_gradient_parts(g.batch * g.out[0] * g.out[1], tap_count(phase), reds, g.out_channels // g.groups, g.groups)
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        shape, phase, reds = self.view(g)
        x, dy = node.inputs
        return weight_gradient_calls(context, x, dy, node.outputs[0], shape, g.output_shape, phase, g.groups, reds)


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
