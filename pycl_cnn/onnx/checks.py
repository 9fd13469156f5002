"""What is only known of an ONNX file when everything is read: names are given once and before they are read, calls end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .files import FunctionFile, GraphFile, NodeFile, Reference, printable
from .tensors import shown
from .wire import Wire

MAX_NODES = 200_000  # in a model, a call of a function counted as its body
MAX_DEPTH = 16  # of subgraphs within subgraphs, and of functions that call functions


class Checks:
    """Checks one model; `functions` by (domain, name, overload)."""

    def __init__(self, wire: Wire, functions: Mapping[tuple[str, str, str], FunctionFile]) -> None:
        self.fail, self.functions = wire.fail, functions
        self._sizes: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._total = 0

    def inputs(self, graph: GraphFile) -> None:
        """The inputs of the model have types."""
        # A value that is no tensor has neither; a tensor without an element type has nothing to be checked against.
        for info in graph.inputs:
            if info.dtype is None and info.shape is not None:
                self.fail(f"the input {shown(info.name)} has no element type")

    def function(self, function: FunctionFile) -> None:
        given = set(function.inputs)
        self._nodes(function.nodes, given, (), {*function.attributes, *function.defaults}, f"function {shown(function.name)}: ")
        for name in function.outputs:
            if name not in given:
                self.fail(f"function {shown(function.name)}: nothing gives the output {shown(name)}")

    def graph(self, graph: GraphFile, outer: tuple[set[str], ...], references: set[str] | None = None, where: str = "") -> None:
        given = {*graph.initializers, *(info.name for info in graph.inputs)}
        self._nodes(graph.nodes, given, outer, references or set(), where)
        for info in graph.outputs:
            if info.name not in given and not any(info.name in names for names in outer):
                self.fail(f"{where}nothing gives the output {shown(info.name)}")

    def _nodes(self, nodes: tuple[NodeFile, ...], given: set[str], outer: tuple[set[str], ...], references: set[str], where: str) -> None:
        """Walk the nodes and add what they give to `given`."""
        for node in nodes:
            self._total += self._size(node)
            if self._total > MAX_NODES:
                self.fail(f"{where}{node.label}: with the functions that are called there are more than {MAX_NODES:,} nodes")
            for name in node.inputs:
                if name and name not in given and not any(name in names for names in outer):
                    self._missing(node, name, nodes, where)
            for key, value in node.attributes.items():
                if isinstance(value, Reference) and value.name not in references:
                    self.fail(f"{where}{node.label}: the attribute {shown(key)} refers to {shown(value.name)}, which is no attribute of a function around it")
            for key, graph in node.graphs():
                self.graph(graph, (*outer, given), references, f"{where}{node.label}, {printable(key)}: ")
            for name in node.outputs:
                if name in given:
                    self.fail(f"{where}{node.label}: the name {shown(name)} is given a second time")
                if name:
                    given.add(name)

    def _missing(self, node: NodeFile, name: str, nodes: tuple[NodeFile, ...], where: str) -> None:
        later = next((other for other in nodes if name in other.outputs), None)
        if later is None:
            self.fail(f"{where}{node.label} reads {shown(name)}, which nothing gives")
        if later is node:
            self.fail(f"{where}{node.label} reads its own output {shown(name)}: a cycle")
        self.fail(f"{where}{node.label} reads {shown(name)} before {later.label} gives it: nodes must stand in topological order, without a cycle")

    def _size(self, node: NodeFile) -> int:
        """How many nodes a node stands for."""
        key = (node.domain, node.op, node.overload)
        size, _ = self._measured(key, ()) if key in self.functions else (0, 0)
        return 1 + size

    def _measured(self, key: tuple[str, str, str], calls: tuple[tuple[str, str, str], ...]) -> tuple[int, int]:
        """A function's nodes with those of the functions that it calls, and how deep these calls go."""
        if key not in self._sizes:
            if key in calls:
                self.fail(f"the function {shown(key[1])} calls itself")
            calls = (*calls, key)
            size = depth = 0
            for node in self._inner(self.functions[key].nodes):
                size += 1
                called = (node.domain, node.op, node.overload)
                if called in self.functions:
                    more, below = (0, len(calls)) if len(calls) > MAX_DEPTH else self._measured(called, calls)
                    size, depth = size + more, max(depth, below)
            if depth >= MAX_DEPTH:
                self.fail(f"functions call functions more than {MAX_DEPTH} deep, down to {shown(key[1])}")
            self._sizes[key] = size, depth + 1
        return self._sizes[key]

    def _inner(self, nodes: Iterable[NodeFile]) -> Iterable[NodeFile]:
        """The nodes and those of their subgraphs."""
        for node in nodes:
            yield node
            for _, graph in node.graphs():
                yield from self._inner(graph.nodes)
