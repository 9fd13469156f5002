"""Graphs made by hand, evaluated node by node in float64 without passes or plan, and turned into programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycl_cnn.autodiff import gradients
from pycl_cnn.eager import finish
from pycl_cnn.graph import Graph, Value
from pycl_cnn.ops.leaf import Constant
from pycl_cnn.ops.pointwise import Binary
from pycl_cnn.ops.reduce import Reduce
from pycl_cnn.passes import canonical
from pycl_cnn.trace import Tracer, tracing

Feeds = Mapping[Value, np.ndarray]


def evaluate(graph: Graph, feeds: Feeds, wanted: Sequence[Value]) -> list[np.ndarray]:
    """`wanted` in float64, every node by its own reference, in the order in which the graph was written."""
    known: dict[Value, np.ndarray] = dict(feeds)
    for node in graph.nodes():
        if isinstance(node.op, Constant):
            known[node.outputs[0]] = node.op.array
        elif node.inputs:
            results = node.op.reference(*(known[value] for value in node.inputs))
            for output, result in zip(node.outputs, results, strict=True):
                assert result.shape == output.shape, (node.label, result.shape, output.shape)
                known[output] = result
    return [np.asarray(known[value]) for value in wanted]


@dataclass
class Traced:
    """A function as a graph: inputs, results, and once asked for, the gradients of ``sum(result * cotangent)``."""

    graph: Graph
    inputs: list[Value]
    arrays: list[np.ndarray]
    settled: bool = False  # whether the passes that come before gradients were applied

    @property
    def feeds(self) -> dict[Value, np.ndarray]:
        feeds = {value: array.astype(np.float64) if array.dtype.kind == "f" else array for value, array in zip(self.inputs, self.arrays, strict=True)}
        if len(self.graph.inputs) > len(self.inputs):
            feeds[self.graph.inputs[-1]] = np.array([3, 5], np.int32)  # the generator of dropout
        return feeds

    def reference(self, feeds: Feeds | None = None) -> list[np.ndarray]:
        """The graph's outputs in float64."""
        return evaluate(self.graph, self.feeds if feeds is None else feeds, self.graph.outputs)

    def run(self, device: Any) -> list[np.ndarray]:
        """The graph's outputs on a device, through passes and plan. Uses the graph up."""
        extra = list(self.feeds.values())[len(self.inputs) :]
        graph = self.graph if self.settled else canonical(self.graph)
        results = finish(graph, device, {}).run(*self.arrays, *extra)
        return list(results) if isinstance(results, tuple) else [results]


def trace(function: Callable[..., Any], *arrays: np.ndarray) -> Traced:
    """`function`, written with pycl_cnn.functional, on inputs like `arrays`."""
    tracer = Tracer(gradients=True)
    symbols = [tracer.input(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    with tracing(tracer):
        result = function(*symbols)
    results = result if isinstance(result, tuple) else (result,)
    tracer.graph.outputs = [symbol.value for symbol in results]
    return Traced(tracer.graph, [symbol.value for symbol in symbols], list(arrays))


def trace_gradients(function: Callable[..., Any], *arrays: np.ndarray, settle: bool = False) -> Traced:
    """Like `trace`; outputs are the result and the gradients of ``sum(result * c)``, c random, in every floating-point input.

    With `settle` layouts are settled before gradients are taken, as the engine does; without, the graph stays as written.
    """
    traced = trace(function, *arrays)
    if settle:
        canonical(traced.graph)
        traced.settled = True
    graph = traced.graph
    y = graph.outputs[0]
    cotangent = graph.constant(np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(np.float32))
    weighted = graph.apply(Binary("mul"), y, cotangent)
    loss = graph.apply(Reduce("sum", tuple(range(len(y.shape)))), weighted)
    wanted = [value for value in traced.inputs if value.dtype == np.float32]
    graph.outputs = [y, loss]
    found = gradients(graph, loss, wanted)
    assert all(gradient is not None for gradient in found), "an input has no gradient"
    graph.outputs = [y, *found]  # type: ignore[list-item]
    return traced


def result_and_gradients(function: Callable[..., Any], *arrays: np.ndarray, device: Any) -> list[np.ndarray]:
    """What `trace_gradients` describes, computed on a device."""
    return trace_gradients(function, *arrays, settle=True).run(device)


def operations(graph: Graph) -> list[str]:
    """Names of the operations of a graph, leaves left out."""
    return [type(node.op).__name__ for node in graph.nodes() if node.inputs]
