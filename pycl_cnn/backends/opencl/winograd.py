"""3x3 convolutions with a quarter of the multiplications, in chunks of tiles. See kernels_cl/winograd.cl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...geometry import ConvGeometry
from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...tuning.database import Choice
from ...tuning.space import Family, Limits, Problem, Space, Variant
from ..matrices import row_of_pixels
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import clipped, epilogue_arguments, product_call, roles, source_arguments
from .conv_weight_gradient import WEIGHT_GRADIENT, gradient_call, gradient_problem
from .sizes import blocks, channels_per_item, clamp, grid
from .tiles import PRODUCT, Tile, product_problem

FREQUENCIES = 36
MOST_CHUNKS = 16  # of a weight gradient
FLOPS_PER_BYTE = 6.0  # of a core at its peak, while memory moves a byte


def three_by_three(g: ConvGeometry) -> bool:
    """Whether F(4x4, 3x3) is for this convolution."""
    return g.kernel == (3, 3) and g.stride == (1, 1) and g.dilation == (1, 1) and g.groups == 1


def tile_grid(outputs: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of tiles of 4x4 outputs in an image of `outputs`."""
    return blocks(outputs[1], 4), blocks(outputs[2], 4)


def tiles_of(outputs: tuple[int, ...]) -> int:
    return outputs[0] * math.prod(tile_grid(outputs))


def chunks_usual(problem: Problem, limits: Limits) -> Variant:
    """A GPU rather has few launches."""
    return Variant.of("winograd", CHUNK=16384 if limits.is_gpu else 4096, LEAST=112)


# CHUNK: KiB of transformed inputs and products of a chunk of tiles, what a cache between core and memory holds. LEAST: tiles of a chunk at
# least, since the filters are read once for each.
CHUNKS = Space("winograd", {"CHUNK": (1024, 2048, 4096, 8192, 16384, 32768), "LEAST": (56, 112, 224, 448)}, chunks_usual)
WINOGRAD = Family("winograd", (CHUNKS,))


def chunk_problem(source: tuple[int, ...], target: tuple[int, ...]) -> Problem:
    return Problem.of("winograd", tiles=tiles_of(target), ins=source[3], outs=target[3])


def tiles_of_chunk(context: Context, source: tuple[int, ...], target: tuple[int, ...], settled: Sequence[Choice] | None = None) -> int:
    """Tiles that are transformed and multiplied at once, in chunks as equal as they go; by the second choice of what is settled."""
    choice = settled[1] if settled else context.tuning.choose(WINOGRAD, chunk_problem(source, target))
    variant = choice.variant
    tiles = tiles_of(target)
    most = max(variant["LEAST"], variant["CHUNK"] * 1024 // (4 * FREQUENCIES * (source[3] + target[3])))
    return blocks(tiles, max(1, blocks(tiles, most)))


def each_tile(context: Context, channels: int, tiles: int) -> tuple[dict[str, int], tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Arguments and launch sizes of a transform of `channels` channels of `tiles` tiles."""
    per_item = channels_per_item(context, "winograd", channels, tiles)
    return {"channels": channels, "channels_per_item": per_item}, grid(context, blocks(channels, per_item), tiles)


@dataclass(frozen=True)
class TransformFilters(Op):
    """Filters of 3x3 taps in Winograd's form, as panels of `width` outputs: arguments of winograd_filters."""

    outs: int
    reds: int
    width: int
    vector: int
    offset: int
    out_stride: int
    red_stride: int
    tap_row_stride: int
    tap_column_stride: int

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(FREQUENCIES * blocks(self.outs, self.width) * self.reds * self.width),)


class TransformFiltersKernel(OpenClAlgorithm):
    name = "winograd_filters"

    def calls(self, node: Node, context: Context) -> list[Call]:
        op = node.op
        assert isinstance(op, TransformFilters)
        panels = blocks(op.outs, op.width)
        # The kernel takes four reds at once; a few more make long pieces of every frequency.
        per_item = 4 if context.device.is_gpu else clamp(4 * (op.reds * panels // 512), 4, 32)
        arguments = {
            "source": At(node.inputs[0], op.offset),
            "panels": node.outputs[0],
            "outs": op.outs,
            "reds": op.reds,
            "width": op.width,
            "out_stride": op.out_stride,
            "red_stride": op.red_stride,
            "tap_row_stride": op.tap_row_stride,
            "tap_column_stride": op.tap_column_stride,
            "reds_per_item": per_item,
        }
        size = grid(context, blocks(op.reds, per_item), panels)
        return [Call("winograd", "winograd_filters", *size, arguments, {"VEC": op.vector, "ACTIVATION": clipped(None).number})]


class Winograd(OpenClAlgorithm):
    """F(4x4, 3x3) for stride 1, forward and input gradient (which is a convolution with the filters turned around)."""

    name = "winograd"
    reason = "3x3 taps, stride 1: a quarter of the multiplications pays for the transforms"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(roles(node.op)[0])

    def pays(self, node: Node, device: Device) -> bool:
        """A model of both costs: arithmetic at the peak; transforms and filters by the bytes that they move."""
        _, _, source, target = roles(node.op)
        c, k = source[3], target[3]
        tiles = tiles_of(target)
        direct = 2 * 9 * c * k * math.prod(target[:3])
        products = 2 * FREQUENCIES * tiles * c * k
        transforms = 4 * FREQUENCIES * 2 * tiles * (c + k) * FLOPS_PER_BYTE
        filters = 4 * FREQUENCIES * c * k * blocks(tiles, tiles_of_chunk(device_context(device), source, target)) * FLOPS_PER_BYTE
        return min(c, k) >= 16 and max(products, filters) + transforms < 0.9 * direct

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        _, _, source, target = roles(node.op)
        products = product_problem(tiles_of_chunk(context, source, target), target[3], source[3], 1, FREQUENCIES)
        return [(PRODUCT, products), (WINOGRAD, chunk_problem(source, target))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        _, _, source, target = roles(node.op)
        forward = isinstance(node.op, Conv)
        channels = node.inputs[1].shape[3]
        tile = Tile.of(self.variant(node, device_context(device)), "MR")
        direction = 1 if forward else -1
        filters = TransformFilters(
            outs=target[3],
            reds=source[3],
            width=tile.panel,
            vector=tile.width,
            offset=0 if forward else 8 * channels,
            out_stride=9 * channels if forward else 1,
            red_stride=1 if forward else 9 * channels,
            tap_row_stride=3 * channels * direction,
            tap_column_stride=channels * direction,
        )
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(filters, node.inputs[1]))
        return node

    def workspace(self, node: Node, device: Device) -> int:
        _, _, source, target = roles(node.op)
        return 4 * FREQUENCIES * tiles_of_chunk(device_context(device), source, target, node.settled) * (source[3] + target[3])

    def calls(self, node: Node, context: Context) -> list[Call]:
        g, _, source, target = roles(node.op)
        chunk, tiles = tiles_of_chunk(context, source, target, node.settled), tiles_of(target)
        calls = []
        for first in range(0, tiles, chunk):
            calls += self._chunk(node, context, g, first, min(chunk, tiles - first), chunk)
        return calls

    def _chunk(self, node: Node, context: Context, g: ConvGeometry, first: int, tiles: int, chunk: int) -> list[Call]:
        """Transforms, products and transforms back of `tiles` tiles; the workspace holds v, then m."""
        _, _, source, target = roles(node.op)
        epilogue: Epilogue = node.op.epilogue  # type: ignore[attr-defined]
        c, k = source[3], target[3]
        top, left = g.padding[0][0], g.padding[1][0]
        if isinstance(node.op, ConvBackwardInput):
            top, left = 2 - top, 2 - left
        rows, columns = tile_grid(target)
        shared = {"tile_rows": rows, "tile_columns": columns, "first_tile": first}
        v, m = At(None), At(None, FREQUENCIES * chunk * c)
        activation = {"ACTIVATION": clipped(epilogue.activation).number}

        channels, size = each_tile(context, c, tiles)
        image = {"x": node.inputs[0], "x_rows": source[1], "x_columns": source[2], "pad_top": top, "pad_left": left}
        into = Call("winograd", "winograd_input", *size, {**image, "v": v, **shared, **channels}, activation)
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
            **source_arguments((1, 1, tiles, FREQUENCIES * c), row_of_pixels(tiles)),
            "y_image_stride": 0,
            "y_row_stride": 0,
            "y_column_stride": FREQUENCIES * k,
            "reds": c,
            "outs": k,
        }
        multiply = product_call(context, self.variant(node, context), tiles, FREQUENCIES, products, plain.number)
        channels, size = each_tile(context, k, tiles)
        result = {"y": node.outputs[0], "y_rows": target[1], "y_columns": target[2], **epilogue_arguments(node, epilogue)}
        back = Call("winograd", "winograd_output", *size, {**result, "m": m, **shared, **channels}, activation)
        return [into, multiply, back]


class WinogradGradient(OpenClAlgorithm):
    """Weight gradient of 3x3 convolutions with stride 1: F(4x4, 3x3) turned around. See kernels_cl/winograd_gradient.cl."""

    name = "winograd"
    reason = Winograd.reason
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        return three_by_three(node.op.geometry)  # type: ignore[attr-defined]

    def _chunk_tiles(self, node: Node, context: Context) -> int:
        """Tiles of a chunk; at most MOST_CHUNKS chunks, since each has sums of its own."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        tiles = tiles_of(g.output_shape)
        return max(tiles_of_chunk(context, g.input_shape, g.output_shape, node.settled), blocks(tiles, MOST_CHUNKS))

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        products = gradient_problem(self._chunk_tiles(node, context), g.out_channels, g.channels, 1, FREQUENCIES)
        return [(WEIGHT_GRADIENT, products), (WINOGRAD, chunk_problem(g.input_shape, g.output_shape))]

    def pays(self, node: Node, device: Device) -> bool:
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        c, k, tiles = g.channels, g.out_channels, tiles_of(g.output_shape)
        direct = 2 * 9 * c * k * math.prod(g.output_shape[:3])
        products = 2 * FREQUENCIES * tiles * c * k
        chunks = blocks(tiles, self._chunk_tiles(node, device_context(device)))
        moved = 4 * FREQUENCIES * 2 * (tiles * (c + k) + chunks * c * k)
        return min(c, k) >= 16 and products + moved * FLOPS_PER_BYTE < 0.9 * direct

    def _sizes(self, node: Node, context: Context) -> tuple[int, int, int]:
        """Floats of v, w and of the sums of all chunks."""
        g: ConvGeometry = node.op.geometry  # type: ignore[attr-defined]
        chunk = self._chunk_tiles(node, context)
        chunks = blocks(tiles_of(g.output_shape), chunk)
        return FREQUENCIES * chunk * g.channels, FREQUENCIES * chunk * g.out_channels, FREQUENCIES * chunks * g.channels * g.out_channels

    def workspace(self, node: Node, device: Device) -> int:
        return 4 * sum(self._sizes(node, device_context(device)))

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, ConvBackwardWeight)
        g = node.op.geometry
        x, dy = node.inputs
        c, k = g.channels, g.out_channels
        chunk, tiles = self._chunk_tiles(node, context), tiles_of(g.output_shape)
        v_size, w_size, _ = self._sizes(node, context)
        variant = self.variant(node, context)
        v, w = At(None), At(None, v_size)
        rows, columns = tile_grid(g.output_shape)
        calls = []
        for number, first in enumerate(range(0, tiles, chunk)):
            count = min(chunk, tiles - first)
            shared = {"tile_rows": rows, "tile_columns": columns, "first_tile": first}
            image = {"x": x, "x_rows": g.size[0], "x_columns": g.size[1], "pad_top": g.padding[0][0], "pad_left": g.padding[1][0], "v": v}
            gradient = {"dy": dy, "y_rows": g.out[0], "y_columns": g.out[1], "w": w}
            channels, size = each_tile(context, c, count)
            calls.append(Call("winograd", "winograd_input", *size, {**image, **shared, **channels}, {"ACTIVATION": clipped(None).number}))
            channels, size = each_tile(context, k, count)
            calls.append(Call("winograd_gradient", "winograd_gradient_output", *size, {**gradient, **shared, **channels}))
            products = {
                "x": v,
                "dy": w,
                "parts": At(None, v_size + w_size + number * FREQUENCIES * c * k),
                "images": 1,
                **source_arguments((1, 1, count, FREQUENCIES * c), row_of_pixels(count)),
                "dy_image_stride": 0,
                "dy_row_stride": 0,
                "dy_column_stride": FREQUENCIES * k,
                "reds": c,
                "outs": k,
                "groups": FREQUENCIES,
                "pixels_per_part": count,
            }
            calls.append(gradient_call(variant, 1, products))
        channels, size = each_tile(context, c, k)
        sums = {"u": At(None, v_size + w_size), "dw": node.outputs[0], "outs": k, "chunks": blocks(tiles, chunk)}
        return [*calls, Call("winograd_gradient", "winograd_gradient_filters", *size, {**sums, **channels})]


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {
    Conv: [Winograd()],
    ConvBackwardInput: [Winograd()],
    ConvBackwardWeight: [WinogradGradient()],
    TransformFilters: [TransformFiltersKernel()],
}
