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
from pycl_cnn.backends.windows import cover_table, window_table
from pycl_cnn.geometry import PoolAxis, PoolGeometry

pytest.importorskip("pyopencl")
DEVICES = opencl_devices.devices()
pytestmark = pytest.mark.skipif(not DEVICES, reason="no OpenCL device on this machine")


@pytest.fixture(scope="module", params=[d.index for d in DEVICES], ids=[f"{d.index}-{d.platform} {d.platform_version}"[:48] for d in DEVICES])
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


CONVOLUTIONS = [
    # n, h, w, c, k, groups, grid, steps, taps
    (2, 5, 7, 3, 5, 1, (5, 7), (1, 1), [(r - 1, s - 1) for r in range(3) for s in range(3)]),
    (1, 9, 6, 8, 37, 1, (4, 3), (2, 2), [(2 * r - 2, 3 * s - 1) for r in range(3) for s in range(2)]),
    (1, 4, 4, 6, 10, 2, (6, 5), (1, 1), [(-r, -s + 1) for r in range(2) for s in range(2)]),
    (3, 1, 7, 9, 33, 1, (1, 7), (1, 1), [(0, 0)]),
    (1, 3, 3, 4, 4, 1, (2, 2), (1, 1), []),
]


@pytest.mark.parametrize("buffers", [0, 1, 2], ids=["direct", "tiled", "two-buffers"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("activation, extras", [(0, False), (3, True)])
def test_conv_igemm(context, random, buffers, case, activation, extras):
    n, h, w, c, k, groups, grid, steps, taps = case
    x = normal(random, n, h, w, c)
    weights = normal(random, k, len(taps), c // groups)
    bias = normal(random, k) if extras else None
    residual = normal(random, n, *grid, k) if extras else None
    outs = k // groups
    pixels = n * grid[0] * grid[1]
    if buffers:
        stem, defines = "conv_igemm_tiled", dict(COLUMNS=2, LINES=4, MR=3, NV=2, VEC=4, STEP=8, BUFFERS=buffers)
        width, local, only = 2 * 2 * 4, (2, 4, 1), {}
        size = (ceil_div(outs, width) * 2, ceil_div(pixels, 3 * 4) * 4, groups)
    else:
        stem, defines = "conv_igemm", dict(MR=5, NV=2)
        width, local, only = 2 * context.define(stem, "VEC"), (1, 1, 1), dict(zeros=context.zeros(c // groups), blocks_per_item=2)
        size = (ceil_div(ceil_div(pixels, 5), 2), ceil_div(outs, width), groups)
    panels = numpy.concatenate([pack_reference(weights[g * outs:(g + 1) * outs], width).ravel() for g in range(groups)])
    y = execute(
        context, stem, stem, size, local, dict(x=x, panels=panels, bias=bias, residual=residual), dict(y=(n, *grid, k)),
        dict(ACTIVATION=activation, **defines), taps=context.constant(numpy.array(taps, numpy.int32)),
        images=n, grid_rows=grid[0], grid_columns=grid[1], row_step=steps[0], column_step=steps[1], x_rows=h, x_columns=w,
        x_image_stride=h * w * c, x_row_stride=w * c, x_column_stride=c,
        y_image_stride=grid[0] * grid[1] * k, y_row_stride=grid[1] * k, y_column_stride=k,
        tap_count=len(taps), reds=c // groups, outs=outs, alpha=-0.5, beta=1.5, **only,
    )["y"]
    reference = convolution_reference(x, weights, taps, grid, steps, groups)
    if extras:
        reference += bias + residual
    if activation:
        reference = reference.clip(-0.5, 1.5)
    close(y, reference, len(taps) * c, scale=4)


@pytest.mark.parametrize("buffers", [0, 1, 2], ids=["direct", "tiled", "two-buffers"])
@pytest.mark.parametrize("case", CONVOLUTIONS[:4])
@pytest.mark.parametrize("parts", [1, 3])
def test_conv_weight_gradient(context, random, buffers, case, parts):
    n, h, w, c, k, groups, grid, steps, taps = case
    x, dy = normal(random, n, h, w, c), normal(random, n, *grid, k)
    reds, outs = c // groups, k // groups
    per_part = ceil_div(n * grid[0] * grid[1], parts)
    if buffers:
        stem, defines = "conv_weight_gradient_tiled", dict(COLUMNS=2, LINES=4, MO=3, NV=2, VEC=4, STEP=8, BUFFERS=buffers)
        local = (2, 4, 1)
        size = (len(taps) * ceil_div(reds, 16) * 2, groups * ceil_div(outs, 12) * 4, parts)
    else:
        stem = "conv_weight_gradient"
        vector = next(v for v in (16, 8, 4, 2, 1) if v <= min(reds, context.define(stem, "VEC")))
        vectors = 2 if 2 * vector <= reds else 1
        rows = min(outs, 6)
        defines, local = dict(VEC=vector, NV=vectors, MO=rows), (1, 1, 1)
        size = (len(taps) * ceil_div(reds, vector * vectors), groups * ceil_div(outs, rows), parts)
    result = execute(
        context, stem, stem, size, local,
        dict(x=x, dy=dy), dict(parts=(parts, k, len(taps), reds)), defines,
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


@pytest.mark.parametrize("extras, flipped", [(False, False), (True, True)])
@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 5, 6, 3, 5, (1, 1)), (2, 4, 9, 21, 18, (2, 0)), (1, 11, 10, 6, 35, (1, 2))])
def test_winograd(context, random, n, h, w, c, k, pad, extras, flipped):
    """The transforms, with NumPy's matrix product between them; flipped: filters turned around and exchanged, for the input gradient."""
    x, weights = normal(random, n, h, w, c), normal(random, k, 3, 3, c)
    stored = numpy.ascontiguousarray(weights[:, ::-1, ::-1].transpose(3, 1, 2, 0)) if flipped else weights
    strides = dict(out_stride=1, red_stride=9 * k, tap_row_stride=-3 * k, tap_column_stride=-k) if flipped else dict(
        out_stride=9 * c, red_stride=1, tap_row_stride=3 * c, tap_column_stride=c)
    vec = context.define("winograd", "VEC")
    width = 2 * vec
    panels = execute(
        context, "winograd", "winograd_filters", (ceil_div(c, 8), ceil_div(k, width)), (1, 1), dict(source=(stored, 8 * k if flipped else 0)),
        dict(panels=(36, ceil_div(k, width), c, width)), outs=k, reds=c, width=width, reds_per_item=8, **strides,
    )["panels"]
    rows, columns = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    tile_rows, tile_columns = ceil_div(rows, 4), ceil_div(columns, 4)
    chunk = dict(tile_rows=tile_rows, tile_columns=tile_columns, first_tile=0, channels_per_item=2 * vec)
    tiles = n * tile_rows * tile_columns
    v = execute(
        context, "winograd", "winograd_input", (ceil_div(c, 2 * vec), tiles), (1, 1), dict(x=x), dict(v=(tiles, 36, c)),
        x_rows=h, x_columns=w, channels=c, pad_top=pad[0], pad_left=pad[1], **chunk,
    )["v"]
    u = panels.transpose(0, 2, 1, 3).reshape(36, c, -1)
    assert (u[:, :, k:] == 0).all()
    m = numpy.ascontiguousarray(numpy.einsum("tfc,fck->tfk", v, u[:, :, :k]))
    bias = normal(random, k) if extras else None
    residual = normal(random, n, rows, columns, k) if extras else None
    y = execute(
        context, "winograd", "winograd_output", (ceil_div(k, 2 * vec), tiles), (1, 1), dict(m=m, bias=bias, residual=residual),
        dict(y=(n, rows, columns, k)), dict(ACTIVATION=int(extras)), y_rows=rows, y_columns=columns, channels=k, alpha=0, beta=0, **chunk,
    )["y"]
    taps = [(r - pad[0], s - pad[1]) for r in range(3) for s in range(3)]
    reference = convolution_reference(x, weights.reshape(k, 9, c), taps, (rows, columns), (1, 1), 1)
    if extras:
        reference = numpy.maximum(reference + bias + residual, 0)
    # The transforms add and subtract before the products: larger errors than a plain sum's.
    close(y, reference, 16 * 9 * c, scale=4)


@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 5, 6, 3, 5, (1, 1)), (2, 4, 9, 21, 18, (2, 0))])
def test_winograd_gradient(context, random, n, h, w, c, k, pad):
    """The transforms, with NumPy's sums over tiles between them, in two chunks."""
    rows, columns = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    x, dy = normal(random, n, h, w, c), normal(random, n, rows, columns, k)
    vec = context.define("winograd_gradient", "VEC")
    tile_rows, tile_columns = ceil_div(rows, 4), ceil_div(columns, 4)
    tiles = n * tile_rows * tile_columns
    sums = []
    for first, count in ((0, tiles // 2), (tiles // 2, tiles - tiles // 2)):
        if count == 0:
            continue
        chunk = dict(tile_rows=tile_rows, tile_columns=tile_columns, first_tile=first, channels_per_item=2 * vec)
        v = execute(
            context, "winograd", "winograd_input", (ceil_div(c, 2 * vec), count), (1, 1), dict(x=x), dict(v=(count, 36, c)),
            x_rows=h, x_columns=w, channels=c, pad_top=pad[0], pad_left=pad[1], **chunk,
        )["v"]
        spread = execute(
            context, "winograd_gradient", "winograd_gradient_output", (ceil_div(k, 2 * vec), count), (1, 1), dict(dy=dy), dict(w=(count, 36, k)),
            y_rows=rows, y_columns=columns, channels=k, **chunk,
        )["w"]
        sums.append(numpy.einsum("tfk,tfc->fkc", spread, v))
    dw = execute(
        context, "winograd_gradient", "winograd_gradient_filters", (ceil_div(c, 2 * vec), k), (1, 1), dict(u=numpy.stack(sums)),
        dict(dw=(k, 3, 3, c)), outs=k, channels=c, chunks=len(sums), channels_per_item=2 * vec,
    )["dw"]
    padded = numpy.pad(x.astype(float), ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    reference = numpy.zeros((k, 3, 3, c))
    for r, s in itertools.product(range(3), range(3)):
        reference[:, r, s] = numpy.einsum("nabk,nabc->kc", dy, padded[:, r:r + rows, s:s + columns])
    close(dw, reference, 64 * n * rows * columns, scale=4)


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
        context, "conv_depthwise", "conv_depthwise", (ceil_div(channels, 2 * vec), 2, n * grid[0]), (1, 1, 1),
        dict(x=x, weights=weights, bias=bias, residual=residual), dict(y=(n, *grid, channels)), dict(ACTIVATION=1, BLOCK=2),
        **dict(zip(("y_image_stride", "y_row_stride", "y_column_stride"), strides)),
        channels_per_item=2 * vec, columns_per_item=5, alpha=0, beta=0, **shared,
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


@pytest.mark.parametrize("dense_outs", [False, True])
@pytest.mark.parametrize("groups, outs, taps, reds, width, span", [(1, 5, 9, 3, 4, 9), (2, 7, 1, 11, 8, 9), (1, 33, 2, 6, 32, 9), (2, 40, 2, 37, 16, 320)])
def test_pack(context, random, dense_outs, groups, outs, taps, reds, width, span):
    """Weights [group, out, tap, red], or the same matrix stored [group, red, tap, out]."""
    w = normal(random, groups, reds, taps, outs).transpose(0, 3, 2, 1) if dense_outs else normal(random, groups, outs, taps, reds)
    stored = w.transpose(0, 3, 2, 1) if dense_outs else w
    strides = [stride // 4 for stride in w.strides]
    order = numpy.arange(taps)[::-1].astype(numpy.int32)
    panels = ceil_div(outs, width)
    result = execute(
        context, "pack", "pack", (ceil_div(reds * width, span), taps, groups * panels), (1, 1, 1),
        dict(source=stored), dict(panels=(groups, panels, taps, reds, width)), tap_index=context.constant(order),
        group_stride=strides[0], out_stride=strides[1], tap_stride=strides[2], red_stride=strides[3],
        tap_count=taps, reds=reds, outs=outs, width=width, span=span,
    )["panels"]
    for g in range(groups):
        assert (result[g] == pack_reference(w[g][:, order], width)).all()


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


# Items of a work-group: 1 as on CPUs, 8 as on GPUs in small, whatever the device is.
work_groups = pytest.mark.parametrize("group", [1, 8])


def blocks_of(context, stem, count, span):
    return ceil_div(count, span * context.define(stem, "VEC"))


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


REDUCTIONS = {0: numpy.sum, 2: numpy.max, 3: numpy.min, 4: numpy.prod}


@work_groups
@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("reds, parts", [(1, 1), (7, 1), (75, 2)])
def test_reduce(context, random, group, kind, reds, parts):
    x = normal(random, 3, reds)
    arguments = dict(parts=parts, reds_per_part=ceil_div(reds, parts))
    y = execute(
        context, "reduce", "reduce_rows", (parts * group, 2), (group, 1), dict(x=x), dict(y=(3, parts)), dict(REDUCTION=kind, WORK_GROUP=group),
        outer=3, reds=reds, rows_per_group=2, scale=2.0, **arguments,
    )["y"]
    close(REDUCTIONS[kind](y.astype(float) / 2, axis=1), REDUCTIONS[kind](x.astype(float), axis=1), reds, scale=4 if kind != 4 else 1)

    x = normal(random, 2, reds, 61)
    y = execute(
        context, "reduce", "reduce_columns", (blocks_of(context, "reduce", 61, 4), parts, 2), (1, 1, 1), dict(x=x), dict(y=(2, parts, 61)),
        dict(REDUCTION=kind, WORK_GROUP=group, VECTORS=2), reds=reds, inner=61, span=2, scale=2.0, **arguments,
    )["y"]
    close(REDUCTIONS[kind](y.astype(float) / 2, axis=1), REDUCTIONS[kind](x.astype(float), axis=1), reds, scale=4 if kind != 4 else 1)


@work_groups
def test_reduce_keeps_nan(context, group):
    x = numpy.array([[1, numpy.nan, 2], [numpy.nan, 1, 1], [3, 1, 2]], numpy.float32)
    y = execute(
        context, "reduce", "reduce_rows", (group, 3), (group, 1), dict(x=x), dict(y=(3,)), dict(REDUCTION=2, WORK_GROUP=group),
        outer=3, reds=3, parts=1, reds_per_part=3, rows_per_group=1, scale=1.0,
    )["y"]
    assert numpy.isnan(y[:2]).all() and y[2] == 3


@work_groups
@pytest.mark.parametrize("log", [0, 1])
@pytest.mark.parametrize("axis", [1, 10, 67])
def test_softmax(context, random, group, log, axis):
    def reference(x, dy):
        e = numpy.exp(x - x.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        if log:
            return numpy.log(p), dy - p * dy.sum(axis=1, keepdims=True)
        return p, p * (dy - (dy * p).sum(axis=1, keepdims=True))

    x, dy = normal(random, 5, axis) * 4, normal(random, 5, axis)
    y_reference, dx_reference = reference(x.astype(float), dy.astype(float))
    arguments = dict(outer=5, axis=axis, rows_per_group=2)
    y = execute(context, "softmax", "softmax_rows", (3 * group,), (group,), dict(x=x), dict(y=x.shape), dict(LOG=log, WORK_GROUP=group), **arguments)["y"]
    close(y, y_reference, axis, scale=4)
    dx = execute(context, "softmax", "softmax_backward_rows", (3 * group,), (group,), dict(y=y, dy=dy), dict(dx=x.shape), dict(LOG=log, WORK_GROUP=group), **arguments)["dx"]
    close(dx, dx_reference, axis, scale=8)

    x, dy = normal(random, 2, axis, 19) * 4, normal(random, 2, axis, 19)
    y_reference, dx_reference = reference(x.astype(float), dy.astype(float))
    size = (blocks_of(context, "softmax", 19, 1), 2)
    y = execute(context, "softmax", "softmax_columns", size, (1, 1), dict(x=x), dict(y=x.shape), dict(LOG=log, WORK_GROUP=group), axis=axis, inner=19)["y"]
    close(y, y_reference, axis, scale=4)
    dx = execute(context, "softmax", "softmax_backward_columns", size, (1, 1), dict(y=y, dy=dy), dict(dx=x.shape), dict(LOG=log, WORK_GROUP=group), axis=axis, inner=19)["dx"]
    close(dx, dx_reference, axis, scale=8)


@work_groups
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [3, 37])
def test_cross_entropy(context, random, group, smoothing, classes):
    rows, ignored = 5, -100
    logits, dloss = normal(random, rows, classes) * 3, normal(random, rows)
    labels = numpy.array([0, classes - 1, ignored, 1, 2], numpy.int32)
    arguments = dict(rows=rows, classes=classes, rows_per_group=2, ignore_index=ignored, smoothing=smoothing)
    loss = execute(context, "loss", "cross_entropy", (3 * group,), (group,), dict(logits=logits, labels=labels), dict(loss=(rows,)), dict(WORK_GROUP=group), **arguments)["loss"]
    x = logits.astype(float)
    logp = x - x.max(axis=1, keepdims=True)
    logp -= numpy.log(numpy.exp(logp).sum(axis=1, keepdims=True))
    target = numpy.full(x.shape, smoothing / classes)
    target[numpy.arange(rows), labels.clip(0)] += 1 - smoothing
    used = (labels != ignored)[:, None]
    close(loss, -(used * target * logp).sum(axis=1), classes, scale=2)
    dlogits = execute(
        context, "loss", "cross_entropy_backward", (3 * group,), (group,), dict(logits=logits, labels=labels, dloss=dloss),
        dict(dlogits=x.shape), dict(WORK_GROUP=group), **arguments,
    )["dlogits"]
    close(dlogits, used * dloss[:, None] * (numpy.exp(logp) - target), classes, scale=2)


@pytest.mark.parametrize("kernel, step, pad, dilation", [((2, 2), (2, 2), (0, 0), (1, 1)), ((3, 2), (2, 1), (1, 1), (1, 2))])
def test_max_pool(context, random, kernel, step, pad, dilation):
    n, h, w, c = 2, 7, 6, 19
    x = random.integers(-3, 3, (n, h, w, c)).astype(numpy.float32)
    x[0, 1, 2, 3] = numpy.nan
    x[1, :, :, 0] = -numpy.inf
    rows, columns = ((size + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1) // step[i] + 1 for i, size in enumerate((h, w)))
    y_reference = numpy.zeros((n, rows, columns, c), numpy.float32)
    index_reference = numpy.zeros((n, rows, columns, c), numpy.int32)
    for image, a, b, channel in numpy.ndindex(y_reference.shape):
        best, where = -numpy.inf, None
        for r, s in numpy.ndindex(*kernel):
            row, column = a * step[0] - pad[0] + r * dilation[0], b * step[1] - pad[1] + s * dilation[1]
            if 0 <= row < h and 0 <= column < w:
                value = x[image, row, column, channel]
                if where is None or value > best or numpy.isnan(value):
                    best, where = value, row * w + column
        y_reference[image, a, b, channel], index_reference[image, a, b, channel] = best, where
    arguments = dict(
        x_rows=h, x_columns=w, channels=c, y_rows=rows, y_columns=columns, pixels_per_item=2, channels_per_item=2 * context.define("max_pool", "VEC"),
    )
    axes = [PoolAxis(size, out, k, s, p, d) for size, out, k, s, p, d in zip((h, w), (rows, columns), kernel, step, pad, dilation)]
    geometry = PoolGeometry(n, c, *axes)
    vectors = blocks_of(context, "max_pool", c, 2)
    result = execute(
        context, "max_pool", "max_pool", (vectors, ceil_div(columns, 2), n * rows), (1, 1, 1), dict(x=x),
        dict(y=y_reference.shape, indices=(y_reference.shape, numpy.int32)), windows=context.constant(window_table(geometry)),
        row_dilation=dilation[0], column_dilation=dilation[1], **arguments,
    )
    numpy.testing.assert_array_equal(result["y"], y_reference)
    assert (result["indices"] == index_reference).all()
    dy = normal(random, *y_reference.shape)
    dx = execute(
        context, "max_pool", "max_pool_backward", (vectors, ceil_div(w, 2), n * h), (1, 1, 1), dict(dy=dy, indices=index_reference),
        dict(dx=x.shape), covers=context.constant(cover_table(geometry)), **arguments,
    )["dx"]
    reference = numpy.zeros((n, h * w, c))
    for image, a, b, channel in numpy.ndindex(dy.shape):
        reference[image, index_reference[image, a, b, channel], channel] += dy[image, a, b, channel]
    close(dx, reference.reshape(x.shape), 9, scale=4)


def test_resample(context, random):
    n, c, sizes, out = 2, 21, (5, 6), (3, 4)
    x = normal(random, n, *sizes, c)
    tables, matrices = [], []
    for axis in range(2):
        matrix = normal(random, out[axis], sizes[axis]) * (random.random((out[axis], sizes[axis])) < 0.5)
        matrix[0] = 0
        places = [numpy.flatnonzero(row) for row in matrix]
        starts = numpy.cumsum([0, *map(len, places)]).astype(numpy.int32)
        tables += [starts, numpy.concatenate(places).astype(numpy.int32), matrix[matrix != 0]]
        matrices.append(matrix.astype(float))
    names = [f"{axis}_{kind}" for axis in ("row", "column") for kind in ("starts", "index", "weight")]
    y = execute(
        context, "resample", "resample", (blocks_of(context, "resample", c, 2), 2, n * out[0]), (1, 1, 1), dict(x=x), dict(y=(n, *out, c)),
        **{name: context.constant(table) for name, table in zip(names, tables)},
        x_rows=sizes[0], x_columns=sizes[1], channels=c, y_rows=out[0], y_columns=out[1], columns_per_item=3, channels_per_item=2 * context.define("resample", "VEC"),
    )["y"]
    close(y, numpy.einsum("ah,bw,nhwc->nabc", *matrices, x.astype(float)), 30, scale=4)


@pytest.mark.parametrize("rows, channels, activation", [(23, 19, 0), (9, 8, 1)])
def test_batch_norm(context, random, rows, channels, activation):
    x = normal(random, rows, channels) + 30
    gamma, beta, mean_before = (normal(random, channels) for _ in range(3))
    variance_before = numpy.abs(normal(random, channels))
    defines = dict(ACTIVATION=activation, VECTORS=2)
    vectors, pairs = (blocks_of(context, "batch_norm", channels, span) for span in (1, 2))
    per_part = 7
    parts = ceil_div(rows, per_part)
    sizes = dict(rows=rows, channels=channels)
    acting = dict(activation_alpha=0.0, activation_beta=0.0)
    moments = execute(
        context, "batch_norm", "batch_norm_moments", (pairs, parts), (1, 1), dict(x=x), dict(moments=(parts, 2, channels)), defines,
        rows_per_part=per_part, **sizes,
    )["moments"]
    statistics = execute(
        context, "batch_norm", "batch_norm_statistics", (vectors,), (1,), dict(moments=moments),
        dict(running_mean=mean_before, running_variance=variance_before, mean=(channels,), rstd=(channels,)), defines,
        rows_per_part=per_part, parts=parts, epsilon=1e-5, momentum=0.1, **sizes,
    )
    exact = x.astype(float)
    mean, variance = exact.mean(axis=0), exact.var(axis=0)
    rstd = 1 / numpy.sqrt(variance + 1e-5)
    close(statistics["mean"], mean, rows)
    close(statistics["rstd"], rstd, rows)
    close(statistics["running_mean"], 0.9 * mean_before + 0.1 * mean, rows)
    close(statistics["running_variance"], 0.9 * variance_before + 0.1 * exact.var(axis=0, ddof=1), rows)
    known = dict(gamma=gamma, beta=beta, mean=statistics["mean"], rstd=statistics["rstd"])
    y = execute(
        context, "batch_norm", "batch_norm_normalise", (pairs, ceil_div(rows, 4)), (1, 1), dict(x=x, **known), dict(y=x.shape), defines,
        rows_per_item=4, **sizes, **acting,
    )["y"]
    normalised = (exact - mean) * rstd
    before = gamma * normalised + beta
    close(y, numpy.maximum(before, 0) if activation else before, rows, scale=64)
    dy = normal(random, rows, channels)
    sums = execute(
        context, "batch_norm", "batch_norm_backward_sums", (pairs, parts), (1, 1), dict(x=x, dy=dy, **known), dict(sums=(parts, 2, channels)), defines,
        rows_per_part=per_part, **sizes, **acting,
    )["sums"]
    joined = execute(
        context, "batch_norm", "batch_norm_backward_join", (vectors,), (1,), dict(sums=sums), dict(dgamma=(channels,), dbeta=(channels,)), defines,
        channels=channels, parts=parts,
    )
    slope = dy * (before > 0) if activation else dy.astype(float)
    close(joined["dbeta"], slope.sum(axis=0), rows, scale=4)
    close(joined["dgamma"], (slope * normalised).sum(axis=0), rows, scale=64)
    dx = execute(
        context, "batch_norm", "batch_norm_backward", (pairs, ceil_div(rows, 4)), (1, 1), dict(x=x, dy=dy, **known, **joined), dict(dx=x.shape), defines,
        rows_per_item=4, **sizes, **acting,
    )["dx"]
    reference = gamma * rstd * (slope - slope.mean(axis=0) - normalised * (slope * normalised).mean(axis=0))
    close(dx, reference, rows, scale=64)


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
