"""Measures candidates of vector width and multiply-add form on one device.  Run by devices.py as a process of its own.

Reads {"index", "source", "candidates": [[width, form], ...], "rounds"} from standard input. With no rounds it prints one line of
JSON, {"failure": ...}, for each candidate as soon as it is known whether it builds and computes correctly, so that the caller sees at
which one the process died. With rounds it builds all, times them in turn, so many times, and prints {"gflops": [...]}, the best of each.

The payload is the convolution kernel itself on ones, whose result is known. Its activation is gelu, which is the identity there, but
calls the exponential and the root: some runtimes multiply wide vectors well and crash in their functions. One work-item
on one core: how many cores are free at the moment does not matter.
"""

import json
import sys
import time

import numpy
import pyopencl as cl

ROWS, VECTORS = 6, 2
GELU = 6
ENOUGH_SECONDS = 1e-3
# (terms of a sum, blocks of ROWS pixels), the first for simulators, later ones as far as a device is fast.
SIZES = [(32, 1), (128, 1), (1024, 1), (1024, 4), (1024, 16), (1024, 64), (1024, 256)]


def flat_device(index):
    found = []
    for platform in cl.get_platforms():
        try:
            found.extend(platform.get_devices())
        except cl.Error:
            continue
    return found[index]


class Payload:
    """A candidate's kernel and its buffers."""

    def __init__(self, context, queue, source, width, form):
        options = [f"-DVEC={width}", f"-DMULTIPLY_ADD={form}", f"-DMR={ROWS}", f"-DNV={VECTORS}", f"-DACTIVATION={GELU}"]
        self.queue = queue
        self.kernel = cl.Program(context, source).build(options=options).conv_igemm
        self.panel = width * VECTORS
        read = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
        ones = numpy.ones(SIZES[-1][0] * self.panel, numpy.float32)
        self.result = numpy.full((ROWS * SIZES[-1][1], self.panel), numpy.nan, numpy.float32)
        self.y = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=self.result)
        self.ones = cl.Buffer(context, read, hostbuf=ones)
        self.zeros = cl.Buffer(context, read, hostbuf=0 * ones)
        self.taps = cl.Buffer(context, read, hostbuf=numpy.zeros(2, numpy.int32))

    def seconds(self, reds, blocks):
        """Time of sums of `reds` terms for `blocks` blocks of pixels, in one work-item."""
        pixels = ROWS * blocks
        # Pixel strides of x are 0: every pixel reads the same ones.
        integers = (1, 1, pixels, 1, 1, 1, pixels, 0, 0, 0, 0, 0, self.panel, 1, reds, self.panel, blocks)
        here, no = numpy.int32(0), numpy.int32(-1)
        self.kernel.set_args(
            self.ones, here, self.ones, here, self.y, no, self.y, no, self.y, here, self.taps, self.zeros,
            *map(numpy.int32, integers), numpy.float32(0), numpy.float32(0),
        )
        start = time.perf_counter()
        cl.enqueue_nd_range_kernel(self.queue, self.kernel, (1, 1, 1), (1, 1, 1))
        self.queue.finish()
        return time.perf_counter() - start

    def check(self):
        """What is wrong with one block, or nothing."""
        reds, blocks = SIZES[0]
        self.seconds(reds, blocks)
        cl.enqueue_copy(self.queue, self.result, self.y)
        if numpy.allclose(self.result[:ROWS], reds, rtol=1e-5, atol=0):
            return ""
        return f"{self.result[0, 0]} instead of {reds}"


def race(payloads, rounds):
    """GFLOP/s of every payload, the best of `rounds` turns."""
    for size in SIZES:
        if min(payload.seconds(*size) for payload in payloads) >= ENOUGH_SECONDS:
            break
    best = [float("inf")] * len(payloads)
    for _ in range(rounds):
        best = [min(known, payload.seconds(*size)) for known, payload in zip(best, payloads, strict=True)]
    reds, blocks = size
    return [round(2e-9 * reds * blocks * ROWS * payload.panel / seconds, 4) for payload, seconds in zip(payloads, best, strict=True)]


def main():
    request = json.load(sys.stdin)
    context = cl.Context([flat_device(request["index"])])
    queue = cl.CommandQueue(context)
    payloads = []
    for width, form in request["candidates"]:
        failure = ""
        try:
            payloads.append(Payload(context, queue, request["source"], width, form))
            if not request["rounds"]:
                failure = payloads[-1].check()
        except cl.Error as error:
            failure = str(error)[:1000] or "failed"
        if not request["rounds"]:
            print(json.dumps({"failure": failure}), flush=True)
    if request["rounds"]:
        print(json.dumps({"gflops": race(payloads, request["rounds"])}), flush=True)


if __name__ == "__main__":
    main()
