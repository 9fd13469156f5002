"""From a model to a program: for inference, for gradients, for whole training steps. One road for all three."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import random
from .arrays import as_input_array
from .autodiff import gradients
from .backends import backend
from .backends.base import Device, Program
from .backends.switching import SwitchingProgram
from .eager import ProgramCache, finish
from .errors import DeviceMemoryError, ShapeError
from .functional.door import NCHW_TO_NHWC, NHWC_TO_NCHW
from .graph import Graph, Value
from .nn.module import Module
from .ops.leaf import State
from .ops.movement import Expand, Reshape, Transpose
from .ops.optimizer import UpdateRule
from .passes import canonical, optimised
from .placement import device as find_device
from .trace import Symbol, Tracer, emit, tracing

Spec = tuple[tuple[int, ...], Any]


def begin(model: Module, mode: bool | None, with_gradients: bool) -> Tracer:
    """A trace that knows the model's parameters and modules."""
    tracer = Tracer(mode, with_gradients)
    for name, parameter in model.named_tensors():
        tracer.register(name, parameter)
    tracer.names = {id(module): name for name, module in model.named_modules()}
    return tracer


def trace_forward(tracer: Tracer, model: Module, specs: Sequence[Spec], layout: str) -> tuple[Symbol, ...]:
    """Append the model applied to inputs x, x1, x2, ...; its results in the user's layout."""
    if layout not in ("NCHW", "NHWC"):
        raise ShapeError("layout", 'must be "NCHW" or "NHWC"', layout=layout)
    inputs = [tracer.input("x" if i == 0 else f"x{i}", shape, dtype) for i, (shape, dtype) in enumerate(specs)]
    if layout == "NHWC":
        inputs = [emit(Transpose(NHWC_TO_NCHW), x.value) if x.ndim == 4 else x for x in inputs]
    result = model(*inputs)
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    for item in results:
        if not isinstance(item, Symbol):
            raise TypeError(f"{type(model).__name__}.forward must return arrays of the trace; it returned {type(item).__name__}")
    if layout == "NHWC":
        results = tuple(emit(Transpose(NCHW_TO_NHWC), y.value) if y.ndim == 4 else y for y in results)
    return results


def output_shape(model: Module, shape: Sequence[int], layout: str = "NCHW") -> tuple[int, ...]:
    """The shape of the model's (first) result for one input of `shape`, without computing it. Raises ShapeError."""
    tracer = begin(model, False, with_gradients=False)
    with tracing(tracer):
        return trace_forward(tracer, model, [(tuple(shape), np.float32)], layout)[0].shape


def compile(
    model: Module,
    example_shape: Sequence[int] | Sequence[Sequence[int]],
    *,
    device: Any = None,
    train: bool = False,
    loss: Module | None = None,
    optimizer: Any = None,
    target: Any = None,
    layout: str = "NCHW",
    algorithms: Mapping[str, str] | None = None,
    precision: str = "fast",
    wait: bool = True,
) -> Program:
    """A program for inputs of `example_shape` (a shape, or one for each input) on `device`, weights loaded.

    With `train` the program is a whole training step of `loss` and `optimizer`: its inputs are x, the target (an example
    array given as `target`) and hyper (and rng with dropout), its outputs the loss and the model's result; see
    :class:`pycl_cnn.Trainer`, which feeds it. `algorithms` forces one by name for an operation, e.g. ``{"Conv": "igemm"}``.
    `precision` "fast" allows algorithms whose error stays below 1e-4 of the output's scale; "exact" leaves out all that are no plain
    sums of products. With `wait` False the program answers from the CPU while the kernels of an OpenCL device are built, which takes seconds
    the first time, and switches over when they are ready; see :class:`pycl_cnn.backends.switching.SwitchingProgram`.
    Raises ShapeError, DeviceError, UnsupportedError.
    """
    shapes: list[tuple[int, ...]] = [tuple(s) for s in example_shape] if example_shape and isinstance(example_shape[0], Sequence) else [tuple(example_shape)]  # type: ignore[arg-type,list-item]
    specs: list[Spec] = list(zip(shapes, model.example_dtypes(len(shapes)), strict=True))
    if train:
        if loss is None or optimizer is None or target is None:
            raise ShapeError("compile", "train=True needs loss, optimizer and an example target")
        goal = as_input_array(target, "compile")

    def traced(where: Device) -> Callable[[], Program]:
        if train:
            assert loss is not None
            return _training(model, loss, optimizer.rule, specs, (goal.shape, goal.dtype), where, layout, algorithms, precision)
        return _inference(model, specs, where, layout, False, algorithms, precision)

    where = find_device(device)
    if wait or where.backend != "opencl":
        return traced(where)()
    # Both are traced now: what happens to the model later is not the programs' business.
    return SwitchingProgram(traced(find_device("cpu"))(), traced(where), where, model.state_dict())


def inference_program(
    model: Module,
    specs: Sequence[Spec],
    device: Any,
    layout: str = "NCHW",
    mode: bool | None = False,
    algorithms: Mapping[str, str] | None = None,
    precision: str = "fast",
) -> Program:
    """The model's forward pass."""
    return _inference(model, specs, device, layout, mode, algorithms, precision)()


def _inference(
    model: Module, specs: Sequence[Spec], device: Any, layout: str, mode: bool | None, algorithms: Mapping[str, str] | None, precision: str
) -> Callable[[], Program]:
    """The model's forward pass, traced; the call makes the program."""
    return _finish_batch(
        lambda specs: inference_graph(model, specs, layout, mode), specs, find_device(device), model.state_dict(), dict(algorithms or {}), precision
    )


def inference_graph(model: Module, specs: Sequence[Spec], layout: str = "NCHW", mode: bool | None = False) -> Graph:
    """The graph of the model's forward pass."""
    tracer = begin(model, mode, with_gradients=False)
    with tracing(tracer):
        results = trace_forward(tracer, model, specs, layout)
    tracer.graph.outputs = [y.value for y in results]
    return canonical(tracer.graph)


def _finish_batch(
    graph_of: Callable[[Sequence[Spec]], Graph], specs: Sequence[Spec], device: Device, states: dict[str, np.ndarray], force: dict[str, str], precision: str
) -> Callable[[], Program]:
    """`finish`, to be called later, for the graph of inputs like `specs`; an error about memory says which batch would fit."""
    graph = graph_of(specs)

    def program() -> Program:
        try:
            return finish(graph, device, states, force, precision)
        except DeviceMemoryError as error:
            error.__traceback__ = error.__cause__ = error.__context__ = None  # they hold the buffers of the program that was not finished
            raise DeviceMemoryError(f"{error}; {advice(error)}") from None

    def advice(error: DeviceMemoryError) -> str:
        shape = specs[0][0]
        batch = shape[0] if shape else 1
        room = replace(device, memory=error.available) if error.available else device

        def fits(size: int) -> bool:
            smaller = [((size, *shape[1:]) if shape and shape[0] == batch else shape, dtype) for shape, dtype in specs]
            try:
                return backend(device.backend).fits(optimised(graph_of(smaller)), room, force, precision)
            except ShapeError:  # too few for this model
                return False

        low, high = 0, batch
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return (f"a batch of {low} is the largest that fits" if low else "not even a batch of 1 fits") + f" instead of {batch}"

    return program


def _loss(tracer: Tracer, model: Module, loss: Module, specs: Sequence[Spec], target: Spec, layout: str) -> tuple[Symbol, Symbol]:
    """Append model and loss; the loss and the model's first result."""
    with tracing(tracer):
        result = trace_forward(tracer, model, specs, layout)[0]
        goal = tracer.input("target", *target)
        value = loss(result, goal)
    if value.shape != ():
        raise ShapeError("loss", "must be a single number (reduction mean or sum)", shape=value.shape)
    return value, result


def _trainable(tracer: Tracer) -> dict[str, Value]:
    return {name: value for name, value in tracer.graph.states.items() if isinstance(value.op, State) and value.op.trainable}


def training_program(
    model: Module,
    loss: Module,
    rule: UpdateRule,
    specs: Sequence[Spec],
    target: Spec,
    device: Any,
    layout: str = "NCHW",
    algorithms: Mapping[str, str] | None = None,
    precision: str = "fast",
    slots: Mapping[str, np.ndarray] | None = None,
) -> Program:
    """One training step: forward, loss, backward, update. Inputs x.., target, hyper (, rng); outputs loss and result.

    `slots` are the optimizer's arrays to go on from, by state name ("optimizer.<slot>.<parameter>"); zeros where absent.
    """
    return _training(model, loss, rule, specs, target, device, layout, algorithms, precision, slots)()


def _training(
    model: Module,
    loss: Module,
    rule: UpdateRule,
    specs: Sequence[Spec],
    target: Spec,
    device: Any,
    layout: str,
    algorithms: Mapping[str, str] | None,
    precision: str,
    slots: Mapping[str, np.ndarray] | None = None,
) -> Callable[[], Program]:
    """A training step, traced; the call makes the program."""
    states = dict(model.state_dict())

    def graph_of(given: Sequence[Spec]) -> Graph:
        *inputs, goal = given
        graph = training_graph(model, loss, rule, inputs, goal, layout)
        for name, value in graph.states.items():
            if name not in states:  # the optimizer's
                assert isinstance(value.op, State)
                states[name] = (slots or {}).get(name, np.zeros(value.op.user_shape, np.float32))
        return graph

    return _finish_batch(graph_of, [*specs, target], find_device(device), states, dict(algorithms or {}), precision)


def training_graph(model: Module, loss: Module, rule: UpdateRule, specs: Sequence[Spec], target: Spec, layout: str = "NCHW") -> Graph:
    """The graph of a training step; the optimizer's arrays are states "optimizer.<slot>.<parameter>"."""
    tracer = begin(model, None, with_gradients=True)
    value, result = _loss(tracer, model, loss, specs, target, layout)
    graph = tracer.graph
    graph.outputs = [value.value, result.value]
    canonical(graph, training=True)
    wanted = _trainable(tracer)
    hyper = graph.input("hyper", (4,))
    for (name, parameter), gradient in zip(wanted.items(), gradients(graph, graph.outputs[0], list(wanted.values())), strict=True):
        if gradient is None:
            continue
        assert isinstance(parameter.op, State)
        kept = []
        for slot in rule.slots:
            kept.append(graph.state(State(f"optimizer.{slot}.{name}", parameter.shape, parameter.op.user_shape, False, parameter.op.moves)))
        with graph.at(gradient.node):  # at once, so that the gradient's memory is free again
            updated = graph.add(rule, parameter, gradient, *kept, hyper)
        for state, new in zip([parameter, *kept], updated, strict=True):
            graph.updates[state] = new
    return graph


def value_and_grad(model: Module, loss: Module, *, device: Any = None, layout: str = "NCHW", precision: str = "fast") -> Callable[..., tuple[float, dict[str, np.ndarray]]]:
    """A function ``(x, target) -> (loss, gradients)``; gradients by state_dict name, in the parameters' shapes.

    Modules behave as their own mode says (``model.train()``, ``model.eval()``); in training mode running statistics follow.
    """

    def call(x: Any, target: Any) -> tuple[float, dict[str, np.ndarray]]:
        arrays = [np.asarray(as_input_array(array, "value_and_grad"), order="C") for array in (x, target)]
        trainable = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        where = find_device(device)
        shapes = tuple((array.shape, array.dtype.str) for array in arrays)
        key = ("value_and_grad", loss, where, layout, precision, trainable, shapes, model.fingerprint(), loss.fingerprint())
        names: list[str] = list(trainable)

        def make() -> Program:
            tracer = begin(model, None, with_gradients=True)
            (specs, goal) = (arrays[0].shape, arrays[0].dtype), (arrays[1].shape, arrays[1].dtype)
            value, _ = _loss(tracer, model, loss, [specs], goal, layout)
            graph = tracer.graph
            graph.outputs = [value.value]
            canonical(graph)
            wanted = _trainable(tracer)
            found = dict(zip(wanted, gradients(graph, graph.outputs[0], list(wanted.values())), strict=True))
            whole = {name: parameter.shape for name, parameter in model.named_parameters()}
            for name in names:
                gradient = found.get(name)
                if gradient is None:
                    zero = graph.apply(Reshape((1,) * len(whole[name])), graph.constant(np.zeros((), np.float32)))
                    gradient = graph.apply(Expand(whole[name]), zero)
                else:
                    for move in wanted[name].op.inverse():  # type: ignore[attr-defined]
                        gradient = graph.apply(move, gradient)
                graph.outputs.append(gradient)
            return finish(graph, where, model.state_dict(), None, precision)

        results = _run_cached(model, key, make, arrays)
        results = results if isinstance(results, tuple) else (results,)
        return float(results[0]), dict(zip(names, results[1:], strict=True))

    return call


# ---- calling a model on arrays -------------------------------------------------------------------------------------------

_caches: weakref.WeakKeyDictionary[Module, ProgramCache] = weakref.WeakKeyDictionary()


def programs_of(model: Module) -> ProgramCache:
    """The programs that were made for calls of `model`."""
    return _caches.setdefault(model, ProgramCache(8))


def _run_cached(model: Module, key: Any, make: Callable[[], Program], arrays: Sequence[np.ndarray]) -> Any:
    """Run the model's program for `key`, made now if need be."""
    return programs_of(model).run(key, make, lambda program: run_with_weights(model, program, arrays))


def run_with_weights(model: Module, program: Program, arrays: Sequence[np.ndarray]) -> Any:
    """Run a program of `model` with its present weights; write back what the run updated."""
    tensors = dict(model.named_tensors())
    versions = tuple(parameter.version for parameter in tensors.values())
    if getattr(program, "loaded_versions", None) != versions:
        if hasattr(program, "loaded_versions"):
            program.load({name: parameter.data for name, parameter in tensors.items()})
        program.loaded_versions = versions  # type: ignore[attr-defined]
    extra = [random.next_state()] if "rng" in program.input_values else []
    results = program.run(*arrays, *extra)
    if program.plan.graph.updates:
        for name, array in program.states().items():
            tensors[name].data = array
        program.loaded_versions = tuple(parameter.version for parameter in tensors.values())  # type: ignore[attr-defined]
    return results


def run_module(model: Module, inputs: Sequence[Any], device: Any, layout: str, precision: str) -> Any:
    """What `model(x)` does outside of a trace."""
    where = find_device(device)
    arrays = [np.asarray(as_input_array(array, type(model).__name__), order="C") for array in inputs]
    specs = [(array.shape, array.dtype) for array in arrays]
    key = ("forward", where, layout, precision, tuple((shape, dtype.str) for shape, dtype in specs), model.fingerprint())
    return _run_cached(model, key, lambda: inference_program(model, specs, where, layout, None, None, precision), arrays)
