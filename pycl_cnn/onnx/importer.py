"""From nodes to a graph: importing is tracing.

The importer walks nodes in order inside an active trace. What is known (initializers that are no weights, constants, shapes, and all
that is computed from these alone) is evaluated at once and stays NumPy arrays in its own dtypes; everything else becomes nodes of the
graph, by the table of operators. Branches and loops with a known condition or count are walked as often as they run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PyclError, ShapeError, UnsupportedError
from ..ops.base import FLOAT, Spec
from ..ops.host import HostOp, OnnxNode
from ..trace import Symbol, active_tracer
from .node import MOST_FOLDED, MOST_SUMMED, Call, NeedsValue, Tensor
from .operators.table import Operator, operators
from .reader import FunctionFile, GraphFile, ModelFile, NodeFile, Reference

#: Nodes and iterations that unrolled loops may add to those of the file.
MOST_STEPS = 30_000

#: Bytes that the values folded while a plan is made may take together: so many times the file's size, and this.
FOLDED_FACTOR, FOLDED_BASE = 64, 1 << 30

#: A node that NumPy evaluates costs as much as so many products for each element that comes and goes.
ELEMENT = 4


@dataclass
class Budget:
    """What a walk may still cost, with the functions that it calls."""

    nbytes: int  # of folded values
    steps: int = MOST_STEPS
    products: float = math.inf

    @classmethod
    def of(cls, file: ModelFile) -> Budget:
        """For planning the model in a file."""
        return cls(FOLDED_FACTOR * file.nbytes + FOLDED_BASE, MOST_STEPS + len(file.graph.nodes), MOST_SUMMED + FOLDED_FACTOR * file.nbytes)


class SplitsModel(Exception):
    """The results of a node are texts, or have shapes that depend on elements: it can only be evaluated, not planned."""

    def __init__(self, node: NodeFile) -> None:
        super().__init__(f"{node.label}: its result is text, or has a shape that depends on the elements of its input")


@contextmanager
def errors_of(node: NodeFile, inputs: Sequence[Any]) -> Iterator[None]:
    """What goes wrong inside, with inputs and attributes that nobody has vouched for, is a ShapeError that names the node."""
    try:
        yield
    except (NeedsValue, SplitsModel):
        raise
    except PyclError as error:
        if node.label in str(error):
            raise
        raise (ShapeError(node.label, str(error)) if isinstance(error, ShapeError) else type(error)(f"{node.label}: {error}")) from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError) as error:
        shapes = [None if x is None else tuple(x.shape) for x in inputs]
        raise ShapeError(node.label, f"its inputs and attributes do not fit ({type(error).__name__}: {error})", shapes=shapes) from error


class Scope:
    """Tensors by name, those of the graph around included."""

    def __init__(self, tensors: Mapping[str, Tensor], outer: Callable[[str], Tensor]) -> None:
        self.tensors, self._outer = dict(tensors), outer

    def get(self, name: str) -> Tensor:
        found = self.tensors.get(name)
        return self._outer(name) if found is None else found


def as_outputs(result: Any) -> tuple[Any, ...]:
    """What an operator's function returned, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def as_value(tensor: Tensor) -> Any:
    """The tensor as a value of the active trace, a known one as a constant of its own dtype."""
    if isinstance(tensor, Symbol):
        return tensor.value
    tracer = active_tracer()
    assert tracer is not None
    return tracer.graph.constant(np.asarray(tensor, order="C"))


class Importer:
    """Walks the nodes of one model. `training` says how dropouts and batch normalisations behave."""

    def __init__(self, functions: Mapping[tuple[str, str, str], FunctionFile], opsets: Mapping[str, int], training: bool, budget: Budget) -> None:
        self.functions, self.opsets, self.training, self.budget = functions, opsets, training, budget

    def walk(self, nodes: Sequence[NodeFile], scope: Scope) -> None:
        """Append what `nodes` compute; their results stand in `scope` then."""
        for node in nodes:
            self.step(node, scope)

    def step(self, node: NodeFile, scope: Scope) -> None:
        """Append one node. Raises NeedsValue, SplitsModel, UnsupportedError, ShapeError, DtypeError."""
        self.spend(node)
        inputs: list[Any] = [scope.get(name) if name else None for name in node.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        tracer = active_tracer()
        assert tracer is not None
        with tracer.graph.scope(node.name or node.op):
            results = self._results(node, inputs, scope)
        if any(node.outputs[len(results) :]):
            raise UnsupportedError(f"{node.label}: only {len(results)} of its outputs are supported; the model uses {list(node.outputs)}")
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                scope.tensors[name] = result

    def spend(self, node: NodeFile) -> None:
        """Count one node, or one iteration of a loop: its body may have no nodes."""
        self.budget.steps -= 1
        if self.budget.steps < 0:
            raise UnsupportedError(f"{node.label}: unrolled, the model has more than {MOST_STEPS:,} nodes and iterations beside those of the file")

    def _results(self, node: NodeFile, inputs: list[Any], scope: Scope) -> tuple[Any, ...]:
        with errors_of(node, inputs):
            if node.domain == "" and node.op in _CONTROL:
                return _CONTROL[node.op](self, Call(node, self.opsets.get("", 1), self.training), inputs, scope)
            function = self.functions.get((node.domain, node.op, node.overload))
            if function is not None:
                return self._function(node, function, inputs)
            operator = operators().get(node.op) if node.domain == "" else None
            if operator is None:
                raise UnsupportedError(f"{node.label}: the operator is not supported")
            return self.apply(operator, Call(node, self.opsets.get("", 1), self.training), inputs)

    def apply(self, operator: Operator, call: Call, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The results of one operator: folded, lowered to the graph, or as a host step."""
        if call.opset < 7 and len(inputs) == 2 and (call.get("broadcast") or call.op == "PRelu"):
            inputs = _placed(call, inputs)
        for place in operator.values:
            if place < len(inputs) and inputs[place] is not None:
                call.known(inputs[place], f"input {place} ({call.node.inputs[place]!r})")
        if operator.structural or (operator.evaluate is not None and not any(isinstance(x, Symbol) for x in inputs)):
            return self._folded(operator, call, inputs)
        if operator.lower is not None:
            data = [x for place, x in enumerate(inputs) if x is not None and place not in operator.values]
            if operator.any_dtype or all(x.dtype == FLOAT for x in data):
                result = operator.lower(call, *inputs)
                if result is not NotImplemented:
                    return as_outputs(result)
        if operator.dynamic:
            raise SplitsModel(call.node)
        if operator.evaluate is None:
            raise UnsupportedError(f"{call.node.label}: it takes float32 alone; received {[str(x.dtype) for x in inputs if x is not None]}")
        self._limit(operator, call, inputs, MOST_FOLDED)
        step = host_step(operator, call, inputs)
        self.budget.products -= call.products
        call.most_products = math.inf  # what runs later has no budget
        return step

    def _limit(self, operator: Operator, call: Call, inputs: Sequence[Any], most: int) -> None:
        """Let results take `most` bytes and the seconds that are left; those of elementwise operators, which do not ask themselves, are looked at here."""
        call.most, call.most_products = most, self.budget.products
        if operator.elementwise:
            call.bounded(np.broadcast_shapes(*(x.shape for x in inputs if x is not None)), max((x.dtype.itemsize for x in inputs if x is not None), default=1))

    def _folded(self, operator: Operator, call: Call, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The results of an operator whose inputs are known, as far as the budget goes."""
        self._limit(operator, call, inputs, self.budget.nbytes)
        results = evaluate(operator, call, inputs)
        call.summed(sum(np.size(array) for array in (*inputs, *results) if isinstance(array, np.ndarray)), ELEMENT)
        self.budget.products -= call.products
        self._charge(call, *(array for array in results if isinstance(array, np.ndarray) and array.base is None))
        return results

    def _charge(self, call: Call, *arrays: np.ndarray) -> None:
        """Count the memory of what was computed while the model is planned."""
        self.budget.nbytes -= sum(array.nbytes for array in arrays)
        call.require(self.budget.nbytes >= 0, "what is computed while the model is planned takes too much memory", shapes=[array.shape for array in arrays])

    def stacked(self, call: Call, items: Sequence[Any], axis: int) -> Any:
        """Tensors as one along a new axis."""
        if not any(isinstance(item, Symbol) for item in items):
            call.require(all(item.shape == items[0].shape for item in items), "what iterations give must have one shape", shapes=sorted({item.shape for item in items}))
            call.most = self.budget.nbytes
            call.bounded((len(items), *items[0].shape), items[0].dtype.itemsize)
            result = np.stack(items, axis)
            self._charge(call, result)
            return result
        from .operators.shapes import joined, reshaped

        parts = [Symbol(as_value(item)) for item in items]
        shape = parts[0].shape
        return joined([reshaped(part, (*shape[:axis], 1, *shape[axis:])) for part in parts], axis)

    # ---- functions and control flow -----------------------------------------------------------------------------------

    def _function(self, node: NodeFile, function: FunctionFile, inputs: Sequence[Any]) -> tuple[Any, ...]:
        given = {**function.defaults, **node.attributes}
        scope = Scope({name: value for name, value in zip(function.inputs, inputs, strict=False) if value is not None}, _nothing)
        absent = set(function.inputs) - set(scope.tensors)
        inner = Importer(self.functions, function.opsets, self.training, self.budget)
        for item in function.nodes:
            inner.step(_resolved(item, given, absent), scope)
        return tuple(scope.get(name) if name else None for name in function.outputs)

    def graph(self, graph: GraphFile, inputs: Mapping[str, Tensor], outer: Scope) -> tuple[Any, ...]:
        """The results of a subgraph, which sees the names around it."""
        scope = Scope({**graph.initializers, **inputs}, outer.get)
        self.walk(graph.nodes, scope)
        return tuple(scope.get(info.name) for info in graph.outputs)


def _nothing(name: str) -> Tensor:
    raise UnsupportedError(f"the input {name!r} of a function is absent here")


def _resolved(node: NodeFile, given: Mapping[str, Any], absent: set[str]) -> NodeFile:
    """A node of a function's body with the attributes that its caller gave; absent inputs are "" ."""

    def value(item: Any) -> Any:
        if isinstance(item, Reference):
            return given.get(item.name)
        if isinstance(item, GraphFile):
            return GraphFile(item.name, tuple(_resolved(inner, given, absent) for inner in item.nodes), item.initializers, item.inputs, item.outputs)
        return tuple(value(part) for part in item) if isinstance(item, tuple) else item

    attributes = {name: found for name, item in node.attributes.items() if (found := value(item)) is not None}
    inputs = tuple("" if name in absent else name for name in node.inputs)
    return NodeFile(node.name, node.op, node.domain, inputs, node.outputs, attributes, node.overload)


def _placed(call: Call, inputs: Sequence[Any]) -> list[Any]:
    """Before opset 7 a second operand said at which axis of the first it begins; a slope begins at the channels."""
    from .operators.shapes import reshaped

    a, b = inputs
    slope = call.op == "PRelu"
    if not b.shape or not (slope or call.has("axis")) or (slope and b.shape == (1,)):
        return [a, b]
    behind = len(a.shape) - call.axis(1 if slope else call.integer("axis"), len(a.shape)) - len(b.shape)
    call.require(behind >= 0, "the second operand must fit behind the axis", a=a.shape, b=b.shape, axis=call.get("axis"))
    shape = (*b.shape, *(1,) * behind)
    return [a, reshaped(b, shape) if isinstance(b, Symbol) else b.reshape(shape)]


def evaluate(operator: Operator, call: Call, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The operator's NumPy evaluation, without NumPy's warnings."""
    assert operator.evaluate is not None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return as_outputs(operator.evaluate(call, *inputs))


def host_step(operator: Operator, call: Call, inputs: Sequence[Any]) -> tuple[Symbol, ...]:
    """The operator as a step that NumPy does; shapes and dtypes are those that it gives for zeros, which are really computed."""
    for x in inputs:
        if x is not None:
            call.bounded(x.shape, x.dtype.itemsize, what="an input of what runs on the host")
            call.summed(math.prod(x.shape))
    places = [place for place, x in enumerate(inputs) if isinstance(x, Symbol)]
    wanted = call.outputs

    def function(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        arguments = list(inputs)
        for place, array in zip(places, arrays, strict=True):
            arguments[place] = np.asarray(array, inputs[place].dtype)
        return evaluate(operator, call, arguments)[:wanted]

    samples = function(*(np.zeros(inputs[place].shape, inputs[place].dtype) for place in places))
    results = tuple(Spec(tuple(array.shape), np.asarray(array).dtype) for array in samples)
    if any(spec.dtype.hasobject for spec in results):  # texts have no place in a program's memory
        raise SplitsModel(call.node)
    tracer = active_tracer()
    assert tracer is not None
    written = OnnxNode(call.op, call.opset, call.node.attributes, tuple(places.index(place) if place in places else x for place, x in enumerate(inputs)))
    return tuple(Symbol(value) for value in tracer.graph.add(HostOp(written, function, results), *(inputs[place].value for place in places)))


def _if(importer: Importer, call: Call, inputs: list[Any], scope: Scope) -> tuple[Any, ...]:
    chosen = call.get("then_branch" if bool(call.scalar(inputs[0], "condition")) else "else_branch")
    call.require(isinstance(chosen, GraphFile), "then_branch and else_branch must be graphs")
    return importer.graph(chosen, {}, scope)


def _loop(importer: Importer, call: Call, inputs: list[Any], scope: Scope) -> tuple[Any, ...]:
    """``for i in range(trips) while condition``: walked as often as it runs."""
    body = call.get("body")
    call.require(isinstance(body, GraphFile), "body must be a graph")
    trips = None if not inputs or inputs[0] is None else int(call.scalar(inputs[0], "trip count"))
    going = True if len(inputs) < 2 or inputs[1] is None else bool(call.scalar(inputs[1], "condition"))
    carried = list(inputs[2:])
    names = [info.name for info in body.inputs]
    call.require(len(names) == 2 + len(carried), "the body must take the iteration, the condition and every carried value", inputs=names)
    rows: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    number = 0
    while going and (trips is None or number < trips):
        importer.spend(call.node)
        values = (np.array(number, np.int64), np.array(True), *carried)
        condition, *results = importer.graph(body, dict(zip(names, values, strict=True)), scope)
        carried, scanned = results[: len(carried)], results[len(carried) :]
        for row, item in zip(rows, scanned, strict=True):
            row.append(item)
        if isinstance(condition, Symbol):
            raise UnsupportedError(f"{call.node.label}: the condition of a loop must not depend on the elements of its inputs")
        going = bool(np.asarray(condition).reshape(-1)[0])
        number += 1
    stacked = [importer.stacked(call, row, 0) if row else _no_rows(call, body, 1 + len(carried) + i) for i, row in enumerate(rows)]
    return (*carried, *stacked)


def _no_rows(call: Call, body: GraphFile, index: int) -> np.ndarray:
    info = body.outputs[index]
    if info.dtype is None or info.shape is None:
        call.refuse("a loop that never runs must tell the type of its results", output=info.name)
    return np.zeros((0, *(n if isinstance(n, int) else 0 for n in info.shape)), info.dtype)


def _taken(tensor: Any, axis: int, place: int) -> Any:
    """One element along an axis, the axis gone."""
    if not isinstance(tensor, Symbol):
        return np.take(tensor, place, axis)
    from .operators.shapes import reshaped, sliced

    return reshaped(sliced(tensor, axis, place, place + 1), (*tensor.shape[:axis], *tensor.shape[axis + 1 :]))


def _scan(importer: Importer, call: Call, inputs: list[Any], scope: Scope) -> tuple[Any, ...]:
    """The body for every element along an axis of the scanned inputs, with states carried along."""
    body = call.get("body")
    call.require(isinstance(body, GraphFile), "body must be a graph")
    if call.opset < 9:
        return _scan_batch(importer, call, inputs, scope, body)
    count = call.integer("num_scan_inputs")
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    call.require(0 < count <= len(inputs), "num_scan_inputs must fit the inputs", num_scan_inputs=count)
    axes = [call.axis(axis, len(x.shape)) for axis, x in zip(call.integers("scan_input_axes", (0,) * count), scanned, strict=True)]
    return _scanned(importer, call, body, states, scanned, axes, call.integers("scan_input_directions", (0,) * count), scope)


def _scanned(
    importer: Importer, call: Call, body: GraphFile, states: Sequence[Any], scanned: Sequence[Any], axes: Sequence[int], backward: Sequence[int], scope: Scope
) -> tuple[Any, ...]:
    length = scanned[0].shape[axes[0]]
    call.require(all(x.shape[axis] == length for x, axis in zip(scanned, axes, strict=True)), "the scanned inputs must be equally long", shapes=[x.shape for x in scanned])
    names, carried = [info.name for info in body.inputs], list(states)
    results = len(body.outputs) - len(carried)
    rows: list[list[Any]] = [[] for _ in range(results)]
    for step in range(length):
        importer.spend(call.node)
        items = [_taken(x, axis, length - 1 - step if reverse else step) for x, axis, reverse in zip(scanned, axes, backward, strict=True)]
        outputs = importer.graph(body, dict(zip(names, [*carried, *items], strict=True)), scope)
        carried = list(outputs[: len(carried)])
        for row, item in zip(rows, outputs[len(carried) :], strict=True):
            row.append(item)
    stacked = []
    directions, places = call.integers("scan_output_directions", (0,) * results), call.integers("scan_output_axes", (0,) * results)
    for i, row in enumerate(rows):
        items = row[::-1] if directions[i] else row
        stacked.append(importer.stacked(call, items, call.axis(places[i], len(items[0].shape) + 1)) if items else _no_rows(call, body, len(carried) + i))
    return (*carried, *stacked)


def _scan_batch(importer: Importer, call: Call, inputs: list[Any], scope: Scope, body: GraphFile) -> tuple[Any, ...]:
    """Opset 8: every input has an axis for the batch in front, and no sequence is shorter."""
    call.require(inputs[0] is None, "sequence lengths are not supported")
    count, rest = call.integer("num_scan_inputs"), inputs[1:]
    directions = call.integers("directions", (0,) * count)
    results = []
    for index in range(rest[0].shape[0]):
        importer.spend(call.node)
        own = [_taken(x, 0, index) for x in rest]
        split = len(own) - count
        results.append(_scanned(importer, call, body, own[:split], own[split:], (0,) * count, directions, scope))
    return tuple(importer.stacked(call, items, 0) for items in zip(*results, strict=True))


_CONTROL: dict[str, Callable[[Importer, Call, list[Any], Scope], tuple[Any, ...]]] = {"If": _if, "Loop": _loop, "Scan": _scan}

#: Operators that are no entries of the table.
CONTROL_OPERATORS = tuple(_CONTROL)

__all__ = ["CONTROL_OPERATORS", "Budget", "Importer", "Scope", "SplitsModel", "as_value", "errors_of", "evaluate"]
