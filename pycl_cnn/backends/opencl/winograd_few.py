"""3x3 convolutions by Winograd's method where there are few tiles, of filters that are transformed in registers. See kernels_cl/winograd_few.cl."""

from __future__ import annotations

import math

import numpy as np

from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv, ConvBackwardInput
from ...records import record
from ..base import Algorithm
from ..host import ONCE, is_fixed
from ..winograd import FilterView, filter_view, frequencies, padding_before, three_by_three, tile_grid, tiles_of
from .call import At, Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import clipped, epilogue_arguments, roles
from .known_devices import INTEL, POCL
from .pack import fill_panels
from .sizes import blocks
from .winograd import LEAST_GAIN, each_tile, tile_stride

TILE = 4
MOST_TILES = 4  # whose sums of a row of frequencies fit 32 registers
CHUNK = 16  # channels, of kernels_cl/winograd_few.cl
WIDE = 16  # lanes of a vector where x86 has 32 registers; on Arm, which has as many, nobody has measured it


@record
class PackTaps(Op):
    """Filters of 3x3 taps as [panel][chunk of channels][tap][channel][width]."""

    outs: int
    reds: int
    width: int
    view: FilterView

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(9 * blocks(self.outs, self.width) * self.reds * self.width),)

    def once(self, weight: np.ndarray) -> np.ndarray:
        view, chunks = self.view, self.reds // CHUNK
        places = [view.offset + r * view.tap_row_stride + s * view.tap_column_stride for r in range(3) for s in range(3)]
        taps = np.zeros((chunks, blocks(self.outs, self.width), 9, CHUNK, self.width), np.float32)
        fill_panels(taps, weight, self.outs, places, CHUNK * view.red_stride, view.out_stride, view.red_stride)
        return np.ascontiguousarray(taps.swapaxes(0, 1)).reshape(-1)


class WinogradFew(OpenClAlgorithm):
    """F(4x4, 3x3) for stride 1, forward and input gradient, of at most four tiles; for weights that are given once, which the host packs."""

    name = "winograd_few"
    reason = "3x3 taps, stride 1, at most four tiles: a quarter of the multiplications, and filters are transformed in registers"
    exact = False  # the transforms add and subtract before they multiply

    def supports(self, node: Node, device: Device) -> bool:
        g, _, source, target = roles(node.op)
        return three_by_three(g) and tiles_of(target, TILE) <= MOST_TILES and source[3] % CHUNK == 0 and is_fixed(node.inputs[1])

    def pays(self, node: Node, device: Device) -> bool:
        """On CPUs with enough registers, where there are panels for all cores, and outputs enough in the tiles."""
        context, (_, _, source, target) = device_context(device), roles(node.op)
        width = context.capabilities.vector_width
        wide = not context.device.is_gpu and width >= WIDE and blocks(target[3], width) >= 2 * context.device.compute_units
        # A row of frequencies loads an input for each product, and every tap again.
        cost = frequencies(TILE) * tiles_of(target, TILE) + 9 * (TILE + 2)
        return wide and source[3] >= 64 and cost < LEAST_GAIN * 9 * math.prod(target[:3])

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        width = device_context(device).capabilities.vector_width
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(PackTaps(target[3], source[3], width, filter_view(node.op)), node.inputs[1]))
        return node

    def work(self, node: Node, device: Device) -> int:
        _, _, source, target = roles(node.op)
        return 2 * frequencies(TILE) * tiles_of(target, TILE) * source[3] * target[3]

    def workspace(self, node: Node, device: Device) -> int:
        """Transformed inputs, and the products of each panel."""
        _, _, source, target = roles(node.op)
        tiles, width = tiles_of(target, TILE), device_context(device).capabilities.vector_width
        return 4 * tiles * (tile_stride(TILE, source[3]) + frequencies(TILE) * blocks(target[3], width) * width)

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, Conv | ConvBackwardInput)
        _, _, source, target = roles(node.op)
        tiles, (rows, columns), (top, left) = tiles_of(target, TILE), tile_grid(target, TILE), padding_before(node.op)
        stride = tile_stride(TILE, source[3])
        v, m = At(None), At(None, tiles * stride)
        defines = {"TILE": TILE, "ACTIVATION": clipped(node.op.epilogue.activation).number}
        channels, size = each_tile(context, TILE, source[3], tiles)
        image = {"x": node.inputs[0], "x_rows": source[1], "x_columns": source[2], "pad_top": top, "pad_left": left}
        grid = {"tile_rows": rows, "tile_columns": columns}
        into = Call("winograd", "winograd_input", *size, {**image, "v": v, **grid, "first_tile": 0, **channels}, defines)
        result = {"y": node.outputs[0], "y_rows": target[1], "y_columns": target[2], "outs": target[3], **epilogue_arguments(node, node.op.epilogue)}
        panels = blocks(target[3], context.capabilities.vector_width)
        sizes = {"TILES": tiles, "CHANNELS": source[3], "TILE_STRIDE": stride, "FETCH": int(context.device.platform in (POCL, INTEL))}
        return [into, Call("winograd_few", "winograd_few", (panels,), (1,), {"taps": node.inputs[1], "v": v, "m": m, **grid, **result}, {**defines, **sizes})]


ALGORITHMS: dict[type[Op], list[Algorithm]] = {Conv: [WinogradFew()], ConvBackwardInput: [WinogradFew()], PackTaps: [ONCE]}
