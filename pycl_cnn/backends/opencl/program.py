"""Programs of the OpenCL backend: a plan as retained kernels with bound arguments, enqueued in order without waiting.

Arrays that are kept between runs have a buffer each, which clones share; what lives within a run lies in the arena, one
buffer or several where the device limits their length; inputs are copied to the device at the start of a run, results back at its end, and nothing else crosses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from ...ops.leaf import Constant
from ...plan import Kind, Plan, Step, Storage
from ...report.profile import Span
from ..base import Device, Memory, Program
from ..host import HostStep, evaluate
from .call import At, Call, OpenClAlgorithm, Table, Zeros
from .devices import import_pyopencl
from .launch import HostLaunch, Launch
from .programs import Context

KEPT = (Kind.STATE, Kind.CONSTANT, Kind.SETUP)
THREADS = 4  # at most that pack weights, each of which holds one


class OpenClProgram(Program):
    """See the module's docstring."""

    def __init__(self, plan: Plan, device: Device, context: Context, shared: OpenClProgram | None = None) -> None:
        super().__init__(plan, device)
        self.prelude = shared.prelude if shared else None
        self.context = context
        self.cl = import_pyopencl()
        self.kept: dict[Storage, Any] = shared.kept if shared else {}
        self.own: dict[Storage, Any] = {}
        for storage in plan.storages:
            if storage.kind in KEPT and shared is None:
                self.kept[storage] = context.buffer(storage.nbytes)
            elif storage.kind in (Kind.INPUT, Kind.OUTPUT):
                self.own[storage] = context.buffer(storage.nbytes)
        if shared is None:
            for value, storage in plan.places.items():
                if isinstance(value.op, Constant) and storage.kind is Kind.CONSTANT:
                    self._upload(self.kept[storage], value.op.array)
        self.table_bytes = 0
        self.arenas = [context.buffer(nbytes) for nbytes in plan.arenas]
        self.launches, self.launch_steps = self._make_launches(plan.run, {**self.kept, **self.own}, self.arenas)
        self.input_buffers = [self.own[plan.places[value]] for value in plan.graph.inputs]

    def _upload(self, buffer: Any, array: np.ndarray, blocking: bool = True) -> None:
        if array.nbytes:
            self.cl.enqueue_copy(self.context.queue, buffer, np.asarray(array, order="C"), is_blocking=blocking)

    def _make_launches(self, steps: Sequence[Step], buffers: Mapping[Storage, Any], arenas: Sequence[Any]) -> tuple[list[Launch | HostLaunch], list[int]]:
        """The kernels of `steps` with their arguments, and for each the number of its step."""
        launches: list[Launch | HostLaunch] = []
        owners = []
        for number, step in enumerate(steps):
            algorithm = step.node.algorithm
            if isinstance(algorithm, HostStep):
                launches.append(HostLaunch(self.context, step.node, lambda value: self._place(self.plan.places[value], buffers, arenas)))
                owners.append(number)
                continue
            assert isinstance(algorithm, OpenClAlgorithm)
            for call in algorithm.calls(step.node, self.context):
                if 0 in call.global_size:
                    continue
                arguments = {name: self._argument(value, step, buffers, arenas) for name, value in call.arguments.items()}
                launches.append(self._launch(call, arguments))
                owners.append(number)
        return launches, owners

    def _launch(self, call: Call, arguments: dict[str, Any]) -> Launch:
        return Launch(self.context, call.stem, call.entry, call.global_size, call.local_size, dict(call.defines), **arguments)

    def _argument(self, value: Any, step: Step, buffers: Mapping[Storage, Any], arenas: Sequence[Any]) -> Any:
        """Values as (buffer, offset in elements), tables as buffers, numbers as they are."""
        if isinstance(value, Table):
            self.table_bytes += value.array.nbytes
            return self.context.constant(value.array)
        if isinstance(value, Zeros):
            return self.context.zeros(value.count)
        if value is None or isinstance(value, int | float | np.number):
            return value
        place = value if isinstance(value, At) else At(value)
        storage = step.workspace if place.value is None else self.plan.places[place.value]
        assert storage is not None
        buffer, offset = self._place(storage, buffers, arenas)
        return (buffer, offset // 4 + place.offset)

    @staticmethod
    def _place(storage: Storage, buffers: Mapping[Storage, Any], arenas: Sequence[Any]) -> tuple[Any, int]:
        """The buffer that a storage lies in, and where, in bytes."""
        return (buffers[storage], 0) if storage in buffers else (arenas[storage.arena], storage.offset)

    # ---- the contract of Program ---------------------------------------------------------------------------------------

    def _store_states(self, stored: Mapping[str, np.ndarray]) -> None:
        plan = self.plan
        given = {plan.places[plan.graph.states[name]]: array for name, array in stored.items()}
        once = [step for step in plan.setup if step.once]
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda step: self._do_once(step, given), once))
        rest = [step for step in plan.setup if step not in once]
        read = {plan.places[value] for step in rest for value in step.node.inputs}
        temporary: dict[Storage, Any] = {}
        for storage, array in given.items():
            if storage.kind is Kind.STATE:
                self._upload(self.kept[storage], array)
            elif storage in read:
                temporary[storage] = self.context.buffer(storage.nbytes)
                self._upload(temporary[storage], array)
        if not rest:
            return
        for value, storage in plan.places.items():
            if isinstance(value.op, Constant) and storage.kind is Kind.SCRATCH:
                temporary[storage] = self.context.buffer(storage.nbytes)
                self._upload(temporary[storage], value.op.array)
        before = self.table_bytes
        launches, _ = self._make_launches(rest, {**self.kept, **temporary}, [self.context.buffer(nbytes) for nbytes in plan.setup_arenas])
        for launch in launches:
            launch.enqueue()
        self.context.queue.finish()
        self.table_bytes = before  # those of the setup are given back

    def _do_once(self, step: Step, given: Mapping[Storage, np.ndarray]) -> None:
        """A step on the host whose inputs are states, and whose output is kept."""
        places = self.plan.places
        evaluate(step.node.algorithm.runner(step.node), step.node, lambda value: given[places[value]], lambda value, array: self._upload(self.kept[places[value]], array))

    @property
    def memory(self) -> Memory:
        memory = super().memory
        return replace(memory, weights=memory.weights + self.table_bytes)

    def _read_states(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        result = {}
        for name in names:
            value = self.plan.graph.states[name]
            result[name] = np.empty(value.shape, value.dtype)
            self._download(result[name], self.kept[self.plan.places[value]])
        return result

    def _download(self, array: np.ndarray, buffer: Any, blocking: bool = True) -> None:
        if array.nbytes:
            self.cl.enqueue_copy(self.context.queue, array, buffer, is_blocking=blocking)

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        for buffer, array in zip(self.input_buffers, inputs, strict=True):
            self._upload(buffer, array, blocking=False)
        for launch in self.launches:
            launch.enqueue()
        return self._results()

    def _results(self) -> list[np.ndarray]:
        outputs = []
        for value in self.plan.graph.outputs:
            outputs.append(np.empty(value.shape, value.dtype))
            self._download(outputs[-1], self.own[self.plan.places[value]], blocking=False)
        self.context.queue.finish()
        return outputs

    def _profile(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        """Times by the driver's own clock, without waiting between kernels; where its events hold none that can be, the host's around each kernel."""
        spans = self._spans(inputs)
        if any(span.start < 0 or span.seconds < 0 for span in spans):  # a clock for each processor, and a thread that changed its processor
            self.context.has_clock = False
            spans = self._spans(inputs)
        return spans

    def _spans(self, inputs: Sequence[np.ndarray]) -> list[Span]:
        for buffer, array in zip(self.input_buffers, inputs, strict=True):
            self._upload(buffer, array)
        self.context.queue.finish()
        events = [self._timed(launch) for launch in self.launches]
        self.context.profiling_queue.finish()
        spans: list[Span] = []
        begin = next((event.profile.start for event, _ in events if event is not None), 0)
        for number, (event, seconds) in zip(self.launch_steps, events, strict=True):
            if event is not None:
                spans.append(Span(number, (event.profile.start - begin) * 1e-9, (event.profile.end - event.profile.start) * 1e-9))
            else:
                last = spans[-1] if spans else Span(0, 0.0, 0.0)
                spans.append(Span(number, last.start + last.seconds, seconds))
        return spans

    def _timed(self, launch: Launch | HostLaunch) -> tuple[Any, float]:
        """(its event, 0) of a kernel that is now in the queue, (None, seconds) of what was waited for."""
        if self.context.has_clock and isinstance(launch, Launch):
            return launch.enqueue(self.context.profiling_queue), 0.0
        self.context.profiling_queue.finish()
        start = time.perf_counter()
        launch.enqueue()
        self.context.queue.finish()
        return None, time.perf_counter() - start

    @property
    def clock(self) -> str:  # type: ignore[override]
        return "OpenCL events" if self.context.has_clock else "the host, as this driver's events hold no times or impossible ones"

    def clone(self) -> Program:
        return OpenClProgram(self.plan, self.device, self.context, shared=self)
