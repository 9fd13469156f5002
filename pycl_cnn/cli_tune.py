"""The command `tune`: measures variants of kernels for the steps of a network, in a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from .placement import device as find_device
from .tuning.database import TuningError, facts_of
from .tuning.tuner import Summary, export, tune
from .tuning.worker import network_of


def run(options: argparse.Namespace) -> int:
    """``pycl-cnn tune``"""
    device = find_device(options.device or "opencl")
    if device.backend != "opencl":
        raise TuningError(f"tune: OpenCL devices have variants to choose from, {device} has none")
    if options.export:
        from .backends.opencl.devices import devices

        count = export(facts_of(devices()[device.index]), Path(options.export))
        print(f"{count} variants of {device} in {options.export}")
        return 0
    network_of(options.model, options.input_shape)  # a mistake is told before anything is measured
    bar = tqdm(total=options.budget, unit="s", disable=options.quiet, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}")

    def progress(summary: Summary, seconds: float) -> None:
        bar.update(min(seconds, options.budget) - bar.n)
        failed = f", {summary.failed + summary.died} failed" if summary.failed + summary.died else ""
        bar.set_postfix_str(f"{summary.tried} variants of {summary.tasks} steps{failed}, time {summary.ratio:.2f} of untuned", refresh=False)

    try:
        with bar:
            summary = tune(options.model, device.label, options.budget, options.input_shape, options.train, progress)
    except KeyboardInterrupt:
        print("interrupted; what was found is kept, and the next run goes on from there", file=sys.stderr)
        return 130
    print(f"{options.model} on {device}: {summary.tried} variants tried for {summary.tasks} steps, {summary.failed} wrong or refused, {summary.died} died or hung")
    for task, ratio in sorted(summary.best.items(), key=lambda item: -summary.shares[item[0]]):
        print(f"  {ratio:.2f} of the untuned time  {task}")
    print(f"all of them {summary.ratio:.2f}; {'nothing is left to try' if summary.finished else 'more time may find more'}; kept in {summary.path}")
    return 0
