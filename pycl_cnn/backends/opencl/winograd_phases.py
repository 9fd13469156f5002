"""First layers, 7x7 taps and stride 2, by Winograd's method over the four phases of the image. See kernels_cl/winograd_fused.cl.

The phases x[2i + a, 2j + b] have stride 1, and every second tap a side: four or three of the seven, F(4x4, 4x4) for all of them. The reds of the products
are the channels of all phases (as on the CPU, src/winograd.h).
"""

from __future__ import annotations

import math

import numpy as np

from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv
from ...records import record
from ...tuning.space import Family, Limits, Problem, Space, Variant
from ..base import Algorithm
from ..host import ONCE, is_fixed
from ..winograd import tiles_of, transformed_filters
from .call import Context, Device, Graph, Node, device_context
from .conv import roles
from .sizes import blocks
from .tiles import Tile
from .winograd import FLOPS_PER_BYTE, LEAST_GAIN, tile_problem
from .winograd_fused import BLOCKS_PER_UNIT, SPACE, Form, WinogradFused, usual_block

KERNEL, TILE, TAPS = 7, 4, 4
FREQUENCIES = (TILE + TAPS - 1) ** 2
PRODUCTS = 169  # of a tile, for each channel and out: four phases at most frequencies, fewer at infinity
PHASES = ((0, 1), (0, 0), (1, 0), (1, 1))  # (row, column), in the order of the reds
PHASE_LANES = 16  # of kernels_cl/winograd_transforms.cl


def phases_usual(problem: Problem, limits: Limits) -> Variant:
    return usual_block(problem, limits, TILE)


WINOGRAD_PHASES = Family("winograd_phases", (Space("winograd_fused", {**SPACE.parameters, "TILE": (TILE,)}, phases_usual, SPACE.rules),))


@record
class TransformPhases(Op):
    """Filters of 7x7 taps in Winograd's form: panels [frequency][panel][phase, channel][width]."""

    outs: int
    channels: int
    width: int

    @property
    def panels(self) -> int:
        return blocks(self.outs, self.width)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(FREQUENCIES * self.panels * 4 * self.channels * self.width),)

    def once(self, weight: np.ndarray) -> np.ndarray:
        padded = np.zeros((self.panels, self.width, 2 * TAPS, 2 * TAPS, self.channels), np.float32)
        padded.reshape(-1, *padded.shape[2:])[: self.outs, :KERNEL, :KERNEL] = weight
        taps = np.stack([padded[:, :, a::2, b::2] for a, b in PHASES])  # [phase, panel, lane, row, column, channel]
        return transformed_filters(taps.transpose(3, 4, 1, 0, 5, 2).reshape(TAPS**2, -1), TILE).reshape(-1)


class WinogradPhases(WinogradFused):
    """F(4x4, 4x4) over the four phases of an image of few channels, every core with tiles of its own; for weights that are given once."""

    name = "winograd_strided"
    reason = "7x7 taps, stride 2, few channels: phases of stride 1 with 169 of 784 multiplications; every core has tiles of its own"

    def supports(self, node: Node, device: Device) -> bool:
        """The host transforms the filters, when weights are loaded."""
        if not isinstance(node.op, Conv):
            return False
        g = node.op.geometry
        plain = g.kernel == (KERNEL, KERNEL) and g.stride == (2, 2) and g.dilation == (1, 1) and g.groups == 1
        return plain and 4 * g.channels <= PHASE_LANES and is_fixed(node.inputs[1])

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        _, _, source, target = roles(node.op)
        return [(WINOGRAD_PHASES, tile_problem(WINOGRAD_PHASES, source, target))]

    def pays(self, node: Node, device: Device) -> bool:
        """Where every core has some blocks, and products and what transforms move cost clearly less than the direct method."""
        _, _, source, target = roles(node.op)
        context, tiles = device_context(device), tiles_of(target, TILE)
        many = blocks(tiles, self.variant(node, context)["MR"]) >= BLOCKS_PER_UNIT * context.device.compute_units
        transforms = 4 * FREQUENCIES * 2 * tiles * (PHASE_LANES + target[3]) * FLOPS_PER_BYTE
        cost = 2 * PRODUCTS * tiles * source[3] * target[3] + transforms
        direct = 2 * KERNEL**2 * source[3] * math.prod(target)
        return not context.device.is_gpu and target[3] >= 16 and many and cost < LEAST_GAIN * direct

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        _, _, source, target = roles(node.op)
        width = Tile.of(self.variant(node, device_context(device)), "MR").panel
        with graph.at(node):
            graph.rewire(node, 1, graph.apply(TransformPhases(target[3], source[3], width), node.inputs[1]))
        return node

    def form(self, node: Node, tile: int) -> Form:
        return Form(FREQUENCIES, 4 * roles(node.op)[2][3], PHASE_LANES, {"TAPS": TAPS})


ALGORITHMS: dict[type[Op], list[Algorithm]] = {Conv: [WinogradPhases()], TransformPhases: [ONCE]}
