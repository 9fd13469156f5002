"""Builds, runs and times kernels in a process that may die: some compilers and drivers crash or hang on what they do not like.

trials.py starts it with a device's number and name, writes one request a line to its standard input, and reads lines of JSON: {"at": ...} before each kernel is built
and each is run, so that the caller sees at which one the process died, then {"done": ...}. It knows nothing of pycl_cnn.

A *payload* is {"programs": [[source, options], ...], "memory": words, "tables": [words, ...], "launches": [launch, ...]}, a launch
{"program", "entry", "global", "local", "arguments"} with arguments ["int", n], ["float", v], ["memory"] or ["table", n], and words
32-bit words in base64. All values of a payload lie in one buffer, `memory`.
Requests: {"run": payload} answers with the memory afterwards; {"race": [payload, ...], "rounds": n} runs the payloads' launches, which are
the same work in growing sizes, in turn, and answers with the size that was long enough to be timed and the best seconds of each payload.
"""

import base64
import json
import os
import queue
import sys
import threading
import time
import warnings

import numpy
import pyopencl as cl

IDLE_SECONDS = 60  # without a request, after which the process ends by itself
ENOUGH_SECONDS = 1e-3  # that the slowest candidate of a race takes


def words(text):
    return numpy.frombuffer(base64.b64decode(text), numpy.int32)


def flat_device(index, name):
    found = []
    for platform in cl.get_platforms():
        try:
            found.extend(platform.get_devices())
        except cl.Error:
            continue
    if not 0 <= index < len(found) or found[index].name.strip() != name:
        raise RuntimeError(f"device {index} is not {name!r} in the process that tries kernels")
    return found[index]


class Bench:
    """A device with the programs that were built for it."""

    def __init__(self, index, name):
        device = flat_device(index, name)
        self.context = cl.Context([device])
        self.queue = cl.CommandQueue(self.context)
        self.programs = {}

    def program(self, source, options):
        key = (source, tuple(options))
        if key not in self.programs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)
                self.programs[key] = cl.Program(self.context, source).build(options=options)
        return self.programs[key]


class Payload:
    """A payload's kernels with their arguments bound."""

    def __init__(self, bench, payload, say):
        self.bench = bench
        self.say = say
        host = words(payload["memory"])
        flags = cl.mem_flags
        self.memory = cl.Buffer(bench.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=host)
        self.result = numpy.empty_like(host)
        self.tables = [cl.Buffer(bench.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=words(table)) for table in payload["tables"]]
        programs = {}
        self.launches = []
        for launch in payload["launches"]:
            number = launch["program"]
            if number not in programs:
                say(at=[number, launch["entry"], "building"])
                programs[number] = bench.program(*payload["programs"][number])
            kernel = cl.Kernel(programs[number], launch["entry"])
            kernel.set_args(*(self.argument(*argument) for argument in launch["arguments"]))
            self.launches.append((launch, kernel))

    def argument(self, kind, value=None):
        if kind == "memory":
            return self.memory
        return self.tables[value] if kind == "table" else {"int": numpy.int32, "float": numpy.float32}[kind](value)

    def run(self, number):
        """Seconds of launch `number`."""
        launch, kernel = self.launches[number]
        start = time.perf_counter()
        cl.enqueue_nd_range_kernel(self.bench.queue, kernel, launch["global"], launch["local"])
        self.bench.queue.finish()
        return time.perf_counter() - start

    def run_all(self):
        for number, (launch, _) in enumerate(self.launches):
            self.say(at=[launch["program"], launch["entry"], "running"])
            self.run(number)
        cl.enqueue_copy(self.bench.queue, self.result, self.memory)
        return base64.b64encode(self.result.tobytes()).decode()


def race(payloads, rounds):
    """(number of the first launch that is long enough, best seconds of every payload)."""
    for number in range(len(payloads[0].launches)):
        if min(payload.run(number) for payload in payloads) >= ENOUGH_SECONDS:
            break
    best = [float("inf")] * len(payloads)
    for _ in range(rounds):
        best = [min(known, payload.run(number)) for known, payload in zip(best, payloads, strict=True)]
    return [number, best]


def answer(bench, request, say):
    """The answer to a request; {"failure": ...} where OpenCL reports an error."""
    try:
        if "race" in request:
            return {"done": race([Payload(bench, payload, say) for payload in request["race"]], request["rounds"])}
        return {"done": Payload(bench, request["run"], say).run_all()}
    except (cl.Error, MemoryError) as error:
        return {"failure": str(error)[:2000] or type(error).__name__, "passing": isinstance(error, (cl.MemoryError, MemoryError))}


def main():
    # Drivers print to standard output as well: the answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    requests: queue.Queue = queue.Queue()

    def read():
        for line in sys.stdin:
            requests.put(json.loads(line))
        os._exit(0)  # the caller has gone, even if a kernel still hangs

    threading.Thread(target=read, daemon=True).start()
    bench = Bench(int(sys.argv[2]), sys.argv[3])
    while True:
        try:
            request = requests.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            os._exit(0)  # not by Python's way out: some drivers crash there
        say(**answer(bench, request, say))


if __name__ == "__main__":
    main()
