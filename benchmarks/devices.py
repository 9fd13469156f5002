"""The table of devices that ran the tests: docs/devices.md.

    python -m benchmarks.devices --device opencl:0 [--tests suite | kernels] [--network resnet18] [--out docs/devices.md]

For the device named it runs the tests (the whole suite, or the kernels one by one), the device check, and the network, and puts a row into
the table in place of the one that this device and driver had. Without --out the row is printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

from .compare.machine import describe
from .compare.report import begin, end, put_block
from .networks import NETWORKS, batch_of, seeded

ROOT = Path(__file__).parents[1]
BLOCK = "devices"
SUITE = ("tests", "--devices", "{label}")
KERNELS = {"cpu": ("tests/test_cpu_kernels.py",), "opencl": ("tests/opencl_kernels", "-k", "{index}-{platform}")}
MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    device: str
    driver: str
    processor: str
    date: str
    tests: str
    check: str
    resnet18: str
    ceiling: str

    @property
    def key(self) -> tuple[str, str]:
        return self.device, self.driver


HEADINGS = Row("device", "platform, driver", "processor", "date, commit", "tests", "device check", "ResNet-18 batch 1, ms", "share of its ceilings")


def read_rows(page: str) -> list[Row]:
    """The rows of a page that this command wrote."""
    block = page.partition(begin(BLOCK))[2].partition(end(BLOCK))[0]
    lines = [line.strip().strip("|").split(" | ") for line in block.splitlines() if line.startswith("| ")]
    return [Row(*(cell.strip() for cell in line)) for line in lines[2:] if len(line) == len(fields(Row))]


def render(rows: Sequence[Row]) -> str:
    """The table, sorted by driver and device."""
    lines = [astuple(HEADINGS), ("---",) * len(fields(Row)), *(astuple(row) for row in sorted(rows, key=lambda row: (row.driver, row.device)))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_tests(kind: str, device: Any) -> str:
    """pytest's last words about the tests of this kind on the device."""
    chosen = [part.format(label=device.label, index=device.index, platform=device.platform.split()[0].partition("(")[0]) for part in (SUITE if kind == "suite" else KERNELS[device.backend])]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *chosen], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
    counts = re.findall(r"\d+ (?:passed|failed|errors?|skipped)", lines[-1]) if lines else ["did not run"]
    return f"{kind}: {', '.join(counts)}"


def certificate(device: Any) -> str:
    """The device check's summary; the native backend compiles nothing."""
    if device.backend != "opencl":
        return "-"
    from pycl_cnn.backends.opencl.certificate import certify

    found = certify(device, False, lambda done, total: None)
    return f"{found['passed']} pass, {found['failed']} fail"


def measure(network: str, device: Any) -> tuple[str, str]:
    """(milliseconds of the best run, share of the device's measured ceilings)."""
    import pycl_cnn as pc

    x, _ = batch_of(NETWORKS[network], 1)
    program = pc.compile(seeded(NETWORKS[network]).eval(), x.shape, device=device)
    program.run(x)
    best, begin_time = float("inf"), perf_counter()
    while perf_counter() - begin_time < MEASURE_SECONDS:
        start = perf_counter()
        program.run(x)
        best = min(best, perf_counter() - start)
    profile = program.profile(x, repeat=3)
    direct = sum(profile.ceilings.floor(step.flops, step.nbytes) for step in profile.steps) if profile.ceilings else 0.0
    return f"{best * 1e3:.3g}", f"{direct / best:.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.devices", description="A row of docs/devices.md: tests, device check and speed of a device.")
    parser.add_argument("--device", required=True, help='e.g. "cpu", "opencl:0", part of a name')
    parser.add_argument("--tests", choices=("suite", "kernels"), default="suite", help="the whole suite, or kernels one by one (default: %(default)s)")
    parser.add_argument("--network", choices=NETWORKS, default="resnet18", help="default: %(default)s")
    parser.add_argument("--simulator", action="store_true", help="the device is a simulator: it is not asked for speed")
    parser.add_argument("--out", type=Path, help="a .md file whose table gets the row")
    options = parser.parse_args(arguments)
    import pycl_cnn as pc

    device, machine = pc.device(options.device), describe()
    tests, checked = run_tests(options.tests, device), certificate(device)
    date = f"{machine['date'].partition(' ')[0]}, {machine['commit']}"
    platform = f"{' '.join(device.platform.split()[:8])}, {device.driver}".replace("|", "/")
    row = Row(device.name, platform, machine["processor"], date, tests, checked, *(("-", "-") if options.simulator else measure(options.network, device)))
    if options.out is None:
        print(render([row]))
        return 0
    page = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    put_block(options.out, BLOCK, render([*(other for other in read_rows(page) if other.key != row.key), row]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
