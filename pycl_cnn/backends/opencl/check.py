"""The device check: before a kernel variant is used on a device for the first time, it has been compared with the float64 reference.

What is checked is a *unit*: one algorithm doing one kind of node with one set of kernel variants (source, -D options, entry), on a small
node of the same kind (samples.py), in a child process (trials.py). Its verdict is remembered per device, driver and source. A unit
that fails is out of use; so is every unit with a kernel that does not build, or kills or hangs its process.
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache import read_cache, update_cache
from ...errors import DeviceWarning
from ...graph import Graph, Node, Value
from ...ops.base import Op, Spec
from ...ops.leaf import Constant, State
from ...plan import Storage, does_work, make_plan, protect
from ...records import record
from ...tuning.database import TuningError
from ...tuning.space import Variant
from ..base import Algorithm, Device
from ..host import HostStep, evaluate
from . import trials
from .call import At, OpenClAlgorithm, Table, Zeros
from .devices import made_once
from .programs import Context, open_context
from .samples import Sample, operands, samples, terms
from .sources import source_text

if TYPE_CHECKING:
    from . import OpenClBackend

INEXACT = 1e-4  # promised by algorithms that are no plain sums of products (Winograd's)
MOST_UNITS = 4096  # that are kept in mind
ULPS = 64  # that elementary functions and their arguments may be off by, counted as terms of a sum


@record
class Verdict:
    """What came of a unit's check. `error` and `allowed` are relative to the largest element of the result."""

    what: str
    kernels: tuple[str, ...]
    ok: bool
    error: float = 0.0
    allowed: float = 0.0
    problem: str = ""


@record
class Unit:
    """An algorithm at a kind of node, with the kernels that it uses there."""

    what: str
    kernels: tuple[str, ...]
    op: Op
    specs: tuple[Spec, ...]
    fixed: tuple[bool, ...]  # which operands are states that no run updates: those are packed on the host
    algorithm: Algorithm
    choices: tuple[tuple[str, Variant], ...] = ()  # of tuning, by family

    @property
    def key(self) -> str:
        return f"{self.what} {zlib.crc32(' '.join(self.kernels).encode()):08x}"


class DeviceCheck:
    """The verdicts of one device."""

    def __init__(self, backend: OpenClBackend, device: Device, context: Context) -> None:
        self.backend, self.device, self.context = backend, device, context
        self._file = f"opencl-check-{zlib.crc32(context.device.key.encode()):08x}.json"
        self._verdicts: dict[str, Verdict] = {}
        self._passing: set[str] = set()  # verdicts that are this process's alone: the next one may have the memory
        self._units: dict[Any, Unit | None] = {}
        self._isolating = 0
        self._lock = threading.RLock()
        self._remember()
        if not self._verdicts:
            trials.make_ready(context.device, 3 * trials.WORKERS)  # there will be many

    def _remember(self) -> None:
        """Take over what this and other processes wrote down."""
        for key, entry in read_cache(self._file).items():
            if isinstance(entry, dict):
                try:
                    self._verdicts[key] = Verdict(**{**entry, "kernels": tuple(entry["kernels"])})
                except (TypeError, KeyError):  # of another version
                    continue

    # ---- units ----------------------------------------------------------------------------------------------------------

    def unit(self, node: Node, algorithm: Algorithm) -> Unit | None:
        """What `algorithm` would be at `node`; None where it runs no kernel, or serves nodes that other algorithms insert, with which it is checked."""
        if not isinstance(algorithm, OpenClAlgorithm) or type(node.op).reference is Op.reference:
            return None
        specs, tuning = tuple(value.spec for value in node.inputs), self.context.tuning
        fixed = tuple(isinstance(value.op, State) and value.op.fixed for value in node.inputs)
        key = (node.op, specs, fixed, algorithm, tuning, tuning.state)
        with self._lock:
            if key not in self._units:
                if len(self._units) >= MOST_UNITS:  # many shapes, of which few come again
                    self._units.clear()
                self._units[key] = self._new_unit(node.op, specs, fixed, algorithm)
            return self._units[key]

    def _new_unit(self, op: Op, specs: tuple[Spec, ...], fixed: tuple[bool, ...], algorithm: Algorithm) -> Unit | None:
        tuning, choices = self.context.tuning, dict[str, Variant]()
        with tuning.trying(tuning.forced) as asked:
            kernels = self._kernels(self._isolated(op, specs, fixed, algorithm))
        for family, _, variant in asked:
            choices.setdefault(family.name, variant)
        # Inputs are counted: bias and residual are branches of a kernel.
        what = f"{type(op).__name__} by {algorithm.name}, {len(specs)} inputs"
        return Unit(what, kernels, op, specs, fixed, algorithm, tuple(choices.items())) if kernels else None

    def _isolated(self, op: Op, specs: Sequence[Spec], fixed: Sequence[bool], algorithm: Algorithm) -> Graph:
        """A graph with one node and what its algorithm inserts, lowered. What is inserted is tried together with the node."""
        graph = Graph()
        outputs = _outputs(graph, op, specs, fixed)
        graph.outputs = list(outputs)
        protect(graph)
        self.backend.adopt(graph, outputs[0].node, algorithm, self.device, "")
        self._isolating += 1
        try:
            self.backend.settle(graph, self.device, {}, "fast")
        finally:
            self._isolating -= 1
        return graph

    def _kernels(self, graph: Graph) -> tuple[str, ...]:
        """The kernel variants of a lowered graph."""
        found = {}
        for node in graph.nodes():
            if does_work(node) and isinstance(node.algorithm, OpenClAlgorithm):
                for call in node.algorithm.calls(node, self.context):
                    if 0 not in call.global_size:
                        found[self._kernel(call.stem, call.entry, self.context.options(call.stem, call.defines))] = True
        return tuple(sorted(found))

    @staticmethod
    def _kernel(stem: str, entry: str, options: Sequence[str]) -> str:
        return " ".join([f"{stem}.{entry}", *(o for o in options if o.startswith("-D")), f"#{source_mark(stem)}"])

    # ---- verdicts -------------------------------------------------------------------------------------------------------

    def problem(self, node: Node, algorithm: Algorithm) -> str:
        """Why `algorithm` must not be used at `node`; nothing where it may."""
        with self._lock:
            unit = self._best(node, algorithm)
            while unit is not None and not self._isolating and unit.key not in self._verdicts:
                self.examine([unit])
                unit = self._best(node, algorithm)
            return self._verdicts[unit.key].problem if unit is not None and unit.key in self._verdicts else ""

    def _best(self, node: Node, algorithm: Algorithm) -> Unit | None:
        """The unit for the first of tuning's choices that did not fail; the last of them where all did."""
        unit = self.unit(node, algorithm)
        while unit is not None and self._failed(unit):
            problem = self._verdicts[unit.key].problem
            if not any(self.context.tuning.refuse(family, variant, problem) for family, variant in self._suspects(unit)):
                break
            failed, unit = unit, self.unit(node, algorithm)
            if unit is not None and unit.choices != failed.choices:
                names = "; ".join(str(variant) for _, variant in failed.choices)
                warnings.warn(f"{unit.what} on {self.device}: not {names}, since {problem}; {'; '.join(str(v) for _, v in unit.choices)} takes its place", DeviceWarning, stacklevel=2)
        return unit

    def _suspects(self, unit: Unit) -> list[tuple[str, Variant]]:
        """The choices that a failing unit may owe its failure to: those of the kernels that failed, all where its result is wrong."""
        failing = {kernel.partition(".")[0] for kernel in unit.kernels if kernel in self._verdicts}
        return [choice for choice in unit.choices if not failing or choice[1].kernel in failing]

    def examine_first(self, choices: Iterable[tuple[Node, Iterable[Algorithm]]]) -> None:
        """Try for every node the algorithms in order until one passes; all nodes' in one go."""
        with self._lock:
            rest = [] if self._isolating else [(node, list(algorithms)) for node, algorithms in choices]
            while rest:
                units, waiting = [], []
                for node, algorithms in rest:
                    offered = (self._best(node, algorithm) for algorithm in algorithms)
                    unit = next((unit for unit in offered if unit is None or not self._failed(unit)), None)
                    if unit is not None and unit.key not in self._verdicts:
                        units.append(unit)
                        waiting.append((node, algorithms))
                self.examine(units)
                # Where the unit passed, the node is served; where not, its next variant or algorithm is due.
                rest = [(node, algorithms) for (node, algorithms), unit in zip(waiting, units, strict=True) if self._failed(unit)]

    def _failed(self, unit: Unit) -> bool:
        verdict = self._verdicts.get(unit.key)
        return verdict is not None and not verdict.ok

    def examine(self, units: Iterable[Unit], again: bool = False) -> list[Verdict]:
        """The verdict of every unit; those without one (with `again`, all) are tried now, in one go."""
        with self._lock:
            return self._examine(list({unit.key: unit for unit in units}.values()), again)

    def _examine(self, units: Sequence[Unit], again: bool) -> list[Verdict]:
        forgotten: dict[str, Any] = {}
        if again:
            keys = [*(unit.key for unit in units), *(kernel for unit in units for kernel in unit.kernels)]
            forgotten = {key: None for key in keys if self._verdicts.pop(key, None)}
        elif any(unit.key not in self._verdicts for unit in units):
            self._remember()  # another process may have tried them
        unknown = [unit for unit in units if unit.key not in self._verdicts]
        if unknown:
            before = dict(self._verdicts)
            self._try(unknown)
            changed = {key: asdict(v) for key, v in self._verdicts.items() if before.get(key) is not v and key not in self._passing}
            update_cache(self._file, forgotten | changed)
        return [self._verdicts[unit.key] for unit in units]

    def _try(self, units: Sequence[Unit]) -> None:
        trials.make_ready(self.context.device, len(units))
        tried = []
        for unit in units:
            bad = next((self._verdicts[kernel] for kernel in unit.kernels if kernel in self._verdicts), None)
            if bad is not None:
                self._verdicts[unit.key] = Verdict(unit.what, unit.kernels, False, problem=bad.problem)
                continue
            trial = Trial(self, unit)
            if trial.hosted:
                self._verdicts[unit.key] = Verdict(unit.what, unit.kernels, False, problem=f"the kernels of {trial.hosted}, which it needs, fail")
            else:
                tried.append(trial)
        outcomes = trials.run(self.context.device, [{"run": trial.payload.request()} for trial in tried])
        for trial, outcome in zip(tried, outcomes, strict=True):
            self._verdicts[trial.unit.key] = verdict = trial.judged(outcome)
            if outcome.passing:
                self._passing.add(trial.unit.key)
            elif outcome.problem and outcome.entry:
                (_, options), stem = trial.payload.programs[outcome.program], trial.payload.names[outcome.program]
                kernel = self._kernel(stem, outcome.entry, options)
                self._verdicts[kernel] = Verdict(kernel, (kernel,), False, problem=verdict.problem)

    def remembered(self, key: str, judge: Callable[[], Verdict]) -> Verdict:
        """The verdict `key` about kernels that no algorithm uses; `judge` tries them where there is none."""
        with self._lock:
            if key not in self._verdicts:
                self._remember()
            if key not in self._verdicts:
                self._verdicts[key] = judge()
                update_cache(self._file, {key: asdict(self._verdicts[key])})
            return self._verdicts[key]

    def sample(self, unit: Unit) -> tuple[Sample, Graph, Mapping[str, Variant]]:
        """The first sample with all of the unit's kernels, lowered with the unit's choices; the node itself where there is none."""
        forced = dict(unit.choices)
        for small, specs in samples(unit.op, unit.specs):
            if unit.algorithm.supports(_outputs(Graph(), small, specs, unit.fixed)[0].node, self.device):
                try:
                    with self.context.tuning.trying(forced):
                        graph = self._isolated(small, specs, unit.fixed, unit.algorithm)
                        same = set(self._kernels(graph)) >= set(unit.kernels)
                except TuningError:  # too small for the variant
                    continue
                if same:
                    return (small, specs), graph, forced
        with self.context.tuning.trying(forced):
            return (unit.op, unit.specs), self._isolated(unit.op, unit.specs, unit.fixed, unit.algorithm), forced


class Trial:
    """A unit's sample as a payload, and how its result is judged."""

    def __init__(self, check: DeviceCheck, unit: Unit) -> None:
        self.unit, self.check = unit, check
        (self.op, self.specs), graph, choices = check.sample(unit)
        #: what a kernel should have done for the algorithm, but the host does
        self.hosted = ", ".join(node.label for node in graph.nodes() if isinstance(node.algorithm, HostStep) and not node.algorithm.once)
        if self.hosted:
            return
        self.inputs = operands(self.op, self.specs)
        self.payload = trials.Payload()
        with check.context.tuning.trying(choices):
            self._fill(graph)

    def _fill(self, graph: Graph) -> None:
        """Put the lowered sample into the payload."""
        check = self.check
        plan = make_plan(graph, lambda node: node.algorithm.workspace(node, check.device))
        given: dict[Value, np.ndarray] = {value: self.inputs[int(value.op.label)] for value in [*graph.inputs, *graph.states.values()]}  # type: ignore[attr-defined]
        for step in plan.setup:
            if step.once:
                evaluate(step.node.algorithm.runner(step.node), step.node, given.__getitem__, given.__setitem__)
        self.places: dict[Storage, int] = {}
        for value, storage in plan.places.items():
            if storage not in self.places and storage.nbytes:
                array = given.get(value, value.op.array if isinstance(value.op, Constant) else None)
                self.places[storage] = self.payload.place(_poison(storage.nbytes) if array is None else array)
        steps = [step for step in (*plan.setup, *plan.run) if not step.once]
        for step in steps:
            if step.workspace is not None:
                self.places[step.workspace] = self.payload.place(_poison(step.workspace.nbytes))
        self.read_only = {plan.places[value] for value in plan.places if not value.node.inputs or value in given}
        for step in steps:
            for call in step.node.algorithm.calls(step.node, check.context):
                if 0 in call.global_size:
                    continue
                arguments = {name: self._argument(value, plan.places, step.workspace) for name, value in call.arguments.items()}
                options = check.context.options(call.stem, call.defines)
                self.payload.launch(call.stem, call.entry, source_text(call.stem), options, call.global_size, call.local_size, arguments)
        self.outputs = [(value, self.places[plan.places[value]] if value.nbytes else 0) for value in graph.outputs]

    def _argument(self, value: Any, places: Mapping[Value, Storage], workspace: Storage | None) -> Any:
        if isinstance(value, Table):
            return value.array
        if isinstance(value, Zeros):
            return np.zeros(max(1, value.count), np.float32)
        if isinstance(value, Value | At):
            place = value if isinstance(value, At) else At(value)
            storage = workspace if place.value is None else places[place.value]
            assert storage is not None
            return (trials.MEMORY, self.places.get(storage, 0) + place.offset)
        return value

    def _names(self) -> str:
        return ", ".join(dict.fromkeys(kernel.split()[0] for kernel in self.unit.kernels))

    def judged(self, outcome: trials.Outcome) -> Verdict:
        unit = self.unit
        if outcome.problem:
            kernel = f"{self.payload.names[outcome.program]}.{outcome.entry} " if outcome.entry else ""
            return Verdict(unit.what, unit.kernels, False, problem=f"{kernel}{outcome.problem}")
        memory, before = trials.decoded(outcome.result), self.payload.memory
        untouched = np.ones(memory.size, bool)
        for storage, place in self.places.items():
            if storage not in self.read_only:
                untouched[place : place + storage.nbytes // 4] = False
        if (memory != before)[untouched].any():
            return Verdict(unit.what, unit.kernels, False, problem=f"{self._names()} writes outside of its results")
        error = allowed = 0.0
        with np.errstate(all="ignore"):
            exact = self.op.reference(*self.inputs)
        specs = [value.spec for value, _ in self.outputs]
        for (value, place), expected in zip(self.outputs, exact, strict=True):
            got = memory[place : place + value.spec.size].view(value.dtype).reshape(value.shape)
            bound = max(0.0 if unit.algorithm.exact else INEXACT, 2.0**-23 * (terms(self.op, self.specs, value.spec, specs) + ULPS))
            off = deviation(got, np.asarray(expected))
            if not off <= bound:
                shapes = ", ".join("x".join(map(str, spec.shape)) for spec in self.specs)
                problem = f"{self._names()} is wrong by {off:.2g} of the largest element, allowed {bound:.2g}, inputs {shapes}"
                return Verdict(unit.what, unit.kernels, False, off if math.isfinite(off) else -1.0, bound, problem)
            error, allowed = max(error, off), max(allowed, bound)
        return Verdict(unit.what, unit.kernels, True, error, allowed)


def deviation(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the largest element; infinite where one is not finite and the other is, or integers differ."""
    if got.dtype.kind != "f":
        return 0.0 if np.array_equal(got, expected) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(got), finite):
        return math.inf
    if not finite.any():
        return 0.0
    return float(np.abs(got[finite] - expected[finite]).max() / max(float(np.abs(expected[finite]).max()), 1e-30))


def _poison(nbytes: int) -> np.ndarray:
    return np.full(nbytes // 4, np.nan, np.float32)


def _outputs(graph: Graph, op: Op, specs: Sequence[Spec], fixed: Sequence[bool]) -> Sequence[Value]:
    """The results of `op` in `graph`, of operands with their numbers as names."""
    operands = [
        graph.state(State(str(number), spec.shape, spec.shape, fixed=True)) if keeps else graph.input(str(number), spec.shape, spec.dtype)
        for number, (spec, keeps) in enumerate(zip(specs, fixed, strict=True))
    ]
    return graph.add(op, *operands)


@functools.cache
def source_mark(stem: str) -> str:
    """Tells this version of kernels_cl/<stem>.cl from others."""
    return f"{zlib.crc32(source_text(stem).encode()):08x}"


@made_once
def device_check(index: int) -> DeviceCheck:
    """The check of OpenCL device `index`."""
    from . import BACKEND

    return DeviceCheck(BACKEND, BACKEND.devices()[index], open_context(index))
