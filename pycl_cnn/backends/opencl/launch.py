"""A launch: a kernel whose arguments are bound once, and its global and local size.  Enqueuing it is one call."""

from __future__ import annotations

import numpy

from ..host import evaluate
from . import devices as _devices
from .programs import signatures

_SCALARS = {"int": numpy.int32, "float": numpy.float32}


class Launch:
    """Kernel `entry` of kernels_cl/<stem>.cl with bound arguments.

    Arguments are given by the parameter names of the .cl file.  For a buffer that has a companion `<name>_offset`:
    `(buffer, offset)` sets both, offset in elements; None means absent (offset -1).  Buffers are kept alive by the launch, as OpenCL
    itself does not until the kernel runs.  Raises TypeError for a missing or unknown argument.
    """

    __slots__ = ("_buffers", "_enqueue", "_places", "_queue", "entry", "global_size", "kernel", "local_size")

    def __init__(self, context, stem, entry, global_size, local_size, defines=None, **arguments):
        self.entry = entry
        self.kernel = context.kernel(stem, entry, **(defines or {}))
        self.global_size = tuple(map(int, global_size))
        self.local_size = None if local_size is None else tuple(map(int, local_size))
        self._queue = context.queue
        self._enqueue = _devices.import_pyopencl().enqueue_nd_range_kernel
        self._buffers = {}
        parameters = signatures(stem)[entry]
        self._places = {parameter.name: place for place, parameter in enumerate(parameters)}
        for parameter in parameters:
            offset = parameter.name + "_offset"
            if parameter.type == "buffer" and offset in self._places and parameter.name in arguments:
                value = arguments[parameter.name]
                if value is None:
                    value = (context.zeros(1), -1)
                if isinstance(value, tuple):
                    arguments[parameter.name], arguments[offset] = value
        names = set(self._places)
        if set(arguments) != names:
            raise TypeError(
                f"[opencl] {entry} of {stem}.cl: missing {sorted(names - set(arguments))}, unknown {sorted(set(arguments) - names)}"
            )
        for parameter in parameters:
            value = arguments[parameter.name]
            if parameter.type == "buffer":
                self.bind(parameter.name, value)
            else:
                self.kernel.set_arg(self._places[parameter.name], _SCALARS[parameter.type](value))

    def bind(self, name, buffer, offset=None):
        """Gives parameter `name` another buffer (and, where it has one, another offset in elements)."""
        self.kernel.set_arg(self._places[name], buffer)
        self._buffers[name] = buffer
        if offset is not None:
            self.kernel.set_arg(self._places[name + "_offset"], numpy.int32(offset))

    def enqueue(self):
        """Puts the kernel into the context's in-order queue and returns its event."""
        return self._enqueue(self._queue, self.kernel, self.global_size, self.local_size)


class HostLaunch:
    """A host step in the queue: waits for what comes before, copies its inputs to the host, evaluates, copies back.

    `place` gives the buffer of a value and its offset in bytes.
    """

    __slots__ = ("_copy", "_node", "_place", "_queue")

    def __init__(self, context, node, place):
        self._copy = _devices.import_pyopencl().enqueue_copy
        self._queue, self._node, self._place = context.queue, node, place

    def _read(self, value):
        array = numpy.empty(value.spec.nbytes, numpy.uint8)
        if array.size:
            buffer, offset = self._place(value)
            self._copy(self._queue, array, buffer, src_offset=offset)
        return array.view(value.dtype).reshape(value.shape)

    def _write(self, value, array):
        buffer, offset = self._place(value)
        self._copy(self._queue, buffer, numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8), dst_offset=offset)

    def enqueue(self):
        """Does it now: the copies wait for what stands in the queue before."""
        evaluate(self._node, self._read, self._write)
