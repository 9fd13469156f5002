"""Convolutions and their input gradients with OpenCL. See kernels_cl/conv_igemm.cl, conv_depthwise.cl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...geometry import ConvGeometry, Phase, PhaseAxis
from ...ops.base import Op
from ...ops.conv import Conv, ConvBackwardInput, Epilogue
from ...ops.movement import Pad
from ...ops.pointwise import Activation
from ...tuning.space import Family, Limits, Problem, Rule, Space, Variant
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, Table, Zeros, device_context
from .pack import PackPanels, Panels, lay_out
from .sizes import blocks, clamp, grid
from .tiles import PRODUCT, WIDTH, WIDTHS, Tile, product_problem


def tap_offsets(phase: Phase) -> np.ndarray:
    """int32 (row, column) of every tap of a phase, in the order in which weights are packed."""
    rows = [phase.rows.start + t * phase.rows.tap_step for t in range(phase.rows.taps)]
    cols = [phase.cols.start + t * phase.cols.tap_step for t in range(phase.cols.taps)]
    return np.array([(row, col) for row in rows for col in cols] or [(0, 0)], np.int32)


def tap_numbers(phase: Phase, kernel_cols: int) -> np.ndarray:
    """int32 r * S + s of every tap of a phase."""
    rows = [phase.rows.index + t * phase.rows.index_step for t in range(phase.rows.taps)]
    cols = [phase.cols.index + t * phase.cols.index_step for t in range(phase.cols.taps)]
    return np.array([r * kernel_cols + s for r in rows for s in cols] or [0], np.int32)


def tap_count(phase: Phase) -> int:
    return phase.rows.taps * phase.cols.taps


def source_arguments(shape: Sequence[int], phase: Phase) -> dict[str, Any]:
    """How the output pixels of `phase` see images of `shape` [n, rows, cols, channels]."""
    _, rows, cols, channels = shape
    return {
        "taps": Table(tap_offsets(phase)),
        "tap_count": tap_count(phase),
        "grid_rows": phase.rows.grid,
        "grid_columns": phase.cols.grid,
        "row_step": phase.rows.step,
        "column_step": phase.cols.step,
        "x_rows": rows,
        "x_columns": cols,
        "x_image_stride": rows * cols * channels,
        "x_row_stride": cols * channels,
        "x_column_stride": channels,
    }


def target_offset(shape: Sequence[int], phase: Phase) -> int:
    """Floats before the first output pixel of `phase` in images of `shape`."""
    return (phase.rows.out_offset * shape[2] + phase.cols.out_offset) * shape[3]


def target_strides(shape: Sequence[int], phase: Phase, name: str) -> dict[str, int]:
    _, rows, cols, channels = shape
    return {
        f"{name}_image_stride": rows * cols * channels,
        f"{name}_row_stride": phase.rows.out_step * cols * channels,
        f"{name}_column_stride": phase.cols.out_step * channels,
    }


def epilogue_arguments(node: Node, epilogue: Epilogue, offset: int = 0) -> dict[str, Any]:
    """Bias, residual and activation; the residual is read where y is written."""
    extra = list(node.inputs[2:])
    bias = extra.pop(0) if epilogue.bias else None
    residual = At(extra.pop(0), offset) if epilogue.residual else None
    f = clipped(epilogue.activation)
    return {"bias": bias, "residual": residual, "alpha": f.alpha, "beta": f.beta}


def clipped(f: Activation | None) -> Activation:
    """None and ReLU are clips without limits: one program to build where there would be three."""
    if f is None:
        return Activation("clip", -math.inf, math.inf)
    return Activation("clip", 0.0, math.inf) if f.kind == "relu" else f


# ---- implicit GEMM ----------------------------------------------------------------------------------------------------------


def product_call(context: Context, variant: Variant, pixels: int, groups: int, arguments: dict[str, Any], activation: int, summed: int = 0) -> Call:
    """The implicit GEMM of `pixels` by `arguments["outs"]` with panels of the variant's tile, in the form that it names. summed: products that CPUs
    sum up before they join the others, or 0."""
    tile = Tile.of(variant, "MR")
    defines = {"MR": tile.rows, "NV": tile.vectors, "VEC": tile.width, "ACTIVATION": activation}
    pixel_blocks = blocks(pixels, tile.pixels)
    panel_count = blocks(arguments["outs"], tile.panel)
    if variant.kernel == "conv_igemm_tiled":
        size = (panel_count * tile.columns, pixel_blocks * tile.lines, groups)
        defines |= {name: variant[name] for name in ("COLUMNS", "LINES", "STEP", "BUFFERS")}
        return Call("conv_igemm_tiled", "conv_igemm_tiled", size, tile.local_size, arguments, defines)
    # Work-items of a few microseconds: drivers deal them out in large shares, and only many small ones balance busy cores.
    block_products = tile.pixels * tile.panel * max(1, arguments["tap_count"] * arguments["reds"])
    per_item = clamp((1 << variant["WORK"]) // block_products, 1, max(1, pixel_blocks * panel_count * groups // 64))
    more = {"zeros": Zeros(arguments["reds"]), "blocks_per_item": per_item}
    lanes = variant["LANES"]
    size = (blocks(blocks(pixel_blocks, per_item), lanes) * lanes, panel_count, groups)
    return Call("conv_igemm", "conv_igemm", size, (lanes, 1, 1), {**arguments, **more}, {**defines, "UNROLL": variant["UNROLL"], "SUMMED": 0 if context.device.is_gpu else summed})


def igemm_call(
    context: Context,
    node: Node,
    source: Sequence[int],
    target: Sequence[int],
    phase: Phase,
    panels: Panels,
    variant: Variant,
    epilogue: Epilogue,
) -> Call:
    """The implicit GEMM of one phase: inputs of `node` are x and the packed weights."""
    offset = target_offset(target, phase)
    arguments = {
        "x": node.inputs[0],
        "panels": At(node.inputs[1], panels.place),
        "y": At(node.outputs[0], offset),
        "images": source[0],
        **source_arguments(source, phase),
        **target_strides(target, phase, "y"),
        "reds": panels.reds,
        "outs": panels.outs,
        **epilogue_arguments(node, epilogue, offset),
    }
    pixels = source[0] * phase.rows.grid * phase.cols.grid
    return product_call(context, variant, pixels, panels.groups, arguments, clipped(epilogue.activation).number)


def roles(op: Op) -> tuple[ConvGeometry, tuple[Phase, ...], tuple[int, ...], tuple[int, ...]]:
    """Geometry, phases, shape read and shape written of a convolution or its input gradient."""
    assert isinstance(op, Conv | ConvBackwardInput)
    g = op.geometry
    if isinstance(op, Conv):
        return g, g.forward_phases, g.input_shape, g.output_shape
    return g, g.backward_input_phases, g.output_shape, g.input_shape


class ImplicitGemm(OpenClAlgorithm):
    """Convolution and input gradient as a matrix product whose left side is read through taps."""

    name = "igemm"
    reason = "implicit GEMM over packed weights takes every shape"

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g, phases, source, target = roles(node.op)
        pixels = max(source[0] * p.rows.grid * p.cols.grid for p in phases)
        taps = max(tap_count(p) for p in phases)
        return [(PRODUCT, product_problem(pixels, target[3] // g.groups, source[3] // g.groups, taps, g.groups))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g, phases, source, target = roles(node.op)
        _, r, s, per_group = g.weight_shape
        element = r * s * per_group
        forward = isinstance(node.op, Conv)
        panels = [
            Panels(
                groups=g.groups,
                outs=target[3] // g.groups,
                reds=source[3] // g.groups,
                width=Tile.of(self.variant(node, device_context(device)), "MR").panel,
                taps=tuple(int(n) for n in tap_numbers(phase, s)[: tap_count(phase)]),
                group_stride=g.out_channels // g.groups * element,
                out_stride=element if forward else 1,
                tap_stride=per_group,
                red_stride=1 if forward else element,
            )
            for phase in phases
        ]
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(lay_out(panels), node.inputs[1]))
        return node

    def calls(self, node: Node, context: Context) -> list[Call]:
        _, phases, source, target = roles(node.op)
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        variant = self.variant(node, context)
        return [
            igemm_call(context, node, source, target, phase, panels, variant, epilogue)
            for phase, panels in zip(phases, packed.panels, strict=True)
        ]


# ---- few channels ---------------------------------------------------------------------------------------------------------


FEW_CHANNELS = 8  # below it, a tap's few products do not pay for finding its pixels


def reads_rows(g: ConvGeometry) -> bool:
    """Whether the elements of a kernel row, neighbours in memory, are taken as the channels of one tap."""
    return g.groups == 1 and g.channels < FEW_CHANNELS and g.kernel[1] > 1 and g.dilation[1] == 1


def row_phase(g: ConvGeometry) -> Phase:
    """The forward phase over an image whose columns were padded: one tap for each kernel row."""
    (phase,) = g.forward_phases
    cols = phase.cols
    return replace(phase, cols=PhaseAxis(cols.grid, cols.step, cols.out_step, cols.out_offset, 1, 0, 0, 0, 0))


def padded_shape(g: ConvGeometry) -> tuple[int, int, int, int]:
    n, h, w, c = g.input_shape
    return (n, h, w + sum(g.padding[1]), c)


def pad_columns(graph: Graph, node: Node, g: ConvGeometry) -> None:
    """Write the columns of zeros beside the image that is input 0 of `node`."""
    if any(g.padding[1]):
        before, after = g.padding[1]
        with graph.at(node):
            graph.rewire(node, 0, graph.apply(Pad((0, 0, before, 0), (0, 0, after, 0), (0, 0, 0, 0), 0.0), node.inputs[0]))


class RowTaps(OpenClAlgorithm):
    """Convolution of an image with few channels: the elements of a kernel row are the channels of one tap."""

    name = "igemm_rows"
    reason = "few channels: the elements of a kernel row are the channels of one tap"

    def supports(self, node: Node, device: Device) -> bool:
        return reads_rows(node.op.geometry)  # type: ignore[attr-defined]

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        return [(PRODUCT, product_problem(g.batch * g.out[0] * g.out[1], g.out_channels, g.kernel[1] * g.channels, g.kernel[0], 1))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        r, row = g.kernel[0], g.kernel[1] * g.channels
        width = Tile.of(self.variant(node, device_context(device)), "MR").panel
        panels = Panels(1, g.out_channels, row, width, tuple(range(r)), 0, r * row, row, 1)
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(lay_out([panels]), node.inputs[1]))
        pad_columns(graph, node, g)
        return node

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Conv)
        g = node.op.geometry
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        return [igemm_call(context, node, padded_shape(g), g.output_shape, row_phase(g), packed.panels[0], self.variant(node, context), node.op.epilogue)]


# ---- depthwise ------------------------------------------------------------------------------------------------------------


def columns_inside(source: Sequence[int], phase: Phase) -> int:
    """Columns whose taps are all inside the image."""
    cols = phase.cols
    taps = [cols.start + t * cols.tap_step for t in range(cols.taps)]
    return sum(all(0 <= b * cols.step + tap < source[2] for tap in taps) for b in range(cols.grid))


WHOLE = 1 << 20  # all columns of a row, all vectors of a pixel


def depthwise_usual(problem: Problem, limits: Limits) -> Variant:
    """On a CPU whole rows, and as many pixels together as divide the columns inside best."""
    if limits.is_gpu:
        return Variant.of("conv_depthwise", VEC=4, BLOCK=4, COLUMNS=4, VECTORS=1)
    inside = problem["inside"]
    block = min((n for n in (12, 9, 6, 5, 3) if n <= max(inside, 3)), key=lambda n: blocks(inside, n) * (n + 2))
    return Variant.of("conv_depthwise", VEC=limits.width, BLOCK=block, COLUMNS=WHOLE, VECTORS=WHOLE)


DEPTHWISE_SPACE = Space(
    "conv_depthwise",
    {"VEC": WIDTHS, "BLOCK": (2, 3, 4, 5, 6, 9, 12), "COLUMNS": (4, 8, 16, 32, WHOLE), "VECTORS": (1, 2, 4, WHOLE)},
    depthwise_usual,
    (WIDTH, Rule("BLOCK is at most COLUMNS", lambda v, p, d: v["BLOCK"] <= v["COLUMNS"])),
)
DEPTHWISE = Family("depthwise", (DEPTHWISE_SPACE,))


class Depthwise(OpenClAlgorithm):
    """One filter for each channel, channels as vector lanes."""

    name = "depthwise"
    reason = "one filter for each channel: channels are vector lanes"

    def supports(self, node: Node, device: Device) -> bool:
        return roles(node.op)[0].is_depthwise

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g, phases, source, _ = roles(node.op)
        phase = max(phases, key=lambda phase: phase.rows.grid * phase.cols.grid)
        sizes = {"rows": source[0] * phase.rows.grid, "columns": phase.cols.grid, "inside": columns_inside(source, phase)}
        return [(DEPTHWISE, Problem.of("depthwise", **sizes, channels=g.channels, taps=tap_count(phase)))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g, phases, _, _ = roles(node.op)
        taps = g.kernel[0] * g.kernel[1]
        panels = [
            Panels(1, g.channels, 1, g.channels, tuple(int(n) for n in tap_numbers(p, g.kernel[1])[: tap_count(p)]), 0, taps, 1, 0) for p in phases
        ]
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(lay_out(panels), node.inputs[1]))
        return node

    def calls(self, node: Node, context: Context) -> list[Call]:
        g, phases, source, target = roles(node.op)
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        variant = self.variant(node, context)
        channels = variant["VEC"] * min(variant["VECTORS"], blocks(g.channels, variant["VEC"]))
        defines = {"ACTIVATION": clipped(epilogue.activation).number, "BLOCK": variant["BLOCK"], "VEC": variant["VEC"]}
        calls = []
        for phase, panels in zip(phases, packed.panels, strict=True):
            columns = max(1, min(variant["COLUMNS"], phase.cols.grid))
            offset = target_offset(target, phase)
            arguments = {
                "x": node.inputs[0],
                "weights": At(node.inputs[1], panels.place),
                "y": At(node.outputs[0], offset),
                **source_arguments(source, phase),
                **target_strides(target, phase, "y"),
                "channels": g.channels,
                "channels_per_item": channels,
                "columns_per_item": columns,
                **epilogue_arguments(node, epilogue, offset),
            }
            size = (blocks(g.channels, channels), blocks(phase.cols.grid, columns), source[0] * phase.rows.grid)
            calls.append(Call("conv_depthwise", "conv_depthwise", *grid(context, *size), arguments, defines))
        return calls


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {
    Conv: [Depthwise(), RowTaps(), ImplicitGemm()],
    ConvBackwardInput: [Depthwise(), ImplicitGemm()],
}
