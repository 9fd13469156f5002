"""The contract between the engine and a backend.

A backend offers devices, an ordered table of algorithms for each operation, and programs. `Backend.compile` is the same for
all: choose an algorithm for every node and let it insert what it needs (packed weights), plan, link.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from importlib import import_module
from operator import is_
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..arrays import as_input_array
from ..errors import DeviceError, DeviceMemoryError, DeviceWarning, DtypeError, ShapeError, UnsupportedError
from ..graph import Graph, Node, Value
from ..ops.base import FLOAT, INT, Op
from ..ops.leaf import State
from ..plan import Kind, Plan, Step, does_work, make_plan, protect
from ..records import record
from ..report.profile import Profile, Span, StepReport, table
from .given import Given

if TYPE_CHECKING:
    from .ceilings import Ceilings
    from .prelude import Prelude

#: What a program may do to be fast: "fast" allows algorithms whose error stays below 1e-4 of the output's scale (Winograd's method),
#: "exact" only plain sums of products, with the rounding errors of float32 sums in some order.
PRECISIONS = ("fast", "exact")


def check_precision(operation: str, precision: str) -> str:
    """`precision` if it is one. Raises ShapeError."""
    if precision not in PRECISIONS:
        raise ShapeError(operation, f"precision must be one of {', '.join(map(repr, PRECISIONS))}", precision=precision)
    return precision


@record
class Device:
    """A device that programs can be made for."""

    backend: str  # "cpu", "opencl", "reference"
    index: int  # among the backend's devices
    name: str
    kind: str = "cpu"  # "cpu", "gpu" or "accelerator"
    platform: str = ""
    driver: str = ""
    memory: int = 0  # bytes, 0 where unknown
    largest: int = 0  # bytes of the largest piece of memory, 0 where there is no limit
    reason: str = ""  # why it was chosen, when it was chosen automatically

    @property
    def label(self) -> str:
        return self.backend if self.backend != "opencl" else f"opencl:{self.index}"

    def __str__(self) -> str:
        return f"{self.label} ({self.name})" if self.name != self.backend else self.label


class Algorithm:
    """One way to do an operation on a backend."""

    name: str
    #: why it stands where it stands in the table, for explain()
    reason: ClassVar[str] = "the only one"
    #: whether its results are plain sums of products, rounded as such; others are left out by ``precision="exact"``
    exact: ClassVar[bool] = True
    #: whether it runs on the host when weights are loaded, on states that then need not be on the device
    once: ClassVar[bool] = False

    def supports(self, node: Node, device: Device) -> bool:
        """Whether it can do this node on this device."""
        return True

    def why(self, node: Node, device: Device) -> str:
        """Why it was chosen for this node."""
        return self.reason

    def pays(self, node: Node, device: Device) -> bool:
        """Whether it is worth while for this node; not asked when the algorithm is forced by name."""
        return True

    def settle(self, node: Node, device: Device) -> Any:
        """What it chooses for this node and must not choose anew later; kept as `node.settled`."""
        return None

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        """Insert the nodes it needs, e.g. one that packs the weight; the node that stands for the operation afterwards."""
        return node

    def work(self, node: Node, device: Device) -> int:
        """Floating point operations that it does, of products where it does with fewer than the direct method; what else it does is not counted."""
        return node.op.flops([value.spec for value in node.inputs], [value.spec for value in node.outputs])

    def workspace(self, node: Node, device: Device) -> int:
        """Bytes of memory it needs beside inputs and outputs, while it runs."""
        return 0

    def follows(self, node: Node) -> Node | None:
        """The node whose work it goes on with piece by piece, as soon as a piece is done, if that one is the step before; its workspace is taken
        from then on."""
        return None


class Backend:
    """A family of devices."""

    name: ClassVar[str]
    #: Modules of the backend's package that have a table ALGORITHMS. Where several have algorithms for an operation, the first one's come first.
    families: ClassVar[Sequence[str]] = ()

    @cached_property
    def algorithms(self) -> Mapping[type[Op], Sequence[Algorithm]]:
        """For each operation its algorithms, in the order in which they are tried."""
        tables: dict[type[Op], list[Algorithm]] = {}
        from .host import HOST_ALGORITHMS

        families = [import_module(f"{type(self).__module__}.{family}").ALGORITHMS for family in self.families]
        for family in (*families, HOST_ALGORITHMS):
            for op, found in family.items():
                tables.setdefault(op, []).extend(found)
        return tables

    def devices(self) -> Sequence[Device]:
        """Devices present on this machine, an empty sequence where there are none."""
        raise NotImplementedError

    def ceilings(self, device: Device) -> Ceilings | None:
        """What the device does at most, measured once; None where the backend has no way to measure."""
        return None

    def link(self, plan: Plan, device: Device) -> Program:
        """Turn a plan into a program."""
        raise NotImplementedError

    def compile(self, graph: Graph, device: Device, states: Mapping[str, np.ndarray], force: Mapping[str, str] | None = None, precision: str = "fast") -> Program:
        """Lower `graph` for `device`, plan it and make it ready to run with `states` (user layout) loaded.

        `force` names an algorithm for an operation, e.g. ``{"Conv": "direct"}``; `precision` is one of PRECISIONS. Raises
        UnsupportedError where no algorithm is left, DeviceError where the device has too little memory.
        """
        prelude = self.prelude(graph)
        plan = self.lower(graph, device, force, precision)
        if shortage := self.shortage(plan, device):
            raise DeviceMemoryError(shortage)
        program = self.link(plan, device)
        program.prelude = prelude
        program.load(states)
        return program

    def fits(self, graph: Graph, device: Device, force: Mapping[str, str] | None = None, precision: str = "fast") -> bool:
        """Whether `compile` would find enough memory. Uses the graph up."""
        self.prelude(graph)
        return not self.shortage(self.lower(graph, device, force, precision), device)

    def shortage(self, plan: Plan, device: Device) -> str:
        """What memory a plan needs that the device does not have; nothing where it has enough."""
        return ""

    def prelude(self, graph: Graph) -> Prelude | None:
        """Cut off `graph` what another backend should compute from the weights; none by default."""
        return None

    def lower(self, graph: Graph, device: Device, force: Mapping[str, str] | None = None, precision: str = "fast") -> Plan:
        """Choose algorithms and lay out memory."""
        check_precision("compile", precision)
        protect(graph)
        self.join(graph, force or {})
        self.settle(graph, device, force or {}, precision)
        return make_plan(graph, lambda node: node.algorithm.workspace(node, device), device.largest)

    def join(self, graph: Graph, force: Mapping[str, str]) -> None:
        """Replace nodes by operations of the backend's own that do the work of several; none by default."""

    def settle(self, graph: Graph, device: Device, force: Mapping[str, str], precision: str) -> None:
        """Choose an algorithm for every node of a protected graph that has none."""
        while open_nodes := [node for node in graph.nodes() if does_work(node) and node.algorithm is None]:
            self.examine([(node, (a for a in self.candidates(node, device, force) if a.exact or precision == "fast")) for node in open_nodes], device)
            for node in open_nodes:  # an algorithm may insert nodes, which need one in turn
                self._choose(graph, node, device, force, precision)
        graph.prune()

    def examine(self, choices: Sequence[tuple[Node, Iterable[Algorithm]]], device: Device) -> None:
        """Find out what is needed to answer `problem` for the first usable one of each node's algorithms."""

    def problem(self, algorithm: Algorithm, node: Node, device: Device) -> str:
        """Why an algorithm that takes this node must not be used on this device; nothing where it may."""
        return ""

    def candidates(self, node: Node, device: Device, force: Mapping[str, str]) -> Iterator[Algorithm]:
        """The algorithms that take this node, in order."""
        wanted = force.get(type(node.op).__name__)
        for algorithm in self.algorithms.get(type(node.op), []):
            if wanted in (None, algorithm.name) and algorithm.supports(node, device) and (wanted is not None or algorithm.pays(node, device)):
                yield algorithm

    def adopt(self, graph: Graph, node: Node, algorithm: Algorithm, device: Device, reason: str) -> None:
        """Let `algorithm` do `node`."""
        node.algorithm, node.reason, node.settled = algorithm, reason, algorithm.settle(node, device)
        prepared = algorithm.prepare(graph, node, device)
        prepared.algorithm, prepared.reason, prepared.settled = algorithm, reason, node.settled

    def _choose(self, graph: Graph, node: Node, device: Device, force: Mapping[str, str], precision: str) -> None:
        from .host import last_resort

        kind = type(node.op).__name__
        wanted = force.get(kind)
        problems: list[str] = []
        left_out: list[str] = []
        chosen, reason = None, ""
        for algorithm in self.candidates(node, device, force):
            if precision == "exact" and not algorithm.exact:
                left_out.append(algorithm.name)
                continue
            problem = self.problem(algorithm, node, device)
            if not problem:
                chosen, reason = algorithm, f"forced by {kind}={wanted}" if wanted else algorithm.why(node, device)
                break
            problems.append(f"not {algorithm.name}, since {problem}")
        if problems and wanted is None:
            if chosen is None:
                chosen = last_resort(node)
                reason = chosen.copies(node)
            warnings.warn(f"{kind} on {device}: {'; '.join(problems)}; {chosen.name} takes its place", DeviceWarning, stacklevel=2)
        if chosen is not None:
            if left_out:
                problems.append(f"precision='exact' leaves out {', '.join(left_out)}")
            self.adopt(graph, node, chosen, device, "; ".join([reason, *problems]))
            return
        table = self.algorithms.get(type(node.op), [])
        names = [algorithm.name for algorithm in table]
        shapes = [value.shape for value in node.inputs]
        if wanted is not None and wanted not in names:
            raise UnsupportedError(f"{kind}: there is no algorithm {wanted!r} on {self.name}; there are {names}")
        if wanted is not None and left_out:
            raise UnsupportedError(f"{kind}: algorithm {wanted!r} is no plain sum of products, which precision='exact' asks for; there are {names}")
        detail = f"algorithm {wanted!r} does not take" if wanted else "no algorithm takes"
        raise UnsupportedError(f"{kind} on {device}: {detail} input shapes {shapes} ({node.op.attributes()})" + "".join(f"; {problem}" for problem in problems))


@record
class Memory:
    """Bytes of a program: what it keeps, and what it needs while it runs."""

    states: int
    weights: int  # constants and what was computed from parameters once
    arena: int
    inputs: int
    outputs: int
    setup: int  # while weights are loaded, given back afterwards

    @classmethod
    def of(cls, plan: Plan) -> Memory:
        """Bytes that a plan needs."""
        read = {plan.places[value] for step in plan.setup if not step.once for value in step.node.inputs}
        given = sum(s.nbytes for s in plan.storages if s.kind is Kind.SCRATCH and not s.value.node.inputs and s in read)
        return cls(
            states=plan.nbytes(Kind.STATE),
            weights=plan.nbytes(Kind.CONSTANT, Kind.SETUP),
            arena=plan.nbytes(Kind.ARENA),
            inputs=plan.nbytes(Kind.INPUT),
            outputs=plan.nbytes(Kind.OUTPUT),
            setup=given + plan.setup_bytes,
        )

    @property
    def peak(self) -> int:
        """Most bytes at one time."""
        return sum(getattr(self, part.name) for part in fields(self))

    def __str__(self) -> str:
        parts = [f"{part.name} {getattr(self, part.name) / 2**20:.2f} MiB" for part in fields(self)]
        return f"{self.peak / 2**20:.2f} MiB ({', '.join(parts)})"


def stored(name: str, op: State, states: Mapping[str, np.ndarray]) -> np.ndarray:
    """State `name` of `states` (user layout) as it is stored. Raises ShapeError for a missing or misshapen one."""
    if name not in states:
        raise ShapeError("load", f"state {name!r} is missing", given=sorted(states))
    array = np.asarray(states[name], np.float32)
    if array.shape != op.user_shape:
        raise ShapeError("load", f"state {name!r} must keep its shape", expected=op.user_shape, given=array.shape)
    return op.store(array)


class Program:
    """A plan made ready for a device. Serves one thread at a time; clones share the weights."""

    def __init__(self, plan: Plan, device: Device) -> None:
        self.plan = plan
        self.device = device
        self.prelude: Prelude | None = None  # what comes before `load`'s own steps
        self._lock = threading.Lock()
        self._last: Given | None = None  # the last run's, where arrays were taken as they were
        self.input_values: dict[str, Value] = {value.op.label: value for value in plan.graph.inputs}  # type: ignore[attr-defined]

    # ---- what backends implement ---------------------------------------------------------------------------------------

    def _store_states(self, stored: Mapping[str, np.ndarray]) -> None:
        """Take over states given in stored layout and run the setup steps."""
        raise NotImplementedError

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """States that stay on the device, in stored layout."""
        raise NotImplementedError

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One run on checked arrays in the order of `plan.graph.inputs`."""
        raise NotImplementedError

    def _run_into(self, inputs: Sequence[np.ndarray], targets: list[np.ndarray]) -> list[np.ndarray]:
        """As _run, with the results in `targets`."""
        for target, result in zip(targets, self._run(inputs), strict=True):
            np.copyto(target, result)
        return targets

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        """One run; when each kernel ran, in order."""
        raise NotImplementedError

    #: what `_profile` is timed with
    clock: ClassVar[str] = "host"

    def clone(self) -> Program:
        """A program with memory of its own for runs, sharing the weights: for another thread."""
        raise NotImplementedError

    # ---- what users call ----------------------------------------------------------------------------------------------

    def run(self, *arrays: Any, out: Any = None, **named: Any) -> Any:
        """Run on the inputs in order or by name; the output, or a tuple of them.

        With `out`, an array or a tuple of them, the results are written there and no memory is allocated: C-contiguous arrays of the
        outputs' shapes and dtypes that share no memory with each other or with the inputs. Raises ShapeError and DtypeError.
        """
        given = self._last
        if given is None or named or not given.again(arrays, out):
            given = self._accepted(arrays, named, out)
        if not self._lock.acquire(blocking=False):  # as _exclusively, without its microsecond
            raise self._busy()
        try:
            outputs = self._run(given.inputs) if given.targets is None else self._run_into(given.inputs, given.targets)
        finally:
            self._lock.release()
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _accepted(self, arrays: tuple[Any, ...], named: Mapping[str, Any], out: Any) -> Given:
        """What a run is given, checked, and known from then on where no array was converted."""
        inputs = self._checked(arrays, named)
        given = Given(inputs, out, None if out is None else self._targets(out, inputs))
        taken = not named and not isinstance(out, tuple | list) and all(map(is_, arrays, inputs))
        self._last = given if taken else None
        return given

    def _targets(self, out: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`out` as a list of arrays that results can be written to."""
        targets = list(out) if isinstance(out, tuple | list) else [out]
        values = self.plan.graph.outputs
        if len(targets) != len(values):
            raise ShapeError("run", "out must have an array for each result", results=len(values), given=len(targets))
        for index, (target, value) in enumerate(zip(targets, values, strict=True)):
            if not isinstance(target, np.ndarray) or target.dtype != value.dtype:
                raise DtypeError(f"run: out must be an array of {value.dtype}; received {getattr(target, 'dtype', type(target).__name__)}")
            if target.shape != value.shape or not target.flags.carray:
                raise ShapeError("run", f"out must be C-contiguous, writable and of shape {value.shape}", received=target.shape)
            for other in (*inputs, *targets[:index]) if index else inputs:
                if np.may_share_memory(target, other):
                    raise ShapeError("run", "out must share no memory with the inputs or with another result", shape=value.shape)
        return targets

    def profile(self, *arrays: Any, repeat: int = 10, **named: Any) -> Profile:
        """Run `repeat` times on the same inputs: the least time of every step, and what share of the device's measured ceilings that is.

        The first profile on a device measures its ceilings (a second or two), which the user's cache folder remembers.
        """
        inputs = self._checked(arrays, named)
        with self._exclusively():
            runs = [self._profile(inputs) for _ in range(max(1, repeat))]
        from . import backend

        return Profile.of(self.steps, runs, str(self.device), self.clock, backend(self.device.backend).ceilings(self.device))

    @staticmethod
    def _busy() -> DeviceError:
        return DeviceError("this program is running in another thread; give each thread a clone: program.clone()")

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise self._busy()
        try:
            yield
        finally:
            self._lock.release()

    def _checked(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> list[np.ndarray]:
        if named or len(arrays) != len(self.input_values):
            names = list(self.input_values)
            given = dict(zip(names, arrays, strict=False)) | dict(named)
            if len(arrays) > len(names) or set(given) != set(names) or len(given) != len(arrays) + len(named):
                raise ShapeError("run", f"the inputs {names} must be given once each", positional=len(arrays), named=sorted(named))
            arrays = [given[name] for name in names]
        inputs = []
        for (name, value), array in zip(self.input_values.items(), arrays, strict=True):
            if not (isinstance(array, np.ndarray) and array.dtype == value.dtype and array.shape == value.shape and array.flags.c_contiguous):
                array = self._converted(name, value, array)
            inputs.append(array)
        return inputs

    @staticmethod
    def _converted(name: str, value: Value, array: Any) -> np.ndarray:
        array = as_input_array(array, "run") if value.dtype in (FLOAT, INT) else np.asarray(array)
        if array.shape != value.shape:
            raise ShapeError("run", f"input {name!r} must have the shape the program was made for", expected=value.shape, given=array.shape)
        if array.dtype != value.dtype:
            raise DtypeError(f"run: input {name!r} must be {value.dtype}; received {array.dtype}")
        return np.asarray(array, order="C")

    def load(self, states: Mapping[str, np.ndarray]) -> None:
        """Set states (user layout) and compute again what depends on them. Raises ShapeError for a missing or misshapen one."""
        if self.prelude is not None:
            states = {**states, **self.prelude.results(states)}
        arrays = {name: stored(name, value.op, states) for name, value in self.plan.graph.states.items()}  # type: ignore[arg-type]
        with self._lock:
            self._store_states(arrays)

    def states(self) -> dict[str, np.ndarray]:
        """The states that runs update, in the user's layout."""
        names = [name for name, value in self.plan.graph.states.items() if value in self.plan.graph.updates]
        with self._lock:
            stored = self._read_states(names)
        return {name: self.plan.graph.states[name].op.load(array) for name, array in stored.items()}  # type: ignore[attr-defined]

    @property
    def steps(self) -> list[StepReport]:
        """What a run does, in order."""
        return [self._report(step) for step in self.plan.run]

    @property
    def setup_steps(self) -> list[StepReport]:
        """What was computed once when the weights were loaded."""
        return [*(self.prelude.steps if self.prelude else ()), *(self._report(step) for step in self.plan.setup)]

    def _report(self, step: Step) -> StepReport:
        node = step.node
        inputs, outputs = [v.spec for v in node.inputs], [v.spec for v in node.outputs]
        nbytes = sum(spec.nbytes for spec in [*inputs, *outputs])
        return StepReport(
            operation=type(node.op).__name__ if node.op.name == type(node.op).__name__ else f"{type(node.op).__name__} {node.op.name}",
            scope=node.scope,
            algorithm=node.algorithm.name,
            inputs=tuple(spec.shape for spec in inputs),
            output=outputs[0].shape,
            flops=node.op.flops(inputs, outputs),
            work=node.algorithm.work(node, self.device),
            nbytes=nbytes,
            why=node.reason + ("; piece by piece behind the step before" if step.follows else ""),
        )

    @property
    def memory(self) -> Memory:
        """Bytes of the program, known before it runs."""
        return Memory.of(self.plan)

    def explain(self) -> str:
        """A table of the steps: operation, algorithm, shapes, bytes, and why this algorithm."""
        rows = [("step", "where", "operation", "algorithm", "output", "Mflop", "MiB", "why")]
        for index, step in enumerate(self.steps):
            shape = "x".join(map(str, step.output))
            numbers = f"{step.flops / 1e6:.2f}", f"{step.nbytes / 2**20:.2f}"
            rows.append((str(index), step.scope, step.operation, step.algorithm, shape, *numbers, step.why))
        return f"{table(rows)}\ndevice {self.device}; {len(self.setup_steps)} steps done once; memory {self.memory}"

    def __repr__(self) -> str:
        return f"<Program on {self.device}: {len(self.plan.run)} steps, {self.memory}>"

