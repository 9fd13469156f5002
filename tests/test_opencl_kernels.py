"""Every OpenCL kernel by itself, on every OpenCL device of the machine, against float64 NumPy.

Small odd shapes throughout: the same tests run under the Oclgrind simulator, which looks for races, uninitialised reads and
accesses out of bounds.
"""

import itertools

import numpy
import pytest

from helpers.opencl import execute
from pycl_cnn.backends.opencl import devices as opencl_devices
from pycl_cnn.backends.opencl.programs import open_context

pytest.importorskip("pyopencl")
DEVICES = opencl_devices.devices()
pytestmark = pytest.mark.skipif(not DEVICES, reason="no OpenCL device on this machine")


@pytest.fixture(scope="module", params=[d.index for d in DEVICES], ids=[f"{d.index}-{d.platform_version[:24]}" for d in DEVICES])
def context(request):
    return open_context(request.param)


@pytest.fixture
def random():
    return numpy.random.default_rng(7)


def close(result, reference, length, scale=None):
    """Within what float32 sums of `length` products may lose, seen at the size of the operands' sums."""
    scale = numpy.abs(reference).max() if scale is None else scale
    assert not numpy.isnan(result).any()
    numpy.testing.assert_allclose(result, reference, rtol=4e-6, atol=2 ** -23 * (length + 8) * max(float(scale), 1e-30))


def ceil_div(a, b):
    return -(-a // b)


def normal(random, *shape):
    return random.standard_normal(shape).astype(numpy.float32)


def pack_reference(w, width):
    """[outs, taps, reds] -> [panel][tap][red][lane]"""
    outs, taps, reds = w.shape
    padded = numpy.zeros((ceil_div(outs, width) * width, taps, reds), numpy.float32)
    padded[:outs] = w
    return numpy.ascontiguousarray(padded.reshape(ceil_div(outs, width), width, taps, reds).transpose(0, 2, 3, 1))


def convolution_reference(x, w, taps, grid, steps, groups):
    """y[n, a, b, k] in float64; w [k, taps, c/groups]."""
    n, h, width, c = x.shape
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


CONVOLUTIONS = [
    # n, h, w, c, k, groups, grid, steps, taps
    (2, 5, 7, 3, 5, 1, (5, 7), (1, 1), [(r - 1, s - 1) for r in range(3) for s in range(3)]),
    (1, 9, 6, 8, 37, 1, (4, 3), (2, 2), [(2 * r - 2, 3 * s - 1) for r in range(3) for s in range(2)]),
    (1, 4, 4, 6, 10, 2, (6, 5), (1, 1), [(-r, -s + 1) for r in range(2) for s in range(2)]),
    (3, 1, 7, 9, 33, 1, (1, 7), (1, 1), [(0, 0)]),
    (1, 3, 3, 4, 4, 1, (2, 2), (1, 1), []),
]


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("activation", [0, 3])
@pytest.mark.parametrize("extras", [False, True])
def test_conv_igemm(context, random, case, activation, extras):
    n, h, w, c, k, groups, grid, steps, taps = case
    x = normal(random, n, h, w, c)
    weights = normal(random, k, len(taps), c // groups)
    bias = normal(random, k) if extras else None
    residual = normal(random, n, *grid, k) if extras else None
    rows, vectors = 5, 2
    width = vectors * context.define("conv_igemm", "VEC")
    outs = k // groups
    panels = numpy.concatenate([pack_reference(weights[g * outs:(g + 1) * outs], width).ravel() for g in range(groups)])
    blocks = ceil_div(n * grid[0] * grid[1], rows)
    y = execute(
        context, "conv_igemm", "conv_igemm", (ceil_div(blocks, 2), ceil_div(outs, width), groups), (1, 1, 1),
        dict(x=x, panels=panels, bias=bias, residual=residual), dict(y=(n, *grid, k)),
        dict(MR=rows, NV=vectors, ACTIVATION=activation),
        taps=context.constant(numpy.array(taps, numpy.int32)), zeros=context.zeros(c // groups),
        images=n, grid_rows=grid[0], grid_columns=grid[1], row_step=steps[0], column_step=steps[1], x_rows=h, x_columns=w,
        x_image_stride=h * w * c, x_row_stride=w * c, x_column_stride=c,
        y_image_stride=grid[0] * grid[1] * k, y_row_stride=grid[1] * k, y_column_stride=k,
        tap_count=len(taps), reds=c // groups, outs=outs, blocks_per_item=2, alpha=-0.5, beta=1.5,
    )["y"]
    reference = convolution_reference(x, weights, taps, grid, steps, groups)
    if extras:
        reference += bias + residual
    if activation:
        reference = reference.clip(-0.5, 1.5)
    close(y, reference, len(taps) * c, scale=4)


@pytest.mark.parametrize("case", CONVOLUTIONS[:4])
@pytest.mark.parametrize("parts", [1, 3])
def test_conv_weight_gradient(context, random, case, parts):
    n, h, w, c, k, groups, grid, steps, taps = case
    x, dy = normal(random, n, h, w, c), normal(random, n, *grid, k)
    reds, outs = c // groups, k // groups
    vector = next(v for v in (16, 8, 4, 2, 1) if v <= min(reds, context.define("conv_weight_gradient", "VEC")))
    vectors = 2 if 2 * vector <= reds else 1
    rows = min(outs, 6)
    per_part = ceil_div(n * grid[0] * grid[1], parts)
    result = execute(
        context, "conv_weight_gradient", "conv_weight_gradient",
        (len(taps) * ceil_div(reds, vector * vectors), groups * ceil_div(outs, rows), parts), (1, 1, 1),
        dict(x=x, dy=dy), dict(parts=(parts, k, len(taps), reds)), dict(VEC=vector, NV=vectors, MO=rows),
        taps=context.constant(numpy.array(taps, numpy.int32)),
        images=n, grid_rows=grid[0], grid_columns=grid[1], row_step=steps[0], column_step=steps[1], x_rows=h, x_columns=w,
        x_image_stride=h * w * c, x_row_stride=w * c, x_column_stride=c,
        dy_image_stride=grid[0] * grid[1] * k, dy_row_stride=grid[1] * k, dy_column_stride=k,
        tap_count=len(taps), reds=reds, outs=outs, groups=groups, pixels_per_part=per_part,
    )["parts"]
    reference = numpy.zeros((k, len(taps), reds))
    for t, (dr, dc) in enumerate(taps):
        for a, b in itertools.product(range(grid[0]), range(grid[1])):
            row, column = a * steps[0] + dr, b * steps[1] + dc
            if 0 <= row < h and 0 <= column < w:
                for g in range(groups):
                    reference[g * outs:(g + 1) * outs, t] += (
                        dy[:, a, b, g * outs:(g + 1) * outs].astype(float).T @ x[:, row, column, g * reds:(g + 1) * reds].astype(float)
                    )
    close(result.sum(axis=0, dtype=float), reference, n * grid[0] * grid[1], scale=4)


@pytest.mark.parametrize("channels", [5, 16, 35])
@pytest.mark.parametrize("extras", [False, True])
def test_conv_depthwise(context, random, channels, extras):
    n, h, w, grid, steps = 2, 6, 7, (3, 7), (2, 1)
    taps = [(r - 1, s - 1) for r in range(3) for s in range(3)]
    x, weights = normal(random, n, h, w, channels), normal(random, len(taps), channels)
    bias = normal(random, channels) if extras else None
    residual = normal(random, n, *grid, channels) if extras else None
    vec = context.define("conv_depthwise", "VEC")
    shared = dict(
        taps=context.constant(numpy.array(taps, numpy.int32)),
        grid_rows=grid[0], grid_columns=grid[1], row_step=steps[0], column_step=steps[1], x_rows=h, x_columns=w,
        x_image_stride=h * w * channels, x_row_stride=w * channels, x_column_stride=channels,
        tap_count=len(taps), channels=channels,
    )
    strides = (grid[0] * grid[1] * channels, grid[1] * channels, channels)
    y = execute(
        context, "conv_depthwise", "conv_depthwise", (ceil_div(channels, vec), 2, n * grid[0]), (1, 1, 1),
        dict(x=x, weights=weights, bias=bias, residual=residual), dict(y=(n, *grid, channels)), dict(ACTIVATION=1),
        **dict(zip(("y_image_stride", "y_row_stride", "y_column_stride"), strides)),
        columns_per_item=5, alpha=0, beta=0, **shared,
    )["y"]
    diagonal = numpy.ascontiguousarray(weights.T)[:, :, None]
    reference = convolution_reference(x, diagonal, taps, grid, steps, channels)
    if extras:
        reference += bias + residual
    close(y, numpy.maximum(reference, 0), len(taps), scale=4)

    dy = normal(random, n, *grid, channels)
    parts = execute(
        context, "conv_depthwise", "conv_depthwise_weight_gradient", (ceil_div(channels, vec), len(taps), 2), (1, 1, 1),
        dict(x=x, dy=dy), dict(parts=(2, channels, len(taps))), dict(ACTIVATION=0),
        **dict(zip(("dy_image_stride", "dy_row_stride", "dy_column_stride"), strides)),
        images=n, rows_per_part=3, **shared,
    )["parts"]
    reference = numpy.zeros((channels, len(taps)))
    for t, (dr, dc) in enumerate(taps):
        for a, b in itertools.product(range(grid[0]), range(grid[1])):
            row, column = a * steps[0] + dr, b * steps[1] + dc
            if 0 <= row < h and 0 <= column < w:
                reference[:, t] += (dy[:, a, b].astype(float) * x[:, row, column]).sum(axis=0)
    close(parts.sum(axis=0, dtype=float), reference, n * grid[0] * grid[1], scale=4)


@pytest.mark.parametrize("groups, outs, taps, reds, width", [(1, 5, 9, 3, 4), (2, 7, 1, 11, 8), (1, 33, 2, 6, 32)])
def test_pack(context, random, groups, outs, taps, reds, width):
    w = normal(random, groups * outs, taps, reds)
    order = numpy.arange(taps)[::-1].astype(numpy.int32)
    panels = ceil_div(outs, width)
    result = execute(
        context, "pack", "pack", (ceil_div(reds * width, 9), taps, groups * panels), (1, 1, 1),
        dict(source=w), dict(panels=(groups, panels, taps, reds, width)), tap_index=context.constant(order),
        group_stride=outs * taps * reds, out_stride=taps * reds, tap_stride=reds, red_stride=1,
        tap_count=taps, reds=reds, outs=outs, width=width, span=9,
    )["panels"]
    for g in range(groups):
        assert (result[g] == pack_reference(w[g * outs:(g + 1) * outs, order], width)).all()


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
