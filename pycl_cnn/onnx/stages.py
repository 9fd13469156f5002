"""Running an imported model on arrays: usually one program, several where shapes depend on elements.

A model is planned from its first node on. Where an operator needs elements that are only known at run time the plan ends: an input of the
model is then bound as a number (a plan for each of its values); anything else is computed by the plan so far, and the rest is planned
when it is there. Operators whose results have no shape before they are computed (NonMaxSuppression, NonZero) are evaluated in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.base import Device, Program
from ..compiler import begin, programs_of, run_with_weights
from ..eager import finish
from ..errors import UnsupportedError
from ..graph import Value
from ..ops.leaf import Constant, Input
from ..passes import canonical
from ..trace import Symbol, tracing
from .importer import Budget, Importer, Scope, SplitsModel
from .node import MOST_COMPUTED, NeedsValue

if TYPE_CHECKING:
    from .model import OnnxModel

#: Elements of inputs that may become numbers of a plan.
MOST_BOUND = 4096


class _Bind(Exception):
    """The stage is to be planned with the elements of further arrays."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(*names)
        self.names = frozenset(names)


@dataclass
class Stage:
    """Nodes `start` to `end` as a program from `inputs` to `results`; `known` was found while it was traced.

    Behind it the names in `bind` are numbers of the next plan, or, with `split`, node `end` itself is evaluated.
    """

    program: Program | None
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    known: Mapping[str, np.ndarray]
    end: int
    bind: frozenset[str] = frozenset()
    split: bool = False

    @property
    def plan(self) -> Any:
        return self.program.plan if self.program else None


class Runner:
    """Runs one model on one device; remembers which arrays its stages need as numbers."""

    def __init__(self, model: OnnxModel, device: Device, precision: str = "fast") -> None:
        self.model, self.device, self.precision = model, device, precision

    def run(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs for checked inputs."""
        return self._through(inputs)[0]

    def programs(self, inputs: Mapping[str, np.ndarray]) -> list[Program]:
        """The programs that a run on such inputs goes through."""
        return self._through(inputs)[1]

    def _through(self, inputs: Mapping[str, np.ndarray]) -> tuple[tuple[np.ndarray, ...], list[Program]]:
        model, values, start, bound = self.model, dict(inputs), 0, frozenset[str]()
        programs = []
        while True:
            stage = self._stage(start, values, bound)
            if stage.program is not None:
                programs.append(stage.program)
            if stage.end == len(model.nodes):
                break
            start, bound = stage.end, stage.bind
            if stage.split:
                self._evaluate(start, values)
                start += 1
        return tuple(np.array(values[info.name]) if info.name in inputs else np.asarray(self._value(values, info.name)) for info in model.outputs), programs

    def _value(self, values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        found = values.get(name)
        return np.array(self.model.constant(name)) if found is None else found

    def _evaluate(self, index: int, values: dict[str, np.ndarray]) -> None:
        """A node that can only be evaluated."""
        scope = Scope(values, self.model.constant)
        graph_free = begin(self.model, None, False)
        with tracing(graph_free):
            self._importer(Budget(MOST_COMPUTED)).step(self.model.nodes[index], scope)
        values.update(scope.tensors)  # type: ignore[arg-type]

    def _importer(self, budget: Budget) -> Importer:
        return Importer(self.model.file.functions, self.model.file.opsets, self.model.training, budget)

    def _stage(self, start: int, values: dict[str, np.ndarray], bound: frozenset[str]) -> Stage:
        """Find or make the stage that begins at `start`, run it, put what it computes into `values`."""
        model = self.model
        alive = [name for name in model.alive[start] if name in values]
        while True:
            specs = tuple((name, values[name].shape, values[name].dtype.name) for name in alive)
            base = (start, specs, self.device, self.precision, model.fingerprint())
            texts = frozenset(name for name in alive if values[name].dtype.hasobject)
            numbers = bound | texts | model.bound.get(base, frozenset())
            key = (base, tuple((name, _digest(values[name])) for name in sorted(numbers) if name in values))
            arrays = {name: values[name] for name in alive}
            try:
                return programs_of(model).run(key, lambda: self._plan(start, arrays, numbers), lambda stage: self._run(stage, values))  # noqa: B023
            except _Bind as more:
                if len(model.bound) > 256:
                    model.bound.clear()
                model.bound[base] = model.bound.get(base, frozenset()) | more.names

    def _run(self, stage: Stage, values: dict[str, np.ndarray]) -> Stage:
        if stage.program is not None:
            results = run_with_weights(self.model, stage.program, [values[name] for name in stage.inputs])
            values.update(zip(stage.results, results if isinstance(results, tuple) else (results,), strict=True))
        values.update(stage.known)
        return stage

    def _plan(self, start: int, arrays: Mapping[str, np.ndarray], numbers: frozenset[str]) -> Stage:
        """Trace from `start` as far as it goes, compile what was traced. Raises _Bind."""
        model = self.model
        tracer = begin(model, None, with_gradients=False)
        with tracing(tracer):
            scope = Scope({}, model.tensor)
            given: dict[str, Value] = {}
            for name, array in arrays.items():
                if name in numbers:
                    scope.tensors[name] = array
                else:
                    symbol = tracer.input(name, array.shape, array.dtype)
                    scope.tensors[name], given[name] = symbol, symbol.value
            importer, end, bind, split = self._importer(Budget.of(self.model.file)), start, frozenset[str](), False
            while end < len(model.nodes):
                try:
                    importer.step(model.nodes[end], scope)
                except NeedsValue as need:
                    bind = self._needed(need, scope, given)
                    break
                except SplitsModel:
                    split = True
                    break
                end += 1
            wanted = {*model.alive[end], *bind} - set(arrays)
            known, computed = {}, {}
            for name in sorted(wanted):
                tensor = scope.tensors.get(name)
                if isinstance(tensor, Symbol):
                    computed[name] = tensor.value
                elif tensor is not None:
                    known[name] = tensor
        program = None
        if computed:
            tracer.graph.outputs = list(computed.values())
            program = finish(canonical(tracer.graph), self.device, model.state_dict(), None, self.precision)
        return Stage(program, tuple(given), tuple(computed), known, end, bind, split)

    def _needed(self, need: NeedsValue, scope: Scope, given: Mapping[str, Value]) -> frozenset[str]:
        """The name whose elements are needed. Raises _Bind where they are those of inputs, or follow from few of them."""
        leaves, small = _leaves(need.symbol.value), 0
        if all(isinstance(leaf.op, Input) for leaf in leaves):
            names = [name for name, value in given.items() if any(value is leaf for leaf in leaves)]
            small = sum(int(np.prod(given[name].shape)) for name in names)
            direct = any(value is need.symbol.value for value in given.values())
            if len(names) == len(leaves) and (direct or small <= MOST_BOUND):
                raise _Bind(names)
        for name, tensor in scope.tensors.items():
            if tensor is need.symbol:
                return frozenset((name,))
        raise UnsupportedError(f"{need}: inside a subgraph or function they must not depend on the elements of the model's inputs")


def _digest(array: np.ndarray) -> bytes:
    if array.dtype.hasobject:  # texts, or a sequence of arrays
        parts = [_digest(item) + repr((item.dtype, item.shape)).encode() if isinstance(item, np.ndarray) else repr(item).encode() for item in array.reshape(-1)]
        data = repr((array.shape, parts)).encode()
    else:
        data = array.tobytes()
    return hashlib.blake2b(data, digest_size=16).digest()


def _leaves(value: Value) -> list[Value]:
    """The inputs, states and constants that a value is computed from; constants are left out."""
    found: dict[Value, None] = {}
    seen, stack = set(), [value]
    while stack:
        item = stack.pop()
        if item.node in seen:
            continue
        seen.add(item.node)
        if item.node.inputs:
            stack += item.node.inputs
        elif not isinstance(item.op, Constant):
            found[item] = None
    return list(found)
