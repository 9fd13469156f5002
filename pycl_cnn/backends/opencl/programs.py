"""One OpenCL context and queue for each device, and the kernels built in it."""

from __future__ import annotations

import functools
import threading
import time
import warnings
import zlib

import numpy

from ...errors import DeviceError, DeviceMemoryError
from ...tuning.database import Tuning, facts_of, limits_of, own_records, shipped
from . import devices as _devices
from .known_devices import needs_no_headers
from .probe import capabilities
from .sources import build_options, source_text

WORK_GROUP_ON_GPU = 128
CLOCK_TEST_ROUNDS = (1 << 10, 1 << 13, 1 << 16, 1 << 19)  # loops from microseconds to milliseconds, on a fast device
CLOCK_TEST_SECONDS = 0.05  # long enough for any clock


class KernelBuildError(DeviceError):
    """An OpenCL compiler refused a kernel; the message names file, options, device and the first lines of its log."""


class Context:
    """A device opened for work: OpenCL context, in-order queue, built programs, small constant buffers.

    Obtain one with `open_context`; programs of one device share it.  `device` and `capabilities` describe the device.
    """

    def __init__(self, device):
        cl = _devices.import_pyopencl()
        self.device = device
        self.capabilities = capabilities(device)
        self.cl = cl.Context([_devices.native_device(device.index)])
        self.queue = cl.CommandQueue(self.cl)
        # Memory is had at once, not when a kernel first runs. Sizes are rounded up by less than a thousandth.
        self.pool = cl.tools.MemoryPool(cl.tools.ImmediateAllocator(self.queue), leading_bits_in_bin_id=10)
        self.tuning = open_tuning(device, self.capabilities)
        self._programs = {}
        self._zeros = None
        self._zero_count = 0
        self._lock = threading.Lock()

    @functools.cached_property
    def profiling_queue(self):
        """A second in-order queue, whose events hold times."""
        cl = _devices.import_pyopencl()
        return cl.CommandQueue(self.cl, properties=cl.command_queue_properties.PROFILING_ENABLE)

    @functools.cached_property
    def has_clock(self):
        """Whether the driver's events hold times: those of a loop are compared with the host's."""
        from .ceilings import problem

        cl = _devices.import_pyopencl()
        if problem(self):
            return False
        kernel, kept = self.kernel("ceilings", "multiply_adds"), self.buffer(4)
        for rounds in CLOCK_TEST_ROUNDS:
            kernel.set_args(kept, numpy.int32(0), numpy.int32(rounds), numpy.float32(0.5), numpy.float32(0.25))
            start = time.perf_counter()
            event = cl.enqueue_nd_range_kernel(self.profiling_queue, kernel, (1,), (1,))
            event.wait()
            seconds = time.perf_counter() - start
            try:
                if (event.profile.end - event.profile.start) * 1e-9 > 0.25 * seconds:
                    return True
            except cl.Error:
                return False
            if seconds > CLOCK_TEST_SECONDS:
                break
        return False

    def _defines(self, stem, defines):
        gpu = self.device.is_gpu
        shared = {
            "VEC": self.capabilities.vector_width,
            "MULTIPLY_ADD": self.capabilities.multiply_add,
            "WORK_GROUP": min(WORK_GROUP_ON_GPU, self.device.max_work_group) if gpu else 1,
            "LOCAL_MEMORY": int(gpu),
        }
        if needs_no_headers(self.device):
            shared["DECLARE_BUILTINS"] = 1
        text = source_text(stem)
        used = {name: value for name, value in shared.items() if f"#ifndef {name}\n" in text}
        unknown = [name for name in defines if f"#ifndef {name}\n" not in text]
        if unknown:
            raise ValueError(f"[opencl] {stem}.cl has no parameter {', '.join(unknown)}")
        return {**used, **defines}

    def define(self, stem, name, **defines):
        """The value that -D `name` has when `stem` is built with these defines."""
        return self._defines(stem, defines)[name]

    def options(self, stem, defines):
        """What the compiler is told for `stem` with these -D parameters."""
        return build_options(self._defines(stem, defines))

    def program(self, stem, **defines):
        """The program of kernels_cl/<stem>.cl with these -D parameters, built once.  Raises KernelBuildError."""
        options = self.options(stem, defines)
        with self._lock:
            program = self._programs.get((stem, options))
            if program is None:
                program = self._programs[stem, options] = self._build(stem, options)
        return program

    def _build(self, stem, options):
        cl = _devices.import_pyopencl()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)
                return cl.Program(self.cl, source_text(stem)).build(options=list(options))
        except cl.Error as error:
            log = "\n".join(str(error).splitlines()[:20])
            raise KernelBuildError(
                f"[opencl] {stem}.cl does not build on {self.device.name} ({self.device.platform_version}) "
                f"with {' '.join(options)}:\n{log}"
            ) from error

    def kernel(self, stem, entry, **defines):
        """A kernel object of its own (its arguments are nobody else's) for `entry` of kernels_cl/<stem>.cl."""
        cl = _devices.import_pyopencl()
        return cl.Kernel(self.program(stem, **defines), entry)

    def buffer(self, bytes_):
        """An uninitialised device buffer from the device's pool, to which it returns by itself.  Raises DeviceMemoryError."""
        cl = _devices.import_pyopencl()
        try:
            return self.pool.allocate(max(int(bytes_), 4))
        except cl.Error as error:
            raise DeviceMemoryError(
                f"[opencl] {self.device.name} has no {bytes_ / 2**20:.2f} MiB more: it has {self.device.global_memory / 2**20:.2f} MiB, "
                f"{self.pool.active_bytes / 2**20:.2f} MiB of them in use here ({error})",
                available=self.pool.active_bytes + self._obtainable(int(bytes_)),
            ) from error

    def _obtainable(self, refused):
        """Bytes that the driver does give where it refused so many, to a sixty-fourth."""
        cl = _devices.import_pyopencl()
        low, high = 0, refused
        while high - low > refused // 64 + 1:
            middle = (low + high) // 2
            try:
                self.pool.allocate(middle).release()
                low = middle
            except cl.Error:
                high = middle
            self.pool.free_held()
        return low

    def constant(self, array):
        """A device buffer holding a copy of an array (tables of taps, layouts), for kernels that only read it."""
        cl = _devices.import_pyopencl()
        buffer = self.buffer(array.nbytes)
        if array.size:
            cl.enqueue_copy(self.queue, buffer, numpy.ascontiguousarray(array))
        return buffer

    def zeros(self, count):
        """A buffer of at least `count` zero floats, shared by everyone who only reads it."""
        with self._lock:
            if self._zeros is None or count > self._zero_count:
                self._zero_count = max(count, 1024)
                self._zeros = self.constant(numpy.zeros(self._zero_count, numpy.float32))
            return self._zeros


TUNED_KERNELS = ("conv_igemm", "conv_igemm_tiled", "conv_weight_gradient", "conv_weight_gradient_tiled", "conv_depthwise", "winograd", "winograd_fused", "winograd_gradient")


@functools.cache
def tuned_source():
    """Names the text of the kernels that tuning chooses for."""
    return f"{zlib.crc32(''.join(map(source_text, TUNED_KERNELS)).encode()):08x}"


def open_tuning(device, capabilities):
    """What is known about variants for a device: this machine's records and those that are shipped."""
    return Tuning(facts_of(device), limits_of(device, capabilities), tuned_source(), own_records(), shipped())


@_devices.made_once
def _open(index):
    return Context(_devices.devices()[index])


def open_context(index=0):
    """The `Context` of device `index` of `devices.devices()`.  Raises OpenCLUnavailable."""
    _devices.native_device(index)
    return _open(index)
