"""Weights and matrices rearranged into the panels that conv_igemm streams. See kernels_cl/pack.cl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...ops.base import Op, Spec, floats
from ...records import record
from ..base import Algorithm
from ..host import ONCE
from .call import At, Call, Context, Node, OpenClAlgorithm, Table
from .sizes import blocks, grid, stream


@record
class Panels:
    """How the weights of one phase are packed: arguments of kernels_cl/pack.cl, and where the panels go."""

    groups: int
    outs: int
    reds: int
    width: int
    taps: tuple[int, ...]
    group_stride: int
    out_stride: int
    tap_stride: int
    red_stride: int
    place: int = 0  # floats before it in the packed array

    @property
    def size(self) -> int:
        """Floats of the panels."""
        return self.groups * blocks(self.outs, self.width) * len(self.taps) * self.reds * self.width


@record
class PackPanels(Op):
    """Weights (or a matrix) rearranged into the panels that conv_igemm streams; one set for each phase."""

    panels: tuple[Panels, ...]

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(max(p.place + p.size for p in self.panels)),)

    def once(self, weight: np.ndarray) -> np.ndarray:
        result = np.zeros(max(p.place + p.size for p in self.panels), np.float32)
        for p in self.panels:
            panels = result[p.place : p.place + p.size].reshape(p.groups, blocks(p.outs, p.width), len(p.taps), p.reds, p.width)
            fill_panels(panels, weight, p.outs, [tap * p.tap_stride for tap in p.taps], p.group_stride, p.out_stride, p.red_stride)
        return result


def fill_panels(panels: np.ndarray, weight: np.ndarray, outs: int, taps: Sequence[int], group_stride: int, out_stride: int, red_stride: int) -> None:
    """Write the panels [group, panel, tap, red, lane], zeros so far. Strides, and the places of a filter's taps, are in floats."""
    flat = np.ascontiguousarray(weight).reshape(-1)
    groups, _, _, reds, width = panels.shape
    whole, rest = divmod(outs, width)
    strides = [4 * n for n in (group_stride, width * out_stride, red_stride, out_stride)]
    for number, place in enumerate(taps):
        panels[:, :whole, number] = as_strided(flat[place:], (groups, whole, reds, width), strides)
        if rest:
            panels[:, whole, number, :, :rest] = as_strided(flat[place + whole * width * out_stride :], (groups, reds, rest), (strides[0], *strides[2:]))


class Pack(OpenClAlgorithm):
    name = "pack"

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, PackPanels)
        calls = []
        for p in node.op.panels:
            if not p.size:
                continue
            items, span = stream(context, p.reds * p.width)
            arguments = {
                "source": node.inputs[0],
                "panels": At(node.outputs[0], p.place),
                "tap_index": Table(np.array(p.taps, np.int32)),
                "group_stride": p.group_stride,
                "out_stride": p.out_stride,
                "tap_stride": p.tap_stride,
                "red_stride": p.red_stride,
                "tap_count": len(p.taps),
                "reds": p.reds,
                "outs": p.outs,
                "width": p.width,
                "span": span,
            }
            calls.append(Call("pack", "pack", *grid(context, items, len(p.taps), p.groups * blocks(p.outs, p.width)), arguments))
        return calls


def lay_out(panels: Sequence[Panels]) -> PackPanels:
    """The panels one behind the other."""
    placed, place = [], 0
    for p in panels:
        placed.append(replace(p, place=place))
        place += p.size
    return PackPanels(tuple(placed))


ALGORITHMS: dict[type[Op], list[Algorithm]] = {PackPanels: [ONCE, Pack()]}
