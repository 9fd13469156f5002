"""Runs one OpenCL kernel on NumPy arrays, with everything around them poisoned.

Inputs and outputs lie in one buffer at odd offsets between guard zones of NaN; outputs start as NaN.  A read outside an input
shows as NaN in the result, a write outside an output as a changed guard.
"""

import itertools

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


def close(result, reference, length, scale=None):
    """Within what float32 sums of `length` products may lose, seen at the size of the operands' sums."""
    scale = numpy.abs(reference).max() if scale is None else scale
    assert not numpy.isnan(result).any()
    numpy.testing.assert_allclose(result, reference, rtol=4e-6, atol=2 ** -23 * (length + 8) * max(float(scale), 1e-30))


def ceil_div(a, b):
    return -(-a // b)


def normal(random, *shape):
    return random.standard_normal(shape).astype(numpy.float32)


def blocks_of(context, stem, count, span):
    return ceil_div(count, span * context.define(stem, "VEC"))


def convolution_reference(x, w, taps, grid, steps, groups):
    """y[n, a, b, k] in float64; w [k, taps, c/groups]."""
    n, h, width, _c = x.shape
    k, _, reds = w.shape
    outs = k // groups
    y = numpy.zeros((n, *grid, k))
    for t, (dr, dc) in enumerate(taps):
        for a, b in itertools.product(range(grid[0]), range(grid[1])):
            row, column = a * steps[0] + dr, b * steps[1] + dc
            if 0 <= row < h and 0 <= column < width:
                for g in range(groups):
                    y[:, a, b, g * outs:(g + 1) * outs] += (
                        x[:, row, column, g * reds:(g + 1) * reds].astype(float) @ w[g * outs:(g + 1) * outs, t].astype(float).T
                    )
    return y
