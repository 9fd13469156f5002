"""3x3 convolutions with a quarter of the multiplications. See src/winograd.h."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...geometry import ConvGeometry
from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from . import _kernels
from .conv import epilogue_buffers, epilogue_members, roles
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, conv_launch

FREQUENCIES = 36
PEAK, BANDWIDTH = 100.0, 16.0  # flop and bytes in a nanosecond on a core of today: only their ratio matters


def three_by_three(g: ConvGeometry) -> bool:
    """Whether F(4x4, 3x3) is for this convolution."""
    return g.kernel == (3, 3) and g.stride == (1, 1) and g.dilation == (1, 1) and g.groups == 1


def tiles_of(outputs: tuple[int, ...]) -> int:
    """Tiles of 4x4 outputs in images of shape `outputs`."""
    return outputs[0] * -(-outputs[1] // 4) * -(-outputs[2] // 4)


@dataclass(frozen=True)
class TransformFilters(Op):
    """Filters of 3x3 taps transformed for winograd: [panel][frequency][reds][panel_width]."""

    members: tuple[tuple[str, int], ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        m = dict(self.members)
        return (floats(-(-m["outs"] // m["panel_width"]) * FREQUENCIES * m["reds"] * m["panel_width"]),)


class TransformFiltersAlgorithm(CpuAlgorithm):
    name = "winograd_filters"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, TransformFilters)
        return [conv_launch("winograd_filters", (node.inputs[0], node.outputs[0]), **dict(node.op.members))]


class Winograd(CpuAlgorithm):
    """F(4x4, 3x3) for stride 1, forward and input gradient (which is a convolution with the filters turned around)."""

    name = "winograd"
    reason = "3x3 taps, stride 1: a quarter of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(roles(node.op)[0])

    def pays(self, node: Node, device: Device) -> bool:
        """A model of both costs: arithmetic at the core's peak; transforms and filters by the bytes that they move."""
        _, _, source, target = roles(node.op)
        c, k = source[3], target[3]
        tiles = tiles_of(target)
        direct = 2 * 9 * c * k * math.prod(target[:3]) / PEAK
        products = 2 * FREQUENCIES * tiles * c * k / PEAK
        transforms = 4 * FREQUENCIES * 3 * tiles * (c + k) / BANDWIDTH / 4
        filters = 4 * FREQUENCIES * c * k / BANDWIDTH
        return c >= 8 and k >= 8 and max(products, filters) + transforms < 0.9 * direct

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        _, _, source, target = roles(node.op)
        reds, outs = source[3], target[3]
        forward = isinstance(node.op, Conv)
        channels = node.inputs[1].shape[3]
        members = {
            "outs": outs,
            "reds": reds,
            "panel_width": _kernels.winograd_blocks(tiles_of(target), outs, reds)["panel_width"],
            "offset": 0 if forward else 8 * channels,
            "out_stride": 9 * channels if forward else 1,
            "red_stride": 1 if forward else 9 * channels,
            "tap_row_stride": 3 * channels if forward else -3 * channels,
            "tap_col_stride": channels if forward else -channels,
        }
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(TransformFilters(tuple(members.items())), node.inputs[1]))
        return node

    def launches(self, node: Node) -> list[Launch]:
        g, _, source, target = roles(node.op)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        bias, residual = epilogue_buffers(node, epilogue)
        top, left = g.padding[0][0], g.padding[1][0]
        if isinstance(node.op, ConvBackwardInput):
            top, left = 2 - top, 2 - left
        return [
            conv_launch(
                "winograd",
                (*node.inputs[:2], bias, residual, node.outputs[0]),
                images=source[0],
                rows=source[1],
                cols=source[2],
                channels=source[3],
                out_rows=target[1],
                out_cols=target[2],
                outs=target[3],
                pad_top=top,
                pad_left=left,
                **_kernels.winograd_blocks(tiles_of(target), target[3], source[3]),
                **epilogue_members(epilogue),
            )
        ]


class WinogradGradient(CpuAlgorithm):
    """Weight gradient of 3x3 convolutions with stride 1: F(4x4, 3x3) turned around."""

    name = "winograd"
    reason = "3x3 taps, stride 1: a quarter of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(node.op.geometry)  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        g = node.op.geometry  # type: ignore[attr-defined]
        wasted = tiles_of(g.output_shape) * 16 / math.prod(g.output_shape[:3])
        return min(g.channels, g.out_channels) >= 16 and wasted < 1.8

    def _blocks(self, g: ConvGeometry) -> dict[str, int]:
        return _kernels.winograd_gradient_blocks(tiles_of(g.output_shape), g.out_channels, g.channels)

    def workspace(self, node: Node, device: Device) -> int:
        parts = self._blocks(node.op.geometry)["parts"]  # type: ignore[attr-defined]
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        sizes = self._blocks(g)
        target: Buffer = At(None) if sizes["parts"] > 1 else node.outputs[0]
        calls = [
            conv_launch(
                "winograd_gradient",
                (*node.inputs, target),
                images=g.batch,
                rows=g.size[0],
                cols=g.size[1],
                channels=g.channels,
                out_rows=g.out[0],
                out_cols=g.out[1],
                outs=g.out_channels,
                pad_top=g.padding[0][0],
                pad_left=g.padding[1][0],
                **sizes,
            )
        ]
        if sizes["parts"] > 1:
            calls.append(conv_launch("sum_parts", (At(None), node.outputs[0]), parts=sizes["parts"], count=node.outputs[0].spec.size))
        return calls


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    Conv: [Winograd()],
    ConvBackwardInput: [Winograd()],
    ConvBackwardWeight: [WinogradGradient()],
    TransformFilters: [TransformFiltersAlgorithm()],
}
