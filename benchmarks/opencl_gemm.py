"""A square matrix product as a share of the rate of a multiply-add loop, both on one OpenCL device and in turns.

    python -m benchmarks.opencl_gemm [--device opencl:0] [--size 1024] [--rounds 20]

The loop (kernels_cl/ceilings.cl) runs with every vector width and form of multiply-add that the device builds; the fastest is the ceiling. The
product is that of a Linear without bias: its weight is packed beforehand, its kernels alone are timed, and its result is checked. Shares are
told for elapsed time and, for devices that are processors, for processor time, which says what the kernel does while other processes take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any

import numpy as np

from pycl_cnn.backends.opencl.ceilings import CHAINS
from pycl_cnn.backends.opencl.probe import MULTIPLY_ADD_FORMS

ITEMS_PER_UNIT = 64  # work-items of the loop for each compute unit
SAMPLE_SECONDS = 0.02


class Loop:
    """The multiply-add loop in one width and form."""

    def __init__(self, context: Any, width: int, form: int) -> None:
        from pycl_cnn.backends.opencl.launch import Launch

        self.name = f"float{width}, {MULTIPLY_ADD_FORMS[form]}"
        self.queue = context.queue
        items = ITEMS_PER_UNIT * context.device.compute_units
        local = None if context.device.is_gpu else (1,)
        arguments = {"y": (context.buffer(4 * items), 0), "factor": 0.5, "summand": 0.25}
        self.rounds = 64
        while True:
            self.launch = Launch(context, "ceilings", "multiply_adds", (items,), local, {"VEC": width, "MULTIPLY_ADD": form}, rounds=self.rounds, **arguments)
            self._seconds()  # compiles
            if min(self._seconds() for _ in range(3)) >= SAMPLE_SECONDS:
                break
            self.rounds *= 2
        self.flops = 2 * CHAINS * width * items * self.rounds

    def _seconds(self) -> float:
        return seconds(self.run)[0]

    def run(self) -> None:
        self.launch.enqueue()
        self.queue.finish()


def loops(context: Any) -> list[Loop]:
    """Every width and form that the probe found to work: a compiler that crashed on one is not asked again."""
    return [Loop(context, width, form) for width in (4, 8, 16) for form, text in MULTIPLY_ADD_FORMS.items() if context.capabilities.measured.get(f"{width} {text}")]


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Elapsed time and processor time of one run."""
    start, busy = perf_counter(), process_time()
    run()
    return perf_counter() - start, process_time() - busy


def product(device: Any, size: int) -> tuple[Callable[[], None], float]:
    """A function that runs the product once, and the error of its result as a part of the result's scale."""
    import pycl_cnn as pc

    pc.manual_seed(0)
    module: Any = pc.nn.Linear(size, size, bias=False)
    x = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    program: Any = pc.compile(module, x.shape, device=device)
    expected = x.astype(np.float64) @ module.weight.data.T.astype(np.float64)
    error = float(np.abs(program.run(x) - expected).max() / np.abs(expected).max())

    def run() -> None:
        for launch in program.launches:
            launch.enqueue()
        program.context.queue.finish()

    return run, error


def measure(name: str, size: int, rounds: int) -> str:
    """One line of Markdown: device, ceiling and product in GFLOP/s, the median share of the rounds in elapsed and in processor time."""
    import pycl_cnn as pc
    from pycl_cnn.backends.opencl.call import device_context

    device = pc.device(name)
    fastest = max(loops(device_context(device)), key=lambda loop: max(loop.flops / seconds(loop.run)[0] for _ in range(3)))
    run, error = product(device, size)
    if error > 1e-5:
        raise RuntimeError(f"{device}: the product is wrong by {error:.1e} of its scale")
    flops = 2 * size**3
    times = [(*seconds(fastest.run), *seconds(run)) for _ in range(rounds)]
    ceiling, gemm = fastest.flops / min(t[0] for t in times), flops / min(t[2] for t in times)
    elapsed = statistics.median(flops / t[2] / (fastest.flops / t[0]) for t in times)
    busy = statistics.median(flops / t[3] / (fastest.flops / t[1]) for t in times) if device.kind == "cpu" else None
    platform = device.platform.split("  ")[0]
    cells = (f"{platform}, {device.name}", f"{ceiling / 1e9:.0f} ({fastest.name})", f"{gemm / 1e9:.0f}", f"{elapsed:.2f}", "" if busy is None else f"{busy:.2f}")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.opencl_gemm", description="A matrix product as a share of the device's multiply-add peak.")
    parser.add_argument("--device", default="opencl", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    print("| device | loop, GFLOP/s | product, GFLOP/s | share, elapsed | share, processor time |\n|---|---:|---:|---:|---:|")
    print(measure(options.device, options.size, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
