"""3x3 convolutions with a quarter of the multiplications. See src/winograd.h."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...geometry import ConvGeometry
from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...ops.movement import Concat
from ..winograd import TILES, filter_view, frequencies, padding_before, three_by_three, tiles_of
from . import _kernels
from .conv import PackPanels, epilogue_buffers, epilogue_members, make_panels, pack_filters, roles
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch

# Of a core of today, with another one at work beside it; only the ratios matter: flop in a nanosecond, nanoseconds that a float of the
# transformed inputs and of the products takes, bytes of filters in a nanosecond, and how many of them hide behind the multiplications.
PEAK, TRANSFORM, FILTER_BYTES, HIDDEN = 105.0, 0.13, 20.0, 0.7
CHUNK = 16  # of src/conv.h: channels that lie together in transformed inputs


@dataclass(frozen=True)
class TransformFilters(Op):
    """Packed filters of 3x3 taps, transformed: [panel][frequency][reds][panel_width]."""

    tile: int
    panels: int

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(inputs[0].size // 9 * frequencies(self.tile)),)


class TransformFiltersAlgorithm(CpuAlgorithm):
    name = "winograd_filters"

    def launches(self, node: Node) -> list[Launch]:
        op, taps = node.op, node.inputs[0]
        assert isinstance(op, TransformFilters)
        return [conv_launch("winograd_filters", (taps, node.outputs[0]), tile=op.tile, panels=op.panels, floats=taps.spec.size // 9 // op.panels)]


def direct_cost(c: int, k: int, target: tuple[int, ...]) -> float:
    """Nanoseconds of the direct method on one core."""
    return 2 * 9 * c * k * math.prod(target[:3]) / PEAK


def winograd_cost(tile: int, c: int, k: int, target: tuple[int, ...]) -> float:
    """Nanoseconds with tiles of tile x tile outputs: products, transforms, and what shows of the filters that come from memory."""
    count, tiles = frequencies(tile), tiles_of(target, tile)
    work = 2 * count * tiles * c * k / PEAK + TRANSFORM * count * tiles * (c + k)
    filters = 4 * count * c * k / FILTER_BYTES
    return max(work + (1 - HIDDEN) * filters, filters)


def joined(node: Node) -> tuple[Value, Value] | None:
    """The two images whose channels a Concat would join for this node alone, where the kernel can read them as they are."""
    x = node.inputs[0]
    if not isinstance(x.op, Concat) or x.op.axis != 3 or len(x.users) > 1 or len(x.node.inputs) != 2:
        return None
    first, rest = x.node.inputs
    return None if first.shape[3] % CHUNK or first is rest else (first, rest)


class Winograd(CpuAlgorithm):
    """F(4x4, 3x3) for stride 1, forward and input gradient (which is a convolution with the filters turned around)."""

    tile = 4
    name = "winograd"
    reason = "3x3 taps, stride 1: a quarter of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(roles(node.op)[0])

    def pays(self, node: Node, device: Device) -> bool:
        """Where it costs least of all tiles, and clearly less than the direct method."""
        _, _, source, target = roles(node.op)
        c, k = source[3], target[3]
        costs = {tile: winograd_cost(tile, c, k, target) for tile in TILES}
        return c >= 8 and k >= 8 and costs[self.tile] == min(costs.values()) < 0.9 * direct_cost(c, k, target)

    def _blocks(self, node: Node) -> dict[str, int]:
        _, _, source, target = roles(node.op)
        return _kernels.winograd_blocks(self.tile, tiles_of(target, self.tile), target[3], source[3])

    def why(self, node: Node, device: Device) -> str:
        return f"{self.reason}; joins two inputs as it reads them" if joined(node) else self.reason

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        view, blocks = filter_view(node.op), self._blocks(node)
        layout = {"groups": 1, "outs": target[3], "tap_rows": 3, "tap_cols": 3, "reds": source[3], "panel_width": blocks["panel_width"]}
        strides = {"out_stride": view.out_stride, "red_stride": view.red_stride, "tap_row_stride": view.tap_row_stride, "tap_col_stride": view.tap_column_stride}
        with graph.at(node):
            if isinstance(node.op, Conv):
                filters = pack_filters(graph, node.inputs[1], layout)
            else:
                filters = graph.apply(PackPanels(make_panels([layout | strides | {"offset": view.offset, "group_stride": 0}])), node.inputs[1])
            if not blocks["taps"]:
                filters = graph.apply(TransformFilters(self.tile, -(-target[3] // blocks["panel_width"])), filters)
            graph.rewire(node, 1, filters)
        if parts := joined(node):
            first, rest = parts
            graph.rewire(node, 0, first)
            graph.extend(node, rest)
        return node

    def _members(self, node: Node) -> dict[str, Any]:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        top, left = padding_before(node.op)
        return {
            "tile": self.tile,
            "images": source[0],
            "rows": source[1],
            "cols": source[2],
            "channels": source[3],
            "first_channels": node.inputs[0].shape[3],
            "out_rows": target[1],
            "out_cols": target[2],
            "outs": target[3],
            "pad_top": top,
            "pad_left": left,
            **self._blocks(node),
            **epilogue_members(node.op.epilogue),
        }

    def workspace(self, node: Node, device: Device) -> int:
        """The transformed inputs, where they are not made task by task."""
        return _kernels.winograd_workspace(_kernels.winograd_params(**self._members(node)))

    def launches(self, node: Node) -> list[Launch]:
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        bias, residual = epilogue_buffers(node, epilogue)
        members = self._members(node)
        x, filters, *extra = node.inputs
        rest = extra[epilogue.operands] if len(extra) > epilogue.operands else None
        inputs: Buffer = At(None) if members["transformed"] else None
        calls = [conv_launch("winograd_inputs", (x, inputs, rest), **members)] if inputs else []
        return [*calls, conv_launch("winograd", (x, filters, bias, residual, node.outputs[0], inputs, rest), **members)]


class SmallWinograd(Winograd):
    """F(2x2, 3x3): where tiles are so few that reading the filters takes longer than multiplying."""

    tile = 2
    name = "winograd_2x2"
    reason = "3x3 taps, stride 1, small images: 4/9 of the multiplications, and few bytes of filters"


class LargeWinograd(Winograd):
    """F(6x6, 3x3): where images are large."""

    tile = 6
    name = "winograd_6x6"
    reason = "3x3 taps, stride 1, large images: 16/81 of the multiplications pay for the transforms"


class WinogradGradient(CpuAlgorithm):
    """Weight gradient of 3x3 convolutions with stride 1: F(4x4, 3x3) turned around."""

    name = "winograd"
    reason = "3x3 taps, stride 1: a quarter of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(node.op.geometry)  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        g = node.op.geometry  # type: ignore[attr-defined]
        wasted = tiles_of(g.output_shape, 4) * 16 / math.prod(g.output_shape[:3])
        return min(g.channels, g.out_channels) >= 16 and wasted < 1.8

    @staticmethod
    def _members(g: ConvGeometry) -> dict[str, int]:
        return {
            "images": g.batch,
            "rows": g.size[0],
            "cols": g.size[1],
            "channels": g.channels,
            "out_rows": g.out[0],
            "out_cols": g.out[1],
            "outs": g.out_channels,
            "pad_top": g.padding[0][0],
            "pad_left": g.padding[1][0],
            **_kernels.winograd_gradient_blocks(tiles_of(g.output_shape, 4), g.out_channels, g.channels),
        }

    @staticmethod
    def _sizes(node: Node, members: dict[str, int]) -> tuple[int, int, int]:
        """Bytes of the parts, of the transformed inputs and of the transformed gradients in the workspace."""
        parts = members["parts"] * node.outputs[0].nbytes if members["parts"] > 1 else 0
        return (-(-parts // 64) * 64, *_kernels.winograd_gradient_workspace(_kernels.winograd_gradient_params(**members)))

    def workspace(self, node: Node, device: Device) -> int:
        assert isinstance(node.op, ConvBackwardWeight)
        parts, inputs, outputs = self._sizes(node, self._members(node.op.geometry))
        return parts + inputs + outputs

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardWeight)
        members, dw = self._members(node.op.geometry), node.outputs[0]
        x, dy = node.inputs
        parts, inputs, _ = self._sizes(node, members)
        target: Buffer = At(None) if parts else dw
        transformed: tuple[Buffer, Buffer] = (None, None)
        calls = []
        if members["transformed"]:
            transformed = At(None, parts), At(None, parts + inputs)
            calls.append(conv_launch("winograd_gradient_inputs", (x, transformed[0]), **members))
            calls.append(conv_launch("winograd_gradient_outputs", (dy, transformed[1]), **members))
        calls.append(conv_launch("winograd_gradient", (x, dy, target, *transformed), **members))
        if parts:
            calls.append(conv_launch("sum_parts", (At(None), dw), parts=members["parts"], count=dw.spec.size))
        return calls


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    Conv: [Winograd(), LargeWinograd(), SmallWinograd()],
    ConvBackwardInput: [Winograd(), LargeWinograd(), SmallWinograd()],
    ConvBackwardWeight: [WinogradGradient()],
    TransformFilters: [TransformFiltersAlgorithm()],
}
