"""What each step of a program took: a table, and a trace that chrome://tracing and Perfetto (ui.perfetto.dev) open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import write_json
from ..records import record

if TYPE_CHECKING:
    from ..backends.ceilings import Ceilings


@record
class StepReport:
    """One row of `Program.explain`."""

    operation: str
    scope: str
    algorithm: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    flops: int  # of the direct method
    work: int  # flops of the products that the algorithm does: fewer with Winograd's
    nbytes: int
    why: str


@record
class Span:
    """When a kernel of step number `step` ran: seconds since the run began, and how long."""

    step: int
    start: float
    seconds: float


@record
class Profile:
    """The steps of a program with their least times over some runs; printable.

    `timeline` is the fastest run, kernel by kernel. A step's floor is what its arithmetic (the products that its algorithm does) or its memory
    traffic (inputs and outputs once) take at the device's measured ceilings.
    """

    steps: tuple[StepReport, ...]
    seconds: tuple[float, ...]
    timeline: tuple[Span, ...]
    device: str
    clock: str  # "host" or "OpenCL events"
    ceilings: Ceilings | None  # None where none were measured

    @classmethod
    def of(cls, steps: Sequence[StepReport], runs: Sequence[Sequence[Span]], device: str, clock: str, ceilings: Ceilings | None) -> Profile:
        """From the spans of some runs."""
        sums = []
        for spans in runs:
            seconds = [0.0] * len(steps)
            for span in spans:
                seconds[span.step] += span.seconds
            sums.append(seconds)
        fastest = min(range(len(runs)), key=lambda index: sum(sums[index]))
        least = tuple(min(column) for column in zip(*sums, strict=True))
        return cls(tuple(steps), least, tuple(runs[fastest]), device, clock, ceilings)

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return sum(self.seconds)

    @property
    def floors(self) -> tuple[float, ...]:
        """Seconds that each step needs at the device's ceilings, 0 where those are not known."""
        return tuple(self.ceilings.floor(step.work, step.nbytes) if self.ceilings else 0.0 for step in self.steps)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("step", "where", "operation", "algorithm", "output", "us", "share", "GFLOP/s", "GB/s", "of ceiling")]
        for index, (step, seconds, floor) in enumerate(zip(self.steps, self.seconds, self.floors, strict=True)):
            rates = (f"{amount / seconds / 1e9:.1f}" if seconds else "" for amount in (step.flops, step.nbytes))
            numbers = f"{seconds * 1e6:.1f}", f"{seconds / max(self.total, 1e-12):.1%}", *rates, f"{floor / seconds:.0%}" if seconds and floor else ""
            rows.append((str(index), step.scope, step.operation, step.algorithm, "x".join(map(str, step.output)), *numbers))
        share = f", {sum(self.floors) / self.total:.0%} of the ceilings" if self.ceilings and self.total else ""
        lines = [table(rows), f"total {self.total * 1e3:.3f} ms on {self.device}{share}; times by {self.clock}"]
        return "\n".join([*lines, f"ceilings: {self.ceilings}"] if self.ceilings else lines)

    def trace(self) -> dict[str, Any]:
        """The fastest run in the Trace Event Format: one complete event ("X") for each kernel, times in microseconds."""

        def meta(kind: str, name: str) -> dict[str, Any]:
            return {"name": kind, "ph": "M", "pid": 0, "tid": 0, "args": {"name": name}}

        events = [meta("process_name", f"pycl_cnn on {self.device}"), meta("thread_name", f"steps, by {self.clock}")]
        floors = self.floors
        for span in self.timeline:
            step = self.steps[span.step]
            facts = {"step": span.step, "algorithm": step.algorithm, "why": step.why, "inputs": [list(shape) for shape in step.inputs], "output": list(step.output)}
            costs = {"flops": step.flops, "work": step.work, "bytes": step.nbytes, "floor us": floors[span.step] * 1e6}
            name = f"{step.scope} {step.operation}".strip()
            events.append(
                {"name": name, "cat": step.algorithm, "ph": "X", "ts": span.start * 1e6, "dur": span.seconds * 1e6, "pid": 0, "tid": 0, "args": {**facts, **costs}}
            )
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write `trace` as JSON: beside the file, then renamed. Raises OSError."""
        write_json(Path(path), self.trace())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, the first row as the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
