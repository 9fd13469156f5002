"""Weight gradients of 3x3 convolutions with less than half of the multiplications. See kernels_cl/winograd_gradient.cl."""

from __future__ import annotations

from ...geometry import ConvGeometry
from ...ops.base import Op
from ...ops.conv import ConvBackwardWeight
from ...tuning.space import Family, Limits, Problem
from ..matrices import row_of_pixels
from ..winograd import frequencies, three_by_three, tile_grid
from .call import At, Call, Context, Device, Node, OpenClAlgorithm, device_context
from .conv import clipped, source_arguments
from .conv_weight_gradient import WEIGHT_GRADIENT, gradient_call, gradient_problem
from .sizes import blocks
from .winograd import (
    FLOPS_PER_BYTE,
    LEAST_GAIN,
    WINOGRAD,
    Tiling,
    Winograd,
    chunk_problem,
    direct_cost,
    each_channel,
    each_tile,
    tile_family,
    tile_problem,
    tile_stride,
    tiling,
    usual_chunks,
)

MOST_CHUNKS = 16
MOST_SUMMED = 1024  # tiles of 7 of a chunk, where there are as many chunks
FLOPS_PER_SUM_BYTE = 16.0  # of a core at its peak, while a byte of the sums of all frequencies is written or read


def cost(problem: Problem, tile: int, limits: Limits) -> float:
    """What tiles of tile x tile gradients cost, in flop: products at the peak, and what transforms and sums move."""
    ins, outs = problem["ins"], problem["outs"]
    tiles, chunks = usual_chunks(problem, tile, limits)
    products = 2 * frequencies(tile) * tiles * ins * outs
    transforms = 4 * frequencies(tile) * 2 * tiles * (ins + outs) * FLOPS_PER_BYTE
    sums = 4 * frequencies(tile) * 2 * min(chunks, MOST_CHUNKS) * ins * outs * FLOPS_PER_SUM_BYTE
    return products + transforms + sums


def exact_enough(problem: Problem, tile: int, limits: Limits) -> bool:
    """The products of a chunk are summed up in one go."""
    return tile < 7 or (not limits.is_gpu and usual_chunks(problem, tile, limits)[0] <= MOST_CHUNKS * MOST_SUMMED)


GRADIENT_TILE = tile_family("winograd_gradient_tile", cost, exact_enough)


class WinogradGradient(OpenClAlgorithm):
    """Weight gradient of 3x3 convolutions with stride 1: F(t x t, 3x3) turned around."""

    name = "winograd"
    reason = Winograd.reason
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(node.op.geometry)  # type: ignore[attr-defined]

    def pays(self, node: Node, device: Device) -> bool:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        context, problem = device_context(device), tile_problem(GRADIENT_TILE, g.input_shape, g.output_shape)
        tile = self._tiling(node, context).tile
        return min(g.channels, g.out_channels) >= 16 and cost(problem, tile, context.tuning.limits) < LEAST_GAIN * direct_cost(problem)

    def _tiling(self, node: Node, context: Context) -> Tiling:
        """At most MOST_CHUNKS chunks, since each has sums of its own."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        shapes = (g.input_shape, g.output_shape)
        cut = tiling(context, GRADIENT_TILE, tile_problem(GRADIENT_TILE, *shapes), *shapes, node.settled)
        return Tiling(cut.tile, cut.tiles, max(cut.chunk, blocks(cut.tiles, MOST_CHUNKS)))

    def work(self, node: Node, device: Device) -> int:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        cut = self._tiling(node, device_context(device))
        return 2 * frequencies(cut.tile) * cut.tiles * g.channels * g.out_channels

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        shapes, cut = (g.input_shape, g.output_shape), self._tiling(node, context)
        products = gradient_problem(cut.chunk, g.out_channels, g.channels, 1, frequencies(cut.tile))
        return [(WEIGHT_GRADIENT, products), (WINOGRAD, chunk_problem(*shapes, cut.tile)), (GRADIENT_TILE, tile_problem(GRADIENT_TILE, *shapes))]

    def _sizes(self, node: Node, context: Context) -> tuple[int, int, int]:
        """Floats of v, w and of the sums of all chunks."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        cut = self._tiling(node, context)
        v, w = (cut.chunk * tile_stride(cut.tile, channels) for channels in (g.channels, g.out_channels))
        return v, w, frequencies(cut.tile) * blocks(cut.tiles, cut.chunk) * g.channels * g.out_channels

    def workspace(self, node: Node, device: Device) -> int:
        return 4 * sum(self._sizes(node, device_context(device)))

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        x, dy = node.inputs
        c, k = g.channels, g.out_channels
        cut = self._tiling(node, context)
        count, tile = frequencies(cut.tile), {"TILE": cut.tile}
        v_size, w_size, _ = self._sizes(node, context)
        variant = self.variant(node, context)
        v, w = At(None), At(None, v_size)
        rows, columns = tile_grid(g.output_shape, cut.tile)
        calls = []
        for number, first in enumerate(range(0, cut.tiles, cut.chunk)):
            tiles = min(cut.chunk, cut.tiles - first)
            shared = {"tile_rows": rows, "tile_columns": columns, "first_tile": first}
            image = {"x": x, "x_rows": g.size[0], "x_columns": g.size[1], "pad_top": g.padding[0][0], "pad_left": g.padding[1][0], "v": v}
            gradient = {"dy": dy, "y_rows": g.out[0], "y_columns": g.out[1], "w": w}
            channels, size = each_tile(context, cut.tile, c, tiles)
            calls.append(Call("winograd", "winograd_input", *size, {**image, **shared, **channels}, {**tile, "ACTIVATION": clipped(None).number}))
            channels, size = each_tile(context, cut.tile, k, tiles)
            calls.append(Call("winograd_gradient", "winograd_gradient_output", *size, {**gradient, **shared, **channels}, tile))
            products = {
                "x": v,
                "dy": w,
                "parts": At(None, v_size + w_size + number * count * c * k),
                "images": 1,
                **source_arguments((1, 1, tiles, tile_stride(cut.tile, c)), row_of_pixels(tiles)),
                "dy_image_stride": 0,
                "dy_row_stride": 0,
                "dy_column_stride": tile_stride(cut.tile, k),
                "reds": c,
                "outs": k,
                "groups": count,
                "pixels_per_part": tiles,
            }
            calls.append(gradient_call(variant, 1, products))
        channels, size = each_channel(context, c, k)
        sums = {"u": At(None, v_size + w_size), "dw": node.outputs[0], "outs": k, "chunks": blocks(cut.tiles, cut.chunk)}
        defines = {**tile, "VECTORS": 1 if context.device.is_gpu else 16}
        return [*calls, Call("winograd_gradient", "winograd_gradient_filters", *size, {**sums, **channels}, defines)]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {ConvBackwardWeight: [WinogradGradient()]}
