"""Convolutions with fewer multiplications: 3x3 with stride 1, and strides of 2 by phases. See src/winograd.h."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

from ...geometry import ConvGeometry
from ...graph import FixedNodes
from ...ops.base import Op
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...ops.movement import Concat
from ...records import record
from ..winograd import TILES, filter_view, frequencies, padding_before, three_by_three, tiles_of
from . import _kernels
from .conv import PackPanels, epilogue_buffers, epilogue_members, make_panels, pack_filters, roles
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch
from .winograd_filters import Form, TransformFilters, transformed

# Of a core of today, with another one at work beside it; only the ratios matter: flop in a nanosecond, nanoseconds that a float of the
# transformed inputs and of the products takes, bytes of filters in a nanosecond, and how many of them hide behind the multiplications.
PEAK, TRANSFORM, FILTER_BYTES, HIDDEN = 105.0, 0.13, 20.0, 0.7
CHUNK = 16  # of src/conv.h: channels that lie together in transformed inputs


#: Tiles that there are for kernels of stride 2.
PHASE_TILES = {3: (2, 4, 7), 4: (2, 4, 7), 5: (2, 4), 6: (2, 4), 7: (4, 6), 8: (4, 6)}
LEAST_GRADIENT_TILE = 4


def phases_taken(g: ConvGeometry, tile: int) -> bool:
    """Whether there are transforms with tiles of `tile` for the phases of this convolution."""
    square = g.kernel[0] == g.kernel[1] and g.stride == (2, 2) and g.dilation == (1, 1) and g.groups == 1
    return square and tile in PHASE_TILES.get(g.kernel[0], ())


def direct_cost(kernel: int, c: int, k: int, target: tuple[int, ...]) -> float:
    """Nanoseconds of the direct method on one core."""
    return 2 * kernel**2 * c * k * math.prod(target[:3]) / PEAK


def winograd_cost(form: Form, c: int, k: int, target: tuple[int, ...]) -> float:
    """Nanoseconds with tiles of tile x tile outputs: products, transforms, and what shows of the filters that come from memory."""
    products, tiles = form.products, tiles_of(target, form.tile)
    side, phases = form.tile + -(-form.kernel // form.step) - 1, form.step**2
    work, values = products * tiles, products
    if _kernels.winograd_blocks(**form.members, tiles=tiles, outs=k, channels=c)["few"]:
        # A row of frequencies loads an input for each product, and every tap again.
        work, values = work + side * form.kernel**2, form.kernel**2
    time = 2 * work * c * k / PEAK + TRANSFORM * side**2 * tiles * (phases * c + k)
    filters = 4 * values * c * k / FILTER_BYTES
    return max(time + (1 - HIDDEN) * filters, filters)


def joined(node: Node) -> tuple[Value, Value] | None:
    """The two images whose channels a Concat would join for this node alone, where the kernel can read them as they are."""
    x = node.inputs[0]
    if not isinstance(x.op, Concat) or x.op.axis != 3 or len(x.users) > 1 or len(x.node.inputs) != 2:
        return None
    first, rest = x.node.inputs
    return None if first.shape[3] % CHUNK or first is rest else (first, rest)


class ByTiles(CpuAlgorithm):
    """Winograd's method with tiles of tile x tile outputs."""

    prefix: ClassVar[str]
    exact = False  # the transforms add and subtract before they multiply

    def __init__(self, tile: int):
        self.tile = tile
        self.name = self.prefix if tile == 4 else f"{self.prefix}_{tile}x{tile}"

    def _form(self, node: Node) -> Form:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        return Form(self.tile, g.kernel[0], g.stride[0])

    def _products(self, node: Node) -> int:
        """Of a tile for each channel and out."""
        return self._form(node).products

    def _shape(self, node: Node) -> tuple[int, int, int]:
        """Tiles, channels and outs of the products."""
        _, _, source, target = roles(node.op)
        return tiles_of(target, self.tile), source[3], target[3]

    def work(self, node: Node, device: Device) -> int:
        return 2 * self._products(node) * math.prod(self._shape(node))

    def why(self, node: Node, device: Device) -> str:
        form = self._form(node)
        products, direct = self._products(node), (form.tile * form.kernel) ** 2
        common = math.gcd(products, direct)
        return f"stride {form.step}, tiles of {form.tile}x{form.tile}: {products // common}/{direct // common} of the multiplications"


class Winograd(ByTiles):
    """F(t x t, 3x3) for stride 1, forward and input gradient (which is a convolution with the filters turned around)."""

    prefix = "winograd"

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(roles(node.op)[0])

    def pays(self, node: Node, device: Device) -> bool:
        """Where it costs least of all tiles, and clearly less than the direct method."""
        _, _, source, target = roles(node.op)
        c, k = source[3], target[3]
        form = self._form(node)
        costs = {tile: winograd_cost(replace(form, tile=tile), c, k, target) for tile in self.tiles(form)}
        return self.enough(c, k) and costs[self.tile] == min(costs.values()) < 0.9 * direct_cost(form.kernel, c, k, target)

    @staticmethod
    def tiles(form: Form) -> tuple[int, ...]:
        """The tiles that there are for this kernel and stride."""
        return TILES

    @staticmethod
    def enough(c: int, k: int) -> bool:
        """Whether the channels and outs fill vectors."""
        return c >= 8 and k >= 8

    def _blocks(self, node: Node, fixed: bool) -> dict[str, int]:
        """How the work is cut into tasks. fixed: whether no run changes the filters."""
        _, _, source, target = roles(node.op)
        sizes = {"tiles": tiles_of(target, self.tile), "outs": target[3], "channels": source[3]}
        return _kernels.winograd_blocks(**self._form(node).members, **sizes, fixed=fixed)

    def why(self, node: Node, device: Device) -> str:
        return super().why(node, device) + ("; joins two inputs as it reads them" if self.joins(node) else "")

    @staticmethod
    def joins(node: Node) -> tuple[Value, Value] | None:
        """The two images that it reads in place of their concatenation."""
        return joined(node)

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        blocks = self._blocks(node, fixed=node.inputs[1].node in FixedNodes(graph))
        view, form = filter_view(node.op), self._form(node)
        taps = {"tap_rows": form.kernel, "tap_cols": form.kernel}
        layout = {"groups": 1, "outs": target[3], **taps, "reds": source[3], "panel_width": blocks["panel_width"], "chunked": blocks["few"]}
        strides = {"out_stride": view.out_stride, "red_stride": view.red_stride, "tap_row_stride": view.tap_row_stride, "tap_col_stride": view.tap_column_stride}
        with graph.at(node):
            if isinstance(node.op, Conv):
                filters = pack_filters(graph, node.inputs[1], layout)
            else:
                filters = graph.apply(PackPanels(make_panels([layout | strides | {"offset": view.offset, "group_stride": 0}])), node.inputs[1])
            if not blocks["taps"] and not blocks["few"]:
                filters = transformed(graph, filters, form)
            graph.rewire(node, 1, filters)
        if parts := self.joins(node):
            first, rest = parts
            graph.rewire(node, 0, first)
            graph.extend(node, rest)
        return node

    def _members(self, node: Node) -> dict[str, Any]:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        top, left = padding_before(node.op)
        return {
            **self._form(node).members,
            "images": source[0],
            "rows": source[1],
            "cols": source[2],
            "channels": source[3],
            "first_channels": node.inputs[0].shape[3],
            "out_rows": target[1],
            "out_cols": target[2],
            "outs": target[3],
            "grid_rows": target[1],
            "grid_cols": target[2],
            "pad_top": top,
            "pad_left": left,
            "out_step": 1,
            "out_top": 0,
            "out_left": 0,
            **self._blocks(node, fixed=isinstance(node.inputs[1].op, TransformFilters)),
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


class StridedWinograd(Winograd):
    """F(t x t, r x r) over the four phases of the input, for kernels of 3 to 8 (r = 2 to 4), and stride 2."""

    prefix = "winograd_strided"

    def supports(self, node: Node, device: Device) -> bool:
        return isinstance(node.op, Conv) and phases_taken(node.op.geometry, self.tile)

    @staticmethod
    def tiles(form: Form) -> tuple[int, ...]:
        return PHASE_TILES[form.kernel]

    @staticmethod
    def enough(c: int, k: int) -> bool:
        return (c <= 4 or c >= 8) and k >= 8

    @staticmethod
    def joins(node: Node) -> None:
        return None


@record
class OutputAxis:
    """Rows or columns of an input gradient of stride 2, dx[2s + p - padding] = sum over taps u of phase p of dy[s - u] w[2u + p], as windows on dy:
    output i of phase p is the sum of taps[p] elements of dy from first + i on, and lies at places[p] + 2i.
    """

    first: int
    outputs: int  # of a phase; some lie outside of dx
    taps: tuple[int, int]
    places: tuple[int, int]

    @classmethod
    def of(cls, kernel: int, padding: int, size: int) -> OutputAxis:
        taps = (-(-kernel // 2), kernel // 2)
        begins = [-((p - padding) // 2) - (taps[p] - 1) for p in (0, 1)]
        ends = [(size - 1 + padding - p) // 2 - (taps[p] - 1) for p in (0, 1)]
        first = min(begins)
        even, odd = (2 * (first + taps[p] - 1) + p - padding for p in (0, 1))
        return cls(first, max(ends) - first + 1, taps, (even, odd))


class StridedWinogradInput(ByTiles):
    """Input gradient for kernels of 3 to 8 and stride 2: dy is transformed once, each phase of dx is a convolution of it."""

    prefix = StridedWinograd.prefix

    def supports(self, node: Node, device: Device) -> bool:
        return phases_taken(node.op.geometry, self.tile)  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        """Where it costs least of all tiles, and clearly less than the direct method."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        rows, cols = self._axes(g)
        grid = (g.batch, rows.outputs, cols.outputs)
        costs = {tile: winograd_cost(Form(tile, g.kernel[0], 2), g.channels, g.out_channels, grid) for tile in PHASE_TILES[g.kernel[0]]}
        enough = g.channels >= 8 and g.out_channels >= 8
        return enough and costs[self.tile] == min(costs.values()) < 0.9 * direct_cost(g.kernel[0], g.channels, g.out_channels, g.output_shape)

    @staticmethod
    def _axes(g: ConvGeometry) -> tuple[OutputAxis, OutputAxis]:
        (top, _), (left, _) = g.padding
        return OutputAxis.of(g.kernel[0], top, g.size[0]), OutputAxis.of(g.kernel[1], left, g.size[1])

    def _phases(self, g: ConvGeometry) -> list[tuple[int, int, Form]]:
        """Row and column parity of the taps of each phase, and its form."""
        rows, cols = self._axes(g)
        r = rows.taps[0]
        return [(p, q, Form(self.tile, r, 1, r - rows.taps[p], r - cols.taps[q])) for p in (0, 1) for q in (0, 1)]

    def _shape(self, node: Node) -> tuple[int, int, int]:
        """The tiles of a phase's grid."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        rows, cols = self._axes(g)
        return tiles_of((g.batch, rows.outputs, cols.outputs), self.tile), g.channels, g.out_channels

    def _blocks(self, g: ConvGeometry, fixed: bool) -> dict[str, int]:
        """How the work is cut into tasks. fixed: whether no run changes the filters."""
        rows, cols = self._axes(g)
        tiles = tiles_of((g.batch, rows.outputs, cols.outputs), self.tile)
        form = Form(self.tile, rows.taps[0], 1)
        return _kernels.winograd_blocks(**form.members, tiles=tiles, outs=g.channels, channels=g.out_channels, shared=True, fixed=fixed) | {"transformed": 1}

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        blocks, c = self._blocks(g, fixed=node.inputs[1].node in FixedNodes(graph)), g.channels
        column, row = c, g.kernel[1] * c  # floats from a tap to the next
        filters = []
        with graph.at(node):
            for p, q, form in self._phases(g):
                rows, cols = form.taps
                layout = {
                    "groups": 1,
                    "outs": c,
                    "tap_rows": rows,
                    "tap_cols": cols,
                    "reds": g.out_channels,
                    "panel_width": blocks["panel_width"],
                    "offset": (2 * (rows - 1) + p) * row + (2 * (cols - 1) + q) * column,
                    "group_stride": 0,
                    "out_stride": 1,
                    "tap_row_stride": -2 * row,
                    "tap_col_stride": -2 * column,
                    "red_stride": g.kernel[0] * row,
                }
                packed = graph.apply(PackPanels(make_panels([layout])), node.inputs[1])
                filters.append(packed if blocks["taps"] else transformed(graph, packed, form))
            graph.rewire(node, 1, filters[0])
            graph.extend(node, *filters[1:])
        return node

    def _members(self, node: Node, phase: tuple[int, int, Form]) -> dict[str, Any]:
        assert isinstance(node.op, ConvBackwardInput)
        g, (p, q, form) = node.op.geometry, phase
        rows, cols = self._axes(g)
        return {
            **form.members,
            "images": g.batch,
            "rows": g.out[0],
            "cols": g.out[1],
            "channels": g.out_channels,
            "first_channels": g.out_channels,
            "out_rows": g.size[0],
            "out_cols": g.size[1],
            "outs": g.channels,
            "grid_rows": rows.outputs,
            "grid_cols": cols.outputs,
            "pad_top": -rows.first,
            "pad_left": -cols.first,
            "out_step": 2,
            "out_top": rows.places[p],
            "out_left": cols.places[q],
            **self._blocks(g, fixed=isinstance(node.inputs[1].op, TransformFilters)),
            **epilogue_members(node.op.epilogue),
        }

    def workspace(self, node: Node, device: Device) -> int:
        """The transformed dy."""
        phases = self._phases(node.op.geometry)  # type: ignore[attr-defined]
        return _kernels.winograd_workspace(_kernels.winograd_params(**self._members(node, phases[0])))

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardInput)
        bias, residual = epilogue_buffers(node, node.op.epilogue)
        dy, first, *extra = node.inputs
        phases = [self._members(node, phase) for phase in self._phases(node.op.geometry)]
        calls = [conv_launch("winograd_inputs", (dy, At(None), None), **phases[0])]
        for filters, members in zip((first, *extra[node.op.epilogue.operands :]), phases, strict=True):
            calls.append(conv_launch("winograd", (dy, filters, bias, residual, node.outputs[0], At(None), None), **members))
        return calls


class WinogradGradient(ByTiles):
    """Weight gradient of 3x3 convolutions with stride 1: F(t x t, 3x3) turned around."""

    prefix = Winograd.prefix

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(node.op.geometry)  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        """Where it has the fewest products of all tiles, and clearly fewer than the direct method."""
        g = node.op.geometry  # type: ignore[attr-defined]
        products = {tile: frequencies(tile) * tiles_of(g.output_shape, tile) for tile in TILES if tile >= LEAST_GRADIENT_TILE}
        enough = min(g.channels, g.out_channels) >= 16
        return enough and products[self.tile] == min(products.values()) < 0.45 * 9 * math.prod(g.output_shape[:3])

    def _shape(self, node: Node) -> tuple[int, int, int]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        return tiles_of(g.output_shape, self.tile), g.channels, g.out_channels

    def _members(self, node: Node) -> dict[str, int]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        form = self._form(node)
        return {
            **form.members,
            "images": g.batch,
            "rows": g.size[0],
            "cols": g.size[1],
            "channels": g.channels,
            "out_rows": g.out[0],
            "out_cols": g.out[1],
            "outs": g.out_channels,
            "pad_top": g.padding[0][0],
            "pad_left": g.padding[1][0],
            **_kernels.winograd_gradient_blocks(**form.members, tiles=tiles_of(g.output_shape, self.tile), outs=g.out_channels, channels=g.channels),
        }

    @staticmethod
    def _sizes(node: Node, members: dict[str, int]) -> tuple[int, int, int]:
        """Bytes of the parts, of the transformed inputs and of the transformed gradients in the workspace."""
        parts = members["parts"] * node.outputs[0].nbytes if members["parts"] > 1 else 0
        return (-(-parts // 64) * 64, *_kernels.winograd_gradient_workspace(_kernels.winograd_gradient_params(**members)))

    def workspace(self, node: Node, device: Device) -> int:
        assert isinstance(node.op, ConvBackwardWeight)
        parts, inputs, outputs = self._sizes(node, self._members(node))
        return parts + inputs + outputs

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, ConvBackwardWeight)
        members, dw = self._members(node), node.outputs[0]
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


class StridedWinogradGradient(WinogradGradient):
    """Weight gradient for kernels of 3 to 8 and stride 2: F(t x t, r x r) turned around, phase by phase."""

    prefix = StridedWinograd.prefix

    def supports(self, node: Node, device: Device) -> bool:
        return phases_taken(node.op.geometry, self.tile)  # type: ignore[attr-defined]

    def _products(self, node: Node) -> int:
        """Phases of few channels are lanes side by side, and multiplied at every frequency."""
        form = self._form(node)
        shared = 4 * node.op.geometry.channels <= CHUNK  # type: ignore[attr-defined]
        return 4 * (form.tile + -(-form.kernel // 2) - 1) ** 2 if shared else form.products

    def pays(self, node: Node, device: Device) -> bool:
        g = node.op.geometry  # type: ignore[attr-defined]
        kernel, c, k, target = g.kernel[0], g.channels, g.out_channels, g.output_shape
        costs = {tile: winograd_cost(Form(tile, kernel, 2), c, k, target) for tile in PHASE_TILES[kernel] if tile >= LEAST_GRADIENT_TILE}
        enough = (c <= 4 or c >= 16) and k >= 16
        return enough and costs[self.tile] == min(costs.values()) < 0.8 * direct_cost(kernel, c, k, target)


WHOLE = [Winograd(tile) for tile in TILES]
STRIDED_TILES = sorted({tile for tiles in PHASE_TILES.values() for tile in tiles})
ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {
    Conv: [*WHOLE, *(StridedWinograd(tile) for tile in STRIDED_TILES)],
    ConvBackwardInput: [*WHOLE, *(StridedWinogradInput(tile) for tile in STRIDED_TILES)],
    ConvBackwardWeight: [
        *(WinogradGradient(tile) for tile in TILES if tile >= LEAST_GRADIENT_TILE),
        *(StridedWinogradGradient(tile) for tile in STRIDED_TILES if tile >= LEAST_GRADIENT_TILE),
    ],
}
