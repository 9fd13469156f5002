"""Which of a model's initializers are weights, and which are constants that plans are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..nn.parameter import Buffer, Parameter
from ..ops.base import FLOAT
from .importer import errors_of, evaluate
from .node import Call
from .operators.table import operators
from .reader import FunctionFile, GraphFile, NodeFile

#: Operators that turn stored numbers into the weights that are meant: they are done when the model is loaded.
_STORAGE = ("Cast", "DequantizeLinear", "Identity")


def unpacked(graph: GraphFile, opset: int) -> tuple[GraphFile, set[str]]:
    """The graph with weights stored as float16 or integers turned into float32 initializers, and the names of Constant nodes' values."""
    known, constants, nodes = dict(graph.initializers), set[str](), []
    results = {info.name for info in graph.outputs}
    for node in graph.nodes:
        stored = node.op in _STORAGE and node.inputs[:1] != ("",) and all(name in known for name in node.inputs if name)
        plain = node.domain == "" and (node.op == "Constant" or (stored and bool(node.inputs)))
        if not plain or node.outputs[0] in {*results, ""} or (node.op == "Constant" and any(name.startswith("value_string") or name == "sparse_value" for name in node.attributes)):
            nodes.append(node)
            continue
        inputs = [] if node.op == "Constant" else [known[name] if name else None for name in node.inputs]
        with errors_of(node, inputs):
            (known[node.outputs[0]],) = evaluate(operators()[node.op], Call(node, opset), inputs)
        if node.op == "Constant" or all(name in constants or known[name].ndim == 0 for name in node.inputs if name):
            constants.add(node.outputs[0])
    return replace(graph, nodes=tuple(nodes), initializers=known), constants


def _names(node: NodeFile) -> Iterable[str]:
    """Names that a node reads, those in its subgraphs included."""
    yield from (name for name in node.inputs if name)
    for _, graph in node.graphs():
        for inner in graph.nodes:
            yield from _names(inner)
        yield from (info.name for info in graph.outputs)


def names_read(nodes: Iterable[NodeFile]) -> set[str]:
    """All names that nodes read."""
    return {name for node in nodes for name in _names(node)}


def needed(graph: GraphFile) -> tuple[NodeFile, ...]:
    """The nodes that the results need; outputs that nobody reads are absent ("")."""
    read, kept = {info.name for info in graph.outputs}, []
    for node in reversed(graph.nodes):
        if any(name in read for name in node.outputs):
            read.update(_names(node))
            outputs = [name if name in read else "" for name in node.outputs]
            while not outputs[-1]:
                outputs.pop()
            kept.append(replace(node, outputs=tuple(outputs)))
    return tuple(reversed(kept))


def _all_nodes(nodes: Iterable[NodeFile]) -> Iterable[NodeFile]:
    for node in nodes:
        yield node
        for _, graph in node.graphs():
            yield from _all_nodes(graph.nodes)


Functions = Mapping[tuple[str, str, str], FunctionFile]
Places = tuple[Iterable[int], Iterable[int]]


def _places(node: NodeFile, functions: Functions, known: dict[int, Places]) -> Places:
    """Places of the inputs whose elements decide about shapes: directly, and through arithmetic in a function. `known` is kept."""
    function = functions.get((node.domain, node.op, node.overload))
    if node.domain == "" and node.op in ("Loop", "If"):
        return (0, 1) if node.op == "Loop" else (0,), ()
    if function is None:
        operator = operators().get(node.op) if node.domain == "" else None
        return operator.values if operator else (), ()
    if id(function) not in known:
        names = _reached(function.nodes, functions, known)
        direct, through = ([place for place, name in enumerate(function.inputs) if name in found] for found in names)
        known[id(function)] = direct, through
    return known[id(function)]


def _reached(nodes: Sequence[NodeFile], functions: Functions, known: dict[int, Places]) -> tuple[set[str], set[str]]:
    """Names whose elements decide about shapes, directly and through arithmetic."""
    producers = {name: node for node in nodes for name in node.outputs}
    direct, through = set[str](), set[str]()
    for node in _all_nodes(nodes):
        for names, places in zip((direct, through), _places(node, functions, known), strict=True):
            names |= {node.inputs[place] for place in places if place < len(node.inputs)}
    stack = [*direct, *through]
    while stack:
        producer = producers.get(stack.pop())
        if producer is None or (producer.domain == "" and producer.op in ("Shape", "Size")):
            continue
        fresh = {name for name in producer.inputs if name} - through
        through |= fresh
        stack += fresh
    return direct, through


def plan_values(graph: GraphFile, functions: Functions) -> set[str]:
    """Names of initializers whose elements decide about shapes, directly or through arithmetic."""
    direct, through = _reached(graph.nodes, functions, {})
    small = {name for name in through if name in graph.initializers and graph.initializers[name].ndim <= 1}
    return (direct & set(graph.initializers)) | small


def weights(graph: GraphFile, constants: set[str], functions: Functions) -> tuple[dict[str, Parameter], dict[str, np.ndarray]]:
    """(parameters and buffers, constants) among the initializers that are read.

    Weights are the float32 ones that are no single numbers and that no shape depends on. Running statistics are buffers.
    """
    values, read = plan_values(graph, functions) | constants, names_read(graph.nodes) | {info.name for info in graph.outputs}
    statistics = {name for node in graph.nodes if node.op == "BatchNormalization" and node.domain == "" for name in node.inputs[3:5]}
    tensors: dict[str, Parameter] = {}
    fixed: dict[str, np.ndarray] = {}
    for name, array in graph.initializers.items():
        if name not in read:
            continue
        if array.dtype != FLOAT or array.ndim == 0 or name in values:
            fixed[name] = array
        else:
            tensors[name] = Buffer(array) if name in statistics else Parameter(array)
    return tensors, fixed


