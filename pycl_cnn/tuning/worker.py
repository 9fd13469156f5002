"""The child process of tuning: compiles, checks and times variants for the steps of a model, and says so line by line.

    python -m pycl_cnn.tuning.worker

Standard input has a line with the request (device, model, shape, budget) and, when this process has said which device that is, one with what was
tried before; see `tuner.py`, which writes them, watches the lines and survives this process. A line says what is about to be tried before it is tried: where the process dies, that variant was it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends import backend
from ..backends.base import Device, Program
from ..errors import PyclError, UnsupportedError
from ..geometry import ConvGeometry
from ..graph import FixedNodes, Graph
from ..nn.module import Module
from ..ops.base import Op
from ..ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ..ops.leaf import State
from ..ops.matmul import MatMul
from ..passes import optimised
from .database import Tuning, TuningError
from .search import Task, best_of, next_task, next_variants
from .space import Variant

WINOGRAD = 1e-4  # of the output's scale: what is promised for Winograd's transforms
RUNS_SECONDS = 0.03  # of one turn of a race
TURNS, FINAL_TURNS = 5, 15


# ---- what is tuned --------------------------------------------------------------------------------------------------------------


def plain(op: Op) -> Op:
    """The operation without its epilogue, whose share of the time is small."""
    return replace(op, epilogue=Epilogue()) if isinstance(op, Conv | ConvBackwardInput | MatMul) else op


def operand_shapes(op: Op, matrices: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes of an operation's two operands; those of a matrix product are its own."""
    if isinstance(op, MatMul):
        return matrices
    assert isinstance(op, Conv | ConvBackwardInput | ConvBackwardWeight)
    g = op.geometry
    return {Conv: (g.input_shape, g.weight_shape), ConvBackwardInput: (g.output_shape, g.weight_shape), ConvBackwardWeight: (g.input_shape, g.output_shape)}[type(op)]


SMALL_PIXELS, SMALL_CHANNELS = 9, 37


def small(op: Op, shapes: tuple[tuple[int, ...], ...]) -> tuple[Op, tuple[tuple[int, ...], ...]]:
    """The same work in small and odd, for the comparison with the float64 reference."""
    if isinstance(op, MatMul):

        def less(n: int) -> int:
            return min(n, SMALL_CHANNELS)

        return op, tuple((less(rows), less(columns)) for rows, columns in shapes)
    assert isinstance(op, Conv | ConvBackwardInput | ConvBackwardWeight)
    g = op.geometry
    if g.groups == 1:
        c, k = min(g.channels, SMALL_CHANNELS), min(g.out_channels, SMALL_CHANNELS)
    elif g.is_depthwise:
        c = k = min(g.channels, SMALL_CHANNELS)
    else:
        c, k = g.channels, g.out_channels
    groups = c if g.is_depthwise and g.groups > 1 else g.groups
    size = tuple(max(min(n, SMALL_PIXELS + extra), d * (r - 1) + 1 - sum(p)) for n, extra, d, r, p in zip(g.size, (0, 2), g.dilation, g.kernel, g.padding, strict=True))
    less_g = ConvGeometry.forward("tune", (min(g.batch, 2), *size, c), (k, *g.kernel, c // groups), g.stride, g.padding, g.dilation, groups)
    made = replace(op, geometry=less_g)
    return made, operand_shapes(made, ())


@dataclass
class Step:
    """A task's operation with its data: programs for it and what they must give."""

    op: Op
    algorithm: str
    device: Device
    shapes: tuple[tuple[int, ...], ...]
    given: tuple[bool, ...] = (False, False)  # which operands are given once, as the weights of inference are, which the host packs
    operands: tuple[np.ndarray, ...] = field(init=False)
    expected: np.ndarray | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.operands = tuple(rng.standard_normal(shape).astype(np.float32) for shape in self.shapes)

    def program(self) -> Program:
        graph, named = Graph(), [f"x{i}" for i in range(len(self.shapes))]
        values = [
            graph.state(State.plain(name, shape)) if once else graph.input(name, shape) for name, shape, once in zip(named, self.shapes, self.given, strict=True)
        ]
        graph.outputs = [graph.apply(self.op, *values)]
        states = {name: array for name, array, once in zip(named, self.operands, self.given, strict=True) if once}
        return backend(self.device.backend).compile(optimised(graph), self.device, states, {type(self.op).__name__: self.algorithm})

    def result(self, program: Program) -> np.ndarray:
        """What a program of this step makes of its operands."""
        return program.run(*(array for array, once in zip(self.operands, self.given, strict=True) if not once))

    @property
    def length(self) -> int:
        """Products of an output element."""
        if isinstance(self.op, MatMul):
            return self.operands[0].shape[0 if self.op.transpose_a else 1]
        g: ConvGeometry = self.op.geometry  # type: ignore[attr-defined]
        if isinstance(self.op, ConvBackwardWeight):
            return g.batch * math.prod(g.out)
        return g.reduction if isinstance(self.op, Conv) else g.out_channels // g.groups * math.prod(g.kernel)

    def wrong(self, result: np.ndarray) -> str:
        """What is wrong with a result; nothing where it is within what float32 may lose."""
        expected = self.expected
        assert expected is not None
        scale = float(np.abs(expected).max())
        error = float(np.abs(result - expected).max()) if np.isfinite(result).all() else math.inf
        allowed = WINOGRAD * scale if self.algorithm.startswith("winograd") else 2.0**-23 * (self.length + 8) * max(scale, 1.0) * 4
        return "" if error <= allowed else f"error {error:.2e}, allowed {allowed:.2e}"


def tasks_of(model: str, shape: tuple[int, ...] | None, train: bool, device: Device) -> list[tuple[Task, Step]]:
    """The distinct steps of a network that have something to tune. Raises TuningError."""
    from ..backends.opencl.call import OpenClAlgorithm, device_context

    context = device_context(device)
    found: dict[tuple[Op, str, tuple[tuple[int, ...], ...], tuple[bool, ...]], int] = {}
    graph = _lowered(model, shape, train, device)
    fixed = FixedNodes(graph)
    for node in graph.nodes():
        algorithm = node.algorithm
        if isinstance(algorithm, OpenClAlgorithm) and algorithm.tuned(node, context):
            matrices = (node.inputs[0].shape, _second(node)) if isinstance(node.op, MatMul) else ()
            given = tuple(value.node in fixed for value in node.inputs[:2])
            key = plain(node.op), algorithm.name, operand_shapes(node.op, matrices), given
            found[key] = found.get(key, 0) + 1
    tasks = []
    for (op, algorithm, shapes, given), count in found.items():
        name = " ".join([type(op).__name__, algorithm, *("x".join(map(str, shape)) for shape in shapes), _attributes(op)]).strip()
        tasks.append((Task(name, count), Step(op, algorithm, device, shapes, given)))
    if not tasks:
        raise TuningError(f"{model}: there is nothing to tune on {device}")
    return tasks


def _second(node: Any) -> tuple[int, ...]:
    """The second operand of a matrix product, which may be packed already."""
    op, k = node.op, node.inputs[0].shape[0 if node.op.transpose_a else 1]
    n = node.outputs[0].shape[1]
    return (n, k) if op.transpose_b else (k, n)


def _attributes(op: Op) -> str:
    if isinstance(op, MatMul):
        return f"{'T' if op.transpose_a else 'N'}{'T' if op.transpose_b else 'N'}"
    g: ConvGeometry = op.geometry  # type: ignore[attr-defined]
    return f"s{g.stride[0]}x{g.stride[1]} p{g.padding[0]}{g.padding[1]} d{g.dilation[0]}x{g.dilation[1]} g{g.groups}".replace(", ", ",")


def network_of(model: str, shape: tuple[int, ...] | None) -> tuple[Module, tuple[int, ...]]:
    """The network with this name or in this ONNX file, and the shape of its input. Raises PyclError."""
    if not model.endswith(".onnx"):
        from ..cli_models import known_model

        entry = known_model(model)
        return entry.build(), shape or entry.input_shape
    from ..onnx import load

    network = load(model)
    if len(network.inputs) != 1:
        raise TuningError(f"{model} has {len(network.inputs)} inputs; tuning takes networks with one")
    told = network.inputs[0].shape
    if shape is None and told is not None and told[1:] and all(isinstance(size, int) for size in told[1:]):
        shape = (told[0] if isinstance(told[0], int) else 1, *(size for size in told[1:] if isinstance(size, int)))
    if shape is None:
        raise TuningError(f"{model} does not say how large its input is ({told}): give --input-shape")
    return network, shape


def _lowered(model: str, shape: tuple[int, ...] | None, train: bool, device: Device) -> Graph:
    """The graph of a network's program, its algorithms chosen; no kernel is built."""
    from ..compiler import inference_graph, training_graph
    from ..nn import CrossEntropyLoss
    from ..optim import SGD

    network, shape = network_of(model, shape)
    if train:
        target = ((shape[0],), np.dtype(np.int32))
        graph = training_graph(network.train(), CrossEntropyLoss(), SGD(momentum=0.9).rule, [(shape, np.dtype(np.float32))], target)
    else:
        graph = inference_graph(network.eval(), [(shape, np.dtype(np.float32))])
    graph = optimised(graph)
    place = backend(device.backend)
    place.prelude(graph)
    place.lower(graph, device)
    return graph


def native_result(step: Step) -> np.ndarray:
    """What the native CPU backend makes of a step's operands with plain sums: another program, itself held to the reference by tests."""
    place, kind = backend("cpu"), type(step.op)
    for algorithm in place.algorithms[kind]:
        if not algorithm.exact:
            continue
        try:
            return step.result(replace(step, algorithm=algorithm.name, device=place.devices()[0]).program())
        except UnsupportedError:
            continue
    raise TuningError(f"no native algorithm takes {step.op}")


# ---- trying -----------------------------------------------------------------------------------------------------------------------


class Trial:
    """Checks and times the variants of one task beside what is chosen without them."""

    def __init__(self, task: Task, step: Step, tuning: Tuning) -> None:
        self.task, self.step, self.tuning = task, step, tuning
        less, shapes = small(step.op, step.shapes)
        self.small = Step(less, step.algorithm, step.device, shapes, step.given)
        self.small.expected = less.reference(*self.small.operands)[0]
        step.expected = native_result(step)
        with tuning.trying({}) as asked:
            self.untuned = step.program()
        self.asked = {family.name: (family, problem) for family, problem, _ in asked}
        task.start = {family.name: variant for family, _, variant in asked}
        self.seconds = min(self._turn(self.untuned, 1) for _ in range(3))
        self.runs = max(1, round(RUNS_SECONDS / self.seconds))

    def _turn(self, program: Program, runs: int) -> float:
        """Seconds of the fastest of some runs of the kernels, without what crosses to the device and back."""
        best = math.inf
        launches, queue = program.launches, program.context.queue  # type: ignore[attr-defined]
        for _ in range(runs):
            start = time.perf_counter()
            for launch in launches:
                launch.enqueue()
            queue.finish()
            best = min(best, time.perf_counter() - start)
        return best

    def run(self, variants: Mapping[str, Variant], best: float) -> dict[str, Any]:
        """{"failure": text} or {"ratio": seconds over the untuned one's, "choices": what to remember}."""
        try:
            with self.tuning.trying(variants):
                wrong = self.small.wrong(self.small.result(self.small.program()))
            if not wrong:
                with self.tuning.trying(variants) as asked:
                    program = self.step.program()
                wrong = self.step.wrong(self.step.result(program))
        except PyclError as problem:
            return {"failure": str(problem).splitlines()[0][:300]}
        if wrong:
            return {"failure": wrong}
        ratio = self._race(program, TURNS)
        if ratio < best:  # a lucky one does not become the best
            ratio = max(ratio, self._race(program, FINAL_TURNS))
        choices = {(family.name, problem.key): variant for family, problem, variant in asked if family.name in variants}
        return {"ratio": round(ratio, 4), "choices": [[family, key, variant.data] for (family, key), variant in choices.items()]}

    def _race(self, program: Program, turns: int) -> float:
        """The median ratio of turns that lie side by side."""
        return statistics.median(self._turn(program, self.runs) / self._turn(self.untuned, self.runs) for _ in range(turns))


def run(request: Mapping[str, Any], say: Callable[..., None], known: Callable[[], Mapping[str, Any]]) -> None:
    """Try variants until the budget is spent or nothing is left; `known` is asked once for what was tried before. Raises PyclError."""
    from ..backends.opencl.call import device_context
    from ..backends.opencl.programs import tuned_source
    from ..placement import device as find_device

    end = time.monotonic() + request["budget"]
    device = find_device(request["device"])
    if device.backend != "opencl":
        raise TuningError(f"tuning is for OpenCL devices, not {device}")
    context = device_context(device)
    tuning: Tuning = context.tuning.without_own()
    context.tuning = tuning
    pairs = tasks_of(request["model"], tuple(request["shape"]) if request["shape"] else None, request["train"], device)
    steps = {task.name: step for task, step in pairs}
    tasks = [task for task, _ in pairs]
    say(event="device", facts=tuning.facts, kernels=tuned_source(), tasks=len(tasks))
    before = known()
    trials: dict[str, Trial] = {}
    for task in tasks:
        task.tried = dict(before.get(task.name, {}))
        if time.monotonic() >= end:
            break
        say(event="trying", task=task.name, variant="untuned")
        if "untuned" in task.tried:  # it died on the way: nothing to compare with
            task.finished = True
            continue
        trials[task.name] = Trial(task, steps[task.name], tuning)
        task.seconds = trials[task.name].seconds
    while time.monotonic() < end and (following := next_task([t for t in tasks if t.name in trials])):
        task, trial = following, trials[following.name]
        variants = next_variants(task, trial.asked, tuning.limits)
        if variants is None:
            task.finished = True
            continue
        label = task.label(variants)
        say(event="trying", task=task.name, variant=label)
        outcome = trial.run(variants, best_of(task))
        task.tried[label] = outcome["failure"] if "failure" in outcome else outcome["ratio"]
        say(event="result", task=task.name, variant=label, share=task.weight, **outcome)
    say(event="done", finished=all(task.finished for task in tasks))


def main() -> int:
    def say(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    try:
        run(json.loads(sys.stdin.readline()), say, lambda: json.loads(sys.stdin.readline())["tried"])
    except PyclError as problem:
        say(event="error", text=str(problem))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
