"""A launch: a kernel whose arguments are bound once, and its global and local size.  Enqueuing it is one call."""

from __future__ import annotations

import numpy

from ..host import evaluate
from . import devices as _devices
from .sources import signatures

_SCALARS = {"int": numpy.int32, "float": numpy.float32}


def ordered_arguments(stem, entry, arguments):
    """[(type, value)] of kernel `entry` in its own order; buffers that come with an offset are split, absent ones are None and -1.

    Raises TypeError for a missing or unknown argument.
    """
    parameters = signatures(stem)[entry]
    names = {parameter.name for parameter in parameters}
    given = dict(arguments)
    for parameter in parameters:
        offset = parameter.name + "_offset"
        if parameter.type == "buffer" and offset in names and parameter.name in given:
            value = (None, -1) if given[parameter.name] is None else given[parameter.name]
            if isinstance(value, tuple):
                given[parameter.name], given[offset] = value
    if set(given) != names:
        raise TypeError(f"[opencl] {entry} of {stem}.cl: missing {sorted(names - set(given))}, unknown {sorted(set(given) - names)}")
    return [(parameter.type, given[parameter.name]) for parameter in parameters]


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
        self._places = {parameter.name: place for place, parameter in enumerate(signatures(stem)[entry])}
        for (name, place), (kind, value) in zip(self._places.items(), ordered_arguments(stem, entry, arguments), strict=True):
            if kind == "buffer":
                self.bind(name, context.zeros(1) if value is None else value)
            else:
                self.kernel.set_arg(place, _SCALARS[kind](value))

    def bind(self, name, buffer, offset=None):
        """Gives parameter `name` another buffer (and, where it has one, another offset in elements)."""
        self.kernel.set_arg(self._places[name], buffer)
        self._buffers[name] = buffer
        if offset is not None:
            self.kernel.set_arg(self._places[name + "_offset"], numpy.int32(offset))

    def enqueue(self, queue=None):
        """Puts the kernel into the context's in-order queue (or another one) and returns its event."""
        return self._enqueue(queue or self._queue, self.kernel, self.global_size, self.local_size)


class HostLaunch:
    """A host step in the queue: waits for what comes before, copies its inputs to the host, evaluates, copies back.

    `place` gives the buffer of a value and its offset in bytes.
    """

    __slots__ = ("_copy", "_node", "_place", "_queue", "_run")

    def __init__(self, context, node, place):
        self._copy = _devices.import_pyopencl().enqueue_copy
        self._queue, self._node, self._place = context.queue, node, place
        self._run = node.algorithm.runner(node)

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
        evaluate(self._run, self._node, self._read, self._write)
