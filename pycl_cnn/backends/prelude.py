"""What depends on weights alone, computed by the native CPU backend when weights are loaded, for backends that compile their kernels.

An OpenCL compiler takes a quarter of a second for each kernel; folding a batch norm takes microseconds. So the part of a graph that
depends only on states which no run updates (folded batch norms, transposed weights) is cut off before a device's algorithms are chosen.
Its results become states of what is left; NumPy packs them as the device's kernels want them (host.Once).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..graph import FixedNodes, Graph, Node, Value
from ..ops.leaf import State
from ..plan import Plan, does_work
from ..records import record
from ..report.profile import StepReport
from .base import Device, Program, stored


@record(eq=False)
class Prelude:
    """Computes the states `names` of a program from `states`, which are the inputs of `plan`."""

    plan: Plan
    device: Device
    states: Mapping[str, State]
    names: tuple[str, ...]

    def _program(self) -> Program:
        """Made anew each time: weights are loaded seldom, and a program that is kept holds memory."""
        from . import backend

        program = backend(self.device.backend).link(self.plan, self.device)
        program.load({})
        return program

    def results(self, states: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The results for states in the user's layout. Raises ShapeError for a missing or misshapen one."""
        results = self._program().run(*(stored(name, op, states) for name, op in self.states.items()))
        return dict(zip(self.names, results if isinstance(results, tuple) else (results,), strict=True))

    @property
    def steps(self) -> list[StepReport]:
        """What it does, in order."""
        return self._program().steps


def cut_off(graph: Graph) -> Prelude | None:
    """Take what depends on weights alone out of `graph`, which gets states "prelude.N" in its place; None where there is nothing to do.

    States that no run updates are marked as fixed.
    """
    prelude = _cut_off(graph)
    for name, value in list(graph.states.items()):
        if value not in graph.updates:
            assert isinstance(value.op, State)
            with graph.at(value.node):
                graph.states[name] = graph.apply(replace(value.op, fixed=True))
            graph.replace(value, graph.states[name])
    return prelude


def _cut_off(graph: Graph) -> Prelude | None:
    from . import backend

    fixed, nodes = FixedNodes(graph), graph.nodes()
    ends = [
        value
        for node in nodes
        if node in fixed and node.inputs
        for value in node.outputs
        if value.dtype == np.float32 and (graph.is_root(value) or any(user not in fixed for user in value.users))
    ]
    needed = _ancestors(ends)
    if not any(does_work(node) for node in needed):
        return None
    head, values, states = Graph(), dict[Value, Value](), dict[str, State]()
    for node in (node for node in nodes if node in needed):
        with head.at(node):
            if isinstance(node.op, State):
                values[node.outputs[0]] = head.input(node.op.label, node.op.shape)
                states[node.op.label] = node.op
            else:
                values.update(zip(node.outputs, head.add(node.op, *(values[value] for value in node.inputs)), strict=True))
    head.outputs = [values[end] for end in ends]
    names = tuple(f"prelude.{number}" for number in range(len(ends)))
    for name, end in zip(names, ends, strict=True):
        with graph.at(end.node):
            graph.replace(end, graph.state(State.plain(name, end.shape)))
    graph.prune()
    native = backend("cpu")
    device = native.devices()[0]
    return Prelude(native.lower(head, device), device, states, names)


def _ancestors(ends: list[Value]) -> set[Node]:
    """The nodes that `ends` need."""
    found: set[Node] = set()
    stack = [end.node for end in ends]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(value.node for value in node.inputs)
    return found
