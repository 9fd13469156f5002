"""One contender in a process of its own, which does what it is told, a line of JSON at a time: ``python -m benchmarks.compare.worker``.

    {"do": "open", "module": "ours", "options": {...}}       -> {"versions": {...}}
    {"do": "prepare", "network": ..., "inputs": ..., ...}    -> {"seconds": until the first result was there}
    {"do": "settle"}                                         -> {"note": what was tried out}
    {"do": "check", "path": "x.npz"}                         -> {}, and the arrays in the file
    {"do": "run", "seconds": 0.4, "most": 1000}              -> {"times": [...]}
    {"do": "memory"}                                         -> {"peak": bytes}

A reply with "error" says that it could not. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from .task import Engine, Task


def peak_memory() -> int:
    """The most bytes that were resident in this process. Not getrusage's figure, which a parent's memory can raise."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(engine: Engine, seconds: float, most: int) -> list[float]:
    """Times of single steps until `seconds` are over, at least one. A first one goes unmeasured: its caches hold another process's data."""
    engine.step()
    times: list[float] = []
    end = perf_counter() + seconds
    while not times or (perf_counter() < end and len(times) < most):
        start = perf_counter()
        engine.step()
        times.append(perf_counter() - start)
    return times


class Worker:
    """Answers requests; see the module's docstring."""

    engine: Engine

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        module = import_module(f".contenders.{request['module']}", __package__)
        self.engine = module.ENGINE(request["options"])
        return {"versions": self.engine.versions()}

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        task = Task.read(request)
        start = perf_counter()
        self.engine.prepare(task)
        if not task.trains:
            self.engine.step()
        return {"seconds": perf_counter() - start}

    def settle(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"note": self.engine.settle()}

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        np.savez(request["path"], **self.engine.check())
        return {}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"times": timed(self.engine, request["seconds"], request["most"])}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"peak": peak_memory()}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request["do"])(request)
        except Exception as error:  # whatever an engine raises is its answer
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
