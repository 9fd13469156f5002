"""Depthwise convolutions and their gradients on the CPU. See src/conv_depthwise.c."""

from __future__ import annotations

from dataclasses import replace

from ...geometry import ConvGeometry, Phase
from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...records import record
from . import _kernels
from .conv import epilogue_buffers, epilogue_members, gradient_members, output_members, patch_members, roles
from .launch import At, CpuAlgorithm, Device, Graph, Launch, Node, conv_launch
from .movement import copy_launch


@record
class PackTaps(Op):
    """Depthwise weights w[c,r,s,1] as [tap][c]; one set for each phase, one behind the other."""

    geometry: ConvGeometry
    phases: tuple[Phase, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(sum(p.rows.taps * p.cols.taps for p in self.phases) * self.geometry.channels),)

    def places(self) -> list[int]:
        """Floats before the weights of each phase."""
        result, place = [], 0
        for phase in self.phases:
            result.append(place)
            place += phase.rows.taps * phase.cols.taps * self.geometry.channels
        return result


class PackTapsAlgorithm(CpuAlgorithm):
    name = "strided_copy"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, PackTaps)
        g = node.op.geometry
        r, s = g.kernel
        result = []
        for phase, place in zip(node.op.phases, node.op.places(), strict=True):
            rows, cols = phase.rows, phase.cols
            result += copy_launch(
                node.inputs[0],
                node.outputs[0],
                (rows.taps, cols.taps, g.channels),
                (rows.index_step * s, cols.index_step, r * s),
                (cols.taps * g.channels, g.channels, 1),
                rows.index * s + cols.index,
                place,
            )
        return result


class Depthwise(CpuAlgorithm):
    """One filter for each channel, channels as vector lanes."""

    name = "depthwise"
    reason = "one filter for each channel: channels are vector lanes"

    def supports(self, node: Node, device: Device) -> bool:
        return roles(node.op)[0].is_depthwise

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g, phases, _, _ = roles(node.op)
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(PackTaps(g, phases), node.inputs[1]))
        return node

    def launches(self, node: Node) -> list[Launch]:
        g, phases, source, target = roles(node.op)
        packed = node.inputs[1].op
        assert isinstance(packed, PackTaps)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        bias, residual = epilogue_buffers(node, epilogue)
        calls = [
            conv_launch(
                "depthwise",
                (node.inputs[0], At(node.inputs[1], 4 * place), bias, residual, node.outputs[0]),
                **patch_members(source, phase, 1),
                **output_members(target, phase),
                **self._blocks(phases, g.channels),
                **epilogue_members(epilogue),
            )
            for phase, place in zip(phases, packed.places(), strict=True)
        ]
        # Where the sides of images are multiples of the stride, the tasks of all phases are the same rows of dx, each of which is written to at once.
        return [replace(call, follows=index > 0) for index, call in enumerate(calls)]

    def _blocks(self, phases: tuple[Phase, ...], channels: int) -> dict[str, int]:
        """How the kernel's work is cut into tasks, alike for all phases."""
        taps = sum(phase.rows.taps * phase.cols.taps for phase in phases)
        return _kernels.depthwise_blocks(phases[0].rows.grid, phases[0].cols.grid, channels, taps)

    def task_rows(self, node: Node) -> tuple[int, int] | None:
        g, phases, _, target = roles(node.op)
        blocks, step, (_, rows, cols, _) = self._blocks(phases, g.channels), phases[0].rows.out_step, target
        alike = len({(phase.rows.grid, phase.cols.grid) for phase in phases}) == 1
        if not alike or blocks["channel_block"] < g.channels:
            return None
        return rows * cols, min(rows, step * blocks["row_block"]) * cols


class DepthwiseWeightGradient(CpuAlgorithm):
    """Weight gradient of a depthwise convolution."""

    name = "depthwise_weight_gradient"
    reason = "one filter for each channel: channels are vector lanes"

    def supports(self, node: Node, device: Device) -> bool:
        return node.op.geometry.is_depthwise  # type: ignore[attr-defined]

    def _blocks(self, g: ConvGeometry) -> dict[str, int]:
        return _kernels.depthwise_weight_gradient_blocks(g.batch * g.out[0], g.out[1], g.channels, g.kernel[0] * g.kernel[1])

    def workspace(self, node: Node, device: Device) -> int:
        return (self._blocks(node.op.geometry)["parts"] + 1) * node.outputs[0].nbytes  # type: ignore[attr-defined]

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        sizes = self._blocks(g)
        size = node.outputs[0].nbytes
        taps = g.kernel[0] * g.kernel[1]
        total = At(None, sizes["parts"] * size)
        return [
            conv_launch("depthwise_weight_gradient", (*node.inputs[:2], At(None)), **gradient_members(g, 1), **sizes),
            conv_launch("sum_parts", (At(None), total), parts=sizes["parts"], count=size // 4),
            *copy_launch(total, node.outputs[0], (g.channels, taps), (1, g.channels), (taps, 1)),
        ]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    Conv: [Depthwise()],
    ConvBackwardInput: [Depthwise()],
    ConvBackwardWeight: [DepthwiseWeightGradient()],
    PackTaps: [PackTapsAlgorithm()],
}
