"""Tuning from outside: starts the child process that tries variants, keeps what it finds, and survives it.

Everything that was tried is written to the device's record at once. So an interrupted run goes on where it stopped, and a variant that killed
or hung its process is not tried again.
"""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache import alone
from ..errors import DeviceError
from .database import FORMAT, Record, TuningError, own_path, read, write
from .search import KEEP

COMMAND = (sys.executable, "-m", "pycl_cnn.tuning.worker")
HANG_SECONDS = 60.0  # without a word from the child
GRACE_SECONDS = 5.0  # behind the budget, for the variant that is being measured


@dataclass
class Summary:
    """What a run did."""

    path: Path | None = None
    tasks: int = 0
    tried: int = 0
    failed: int = 0
    died: int = 0
    finished: bool = False
    best: dict[str, float] = field(default_factory=dict)  # ratio to the untuned time, by task
    shares: dict[str, float] = field(default_factory=dict)  # seconds of the untuned steps, by task

    @property
    def ratio(self) -> float:
        """Time of all tasks over their untuned time."""
        total = sum(self.shares.values())
        return sum(share * self.best.get(task, 1.0) for task, share in self.shares.items()) / total if total else 1.0


class _Child:
    """A worker process and its lines."""

    def __init__(self, command: Sequence[str], request: Mapping[str, Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
        )
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.say(request)

    def say(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it is dead already: its lines end
            print(json.dumps(message), file=self.process.stdin, flush=True)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def line(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None at its end. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            try:
                text = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError from None
            if text is None:
                return None
            if text.startswith("{"):  # drivers print what they like
                return dict(json.loads(text))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def tune(
    model: str,
    device: str | None = None,
    budget: float = 60.0,
    shape: Sequence[int] | None = None,
    train: bool = False,
    progress: Callable[[Summary, float], None] = lambda summary, seconds: None,
    command: Sequence[str] = COMMAND,
    patience: float = HANG_SECONDS,
) -> Summary:
    """Tune the steps of a network for about `budget` seconds; what was found is in the device's record.

    `progress` is called with the summary so far and the seconds spent. On KeyboardInterrupt the child is stopped, what was found is kept, and the
    exception goes on. Raises TuningError, DeviceError.
    """
    summary, start = Summary(), time.monotonic()
    data: dict[str, Any] = {}
    at: tuple[str, str] | None = None
    while True:
        left = budget - (time.monotonic() - start)
        if left <= 0:
            return summary
        request = {"device": device, "model": model, "shape": list(shape) if shape else None, "train": train, "budget": left}
        child = _Child(command, request)
        try:
            while (message := child.line(min(patience, left + GRACE_SECONDS))) is not None:
                at = _take(message, summary, data, at)
                if message["event"] == "device":
                    child.say({"tried": data["tried"]})
                left = max(0.0, budget - (time.monotonic() - start))
                progress(summary, time.monotonic() - start)
                if message["event"] == "done":
                    return summary
            cause = "its process died"
        except TimeoutError:
            if time.monotonic() - start >= budget:  # over time, not hung
                return summary
            cause = f"no answer in {patience:g} s"
        finally:
            child.stop()
        if at is None:
            raise DeviceError(f"tuning: {cause} before the first variant, on {device or 'the default device'}")
        summary.died += 1
        _remember(data, *at, cause)
        at = None


def _take(message: Mapping[str, Any], summary: Summary, data: dict[str, Any], at: tuple[str, str] | None) -> tuple[str, str] | None:
    """Note a message of the child; what it is at now."""
    event = message["event"]
    if event == "error":
        raise TuningError(message["text"])
    if event == "device":
        if not data:
            data.update(_opened(message["facts"], message["kernels"]))
            data["path"] = own_path(message["facts"])
        summary.path, summary.tasks = data["path"], message["tasks"]
    elif event == "trying":
        return message["task"], message["variant"]
    elif event == "result":
        summary.tried += 1
        summary.shares[message["task"]] = message["share"]
        summary.failed += "failure" in message
        ratio = message.get("ratio", math.inf)
        known = [value for value in data["tried"].get(message["task"], {}).values() if not isinstance(value, str)]
        if ratio <= KEEP and ratio < min(known, default=math.inf):
            for family, key, variant in message["choices"]:
                data["families"].setdefault(family, {})[key] = variant
        summary.best[message["task"]] = min([1.0, ratio, *known])
        _remember(data, message["task"], message["variant"], message.get("ratio", message.get("failure")))
    elif event == "done":
        summary.finished = message["finished"]
    return None if event in ("result", "done") else at


def _opened(facts: Mapping[str, str], kernels: str) -> dict[str, Any]:
    """The device's record as it is, or a new one where there is none for these kernels."""
    known = _read(own_path(facts))
    if known.get("kernels") == kernels:
        return {"tried": {}, **known}
    match = {name: facts[name] for name in ("platform", "name", "driver")}
    record = Record(f"{facts['name']}, {facts['driver']}", "device", match, {}, kernels, True)
    return {**record.data, "vendor": facts["vendor"], "type": facts["type"], "tried": {}}


def _remember(data: dict[str, Any], task: str, label: str, value: float | str | None) -> None:
    """Note what was tried in the device's record, beside what other runs note there at the same time."""
    data["tried"].setdefault(task, {})[label] = value
    path: Path = data["path"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_suffix(".lock")):
            known = _read(path)
            if known.get("kernels") == data["kernels"]:
                for part in ("tried", "families"):
                    for key, values in known.get(part, {}).items():
                        data[part][key] = {**values, **data[part].get(key, {})}
            write(path, {name: part for name, part in data.items() if name != "path"})
    except OSError as problem:
        raise TuningError(f"{path} cannot be written: {problem}") from None


def _read(path: Path) -> dict[str, Any]:
    """A record's data; nothing where it is damaged: it is begun anew."""
    try:
        return read(path)
    except TuningError:
        return {}


def export(facts: Mapping[str, str], target: Path) -> int:
    """Write what was found on a device to a file that can be contributed; how many variants it has. Raises TuningError where there are none."""
    data = read(own_path(facts))
    count = sum(len(problems) for problems in data.get("families", {}).values())
    if not count:
        raise TuningError(f"nothing was tuned on {facts['name']} ({facts['driver']}) yet: run pycl-cnn tune")
    if data["format"] != FORMAT:
        raise TuningError(f"{own_path(facts)} has format {data['format']}")
    write(target, {name: part for name, part in data.items() if name != "tried"})
    return count
