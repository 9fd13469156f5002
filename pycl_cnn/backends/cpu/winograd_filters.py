"""Filters in Winograd's form, packed and transformed some panels at a time. See src/winograd.h."""

from __future__ import annotations

import math

from ...ops.base import Op, Spec, floats
from ...records import record
from . import _kernels
from .conv import PackPanels, Panels
from .launch import At, CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch

PACKED_BYTES = 1 << 21  # of filters that are packed at once, to be transformed: what a second-level cache or two hold


@record
class Form:
    """Which of Winograd's forms: tile x tile outputs, kernel x kernel taps, the stride; with stride 1 there may be a row or column of taps less."""

    tile: int
    kernel: int
    step: int
    short_rows: int = 0
    short_cols: int = 0

    @property
    def taps(self) -> tuple[int, int]:
        """Rows and columns of taps."""
        return self.kernel - self.short_rows, self.kernel - self.short_cols

    @property
    def products(self) -> int:
        """Products of a tile for each channel and out."""
        return int(_kernels.winograd_products_of(**self.members))

    @property
    def members(self) -> dict[str, int]:
        return dict(vars(self))


@record
class TransformFilters(Op):
    """Filters transformed: [panel][frequency][phase][channels][panel_width]. A second input has a factor for every out."""

    form: Form
    packing: Panels  # how their taps are packed before

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return (floats(self.packing.size // math.prod(self.form.taps) * self.form.products),)


class TransformFiltersAlgorithm(CpuAlgorithm):
    """Some panels after the other: what is packed stays in cache, and takes no memory beside the filters."""

    name = "winograd_filters"

    @staticmethod
    def _panels(op: TransformFilters) -> tuple[int, int]:
        """Panels that are packed at once, at least one for each of a few threads, and floats of one."""
        m = dict(op.packing.members)
        size = math.prod(op.form.taps) * m["reds"] * m["panel_width"]
        return min(-(-m["outs"] // m["panel_width"]), max(4, PACKED_BYTES // (4 * size))), size

    def workspace(self, node: Node, device: Device) -> int:
        assert isinstance(node.op, TransformFilters)
        panels, size = self._panels(node.op)
        return 4 * panels * size

    def launches(self, node: Node) -> list[Launch]:
        op, weight, target = node.op, node.inputs[0], node.outputs[0]
        assert isinstance(op, TransformFilters)
        (most, size), members = self._panels(op), dict(op.packing.members)
        outs, width, taps = members["outs"], members["panel_width"], math.prod(op.form.taps)
        calls = []
        for first in range(0, -(-outs // width), most):
            some = min(outs - first * width, most * width)
            part = members | {"outs": some, "offset": members["offset"] + first * width * members["out_stride"]}
            factors = At(node.inputs[1], 4 * first * width) if len(node.inputs) > 1 else None
            transformed = At(target, 4 * first * size // taps * op.form.products)
            calls.append(conv_launch("pack_panels", (weight, At(None), factors), **part))
            calls.append(conv_launch("winograd_filters", (At(None), transformed), **op.form.members, panels=-(-some // width), floats=size // taps))
        return calls


def transformed(graph: Graph, packed: Value, form: Form) -> Value:
    """Filters in Winograd's form, made of what `packed`, which is not made then, would be packed from."""
    assert isinstance(packed.op, PackPanels)
    (packing,) = packed.op.panels
    result = graph.apply(TransformFilters(form, packing), *packed.node.inputs)
    graph.release(packed.node)
    return result


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {TransformFilters: [TransformFiltersAlgorithm()]}
