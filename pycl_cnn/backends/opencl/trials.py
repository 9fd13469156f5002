"""Kernels tried in child processes: whatever a compiler or driver does, this process goes on.

`run` hands requests (see trial_process.py) to one or a few children, which are started when they are first needed and end by
themselves when nothing is asked of them. A child that dies or hangs costs the kernel that it was at; the next one goes on behind it.
What children build lands in the drivers' (or pyopencl's) cache of binaries, so that this process does not compile it again.

The environment variable PYCL_CNN_CHECK=inside tries kernels in this process instead: for programs with an embedded interpreter, where
sys.executable is no Python.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import DeviceError
from ...records import record
from .devices import DeviceInfo
from .launch import ordered_arguments

SECONDS = 60.0  # that building or running one kernel may take
WORKERS = 4  # children at most
GUARD = 37  # words of NaN around every array
QUIET_NAN, PAYLOADS = np.int32(0x7FC00000), np.int32(1 << 22)
MEMORY = "memory"  # stands for the buffer that holds all arrays of a payload
_SCRIPT = Path(__file__).with_name("trial_process.py")
_START = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop()); runpy.run_path(sys.argv[1], run_name='__main__')"


class Payload:
    """Kernels and their arguments as data. Arrays lie in one buffer at odd places, with NaN around them."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, tuple[str, ...]]] = []
        self.names: list[str] = []  # of the programs, for people
        self._pieces: list[np.ndarray] = []
        self._length = 0
        self._tables: list[np.ndarray] = []
        self._launches: list[dict[str, Any]] = []

    def place(self, array: np.ndarray) -> int:
        """Append an array of 32-bit elements; the word it begins at."""
        assert array.dtype.itemsize == 4, array.dtype
        guard = self._guard(GUARD + len(self._pieces) % 3)
        start = self._length + guard.size
        self._pieces += [guard, np.ascontiguousarray(array).reshape(-1).view(np.int32)]
        self._length = start + array.size
        return start

    @property
    def memory(self) -> np.ndarray:
        """All words before the kernels run."""
        return np.concatenate([*self._pieces, self._guard(GUARD)])

    def _guard(self, count: int) -> np.ndarray:
        """NaNs, each with bits of its own: one that a kernel copies from elsewhere is seen."""
        return QUIET_NAN | np.arange(self._length + 1, self._length + 1 + count, dtype=np.int32) % PAYLOADS

    def launch(
        self, stem: str, entry: str, source: str, options: tuple[str, ...], global_size: Sequence[int], local_size: Sequence[int] | None, arguments: Mapping[str, Any]
    ) -> None:
        """Append a launch; arguments by name: numbers, arrays (tables), (MEMORY, word) for an array that was placed, None for an absent one."""
        if (source, options) not in self.programs:
            self.programs.append((source, options))
            self.names.append(stem)
        self._launches.append(
            {
                "program": self.programs.index((source, options)),
                "entry": entry,
                "global": [int(n) for n in global_size],
                "local": None if local_size is None else [int(n) for n in local_size],
                "arguments": [self._argument(kind, value) for kind, value in ordered_arguments(stem, entry, arguments)],
            }
        )

    def _argument(self, kind: str, value: Any) -> list[Any]:
        if isinstance(value, np.ndarray):
            self._tables.append(value if value.size else np.zeros(1, np.int32))
            return ["table", len(self._tables) - 1]
        if kind == "buffer":
            assert value is None or value is MEMORY
            return ["memory"]
        return [kind, int(value) if kind == "int" else float(value)]

    def request(self) -> dict[str, Any]:
        return {"programs": self.programs, "memory": _encoded(self.memory), "tables": [_encoded(table) for table in self._tables], "launches": self._launches}


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def decoded(text: str) -> np.ndarray:
    """Words that a child sent."""
    return np.frombuffer(base64.b64decode(text), np.int32)


@record
class Outcome:
    """What came of a request: a result or, at kernel `entry` of the payload's program number `program`, a problem."""

    result: Any = None
    problem: str = ""
    program: int = -1
    entry: str = ""
    passing: bool = False  # the device had no memory to try it in: that says nothing about the kernel


def run(device: DeviceInfo, requests: Sequence[Mapping[str, Any]], most: int = WORKERS) -> list[Outcome]:
    """The outcome of every request. Raises DeviceError where no process can be started, or the device cannot be opened in it."""
    if os.environ.get("PYCL_CNN_CHECK") == "inside":
        return [_inside(device, request) for request in requests]
    return _workshop(device).run(requests, most)


def make_ready(device: DeviceInfo, requests: int) -> None:
    """Start the children for as many requests, so that they open the device while the requests are made."""
    if os.environ.get("PYCL_CNN_CHECK") != "inside":
        _workshop(device).make_ready(requests)


class _Workshop:
    """The children of one device. One caller at a time."""

    def __init__(self, device: DeviceInfo) -> None:
        self._device = device
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def _team(self, requests: int, most: int) -> list[_Worker]:
        count = max(1, min(most, os.cpu_count() or 1, requests // 3))
        while len(self._workers) < count:
            self._workers.append(_Worker(self._device))
        return self._workers[:count]

    def make_ready(self, requests: int) -> None:
        with self._lock:
            for worker in self._team(requests, WORKERS):
                worker.make_ready()

    def run(self, requests: Sequence[Mapping[str, Any]], most: int) -> list[Outcome]:
        with self._lock:
            workers = self._team(len(requests), most)
            tasks = _Queue(requests)
            if len(workers) == 1:
                tasks.serve(workers[0])
                return tasks.outcomes
            with ThreadPoolExecutor(len(workers)) as pool:
                for served in [pool.submit(tasks.serve, worker) for worker in workers]:
                    served.result()
            return tasks.outcomes


class _Queue:
    """Requests for several children. A child first takes what no other one is building, and later finds in the driver's cache what those have built. A kernel
    that failed in one request is not tried again in another.
    """

    def __init__(self, requests: Sequence[Mapping[str, Any]]) -> None:
        self._requests = requests
        self._kernels = [_kernels(request) for request in requests]
        self._waiting = list(range(len(requests)))
        self._building: dict[int, set[Any]] = {}  # by request
        self._built: set[Any] = set()
        self._failed: dict[Any, Outcome] = {}
        self._changed = threading.Condition()
        self.outcomes = [Outcome()] * len(requests)

    def serve(self, worker: _Worker) -> None:
        """Let a child answer requests until none is left."""
        while (number := self._take()) is not None:
            try:
                self.outcomes[number] = self._known(number) or self._asked(number, worker)
            finally:
                with self._changed:
                    self._built |= self._building.pop(number)
                    self._changed.notify_all()

    def _asked(self, number: int, worker: _Worker) -> Outcome:
        request = self._requests[number]
        outcome = worker.ask(request)
        if outcome.entry and not outcome.passing:
            self._failed[request["run"]["programs"][outcome.program], outcome.entry] = outcome
        return outcome

    def _known(self, number: int) -> Outcome | None:
        """The outcome of a request with a kernel that failed already."""
        for program, entry, _ in self._kernels[number]:
            if (program, entry) in self._failed:
                return replace(self._failed[program, entry], program=self._requests[number]["run"]["programs"].index(program))
        return None

    def _take(self) -> int | None:
        """The request with most to build of its own; None where none is left. Waits where others build all that is to be built."""
        with self._changed:
            while self._waiting:
                elsewhere = set[Any]().union(*self._building.values())
                own = {number: len(self._kernels[number] - self._built - elsewhere) for number in self._waiting}
                shares = {number: bool(self._kernels[number] & elsewhere) for number in self._waiting}
                free = [number for number in self._waiting if own[number] or not shares[number]]
                if free:
                    number = max(free, key=lambda number: (not shares[number], own[number]))
                    self._waiting.remove(number)
                    self._building[number] = self._kernels[number] - self._built
                    return number
                self._changed.wait()
            return None


def _kernels(request: Mapping[str, Any]) -> set[Any]:
    """What a driver compiles for a request: (program, entry, size of work-groups), for some compile for each size."""
    payload = request.get("run")
    return {(payload["programs"][launch["program"]], launch["entry"], tuple(launch["local"] or ())) for launch in payload["launches"]} if payload else set()


class _Worker:
    """A child process, started when it is needed, started again when it died."""

    def __init__(self, device: DeviceInfo) -> None:
        self._device = device
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0  # process that started it: a fork must not talk to its parent's child

    def _start(self) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(_SCRIPT), str(self._device.index), self._device.name, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                encoding="utf-8", errors="replace", start_new_session=True,  # the terminal's Ctrl-C is not for it
            )  # fmt: skip
        except OSError as error:
            raise DeviceError(_cannot_start(str(error))) from error
        self._process, self._owner = process, os.getpid()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._complaints: deque[str] = deque(maxlen=20)
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr, self._complaints.append), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        _children[process] = (self._owner, pumps)
        return process

    @property
    def _mine(self) -> subprocess.Popen[str] | None:
        return self._process if self._owner == os.getpid() else None

    def make_ready(self) -> None:
        if self._mine is None:
            self._start()

    def ask(self, request: Mapping[str, Any]) -> Outcome:
        line = json.dumps(request) + "\n"
        process = self._mine
        if process is not None:
            outcome = self._attempt(process, line)
            if outcome is not None:
                return outcome
        outcome = self._attempt(self._start(), line)
        if outcome is None:
            raise DeviceError(_cannot_start("".join(self._complaints)[-1000:]))
        return outcome

    def _attempt(self, process: subprocess.Popen[str], line: str) -> Outcome | None:
        """The outcome; None where the child had ended before it came to a kernel. Whatever interrupts it ends the child: its answer is for nobody."""
        try:
            return self._converse(process, line)
        except BaseException:
            self._forget(process)
            raise

    def _converse(self, process: subprocess.Popen[str], line: str) -> Outcome | None:
        program, entry, stage = -1, "", "starting"
        try:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        except OSError:
            self._forget(process, patience=5.0)
            return None
        while True:
            try:
                text = self._lines.get(timeout=SECONDS)
            except queue.Empty:
                self._forget(process)
                return Outcome(None, f"hangs: no answer in {SECONDS:g} s while {stage}", program, entry)
            if not text:  # the end of its output
                self._forget(process, patience=5.0)
                return Outcome(None, f"kills its process ({_cause(process.returncode)}) while {stage}", program, entry) if entry else None
            message = json.loads(text)
            if "at" in message:
                program, entry, stage = message["at"]
            elif "failure" in message:
                return Outcome(None, _failure(stage, message["failure"]), program, entry, message["passing"])
            elif "done" in message:
                return Outcome(message["done"])

    def _forget(self, process: subprocess.Popen[str], patience: float = 0.0) -> None:
        """Reap a child, after waiting a little for its own end."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _children.pop(process, None)
        self._process = None


def _pump(stream: IO[str], sink: Callable[[str], None]) -> None:
    """Hand on every line, and "" at the end."""
    for line in stream:
        sink(line)
    sink("")
    stream.close()


def _failure(stage: str, text: str) -> str:
    """In one line; of a compiler's log the errors."""
    lines = text.splitlines()
    told = [line for line in lines if "error:" in line] or lines
    return f"{'does not build' if stage == 'building' else 'fails'}: {' '.join(' '.join(told[:2]).split())[:300]}"


def _cause(status: int) -> str:
    try:
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
    except ValueError:
        return f"signal {-status}"


def _cannot_start(cause: str) -> str:
    return (
        f"[opencl] the process that tries kernels cannot be used: {cause.strip() or 'it ends at once'}; where {sys.executable or 'sys.executable'} is no Python, "
        "PYCL_CNN_CHECK=inside in the environment tries them in this process"
    )


def _inside(device: DeviceInfo, request: Mapping[str, Any]) -> Outcome:
    from . import trial_process

    where: list[Any] = [-1, "", "starting"]

    def say(at: Sequence[Any]) -> None:
        where[:] = at

    if device not in _benches:
        _benches[device] = trial_process.Bench(device.index, device.name)
    answer = trial_process.answer(_benches[device], request, say)
    if "failure" in answer:
        return Outcome(None, _failure(where[2], answer["failure"]), where[0], where[1], answer["passing"])
    return Outcome(answer["done"])


_benches: dict[DeviceInfo, Any] = {}
_workshops: dict[DeviceInfo, _Workshop] = {}
_workshops_lock = threading.Lock()
#: each with the process that started it and the threads that read from it
_children: dict[subprocess.Popen[str], tuple[int, list[threading.Thread]]] = {}


def _workshop(device: DeviceInfo) -> _Workshop:
    with _workshops_lock:
        return _workshops.setdefault(device, _Workshop(device))


@atexit.register
def _end() -> None:
    for process, (owner, pumps) in _children.items():
        if owner == os.getpid():
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            for pump in pumps:
                pump.join(1.0)
