"""Convolutions and their gradients on the CPU: GEMM kernels over packed weights, and depthwise kernels. See src/conv.h."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...geometry import ConvGeometry, Phase, PhaseAxis
from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...ops.movement import Reshape, Transpose
from ...ops.pointwise import Binary
from ...records import record
from . import _kernels
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch


def epilogue_members(epilogue: Epilogue) -> dict[str, Any]:
    """The activation of an epilogue as the kernels' structs name it."""
    function = epilogue.activation
    return {
        "activation": function.number if function else 0,
        "alpha": function.alpha if function else 0.0,
        "beta": function.beta if function else 0.0,
    }


def epilogue_buffers(node: Node, epilogue: Epilogue) -> tuple[Buffer, Buffer]:
    """Bias and residual of a node whose first two inputs are operands."""
    extra = list(node.inputs[2:])
    return (extra.pop(0) if epilogue.bias else None), (extra.pop(0) if epilogue.residual else None)


def _image(shape: tuple[int, ...], prefix: str = "") -> dict[str, int]:
    """Strides of images [n, rows, cols, channels]."""
    _, rows, cols, channels = shape
    return {f"{prefix}image_stride": rows * cols * channels, f"{prefix}row_stride": cols * channels, f"{prefix}col_stride": channels}


def patch_members(source: tuple[int, ...], phase: Phase, groups: int) -> dict[str, int]:
    """How the output pixels of `phase` see images of shape `source`."""
    n, rows, cols, channels = source
    return {
        "images": n,
        "rows": rows,
        "cols": cols,
        **_image(source),
        "groups": groups,
        "channels": channels // groups,
        "grid_rows": phase.rows.grid,
        "grid_cols": phase.cols.grid,
        "row_step": phase.rows.step,
        "col_step": phase.cols.step,
        "tap_rows": phase.rows.taps,
        "tap_cols": phase.cols.taps,
        "tap_row_start": phase.rows.start,
        "tap_col_start": phase.cols.start,
        "tap_row_step": phase.rows.tap_step,
        "tap_col_step": phase.cols.tap_step,
    }


def output_members(target: tuple[int, ...], phase: Phase) -> dict[str, int]:
    """Where the output pixels of `phase` lie in images of shape `target`."""
    strides = _image(target)
    return {
        "out_offset": phase.rows.out_offset * strides["row_stride"] + phase.cols.out_offset * strides["col_stride"],
        "out_image_stride": strides["image_stride"],
        "out_row_stride": phase.rows.out_step * strides["row_stride"],
        "out_col_stride": phase.cols.out_step * strides["col_stride"],
    }


@record
class Panels:
    """How the weights of one phase are packed: the members of pack_panels_params, and where the panels go."""

    members: tuple[tuple[str, int], ...]
    size: int  # floats
    place: int  # floats before it in the packed array


@record
class PackPanels(Op):
    """Weights (or a matrix) rearranged into the panels that igemm reads; one set for each phase, one behind the other.

    A second input has a factor for every out.
    """

    panels: tuple[Panels, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(max((p.place + p.size for p in self.panels), default=0)),)


class PackPanelsAlgorithm(CpuAlgorithm):
    name = "pack_panels"

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, PackPanels)
        weight, factors = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        return [conv_launch("pack_panels", (weight, At(node.outputs[0], 4 * p.place), factors), **dict(p.members)) for p in node.op.panels if p.size]


def as_loaded(weight: Value) -> tuple[Value, Value | None, bool]:
    """What `weight` w[k,r,s,c] was made from: filters, the factors of the outs that they were multiplied by, if they were, and whether
    the filters are w[k,c,r,s], from which it was transposed. Packing does both on the way."""
    whole, factors = weight, None
    if isinstance(whole.op, Binary) and whole.op.kind == "mul" and whole.op.activation is None:
        source, along = whole.node.inputs
        if isinstance(along.op, Reshape) and along.shape == (weight.shape[0], 1, 1, 1) and source.shape == weight.shape:
            flat = along.node.inputs[0]
            if flat.shape == weight.shape[:1]:
                whole, factors = source, flat
    if isinstance(whole.op, Transpose) and whole.op.permutation == (0, 2, 3, 1):
        return whole.node.inputs[0], factors, True
    return whole, factors, False


def pack_filters(graph: Graph, weight: Value, layout: dict[str, int]) -> Value:
    """Panels of all filters w[k,r,s,c/groups] for a forward convolution; `layout` lacks the strides."""
    _, r, s, per_group = weight.shape
    weight, factors, loaded = as_loaded(weight)
    strides = (s, 1, r * s) if loaded else (s * per_group, per_group, 1)
    element = r * s * per_group  # floats of a filter
    names = "tap_row_stride", "tap_col_stride", "red_stride"
    whole = {**layout, "offset": 0, "group_stride": layout["outs"] * element, "out_stride": element, **dict(zip(names, strides, strict=True))}
    return graph.apply(PackPanels(make_panels([whole])), *([weight] if factors is None else [weight, factors]))


def make_panels(layouts: list[dict[str, int]]) -> tuple[Panels, ...]:
    """Panels one behind the other; a layout holds the members of pack_panels_params, `chunked` if it is."""
    result, place = [], 0
    for m in layouts:
        size = m["groups"] * -(-m["outs"] // m["panel_width"]) * m["tap_rows"] * m["tap_cols"] * m["reds"] * m["panel_width"]
        result.append(Panels(tuple(({"chunked": 0} | m).items()), size, place))
        place += -(-size // 16) * 16
    return tuple(result)


def _ascending(axis: PhaseAxis) -> PhaseAxis:
    """The same taps in ascending positions: neighbouring taps are then neighbours in memory."""
    last = axis.taps - 1
    if axis.tap_step >= 0 or last < 0:
        return axis
    return replace(
        axis,
        start=axis.start + last * axis.tap_step,
        tap_step=-axis.tap_step,
        index=axis.index + last * axis.index_step,
        index_step=-axis.index_step,
    )


def roles(op: Op) -> tuple[ConvGeometry, tuple[Phase, ...], tuple[int, ...], tuple[int, ...]]:
    """Geometry, phases, shape read and shape written of a convolution or its input gradient."""
    assert isinstance(op, Conv | ConvBackwardInput)
    g = op.geometry
    if isinstance(op, Conv):
        return g, g.forward_phases, g.input_shape, g.output_shape
    phases = tuple(Phase(_ascending(p.rows), _ascending(p.cols)) for p in g.backward_input_phases)
    return g, phases, g.output_shape, g.input_shape


class ImplicitGemm(CpuAlgorithm):
    """Convolution and input gradient as a matrix product whose left side is gathered tile by tile."""

    name = "igemm"
    reason = "implicit GEMM over packed weights takes every shape"
    kernel = "igemm"

    def blocks(self, phase: Phase, images: int, outs: int, reds: int) -> dict[str, int]:
        """How the kernel's work on a phase is cut into tasks."""
        return _kernels.igemm_blocks(images * phase.rows.grid * phase.cols.grid, outs, reds * phase.rows.taps * phase.cols.taps)

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g, phases, source, target = roles(node.op)
        _, r, s, per_group = g.weight_shape
        outs, reds = target[3] // g.groups, source[3] // g.groups
        element = r * s * per_group  # floats of one filter
        sizes = [
            {
                "groups": g.groups,
                "outs": outs,
                "tap_rows": phase.rows.taps,
                "tap_cols": phase.cols.taps,
                "reds": reds,
                "panel_width": self.blocks(phase, g.batch, outs, reds)["panel_width"],
            }
            for phase in phases
        ]
        strides = [
            {
                "offset": (phase.rows.index * s + phase.cols.index) * per_group,
                "group_stride": g.out_channels // g.groups * element,
                "out_stride": 1,
                "tap_row_stride": phase.rows.index_step * s * per_group,
                "tap_col_stride": phase.cols.index_step * per_group,
                "red_stride": element,
            }
            for phase in phases
        ]
        with graph.at(node):
            if isinstance(node.op, Conv):
                panels = pack_filters(graph, node.inputs[1], sizes[0])
            else:
                panels = graph.apply(PackPanels(make_panels([a | b for a, b in zip(sizes, strides, strict=True)])), node.inputs[1])
            graph.rewire(node, 1, panels)
        return node

    def launches(self, node: Node) -> list[Launch]:
        g, phases, source, target = roles(node.op)
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        bias, residual = epilogue_buffers(node, epilogue)
        outs, reds = target[3] // g.groups, source[3] // g.groups
        return [
            conv_launch(
                self.kernel,
                (node.inputs[0], At(node.inputs[1], 4 * panels.place), bias, residual, node.outputs[0]),
                **patch_members(source, phase, g.groups),
                **output_members(target, phase),
                outs=outs,
                **self.blocks(phase, g.batch, outs, reds),
                **epilogue_members(epilogue),
            )
            for phase, panels in zip(phases, packed.panels, strict=True)
        ]

    def task_rows(self, node: Node) -> tuple[int, int] | None:
        g, phases, _, target = roles(node.op)
        phase, outs = phases[0], target[3]
        if g.groups > 1 or len(phases) > 1:
            return None
        blocks = self.blocks(phase, g.batch, outs, node.inputs[0].shape[3])
        if blocks["panel_width"] * blocks["panel_block"] < outs:
            return None
        return self.block_rows(phase, g.batch, blocks)

    def block_rows(self, phase: Phase, images: int, blocks: dict[str, int]) -> tuple[int, int]:
        """task_rows of tasks that have all outs."""
        return images * phase.rows.grid * phase.cols.grid, blocks["pixel_block"]


class LineConvolution(ImplicitGemm):
    """Kernel rows as runs of floats in x, read where they are: no patch is gathered."""

    name = "lines"
    reason = "the taps of a kernel row lie side by side in x: nothing is gathered"
    kernel = "conv_lines"

    def blocks(self, phase: Phase, images: int, outs: int, reds: int) -> dict[str, int]:
        return _kernels.conv_lines_blocks(images, phase.rows.grid, phase.cols.grid, outs, reds * phase.rows.taps * phase.cols.taps)

    def block_rows(self, phase: Phase, images: int, blocks: dict[str, int]) -> tuple[int, int]:
        return phase.rows.grid * phase.cols.grid, blocks["line_block"] * phase.cols.grid

    def supports(self, node: Node, device: Device) -> bool:
        g, phases, _, _ = roles(node.op)
        return g.groups == 1 and all(p.rows.taps and p.cols.taps and (p.cols.taps == 1 or p.cols.tap_step == 1) for p in phases)

    def pays(self, node: Node, device: Device) -> bool:
        """Not for 1x1 of stride 1, where igemm reads longer tiles in place; nor where lines are shorter than half a tile,
        or the pixels of a tile lie so far apart that they share few sets of a first-level cache."""
        g, phases, source, _ = roles(node.op)
        channels = source[3]
        shortest, distance = min(p.cols.grid for p in phases), max(p.cols.step * channels for p in phases)
        pointwise = g.kernel == (1, 1) and g.stride == (1, 1)
        return not pointwise and 2 * shortest >= _kernels.tile_rows() and distance <= 16 * _kernels.vector_length()


class SpreadLines(CpuAlgorithm):
    """Input gradient of few channels: each pixel of dy adds runs of floats to rows of dx. See src/conv_spread.c."""

    name = "spread_lines"
    reason = "few channels: the taps of a kernel row and their channels are vector lanes"

    def supports(self, node: Node, device: Device) -> bool:
        g, _, _, _ = roles(node.op)
        return g.groups == 1 and g.stride == g.dilation == (1, 1) and node.op.epilogue == Epilogue()  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        """A model of both costs in vectors: `lines` has the channels as lanes (of half vectors, where they are enough) and multiplies
        the padding too; here runs are lanes, and are added to the line one by one."""
        g, _, _, _ = roles(node.op)
        r, s = g.kernel
        lanes = _kernels.vector_length()
        channels = 0.5 if lanes == 16 and g.channels <= 8 else -(-g.channels // lanes)
        run = -(-s * g.channels // lanes)
        lines = g.size[0] * g.size[1] * r * s * g.out_channels * channels
        spread = run * (g.out[0] * g.out[1] * r * g.out_channels + 16 * g.size[0] * g.out[1])
        return spread < 0.8 * lines

    def _blocks(self, g: ConvGeometry) -> dict[str, int]:
        return _kernels.spread_lines_blocks(g.batch * g.size[0], g.out[1], g.kernel[1] * g.channels, g.kernel[0] * g.out_channels)

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g, _, _, _ = roles(node.op)
        run = g.kernel[1] * g.channels
        layout = {
            "groups": 1,
            "outs": run,
            "tap_rows": g.kernel[0],
            "tap_cols": 1,
            "reds": g.out_channels,
            "panel_width": self._blocks(g)["panel_width"],
            "offset": 0,
            "group_stride": 0,
            "out_stride": 1,
            "tap_row_stride": run,
            "tap_col_stride": 0,
            "red_stride": g.kernel[0] * run,
        }
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(PackPanels(make_panels([layout])), node.inputs[1]))
        return node

    def launches(self, node: Node) -> list[Launch]:
        g, _, _, _ = roles(node.op)
        return [
            conv_launch(
                "spread_lines",
                (*node.inputs, node.outputs[0]),
                images=g.batch,
                rows=g.size[0],
                cols=g.size[1],
                channels=g.channels,
                grid_rows=g.out[0],
                grid_cols=g.out[1],
                outs=g.out_channels,
                tap_rows=g.kernel[0],
                tap_cols=g.kernel[1],
                pad_top=g.padding[0][0],
                pad_left=g.padding[1][0],
                **self._blocks(g),
            )
        ]


def gradient_members(g: ConvGeometry, groups: int) -> dict[str, int]:
    """x and dy as the weight gradients see them."""
    (phase,) = g.forward_phases
    return {**patch_members(g.input_shape, phase, groups), **output_members(g.output_shape, phase)}


class WeightGradient(CpuAlgorithm):
    """Weight gradient: pixels are the long sum; they are split into parts that are added in a fixed order."""

    name = "weight_gradient"
    reason = "sums over pixels, split by size alone"
    kernel = "weight_gradient"

    def blocks(self, g: ConvGeometry) -> dict[str, int]:
        """How the kernel's work is cut into parts and tasks."""
        return _kernels.weight_gradient_blocks(g.batch * g.out[0] * g.out[1], g.out_channels // g.groups, g.reduction)

    def workspace(self, node: Node, device: Device) -> int:
        parts = self.blocks(node.op.geometry)["parts"]  # type: ignore[attr-defined]
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        sizes = self.blocks(g)
        target: Buffer = At(None) if sizes["parts"] > 1 else node.outputs[0]
        outs = g.out_channels // g.groups
        calls = [conv_launch(self.kernel, (*node.inputs[:2], target), **gradient_members(g, g.groups), outs=outs, **sizes)]
        if sizes["parts"] > 1:
            count = node.outputs[0].spec.size
            calls.append(conv_launch("sum_parts", (At(None), node.outputs[0]), parts=sizes["parts"], count=count))
        return calls


class LineWeightGradient(WeightGradient):
    """Weight gradient of few channels: outs are vector lanes, x and dy are read where they are."""

    name = "lines"
    reason = "few channels: the taps of a kernel row lie side by side in x, nothing is gathered"
    kernel = "weight_gradient_lines"

    def blocks(self, g: ConvGeometry) -> dict[str, int]:
        return _kernels.weight_gradient_lines_blocks(g.batch * g.out[0], g.out[1], g.out_channels, g.reduction)

    def supports(self, node: Node, device: Device) -> bool:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        return g.groups == 1 and (g.kernel[1] == 1 or g.dilation[1] == 1)

    def pays(self, node: Node, device: Device) -> bool:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        return g.channels <= 16 and g.kernel != (1, 1) and g.out[1] >= 8


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    Conv: [LineConvolution(), ImplicitGemm()],
    ConvBackwardInput: [SpreadLines(), LineConvolution(), ImplicitGemm()],
    ConvBackwardWeight: [LineWeightGradient(), WeightGradient()],
    PackPanels: [PackPanelsAlgorithm()],
}
