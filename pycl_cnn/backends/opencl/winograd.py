"""3x3 convolutions with less than half of the multiplications, in chunks of tiles. See kernels_cl/winograd.cl."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput
from ...records import record
from ...tuning.database import Choice
from ...tuning.space import Family, Limits, Problem, Rule, Space, Variant
from ..base import Algorithm
from ..host import ONCE, is_fixed
from ..matrices import row_of_pixels
from ..winograd import TILES, FilterView, filter_view, frequencies, padding_before, three_by_three, tile_grid, tiles_of, transformed_filters
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import clipped, epilogue_arguments, product_call, roles, source_arguments
from .pack import fill_panels
from .sizes import blocks, channels_per_item, clamp, grid
from .tiles import PRODUCT, Tile, product_problem

LINE = 16  # floats of a cache line
FLOPS_PER_BYTE = 6.0  # of a core at its peak, while memory moves a byte
FLOPS_PER_FILTER_BYTE = 12.0  # likewise, while a byte of the filters is transformed and written
SUMMED = 128  # products of a sum that joins others: the transform back multiplies the rounding errors of long sums
LEAST_GAIN = 0.9  # of the direct method's cost, at most: models are rough


# ---- chunks of tiles ----------------------------------------------------------------------------------------------------------


def chunks_usual(problem: Problem, limits: Limits) -> Variant:
    """A GPU rather has few launches."""
    return Variant.of("winograd", CHUNK=16384 if limits.is_gpu else 4096, LEAST=112)


# CHUNK: KiB of transformed inputs and products of a chunk of tiles, what a cache between core and memory holds. LEAST: tiles of a chunk at
# least, since the filters are read once for each.
CHUNKS = Space("winograd", {"CHUNK": (1024, 2048, 4096, 8192, 16384, 32768), "LEAST": (56, 112, 224, 448)}, chunks_usual)
WINOGRAD = Family("winograd", (CHUNKS,))

Shape = tuple[int, ...]
Allowed = Callable[[Problem, int, Limits], bool]  # whether tiles of a size keep what is promised of errors


def chunk_problem(source: Shape, target: Shape, tile: int) -> Problem:
    return Problem.of("winograd", tile=tile, tiles=tiles_of(target, tile), ins=source[3], outs=target[3])


def tiles_of_chunk(variant: Variant, problem: Problem) -> int:
    """Tiles that are transformed and multiplied at once, in chunks as equal as they go."""
    channels = problem["ins"] + problem["outs"]
    most = max(variant["LEAST"], variant["CHUNK"] * 1024 // (4 * frequencies(problem["tile"]) * channels))
    return blocks(problem["tiles"], max(1, blocks(problem["tiles"], most)))


# ---- the size of tiles --------------------------------------------------------------------------------------------------------


def tile_problem(family: Family, source: Shape, target: Shape, **more: int) -> Problem:
    return Problem.of(family.name, images=target[0], rows=target[1], columns=target[2], ins=source[3], outs=target[3], **more)


def filters_problem(family: Family, node: Node) -> Problem:
    """That of a convolution. learned: 2 where each run transforms the filters, 1 where the host does when weights are given: problems of two kinds."""
    _, _, source, target = roles(node.op)
    filters = node.inputs[1]
    given = filters.node.inputs[0] if isinstance(filters.op, TransformFilters) else filters
    return tile_problem(family, source, target, learned=1 if is_fixed(given) else 2)


def usual_chunks(problem: Problem, tile: int, limits: Limits) -> tuple[int, int]:
    """(tiles, chunks) where the problem of tiles is answered by `tile`."""
    target = (problem["images"], problem["rows"], problem["columns"], problem["outs"])
    chunks = chunk_problem((*target[:3], problem["ins"]), target, tile)
    return chunks["tiles"], blocks(chunks["tiles"], tiles_of_chunk(chunks_usual(chunks, limits), chunks))


def cost(problem: Problem, tile: int, limits: Limits) -> float:
    """What tiles of tile x tile outputs cost, in flop: products at the peak, or reading the filters if that takes longer, and what transforms move;
    those of the filters, where each run has others.
    """
    ins, outs = problem["ins"], problem["outs"]
    tiles, chunks = usual_chunks(problem, tile, limits)
    products = 2 * frequencies(tile) * tiles * ins * outs
    filters = 4 * frequencies(tile) * ins * outs * chunks * FLOPS_PER_BYTE
    transforms = 4 * frequencies(tile) * 2 * tiles * (ins + outs) * FLOPS_PER_BYTE
    learned = 4 * frequencies(tile) * ins * outs * FLOPS_PER_FILTER_BYTE * (problem["learned"] - 1)
    return max(products, filters) + transforms + learned


def direct_cost(problem: Problem) -> float:
    return 2 * 9 * math.prod(problem[name] for name in ("images", "rows", "columns", "ins", "outs"))


def exact_enough(problem: Problem, tile: int, limits: Limits) -> bool:
    """Tiles of 7 only where products are summed up in parts, for they multiply the rounding errors of long sums most."""
    return tile < 7 or not limits.is_gpu


def usual_tile(problem: Problem, limits: Limits, cost: Callable[[Problem, int, Limits], float] = cost, allowed: Allowed = exact_enough) -> int:
    """By a model of the cost. On GPUs 4: no other was measured there, and 64 frequencies are many registers."""
    return 4 if limits.is_gpu else min((tile for tile in TILES if allowed(problem, tile, limits)), key=lambda tile: cost(problem, tile, limits))


def tile_family(name: str, cost: Callable[[Problem, int, Limits], float], allowed: Allowed = exact_enough) -> Family:
    """TILE: outputs of a tile at a side."""

    def usual(problem: Problem, limits: Limits) -> Variant:
        return Variant.of("winograd", TILE=usual_tile(problem, limits, cost, allowed))

    rule = Rule("tiles of 7 only where sums are short, which keeps errors small", lambda v, p, limits: allowed(p, v["TILE"], limits))
    return Family(name, (Space("winograd", {"TILE": TILES}, usual, (rule,)),))


WINOGRAD_TILE = tile_family("winograd_tile", cost)


@record
class Tiling:
    """Outputs of a tile at a side, all tiles, and those of a chunk."""

    tile: int
    tiles: int
    chunk: int


def tiling(context: Context, family: Family, of: Problem, source: Shape, target: Shape, settled: Sequence[Choice] | None = None) -> Tiling:
    """By what is settled, the choices for products, chunks and tiles, or else by what is known now."""
    size = settled[2] if settled else context.tuning.choose(family, of)
    problem = chunk_problem(source, target, size.variant["TILE"])
    chunks = settled[1] if settled else context.tuning.choose(WINOGRAD, problem)
    return Tiling(size.variant["TILE"], problem["tiles"], tiles_of_chunk(chunks.variant, problem))


# ---- kernels ------------------------------------------------------------------------------------------------------------------


def tile_stride(tile: int, channels: int) -> int:
    """Floats from a transformed tile to the next: an odd number of cache lines, so that tiles do not fall into the same few sets of a cache."""
    return LINE * (blocks(frequencies(tile) * channels, LINE) | 1)


def each_channel(context: Context, channels: int, rows: int) -> tuple[dict[str, int], tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Arguments and launch sizes of a transform of `channels` channels of `rows` tiles or filters."""
    per_item = channels_per_item(context, "winograd", channels, rows)
    return {"channels": channels, "channels_per_item": per_item}, grid(context, blocks(channels, per_item), rows)


def each_tile(context: Context, tile: int, channels: int, tiles: int) -> tuple[dict[str, int], tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Likewise of tiles."""
    arguments, size = each_channel(context, channels, tiles)
    return {**arguments, "tile_stride": tile_stride(tile, channels)}, size


@record
class TransformFilters(Op):
    """Filters of 3x3 taps in Winograd's form for a tile, as panels of `width` outputs: arguments of winograd_filters."""

    tile: int
    outs: int
    reds: int
    width: int
    vector: int
    view: FilterView

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(frequencies(self.tile) * blocks(self.outs, self.width) * self.reds * self.width),)

    def once(self, weight: np.ndarray) -> np.ndarray:
        view = self.view
        places = [view.offset + r * view.tap_row_stride + s * view.tap_column_stride for r in range(3) for s in range(3)]
        taps = np.zeros((9, blocks(self.outs, self.width), self.reds, self.width), np.float32)
        fill_panels(taps.swapaxes(0, 1)[None], weight, self.outs, places, 0, view.out_stride, view.red_stride)
        return transformed_filters(taps.reshape(9, -1), self.tile).reshape(-1)


class TransformFiltersKernel(OpenClAlgorithm):
    name = "winograd_filters"

    def calls(self, node: Node, context: Context) -> list[Call]:
        op = node.op
        assert isinstance(op, TransformFilters)
        panels = blocks(op.outs, op.width)
        # On CPUs more reds make long pieces of every frequency.
        at_once = 4 if context.device.is_gpu else 32
        per_item = clamp(4 * (op.reds * panels // 512), 4, at_once)
        strides = asdict(op.view)
        source = At(node.inputs[0], strides.pop("offset"))
        arguments = {"source": source, "panels": node.outputs[0], "outs": op.outs, "reds": op.reds, "width": op.width, **strides, "reds_per_item": per_item}
        size = grid(context, blocks(op.reds, per_item), panels)
        defines = {"VEC": op.vector, "TILE": op.tile, "REDS": at_once, "ACTIVATION": clipped(None).number}
        return [Call("winograd", "winograd_filters", *size, arguments, defines)]


def insert_filters(graph: Graph, node: Node, tile: int, block: Tile) -> None:
    """Transform the filters that are input 1 of `node`, for products in blocks."""
    assert isinstance(node.op, Conv | ConvBackwardInput)
    _, _, source, target = roles(node.op)
    filters = TransformFilters(tile, target[3], source[3], block.panel, block.width, filter_view(node.op))
    with graph.at(node):
        graph.rewire(node, 1, graph.apply(filters, node.inputs[1]))


class Winograd(OpenClAlgorithm):
    """F(t x t, 3x3) for stride 1, forward and input gradient (which is a convolution with the filters turned around)."""

    name = "winograd"
    reason = "3x3 taps, stride 1: less than half of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(roles(node.op)[0])

    def pays(self, node: Node, device: Device) -> bool:
        _, _, source, target = roles(node.op)
        context, problem = device_context(device), filters_problem(WINOGRAD_TILE, node)
        tile = self._tiling(node, context).tile
        return min(source[3], target[3]) >= 16 and cost(problem, tile, context.tuning.limits) < LEAST_GAIN * direct_cost(problem)

    def _tiling(self, node: Node, context: Context) -> Tiling:
        _, _, source, target = roles(node.op)
        return tiling(context, WINOGRAD_TILE, filters_problem(WINOGRAD_TILE, node), source, target, node.settled)

    def work(self, node: Node, device: Device) -> int:
        _, _, source, target = roles(node.op)
        cut = self._tiling(node, device_context(device))
        return 2 * frequencies(cut.tile) * cut.tiles * source[3] * target[3]

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        _, _, source, target = roles(node.op)
        cut = self._tiling(node, context)
        products = product_problem(cut.chunk, target[3], source[3], 1, frequencies(cut.tile))
        return [(PRODUCT, products), (WINOGRAD, chunk_problem(source, target, cut.tile)), (WINOGRAD_TILE, filters_problem(WINOGRAD_TILE, node))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        context = device_context(device)
        insert_filters(graph, node, self._tiling(node, context).tile, Tile.of(self.variant(node, context), "MR"))
        return node

    def workspace(self, node: Node, device: Device) -> int:
        _, _, source, target = roles(node.op)
        cut = self._tiling(node, device_context(device))
        return 4 * cut.chunk * (tile_stride(cut.tile, source[3]) + tile_stride(cut.tile, target[3]))

    def calls(self, node: Node, context: Context) -> list[Call]:
        cut = self._tiling(node, context)
        calls = []
        for first in range(0, cut.tiles, cut.chunk):
            calls += self._chunk(node, context, cut, first)
        return calls

    def _chunk(self, node: Node, context: Context, cut: Tiling, first: int) -> list[Call]:
        """Transforms, products and transforms back of the tiles from `first` on; the workspace holds v, then m."""
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        c, k, count, tiles = source[3], target[3], frequencies(cut.tile), min(cut.chunk, cut.tiles - first)
        top, left = padding_before(node.op)
        rows, columns = tile_grid(target, cut.tile)
        shared = {"tile_rows": rows, "tile_columns": columns, "first_tile": first}
        v, m = At(None), At(None, cut.chunk * tile_stride(cut.tile, c))
        defines = {"TILE": cut.tile, "ACTIVATION": clipped(node.op.epilogue.activation).number}

        channels, size = each_tile(context, cut.tile, c, tiles)
        image = {"x": node.inputs[0], "x_rows": source[1], "x_columns": source[2], "pad_top": top, "pad_left": left}
        into = Call("winograd", "winograd_input", *size, {**image, "v": v, **shared, **channels}, defines)
        plain = clipped(None)
        products = {
            "x": v,
            "panels": node.inputs[1],
            "y": m,
            "bias": None,
            "residual": None,
            "alpha": plain.alpha,
            "beta": plain.beta,
            "images": 1,
            **source_arguments((1, 1, tiles, tile_stride(cut.tile, c)), row_of_pixels(tiles)),
            "y_image_stride": 0,
            "y_row_stride": 0,
            "y_column_stride": tile_stride(cut.tile, k),
            "reds": c,
            "outs": k,
        }
        multiply = product_call(context, self.variant(node, context), tiles, count, products, plain.number, SUMMED)
        channels, size = each_tile(context, cut.tile, k, tiles)
        result = {"y": node.outputs[0], "y_rows": target[1], "y_columns": target[2], **epilogue_arguments(node, node.op.epilogue)}
        back = Call("winograd", "winograd_output", *size, {**result, "m": m, **shared, **channels}, defines)
        return [into, multiply, back]


ALGORITHMS: dict[type[Op], list[Algorithm]] = {
    Conv: [Winograd()],
    ConvBackwardInput: [Winograd()],
    TransformFilters: [ONCE, TransformFiltersKernel()],
}
