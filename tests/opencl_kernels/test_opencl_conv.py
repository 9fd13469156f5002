"""OpenCL kernels by themselves: convolutions, their weight gradients, and packed weights. See conftest.py."""

import itertools

import numpy
import pytest
from helpers.opencl import ceil_div, close, convolution_reference, execute, normal


def pack_reference(w, width):
    """[outs, taps, reds] -> [panel][tap][red][lane]"""
    outs, taps, reds = w.shape
    padded = numpy.zeros((ceil_div(outs, width) * width, taps, reds), numpy.float32)
    padded[:outs] = w
    return numpy.ascontiguousarray(padded.reshape(ceil_div(outs, width), width, taps, reds).transpose(0, 2, 3, 1))


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
