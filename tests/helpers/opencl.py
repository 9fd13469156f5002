"""Runs one OpenCL kernel on NumPy arrays, with everything around them poisoned.

Inputs and outputs lie in one buffer at odd offsets between guard zones of NaN; outputs start as NaN.  A read outside an input
shows as NaN in the result, a write outside an output as a changed guard.
"""

import numpy

from pycl_cnn.backends.opencl.launch import Launch

GUARD = 37


def execute(context, stem, entry, global_size, local_size, inputs, outputs, defines=None, **arguments):
    """Launches the kernel and returns {name: array} of the outputs.

    `inputs` maps parameter names to arrays, (array, first element) pairs or None, `outputs` to shapes, (shape, dtype) pairs, or arrays that are updated in place.
    """
    import pyopencl as cl

    pieces, places, length = [], {}, 0
    for name, value in {**inputs, **outputs}.items():
        if value is None:
            continue
        if name in outputs and not isinstance(value, numpy.ndarray):
            shape, dtype = value if value and isinstance(value[0], tuple) else (value, numpy.float32)
            value = numpy.full(shape, numpy.nan, numpy.float32).view(dtype)
        first = 0
        if name in inputs and isinstance(value, tuple):
            value, first = value
        value = numpy.ascontiguousarray(value)
        assert value.dtype.itemsize == 4, name
        guard = numpy.full(GUARD + (len(places) % 3), numpy.nan, numpy.float32)
        places[name] = (length + guard.size + first, value)
        pieces += [guard, value.reshape(-1).view(numpy.float32)]
        length += guard.size + value.size
    pieces.append(numpy.full(GUARD, numpy.nan, numpy.float32))
    before = numpy.concatenate(pieces)
    buffer = cl.Buffer(context.cl, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=before)
    bound = {name: (buffer, places[name][0]) if name in places else None for name in {**inputs, **outputs}}
    launch = Launch(context, stem, entry, global_size, local_size, defines, **bound, **arguments)
    launch.enqueue()
    after = numpy.empty_like(before)
    cl.enqueue_copy(context.queue, after, buffer)
    results = {}
    untouched = numpy.ones(before.size, bool)
    for name in outputs:
        if name in places:
            offset, value = places[name]
            results[name] = after[offset:offset + value.size].view(value.dtype).reshape(value.shape).copy()
            untouched[offset:offset + value.size] = False
    assert (after.view(numpy.int32)[untouched] == before.view(numpy.int32)[untouched]).all(), "a guard zone or an input was written"
    return results
