"""3x3 convolutions by Winograd's method in one kernel, where there are many tiles. See kernels_cl/winograd_fused.cl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ...ops.base import Op
from ...ops.conv import Conv, ConvBackwardInput
from ...records import record
from ...tuning.space import Family, Limits, Problem, Rule, Space, Variant
from ..winograd import TILES, frequencies, padding_before, tile_grid, tiles_of
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import clipped, epilogue_arguments, roles
from .sizes import blocks, clamp
from .tiles import HEIGHTS, WIDTH, WIDTHS, Tile, registers
from .winograd import LEAST_GAIN, LINE, SUMMED, Winograd, cost, direct_cost, filters_problem, insert_filters, usual_tile

ROWS_OF_WIDTH = {16: 7, 8: 6, 4: 6}
BLOCKS_PER_UNIT = 3  # at least
ITEMS_PER_UNIT = 8  # that drivers deal out to a CPU's cores
CACHE = 512 << 10  # bytes that a core has near
FILTERS = 4 << 20  # bytes that all cores read again for every block


def usual_block(problem: Problem, limits: Limits, tile: int) -> Variant:
    """One height for all sizes: tiles are many, and each variant costs a compiler run."""
    width = limits.width
    while width > 4 and problem["outs"] <= width // 2:
        width //= 2
    return Variant.of("winograd_fused", TILE=tile, MR=ROWS_OF_WIDTH[width], NV=2 if problem["outs"] > width else 1, VEC=width)


def fused_usual(problem: Problem, limits: Limits) -> Variant:
    return usual_block(problem, limits, usual_tile(problem, limits))


SPACE = Space(
    "winograd_fused",
    {"TILE": TILES, "MR": HEIGHTS[:-1], "NV": (1, 2, 3), "VEC": WIDTHS},
    fused_usual,
    (
        WIDTH,
        registers("MR"),
        Rule("a panel is not much wider than the outs", lambda v, p, d: v["VEC"] == 4 or v["NV"] * v["VEC"] < 2 * p["outs"] + 8),
    ),
)
WINOGRAD_FUSED = Family("winograd_fused", (SPACE,))


def frequency_stride(rows: int, reds: int) -> int:
    """Floats from a frequency of `rows` tiles to the next: an odd number of cache lines."""
    return LINE * (blocks(rows * reds, LINE) | 1)


def scratch_stride(count: int, block: Tile, reds: int) -> int:
    """Floats of a work-item's transformed inputs and of a panel's products, of `count` frequencies."""
    return count * (frequency_stride(block.rows, reds) + block.rows * block.panel)


@record
class Form:
    """Frequencies of a tile, the reds of its products, floats from a transformed tile to the next, and further -D of the kernel."""

    frequencies: int
    reds: int
    red_stride: int
    defines: Mapping[str, int] = field(default_factory=dict)


class WinogradFused(OpenClAlgorithm):
    """F(t x t, 3x3) for stride 1, forward and input gradient, every core with tiles of its own."""

    name = "winograd_fused"
    reason = f"{Winograd.reason}; tiles are many, so that each core keeps some in its caches from input to output"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return Winograd().supports(node, device)

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        return [(WINOGRAD_FUSED, filters_problem(WINOGRAD_FUSED, node))]

    def pays(self, node: Node, device: Device) -> bool:
        """Where what a block needs stays near a core, and every core has some blocks."""
        _, _, source, target = roles(node.op)
        context, problem = device_context(device), filters_problem(WINOGRAD_FUSED, node)
        variant = self.variant(node, context)
        tile, block = variant["TILE"], Tile.of(variant, "MR")
        near = 4 * scratch_stride(frequencies(tile), block, source[3]) <= CACHE and 4 * frequencies(tile) * source[3] * target[3] <= FILTERS
        many = blocks(tiles_of(target, tile), block.rows) >= BLOCKS_PER_UNIT * context.device.compute_units
        cheap = cost(problem, tile, context.tuning.limits) < LEAST_GAIN * direct_cost(problem)
        return not context.device.is_gpu and min(source[3], target[3]) >= 16 and near and many and cheap

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        variant = self.variant(node, device_context(device))
        insert_filters(graph, node, variant["TILE"], Tile.of(variant, "MR"))
        return node

    def settle(self, node: Node, device: Device) -> tuple[Any, ...]:
        """The variant, and how many blocks a work-item does: so many that drivers have enough to deal out, and that all scratch fits in one piece of memory."""
        context = device_context(device)
        choices = super().settle(node, device)
        variant = choices[0].variant
        count = blocks(tiles_of(roles(node.op)[3], variant["TILE"]), variant["MR"])
        scratch = self._scratch_bytes(node, variant)
        most = ITEMS_PER_UNIT * context.device.compute_units
        items = clamp(device.largest // scratch, 1, most) if device.largest else most
        return (*choices, blocks(count, items))

    def form(self, node: Node, tile: int) -> Form:
        return Form(frequencies(tile), roles(node.op)[2][3], roles(node.op)[2][3])

    def work(self, node: Node, device: Device) -> int:
        target, tile = roles(node.op)[3], node.settled[0].variant["TILE"]
        form = self.form(node, tile)
        return 2 * form.frequencies * form.reds * tiles_of(target, tile) * target[3]

    def _scratch_bytes(self, node: Node, variant: Variant) -> int:
        form = self.form(node, variant["TILE"])
        return 4 * scratch_stride(form.frequencies, Tile.of(variant, "MR"), form.red_stride)

    def _items(self, node: Node) -> int:
        variant = node.settled[0].variant
        return blocks(tiles_of(roles(node.op)[3], variant["TILE"]), variant["MR"] * node.settled[1])

    def workspace(self, node: Node, device: Device) -> int:
        variant = node.settled[0].variant
        return self._items(node) * self._scratch_bytes(node, variant)

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        variant = self.variant(node, context)
        tile, block = variant["TILE"], Tile.of(variant, "MR")
        form = self.form(node, tile)
        top, left = padding_before(node.op)
        rows, columns = tile_grid(target, tile)
        arguments = {
            "x": node.inputs[0],
            "panels": node.inputs[1],
            "y": node.outputs[0],
            "scratch": At(None),
            "x_rows": source[1],
            "x_columns": source[2],
            "reds": form.reds,
            "pad_top": top,
            "pad_left": left,
            "y_rows": target[1],
            "y_columns": target[2],
            "outs": target[3],
            "tile_rows": rows,
            "tile_columns": columns,
            "tiles": tiles_of(target, tile),
            "blocks_per_item": node.settled[1],
            "scratch_stride": scratch_stride(form.frequencies, block, form.red_stride),
            "frequency_stride": frequency_stride(block.rows, form.red_stride),
            **epilogue_arguments(node, node.op.epilogue),
        }
        defines = {"TILE": tile, "MR": block.rows, "NV": block.vectors, "VEC": block.width, "SUMMED": SUMMED, "ACTIVATION": clipped(node.op.epilogue.activation).number, **form.defines}
        return [Call("winograd_fused", "winograd_fused", (self._items(node),), (1,), arguments, defines)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {Conv: [WinogradFused()], ConvBackwardInput: [WinogradFused()]}
