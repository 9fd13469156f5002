"""OpenCL kernels by themselves: kernels that go element by element, and the loops that measure ceilings. See conftest.py."""

import numpy
import pytest
from helpers.opencl import blocks_of, ceil_div, close, execute, normal


@pytest.mark.parametrize("count", [1, 16, 150])
def test_unary(context, random, count):
    x = normal(random, count)
    span = 2
    items = ceil_div(count, span * context.define("pointwise", "VEC"))
    for kind, f, slope in [
        (2, lambda v: numpy.where(v < 0, 0.5 * v, v), lambda v: numpy.where(v > 0, 1, 0.5)),
        (4, lambda v: 1 / (1 + numpy.exp(-v)), lambda v: numpy.exp(-v) / (1 + numpy.exp(-v)) ** 2),
        (31, lambda v: v * v, lambda v: 2 * v),
    ]:
        arguments = dict(count=count, span=span, alpha=0.5, beta=0.0)
        y = execute(context, "pointwise", "unary", (items,), (1,), dict(x=x), dict(y=(count,)), dict(ACTIVATION=kind), **arguments)["y"]
        close(y, f(x.astype(float)), 2, scale=1)
        dy = normal(random, count)
        dx = execute(
            context, "pointwise", "unary_backward", (items,), (1,), dict(dy=dy, x=x), dict(dx=(count,)), dict(ACTIVATION=kind), **arguments
        )["dx"]
        close(dx, dy * slope(x.astype(float)), 2, scale=1)


@pytest.mark.parametrize("a_shape, b_shape", [((3, 5, 19), (3, 5, 19)), ((3, 5, 19), (19,)), ((3, 1, 1), (5, 19)), ((1, 1, 1), (3, 5, 19))])
def test_binary(context, random, a_shape, b_shape):
    a, b = normal(random, *a_shape), normal(random, *b_shape)
    shape = numpy.broadcast_shapes(a_shape, b_shape)

    def strides(array):
        return [s // 4 for s in numpy.broadcast_to(array, shape).strides]

    outer = numpy.array(list(zip(shape, strides(a), strides(b)))[:-1], numpy.int32)
    rows = shape[0] * shape[1]
    y = execute(
        context, "pointwise", "binary", (ceil_div(shape[-1], context.define("pointwise", "VEC")), ceil_div(rows, 4)), (1, 1),
        dict(a=a, b=b), dict(y=shape), dict(BINARY=1, ACTIVATION=1),
        outer=context.constant(outer), outer_rank=2, rows=rows, rows_per_item=4, inner=shape[-1],
        a_inner_stride=strides(a)[-1], b_inner_stride=strides(b)[-1], span=1, alpha=0, beta=0,
    )["y"]
    close(y, numpy.maximum(a - b, 0), 1, scale=1)


def test_copy_moves_a_strided_view(context, random):
    """A view with a negative, a broadcast and a doubled stride; bits are kept, whatever they mean."""
    x = numpy.arange(240, dtype=numpy.int32).reshape(4, 6, 10) | 0x7FC00000
    view = numpy.broadcast_to(x.transpose(2, 0, 1)[::-1, None, 1:, ::2], (10, 2, 3, 3))
    base = (view.__array_interface__["data"][0] - x.__array_interface__["data"][0]) // 4
    source = [s // 4 for s in view.strides]
    destination = [s // 4 for s in numpy.empty(view.shape, numpy.int32).strides]
    rows = 10 * 2 * 3
    layout = numpy.array(list(zip(view.shape, source, destination))[:-1], numpy.int32)
    y = execute(
        context, "movement", "copy", (2, ceil_div(rows, 7)), (1, 1), dict(x=(x, base)), dict(y=(view.shape, numpy.int32)),
        outer=context.constant(layout), outer_rank=3, rows=rows, rows_per_item=7,
        inner=3, x_inner=source[-1], y_inner=1, span=2,
    )["y"]
    assert (y == view).all()


@pytest.mark.parametrize("local_memory", [0, 1])
@pytest.mark.parametrize("rows, columns", [(5, 3), (33, 41)])
def test_transpose(context, local_memory, rows, columns):
    x = numpy.arange(2 * rows * columns, dtype=numpy.int32).reshape(2, rows, columns)
    tile = 16
    local = (tile, tile // 4, 1) if local_memory else (1, 1, 1)
    size = (ceil_div(columns, tile) * local[0], ceil_div(rows, tile) * local[1], 2)
    y = execute(context, "movement", "transpose", size, local, dict(x=x), dict(y=((2, columns, rows), numpy.int32)), dict(TILE=tile, LOCAL_MEMORY=local_memory), rows=rows, columns=columns)["y"]
    assert (y == x.transpose(0, 2, 1)).all()


def test_fill(context):
    y = execute(context, "movement", "fill", (5,), (1,), {}, dict(y=((93,), numpy.int32)), count=93, value=-3, span=20)["y"]
    assert (y == -3).all()


def philox(counter, step, key):
    words = [counter.astype(numpy.uint64), numpy.full_like(counter, step, numpy.uint64), *(numpy.zeros_like(counter, numpy.uint64) for _ in range(2))]
    keys = [numpy.uint64(k) for k in key]
    low = numpy.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = words[0] * numpy.uint64(0xD2511F53), words[2] * numpy.uint64(0xCD9E8D57)
        words = [(b >> numpy.uint64(32)) ^ words[1] ^ keys[0], b & low, (a >> numpy.uint64(32)) ^ words[3] ^ keys[1], a & low]
        keys = [(keys[0] + numpy.uint64(0x9E3779B9)) & low, (keys[1] + numpy.uint64(0xBB67AE85)) & low]
    return numpy.stack(words, axis=1).reshape(-1)


@pytest.mark.parametrize("count", [4, 1001])
def test_dropout(context, random, count):
    p, seed, step, stream = 0.3, 12345, 7, 3
    x = normal(random, count)
    y = execute(
        context, "dropout", "dropout", (ceil_div(ceil_div(count, 4), 5),), (1,), dict(x=x, rng=numpy.array([seed, step], numpy.int32)), dict(y=(count,)),
        count=count, stream=stream, threshold=int(numpy.ceil(p * 2 ** 24)), span=5, scale=1 / (1 - p),
    )["y"]
    words = philox(numpy.arange(ceil_div(count, 4)), step, (seed, stream))[:count]
    keep = (words >> numpy.uint64(8)) * 2.0 ** -24 >= p
    assert (y == numpy.where(keep, x * numpy.float32(1 / (1 - p)), 0)).all()


@pytest.mark.parametrize("count", [5, 70])
def test_optimizers(context, random, count):
    param, grad, first, second = (normal(random, count) for _ in range(4))
    second = numpy.abs(second) + first ** 2
    span = 2
    size = (blocks_of(context, "optimizer", count, span),), (1,)
    shared = dict(count=count, span=span, weight_decay=0.02)
    p, g = param.astype(float), grad.astype(float)
    decayed = g + 0.02 * p
    hyper = numpy.array([0.1, 0, 0, 0], numpy.float32)
    for flags in (0, 1, 3):
        result = execute(
            context, "optimizer", "sgd", *size, dict(grad=grad, hyper=hyper), dict(param=param, velocity=first), dict(FLAGS=flags),
            momentum=0.9, dampening=0.1, **shared,
        )
        velocity = 0.9 * first + 0.9 * decayed
        step = {0: decayed, 1: velocity, 3: decayed + 0.9 * velocity}[flags]
        close(result["param"], p - 0.1 * step, 4)
        if flags:
            close(result["velocity"], velocity, 4)
    hyper = numpy.array([0.1, 1 - 0.9 ** 3, 1 - 0.999 ** 3, 0], numpy.float32)
    for flags in (0, 8):
        result = execute(
            context, "optimizer", "adam", *size, dict(grad=grad, hyper=hyper), dict(param=param, m=first, v=second), dict(FLAGS=flags),
            beta2=0.999, beta1_rest=1 - 0.9, beta2_rest=1 - 0.999, epsilon=1e-8, **shared,
        )
        slope, start = (g, p * (1 - 0.1 * 0.02)) if flags else (decayed, p)
        m, v = first + 0.1 * (slope - first), 0.999 * second + 0.001 * slope ** 2
        close(result["m"], m, 4)
        close(result["v"], v, 4)
        close(result["param"], start - 0.1 / hyper[1] * m / (numpy.sqrt(v) / numpy.sqrt(float(hyper[2])) + 1e-8), 4)
    for flags in (0, 5):
        result = execute(
            context, "optimizer", "rmsprop", *size, dict(grad=grad, hyper=hyper),
            dict(param=param, square_average=second, gradient_average=first / 2, velocity=first), dict(FLAGS=flags),
            alpha=0.9, alpha_rest=0.1, epsilon=1e-2, momentum=0.5, **shared,
        )
        squares = 0.9 * second + 0.1 * decayed ** 2
        average = first / 2 + 0.1 * (decayed - first / 2)
        step = decayed / (numpy.sqrt(squares - (average ** 2 if flags else 0)) + 1e-2) + (0.5 * first if flags else 0)
        close(result["square_average"], squares, 4)
        close(result["param"], p - 0.1 * step, 4)
        if flags:
            close(result["gradient_average"], average, 4)
            close(result["velocity"], step, 4)


@pytest.mark.parametrize("items, span", [(3, 5), (7, 1)])
def test_ceiling_loops(context, random, items, span):
    vec = context.define("ceilings", "VEC")
    x = random.standard_normal(items * span * vec).astype(numpy.float32)
    for steps in ({"item_step": span, "step": 1}, {"item_step": 1, "step": items}):
        result = execute(context, "ceilings", "copies", (items,), (1,), {"x": x}, {"y": x.shape}, span=span, rounds=2, **steps)
        numpy.testing.assert_array_equal(result["y"], x)
    sums = execute(context, "ceilings", "multiply_adds", (items,), (1,), {}, {"y": (items,)}, rounds=4, factor=0.5, summand=0.25)["y"]
    chains = 0.25 + numpy.arange(12.0)
    for _ in range(4):
        chains = chains * 0.5 + 0.25
    numpy.testing.assert_allclose(sums, chains.sum(), rtol=1e-6)
