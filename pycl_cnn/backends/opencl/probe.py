"""Measures candidates of vector width and multiply-add form on one device.  Run by devices.py as a process of its own.

Reads {"index", "source", "candidates": [[width, form], ...]} from standard input and prints one line of JSON for each
candidate as soon as it is known, so that the caller sees at which one the process died.  The payload is the convolution
kernel itself on one pixel block and one panel of ones, whose result is known. Its activation is gelu, which is the identity
there, but calls the exponential and the root: some runtimes multiply wide vectors well and crash in their functions.
"""

import json
import sys
import time

import numpy
import pyopencl as cl

ROWS, VECTORS = 6, 2
GELU = 6
ENOUGH_SECONDS = 2e-3


def flat_device(index):
    found = []
    for platform in cl.get_platforms():
        try:
            found.extend(platform.get_devices())
        except cl.Error:
            continue
    return found[index]


def rate(context, queue, source, width, form):
    options = [f"-DVEC={width}", f"-DMULTIPLY_ADD={form}", f"-DMR={ROWS}", f"-DNV={VECTORS}", f"-DACTIVATION={GELU}"]
    kernel = cl.Program(context, source).build(options=options).conv_igemm
    panel = width * VECTORS
    read = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
    taps = cl.Buffer(context, read, hostbuf=numpy.zeros(2, numpy.int32))
    items = 2 * context.devices[0].max_compute_units
    reds = 32
    best = 0.0
    while True:
        ones = cl.Buffer(context, read, hostbuf=numpy.ones(reds * max(ROWS, panel), numpy.float32))
        zeros = cl.Buffer(context, read, hostbuf=numpy.zeros(reds, numpy.float32))
        result = numpy.full((ROWS * items, panel), numpy.nan, numpy.float32)
        y = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=result)
        # Pixel strides of x are 0: every pixel reads the same `reds` ones.
        integers = (1, 1, ROWS * items, 1, 1, 1, ROWS * items, 0, 0, 0, 0, 0, panel, 1, reds, panel, 1)
        no = numpy.int32(-1)
        here = numpy.int32(0)
        kernel.set_args(ones, here, ones, here, y, no, y, no, y, here, taps, zeros,
                        *map(numpy.int32, integers), numpy.float32(0), numpy.float32(0))
        seconds = float("inf")
        for _ in range(4):
            start = time.perf_counter()
            cl.enqueue_nd_range_kernel(queue, kernel, (items, 1, 1), (1, 1, 1))
            queue.finish()
            seconds = min(seconds, time.perf_counter() - start)
        cl.enqueue_copy(queue, result, y)
        if not numpy.allclose(result, reds, rtol=1e-5, atol=0):
            return 0.0
        best = max(best, 2e-9 * items * ROWS * panel * reds / seconds)
        if seconds > ENOUGH_SECONDS or reds >= 1 << 14:
            return best
        reds *= 4


def main():
    request = json.load(sys.stdin)
    context = cl.Context([flat_device(request["index"])])
    queue = cl.CommandQueue(context)
    for width, form in request["candidates"]:
        failure = ""
        try:
            gflops = rate(context, queue, request["source"], width, form)
        except cl.Error as error:
            gflops, failure = 0.0, str(error)[:1000]
        print(json.dumps({"gflops": round(gflops, 3), "failure": failure}), flush=True)


if __name__ == "__main__":
    main()
