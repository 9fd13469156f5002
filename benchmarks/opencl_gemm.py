"""A square matrix product as a share of the rate of a multiply-add loop, both on one OpenCL device and in turns.

    python -m benchmarks.opencl_gemm [--device opencl:0] [--size 1024] [--rounds 20]

The loop (ceilings.cl) runs with every vector width and form of multiply-add that the device builds; the fastest is the ceiling. The
product is that of a Linear without bias: its weight is packed beforehand, its kernels alone are timed, and its result is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ITEMS_PER_UNIT = 64  # work-items of the loop for each compute unit
CHAINS = 10  # SUMS of ceilings.cl
SAMPLE_SECONDS = 0.02
FORMS = {1: "a*b+c", 2: "fma", 3: "mad"}


class Loop:
    """The multiply-add loop in one width and form."""

    def __init__(self, context: Any, width: int, form: int) -> None:
        import pyopencl as cl

        source = Path(__file__).with_name("ceilings.cl").read_text(encoding="utf-8")
        self.name = f"float{width}, {FORMS[form]}"
        self.queue = context.queue
        self.kernel = cl.Program(context.cl, source).build(options=[f"-DWIDTH={width}", f"-DFORM={form}"]).multiply_add
        self.items = ITEMS_PER_UNIT * context.device.compute_units
        self.buffer = context.buffer(4 * self.items)
        self.flops_of_round = 2 * CHAINS * width * self.items
        self.local = None if context.device.is_gpu else (1,)
        self.rounds, self.enqueue_kernel = 64, cl.enqueue_nd_range_kernel
        self._seconds()  # compiles
        while min(self._seconds() for _ in range(3)) < SAMPLE_SECONDS:
            self.rounds *= 2

    def _seconds(self) -> float:
        self.kernel.set_args(self.buffer, np.int32(self.rounds), np.float32(0.5), np.float32(0.25))
        start = perf_counter()
        self.enqueue_kernel(self.queue, self.kernel, (self.items,), self.local)
        self.queue.finish()
        return perf_counter() - start

    def rate(self) -> float:
        """Floating-point operations a second of one run."""
        return self.rounds * self.flops_of_round / self._seconds()


def loops(context: Any) -> list[Loop]:
    """Every width and form that builds."""
    import pyopencl as cl

    # A compiler that was seen to crash on a width is not asked for it again.
    widths = {int(name.split()[0]) for name, rate in context.capabilities.measured.items() if rate}
    found = []
    for width in sorted(widths):
        for form in FORMS:
            if not context.capabilities.measured.get(f"{width} {FORMS[form]}"):
                continue
            try:
                found.append(Loop(context, width, form))
            except cl.Error:
                continue
    return found


def product(device: Any, size: int) -> tuple[Callable[[], float], float]:
    """A function that runs the product once and returns FLOP/s, and the error of its result as a part of the result's scale."""
    import pycl_cnn as pc

    pc.manual_seed(0)
    module: Any = pc.nn.Linear(size, size, bias=False)
    x = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    program: Any = pc.compile(module, x.shape, device=device)
    expected = x.astype(np.float64) @ module.weight.data.T.astype(np.float64)
    error = float(np.abs(program.run(x) - expected).max() / np.abs(expected).max())

    def rate() -> float:
        start = perf_counter()
        for launch in program.launches:
            launch.enqueue()
        program.context.queue.finish()
        return 2 * size**3 / (perf_counter() - start)

    return rate, error


def measure(name: str, size: int, rounds: int) -> str:
    """One line of Markdown: device, ceiling, product, share (median of the shares of single rounds)."""
    import pycl_cnn as pc
    from pycl_cnn.backends.opencl.call import device_context

    device = pc.device(name)
    context = device_context(device)
    candidates = loops(context)
    fastest = max(candidates, key=lambda loop: max(loop.rate() for _ in range(3)))
    rate, error = product(device, size)
    if error > 1e-5:
        raise RuntimeError(f"{device}: the product is wrong by {error:.1e} of its scale")
    pairs = [(fastest.rate(), rate()) for _ in range(rounds)]
    ceiling, gemm = (max(column) for column in zip(*pairs, strict=True))
    share = statistics.median(b / a for a, b in pairs)
    cells = (device.platform, device.name, f"{ceiling / 1e9:.0f} ({fastest.name})", f"{gemm / 1e9:.0f}", f"{gemm / ceiling:.2f}", f"{share:.2f}")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.opencl_gemm", description="A matrix product as a share of the device's multiply-add peak.")
    parser.add_argument("--device", default="opencl", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    print("| platform | device | loop, GFLOP/s | product, GFLOP/s | share of the bests | median share of a round |\n|---|---|---|---|---|---|")
    print(measure(options.device, options.size, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
