"""The floor table of a network: for every step of its program the time that arithmetic and memory need at the least, and the time now.

    python -m benchmarks.layers [--network resnet18] [--batch 1] [--device cpu] [--train] [--threads 2] [--out docs/benchmarks.md]

The floor is the larger of FLOPs over the rate of a multiply-add loop and bytes (inputs and outputs, once) over the rate of copying as
much, the device's measured ceilings. FLOPs are those that the algorithm does in products, beside them stand those of the direct method: Winograd's
transforms are part of the gap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compare.machine import describe
from .compare.report import put_block
from .networks import NETWORKS, batch_of, seeded


@dataclass(frozen=True)
class Layer:
    """A step of a program, its floor and its time, in seconds."""

    number: int
    scope: str
    operation: str
    algorithm: str
    output: tuple[int, ...]
    flops: int
    work: int
    nbytes: int
    floor: float
    seconds: float

    @property
    def gap(self) -> float:
        return self.seconds - self.floor


def make_program(network: str, batch: int, device: Any, train: bool) -> tuple[Any, tuple[np.ndarray, ...]]:
    """The network's program for inference or for a training step, and what to run it on."""
    import pycl_cnn as pc

    model = seeded(NETWORKS[network])
    images, labels = batch_of(NETWORKS[network], batch)
    if not train:
        return pc.compile(model.eval(), images.shape, device=device), (images,)
    optimizer = pc.optim.SGD(lr=1e-4, momentum=0.9)
    loss = pc.nn.CrossEntropyLoss()
    program = pc.compile(model.train(), images.shape, device=device, train=True, loss=loss, optimizer=optimizer, target=labels)
    return program, (images, labels, np.array(optimizer.rule.hyper(1e-4, 2), np.float32))


def measure(program: Any, arrays: Sequence[np.ndarray], ceilings: Any, rounds: int = 3, repeat: int = 5) -> list[Layer]:
    """The program's steps, each with its least time over some rounds, and its floor at the device's `ceilings`."""
    profiles = []
    for _ in range(rounds):
        profiles.append(program.profile(*arrays, repeat=repeat))
    seconds = [min(column) for column in zip(*(profile.seconds for profile in profiles), strict=True)]
    return [
        Layer(i, s.scope, s.operation, s.algorithm, s.output, s.flops, s.work, s.nbytes, ceilings.floor(s.work, s.nbytes), t)
        for i, (s, t) in enumerate(zip(profiles[0].steps, seconds, strict=True))
    ]


HEADINGS = ("step", "where", "operation", "algorithm", "output", "MFLOP", "done", "MiB", "floor us", "now us", "ratio", "gap us")


def rows(layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    """The table's cells, the largest gap first, and the total."""

    def numbers(flops: int, work: int, nbytes: int, floor: float, seconds: float) -> tuple[str, ...]:
        ratio = f"{seconds / floor:.2f}" if floor else "-"
        return (
            f"{flops / 1e6:.2f}",
            f"{work / 1e6:.2f}",
            f"{nbytes / 2**20:.2f}",
            f"{floor * 1e6:.1f}",
            f"{seconds * 1e6:.1f}",
            ratio,
            f"{(seconds - floor) * 1e6:.1f}",
        )

    cells = [
        (str(x.number), x.scope, x.operation, x.algorithm, "x".join(map(str, x.output)), *numbers(x.flops, x.work, x.nbytes, x.floor, x.seconds))
        for x in sorted(layers, key=lambda layer: layer.gap, reverse=True)
    ]
    columns = [[getattr(x, name) for x in layers] for name in ("flops", "work", "nbytes", "floor", "seconds")]
    cells.append(("", "total", "", "", "", *numbers(*(sum(column) for column in columns))))
    return cells


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: names to the left, numbers to the right."""
    lines = [HEADINGS, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    aligned = [
        "  ".join(cell.ljust(width) if 0 < i < 5 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in aligned)


def as_markdown(cells: Sequence[Sequence[str]]) -> str:
    marks = ["---:" if i == 0 or i >= 5 else "---" for i in range(len(HEADINGS))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEADINGS, marks, *cells))


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser("python -m benchmarks.layers", description="The floor table of a network's program.")
    parser.add_argument("--network", default="resnet18", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--train", action="store_true", help="the steps of a training step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of profiles (default: %(default)s)")
    parser.add_argument("--top", type=int, default=0, help="show only so many steps, and the total")
    parser.add_argument("--out", type=Path, help="a .md file whose block for this network is replaced")
    options = parser.parse_args(given)
    import pycl_cnn as pc
    from pycl_cnn.backends import backend

    try:
        device = pc.device(options.device)
    except pc.DeviceError as error:
        parser.error(str(error))
    if device.backend == "cpu":
        pc.set_num_threads(options.threads)
    program, arrays = make_program(options.network, options.batch, device, options.train)
    program.run(*arrays)
    ceilings = backend(device.backend).ceilings(device)
    if ceilings is None:
        parser.error(f"the ceilings of {device} are not measured")
    cells = rows(measure(program, arrays, ceilings, options.rounds))
    if options.top:
        cells = [*cells[: min(options.top, len(cells) - 1)], cells[-1]]
    if options.out is None:
        print(f"{as_text(cells)}\n{ceilings}")
        return 0
    machine = describe()
    kind = "training step" if options.train else "inference"
    name = f"layers {options.network}-b{options.batch}-{kind.partition(' ')[0]}@{options.device}"
    heading = f"#### {NETWORKS[options.network].title}, batch {options.batch}, {kind}, {device}"
    made = f"{machine['date']}, {machine['processor']}, commit {machine['commit']}. Ceilings: {ceilings} ({options.threads} threads)."
    put_block(options.out, name, f"{heading}\n\n{made}\n\n{as_markdown(cells)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
