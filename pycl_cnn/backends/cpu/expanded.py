"""A 1x1 convolution and the depthwise one behind it, as one step: the wide array between them stays in cache. See src/conv_expanded.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ops.base import Op, Spec, floats
from ...ops.conv import Conv
from ...records import record
from . import _kernels
from .conv import epilogue_members, output_members, pack_filters, patch_members
from .conv_depthwise import PackTaps
from .launch import CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch

# Of a core of today; only the ratios matter: flop in a nanosecond, and bytes that it writes to or reads from a cache that cores share.
PEAK, SHARED_BYTES = 105.0, 40.0
OWN_CACHE = 1 << 19  # bytes of a core's own cache that a task may count on


@record
class ExpandedDepthwise(Op):
    """``depthwise(expand(x))``; inputs: x, both weights, then the operands of both epilogues."""

    expand: Conv
    depthwise: Conv

    def _both(self, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The inputs of the expansion, and those of the depthwise convolution that come after its first."""
        x, w, taps, *extra = inputs
        bias = self.expand.epilogue.operands
        return (x, w, *extra[:bias]), (taps, *extra[bias:])

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        first, second = self._both(inputs)
        return self.depthwise.infer(*self.expand.infer(*first), *second)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        first, second = self._both(inputs)
        return self.depthwise.reference(*self.expand.reference(*first), *second)

    def flops(self, inputs: Any, outputs: Any) -> int:
        return self.expand.flops((), (floats(*self.expand.geometry.output_shape),)) + self.depthwise.flops((), outputs)


def _joined(expand: Node, depthwise: Node) -> ExpandedDepthwise | None:
    """Both as one operation where the kernel takes them."""
    first, second = expand.op, depthwise.op
    assert isinstance(first, Conv) and isinstance(second, Conv)
    g = first.geometry
    pointwise = g.kernel == (1, 1) and g.stride == (1, 1) and g.padding == ((0, 0), (0, 0)) and g.groups == 1
    reads = depthwise.inputs[0] is expand.outputs[0]
    if not (pointwise and reads and second.geometry.is_depthwise) or first.epilogue.residual:
        return None
    return ExpandedDepthwise(first, second)


def _blocks(op: ExpandedDepthwise) -> dict[str, int]:
    """How the kernel's work is cut into tasks."""
    (phase,) = op.depthwise.geometry.forward_phases
    rows, g = phase.rows, op.expand.geometry
    seen_twice = max(0, (rows.taps - 1) * rows.tap_step + 1 - rows.step)
    return _kernels.expanded_depthwise_blocks(g.batch, g.size[0], rows.grid, rows.step, seen_twice, g.out_channels)


def pays(op: ExpandedDepthwise) -> bool:
    """Whether writing and reading the expansion takes longer than computing rows twice and reading x for each block of channels."""
    (phase,) = op.depthwise.geometry.forward_phases
    g, blocks, rows = op.expand.geometry, _blocks(op), phase.rows
    row = g.batch * g.size[1] * g.out_channels  # floats of a row of the expansion, in all images
    cuts = -(-rows.grid // blocks["row_block"]) - 1
    twice = cuts * max(0, (rows.taps - 1) * rows.tap_step + 1 - rows.step) * row * 2 * g.channels / PEAK
    x = 4 * g.size[0] * g.size[1] * g.channels
    again = (-(-g.out_channels // blocks["channel_block"]) - 1) * g.batch * x / SHARED_BYTES if x > OWN_CACHE else 0
    return g.channels % 1024 != 0 and twice + again < 2 * 4 * g.size[0] * row / SHARED_BYTES


def join_expansions(graph: Graph, force: Mapping[str, str]) -> None:
    """Let one step do what a 1x1 convolution and the depthwise one behind it do, where nothing else reads what is between them.

    ``force["ExpandedDepthwise"]`` names the algorithm that does it even where it does not pay, or is "none"; where an algorithm is
    forced for all convolutions, they stay convolutions.
    """
    wanted = force.get("ExpandedDepthwise")
    if wanted == "none" or "Conv" in force:
        return
    for expand, depthwise in list(graph.match(Conv, Conv)):
        op = _joined(expand, depthwise)
        if op and (wanted or pays(op)):
            with graph.at(depthwise):
                first, second = (node.inputs for node in (expand, depthwise))
                graph.replace(depthwise.outputs[0], graph.apply(op, *first[:2], second[1], *first[2:], *second[2:]))


class Bands(CpuAlgorithm):
    """Some channels of the expansion, band by band of rows, each band read by the depthwise convolution while it is in cache."""

    name = "bands"
    reason = "what is between the 1x1 and the depthwise convolution stays in cache, band by band of rows"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        op = node.op
        assert isinstance(op, ExpandedDepthwise)
        g = op.expand.geometry
        layout = {"groups": 1, "outs": g.out_channels, "tap_rows": 1, "tap_cols": 1, "reds": g.channels, "panel_width": _blocks(op)["panel_width"]}
        with graph.at(node):
            graph.rewire(node, 1, pack_filters(graph, node.inputs[1], layout))
            graph.rewire(node, 2, graph.apply(PackTaps(op.depthwise.geometry, op.depthwise.geometry.forward_phases), node.inputs[2]))
        return node

    def launches(self, node: Node) -> list[Launch]:
        op = node.op
        assert isinstance(op, ExpandedDepthwise)
        x, panels, taps, *extra = node.inputs
        operands: list[Value | None] = []
        for needed in (op.expand.epilogue.bias, op.depthwise.epilogue.bias, op.depthwise.epilogue.residual):
            operands.append(extra.pop(0) if needed else None)
        (phase,) = op.depthwise.geometry.forward_phases
        return [
            conv_launch(
                "expanded_depthwise",
                (x, panels, operands[0], taps, *operands[1:], node.outputs[0]),
                **patch_members(x.shape, phase, 1) | {"channels": op.expand.geometry.out_channels},
                **output_members(node.outputs[0].shape, phase),
                reds=x.shape[3],
                **_blocks(op),
                **{f"expand_{name}": value for name, value in epilogue_members(op.expand.epilogue).items()},
                **epilogue_members(op.depthwise.epilogue),
            )
        ]


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {ExpandedDepthwise: [Bands()]}
