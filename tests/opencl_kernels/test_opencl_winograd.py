"""OpenCL kernels by themselves: Winograd's transforms. See conftest.py."""

import itertools

import numpy
import pytest
from helpers.opencl import ceil_div, close, convolution_reference, execute, normal

from pycl_cnn.backends.opencl.winograd_few import CHUNK, PackTaps
from pycl_cnn.backends.opencl.winograd_phases import FREQUENCIES, PHASE_LANES, TransformPhases
from pycl_cnn.backends.winograd import TILES, FilterView, frequencies


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("extras, flipped", [(False, False), (True, True)])
@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 5, 6, 3, 5, (1, 1)), (2, 4, 9, 21, 18, (2, 0)), (1, 11, 10, 6, 35, (1, 2))])
def test_winograd(context, random, tile, n, h, w, c, k, pad, extras, flipped):
    """The transforms, with NumPy's matrix product between them; flipped: filters turned around and exchanged, for the input gradient."""
    x, weights = normal(random, n, h, w, c), normal(random, k, 3, 3, c)
    stored = numpy.ascontiguousarray(weights[:, ::-1, ::-1].transpose(3, 1, 2, 0)) if flipped else weights
    strides = dict(out_stride=1, red_stride=9 * k, tap_row_stride=-3 * k, tap_column_stride=-k) if flipped else dict(
        out_stride=9 * c, red_stride=1, tap_row_stride=3 * c, tap_column_stride=c)
    count, defines = frequencies(tile), dict(TILE=tile)
    vec = context.define("winograd", "VEC")
    width = 2 * vec
    panels = execute(
        context, "winograd", "winograd_filters", (ceil_div(c, 8), ceil_div(k, width)), (1, 1), dict(source=(stored, 8 * k if flipped else 0)),
        dict(panels=(count, ceil_div(k, width), c, width)), {**defines, "REDS": 8}, outs=k, reds=c, width=width, reds_per_item=8, **strides,
    )["panels"]
    rows, columns = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    tile_rows, tile_columns = ceil_div(rows, tile), ceil_div(columns, tile)
    chunk = dict(tile_rows=tile_rows, tile_columns=tile_columns, first_tile=0, channels_per_item=2 * vec)
    tiles = n * tile_rows * tile_columns
    v = execute(
        context, "winograd", "winograd_input", (ceil_div(c, 2 * vec), tiles), (1, 1), dict(x=x), dict(v=(tiles, count, c)), defines,
        x_rows=h, x_columns=w, channels=c, tile_stride=count * c, pad_top=pad[0], pad_left=pad[1], **chunk,
    )["v"]
    u = panels.transpose(0, 2, 1, 3).reshape(count, c, -1)
    assert (u[:, :, k:] == 0).all()
    m = numpy.ascontiguousarray(numpy.einsum("tfc,fck->tfk", v, u[:, :, :k]))
    bias = normal(random, k) if extras else None
    residual = normal(random, n, rows, columns, k) if extras else None
    y = execute(
        context, "winograd", "winograd_output", (ceil_div(k, 2 * vec), tiles), (1, 1), dict(m=m, bias=bias, residual=residual),
        dict(y=(n, rows, columns, k)), dict(ACTIVATION=int(extras), **defines), y_rows=rows, y_columns=columns, channels=k, tile_stride=count * k, alpha=0, beta=0, **chunk,
    )["y"]
    taps = [(r - pad[0], s - pad[1]) for r in range(3) for s in range(3)]
    reference = convolution_reference(x, weights.reshape(k, 9, c), taps, (rows, columns), (1, 1), 1)
    if extras:
        reference = numpy.maximum(reference + bias + residual, 0)
    # The transforms add and subtract before the products: larger errors than a plain sum's.
    close(y, reference, tile**2 * 9 * c, scale=4)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 5, 6, 3, 5, (1, 1)), (2, 4, 9, 21, 18, (2, 0)), (1, 11, 10, 6, 35, (1, 2))])
def test_winograd_fused(context, random, tile, n, h, w, c, k, pad, extras):
    """All of it in one kernel, with a last block that is not full."""
    x, weights = normal(random, n, h, w, c), normal(random, k, 3, 3, c)
    bias = normal(random, k) if extras else None
    rows, columns = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    residual = normal(random, n, rows, columns, k) if extras else None
    width = 2 * context.define("winograd", "VEC")
    panels = execute(
        context, "winograd", "winograd_filters", (ceil_div(c, 8), ceil_div(k, width)), (1, 1), dict(source=weights),
        dict(panels=(frequencies(tile), ceil_div(k, width), c, width)), dict(TILE=tile), outs=k, reds=c, width=width, reds_per_item=8,
        out_stride=9 * c, red_stride=1, tap_row_stride=3 * c, tap_column_stride=c,
    )["panels"]
    tile_rows, tile_columns = ceil_div(rows, tile), ceil_div(columns, tile)
    tiles, height, each = n * tile_rows * tile_columns, 2, 2
    frequency_stride = height * c + 1
    scratch_stride = frequencies(tile) * (frequency_stride + height * width)
    items = ceil_div(tiles, height * each)
    y = execute(
        context, "winograd_fused", "winograd_fused", (items,), (1,), dict(x=x, panels=panels, bias=bias, residual=residual),
        dict(y=(n, rows, columns, k), scratch=(items, scratch_stride)), dict(ACTIVATION=int(extras), TILE=tile, MR=height, NV=2),
        x_rows=h, x_columns=w, reds=c, pad_top=pad[0], pad_left=pad[1], y_rows=rows, y_columns=columns, outs=k, tile_rows=tile_rows, tile_columns=tile_columns,
        tiles=tiles, blocks_per_item=each, scratch_stride=scratch_stride, frequency_stride=frequency_stride, alpha=0, beta=0,
    )["y"]
    reference = convolution_reference(x, weights.reshape(k, 9, c), [(r - pad[0], s - pad[1]) for r in range(3) for s in range(3)], (rows, columns), (1, 1), 1)
    if extras:
        reference = numpy.maximum(reference + bias + residual, 0)
    close(y, reference, tile**2 * 9 * c, scale=4)


@pytest.mark.parametrize("n, h, w, c, k, pad, extras", [(1, 3, 4, 16, 5, (1, 1), False), (2, 4, 3, 48, 35, (1, 1), True)])
def test_winograd_few(context, random, n, h, w, c, k, pad, extras):
    """Some chunks of channels, a last panel that is not full. More tiles take some compilers a minute; tests/test_winograd.py has them."""
    x, weights = normal(random, n, h, w, c), normal(random, k, 3, 3, c)
    bias = normal(random, k) if extras else None
    rows, columns, width = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2, context.define("winograd_few", "VEC")
    residual = normal(random, n, rows, columns, k) if extras else None
    tile_rows, tile_columns = ceil_div(rows, 4), ceil_div(columns, 4)
    tiles, panels, stride = n * tile_rows * tile_columns, ceil_div(k, width), 36 * c + 16
    assert c % CHUNK == 0 and tiles <= 4
    v = execute(
        context, "winograd", "winograd_input", (1, tiles), (1, 1), dict(x=x), dict(v=(tiles, stride)), dict(TILE=4), x_rows=h, x_columns=w, channels=c, tile_stride=stride,
        pad_top=pad[0], pad_left=pad[1], tile_rows=tile_rows, tile_columns=tile_columns, first_tile=0, channels_per_item=c,
    )["v"]
    v[:, 36 * c :] = 0
    y = execute(
        context, "winograd_few", "winograd_few", (panels,), (1,),
        dict(taps=PackTaps(k, c, width, FilterView(0, 9 * c, 1, 3 * c, c)).once(weights), v=v, bias=bias, residual=residual),
        dict(m=(panels, 36, tiles, width), y=(n, rows, columns, k)), dict(TILE=4, ACTIVATION=int(extras), TILES=tiles, CHANNELS=c, TILE_STRIDE=stride),
        y_rows=rows, y_columns=columns, outs=k, tile_rows=tile_rows, tile_columns=tile_columns, alpha=0, beta=0,
    )["y"]
    reference = convolution_reference(x, weights.reshape(k, 9, c), [(r - pad[0], s - pad[1]) for r in range(3) for s in range(3)], (rows, columns), (1, 1), 1)
    if extras:
        reference = numpy.maximum(reference + bias + residual, 0)
    close(y, reference, 16 * 9 * c, scale=4)


@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 9, 12, 3, 5, (3, 3)), (2, 7, 8, 2, 18, (0, 0)), (1, 21, 17, 4, 35, (5, 2)), (1, 22, 22, 3, 9, (0, 0))])
def test_winograd_fused_phases(context, random, n, h, w, c, k, pad):
    """7x7 taps with stride 2, over the four phases of the image."""
    x, weights, bias = normal(random, n, h, w, c), normal(random, k, 7, 7, c), normal(random, k)
    rows, columns = (h + 2 * pad[0] - 7) // 2 + 1, (w + 2 * pad[1] - 7) // 2 + 1
    width, height, each = 2 * context.define("winograd", "VEC"), 2, 2
    tile_rows, tile_columns = ceil_div(rows, 4), ceil_div(columns, 4)
    tiles = n * tile_rows * tile_columns
    frequency_stride = height * PHASE_LANES + 1
    scratch_stride = FREQUENCIES * (frequency_stride + height * width)
    items = ceil_div(tiles, height * each)
    y = execute(
        context, "winograd_fused", "winograd_fused", (items,), (1,), dict(x=x, panels=TransformPhases(k, c, width).once(weights), bias=bias, residual=None),
        dict(y=(n, rows, columns, k), scratch=(items, scratch_stride)), dict(ACTIVATION=0, TAPS=4, MR=height, NV=2),
        x_rows=h, x_columns=w, reds=4 * c, pad_top=pad[0], pad_left=pad[1], y_rows=rows, y_columns=columns, outs=k, tile_rows=tile_rows, tile_columns=tile_columns,
        tiles=tiles, blocks_per_item=each, scratch_stride=scratch_stride, frequency_stride=frequency_stride, alpha=0, beta=0,
    )["y"]
    taps = [(r - pad[0], s - pad[1]) for r in range(7) for s in range(7)]
    close(y, convolution_reference(x, weights.reshape(k, 49, c), taps, (rows, columns), (2, 2), 1) + bias, 16 * 49 * c, scale=4)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("n, h, w, c, k, pad", [(1, 5, 6, 3, 5, (1, 1)), (2, 4, 9, 21, 18, (2, 0))])
def test_winograd_gradient(context, random, tile, n, h, w, c, k, pad):
    """The transforms, with NumPy's sums over tiles between them, in two chunks."""
    rows, columns = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    x, dy = normal(random, n, h, w, c), normal(random, n, rows, columns, k)
    count, defines = frequencies(tile), dict(TILE=tile)
    vec = context.define("winograd_gradient", "VEC")
    tile_rows, tile_columns = ceil_div(rows, tile), ceil_div(columns, tile)
    tiles = n * tile_rows * tile_columns
    sums = []
    for first, many in ((0, tiles // 2), (tiles // 2, tiles - tiles // 2)):
        if many == 0:
            continue
        chunk = dict(tile_rows=tile_rows, tile_columns=tile_columns, first_tile=first, channels_per_item=2 * vec)
        v = execute(
            context, "winograd", "winograd_input", (ceil_div(c, 2 * vec), many), (1, 1), dict(x=x), dict(v=(many, count, c)), defines,
            x_rows=h, x_columns=w, channels=c, tile_stride=count * c, pad_top=pad[0], pad_left=pad[1], **chunk,
        )["v"]
        spread = execute(
            context, "winograd_gradient", "winograd_gradient_output", (ceil_div(k, 2 * vec), many), (1, 1), dict(dy=dy), dict(w=(many, count, k)), defines,
            y_rows=rows, y_columns=columns, channels=k, tile_stride=count * k, **chunk,
        )["w"]
        sums.append(numpy.einsum("tfk,tfc->fkc", spread, v))
    dw = execute(
        context, "winograd_gradient", "winograd_gradient_filters", (ceil_div(c, 2 * vec), k), (1, 1), dict(u=numpy.stack(sums)),
        dict(dw=(k, 3, 3, c)), {**defines, "VECTORS": n}, outs=k, channels=c, chunks=len(sums), channels_per_item=2 * vec,
    )["dw"]
    padded = numpy.pad(x.astype(float), ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    reference = numpy.zeros((k, 3, 3, c))
    for r, s in itertools.product(range(3), range(3)):
        reference[:, r, s] = numpy.einsum("nabk,nabc->kc", dy, padded[:, r:r + rows, s:s + columns])
    close(dw, reference, 4 * tile**2 * n * rows * columns, scale=4)
