"""OpenCL kernels by themselves: sums, maxima and what is made of them: softmax, losses, pooling, interpolation, batch norm. See conftest.py."""

import numpy
import pytest
from helpers.opencl import blocks_of, ceil_div, close, execute, normal

from pycl_cnn.backends.windows import cover_table, window_table
from pycl_cnn.geometry import PoolAxis, PoolGeometry

# Items of a work-group: 1 as on CPUs, 8 as on GPUs in small, whatever the device is.
work_groups = pytest.mark.parametrize("group", [1, 8])


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
