"""The CPU's convolution and GEMM kernels and the program runner, called directly through `_kernels.Program`.

Every kernel runs on every instruction set that this processor has, on 1 and 2 threads, and is compared with NumPy in
float64. Outputs start as NaN and have guard zones on both sides, so that a store too few and a store too many both show.
"""
import math
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycl_cnn.backends.cpu import _kernels as kernels

ISAS = kernels.isa_list()
GUARD = 64
NONE, RELU, CLIP = 0, 1, 3


def tolerance(length, magnitude):
    """Bound of the rounding error of a float32 sum of `length` products whose absolute values sum up to `magnitude`.

    Every product and every addition rounds once by at most eps/2 of the running sum, which never exceeds the magnitude;
    in the worst case the roundings add up linearly. The constant covers bias, residual and activation."""
    return (length + 8) * np.finfo(np.float32).eps * magnitude + 1e-30


class Guarded:
    """An output of NaN between two guard zones."""

    def __init__(self, shape, fill=np.nan):
        size = math.prod(shape)
        self.memory = np.full(size + 2 * GUARD, 12345.0, np.float32)
        self.array = self.memory[GUARD:GUARD + size].reshape(shape)
        self.array[...] = fill

    def check(self):
        assert (self.memory[:GUARD] == 12345).all() and (self.memory[-GUARD:] == 12345).all()


def run(steps, arrays, isa, outputs=()):
    """Runs steps whose buffers are array numbers (or None), on 1 and 2 threads; both must give the same bits."""
    scratch = 0
    complete = []
    for name, members, buffers in steps:
        params = getattr(kernels, f"{name}_params")(**members)
        tasks, bytes_ = kernels.conv_sizes(name, params)
        scratch = max(scratch, bytes_)
        complete.append((name, params, [None if b is None else (b + 1, 0) for b in buffers], tasks))
    program = kernels.Program(complete, [0] + [a.nbytes for a in arrays], scratch,
                              written=range(1, len(arrays) + 1), isa=isa)
    for base, array in enumerate(arrays, 1):
        program.bind(base, array)
    initial = [arrays[i].copy() for i in outputs]
    program.run(1)
    first = [arrays[i].copy() for i in outputs]
    for i, value in zip(outputs, initial):
        arrays[i][...] = value
    program.run(2)
    for i, value in zip(outputs, first):
        np.testing.assert_array_equal(arrays[i].view(np.int32), value.view(np.int32))


def random(rng, *shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


# ---- references ------------------------------------------------------------------------------------------------------

def sources(size, count, stride, dilation, pad, taps):
    """For each tap the positions that `count` outputs read, and which of those are inside."""
    at = np.arange(count)[None, :] * stride + np.arange(taps)[:, None] * dilation - pad
    return np.clip(at, 0, size - 1), (at >= 0) & (at < size)


def patches(x, shape, c):
    """x as [n, oh, ow, r, s, c] in float64: what every output pixel sees."""
    rows, row_inside = sources(x.shape[1], shape["oh"], c["stride"][0], c["dilation"][0], c["pad"][0], c["r"])
    cols, col_inside = sources(x.shape[2], shape["ow"], c["stride"][1], c["dilation"][1], c["pad"][1], c["s"])
    seen = x.astype(np.float64)[:, rows][:, :, :, cols]
    seen = seen * (row_inside[:, :, None, None] & col_inside[None, None, :, :])[None, ..., None]
    return seen.transpose(0, 2, 4, 1, 3, 5)


def grouped(seen, groups):
    return seen.reshape(*seen.shape[:-1], groups, -1)


# ---- shapes ----------------------------------------------------------------------------------------------------------

def pair(strategy):
    return st.tuples(strategy, strategy)


@st.composite
def convolutions(draw, depthwise=False):
    c = {
        "n": draw(st.integers(1, 3)), "h": draw(st.integers(1, 12)), "w": draw(st.integers(1, 12)),
        "groups": 1 if depthwise else draw(st.sampled_from([1, 1, 1, 2, 3])),
        "c": draw(st.sampled_from([1, 2, 3, 5, 8, 16, 17, 32, 33, 64])),
        "k": draw(st.sampled_from([1, 5, 6, 8, 16, 17, 32, 33, 70])),
        "r": draw(st.integers(1, 5)), "s": draw(st.integers(1, 5)),
        "stride": draw(pair(st.integers(1, 3))), "dilation": draw(pair(st.integers(1, 2))),
        "pad": draw(pair(st.integers(0, 6))), "pad_after": draw(pair(st.integers(0, 6))),
        "isa": draw(st.sampled_from(ISAS)), "bias": draw(st.booleans()), "residual": draw(st.booleans()),
        "activation": draw(st.sampled_from([NONE, RELU])),
        "pixel_block": draw(st.sampled_from([1, 5, 17, 64])), "panel_block": draw(st.integers(1, 3)),
        "reduction_block": draw(st.sampled_from([16, 48, 4096])), "narrow": draw(st.booleans()),
        "loaded": draw(st.booleans()), "factors": draw(st.booleans()), "lines": draw(st.booleans()),
        "parts": draw(st.integers(1, 4)), "seed": draw(st.integers(0, 2**31)),
    }
    if not depthwise and draw(st.integers(0, 3)) == 0:  # what the kernels read in place
        c.update(r=1, s=1, stride=(1, 1), pad=(0, 0), pad_after=(0, 0))
    for axis, size, taps in ((0, "h", "r"), (1, "w", "s")):
        room = c[size] + c["pad"][axis] + c["pad_after"][axis] - c["dilation"][axis] * (c[taps] - 1) - 1
        if room < 0:
            c[taps], room = 1, c[size] + c["pad"][axis] + c["pad_after"][axis] - 1
        c["oh" if axis == 0 else "ow"] = room // c["stride"][axis] + 1
    return c


def panel_width(c, outs):
    lanes = kernels.vector_length(c["isa"])
    if c["narrow"]:
        return 8 if lanes == 16 and outs <= 8 else 24 if lanes == 16 and outs > 16 else lanes
    return kernels.panel_width(c["isa"])


def dense(channels, rows, cols, prefix=""):
    return {f"{prefix}image_stride": rows * cols * channels, f"{prefix}row_stride": cols * channels,
            f"{prefix}col_stride": channels}


def forward_geometry(c, channels, outs):
    return dict(
        images=c["n"], rows=c["h"], cols=c["w"], **dense(channels * c["groups"], c["h"], c["w"]),
        groups=c["groups"], channels=channels, grid_rows=c["oh"], grid_cols=c["ow"],
        row_step=c["stride"][0], col_step=c["stride"][1], tap_rows=c["r"], tap_cols=c["s"],
        tap_row_start=-c["pad"][0], tap_col_start=-c["pad"][1],
        tap_row_step=c["dilation"][0], tap_col_step=c["dilation"][1],
        out_offset=0, **dense(outs * c["groups"], c["oh"], c["ow"], "out_"),
    )


def epilogue(c):
    return dict(activation=c["activation"], alpha=0.0, beta=0.0)


def blocks(c, outs):
    return dict(panel_width=panel_width(c, outs), pixel_block=c["pixel_block"], panel_block=c["panel_block"],
                reduction_block=c["reduction_block"])


def panel_floats(c, taps, reds, outs):
    width = panel_width(c, outs)
    return c["groups"] * -(-outs // width) * taps * reds * width


def line_blocks(c, outs):
    return dict(panel_width=panel_width(c, outs), line_block=c["pixel_block"] % 7 + 1, panel_block=c["panel_block"])


def lines_apply(c):
    """Whether conv_lines takes this shape (and the phases of its input gradient)."""
    return c["groups"] == 1 and (c["s"] == 1 or c["dilation"][1] == 1)


# ---- igemm and conv_lines ---------------------------------------------------------------------------------------------

@settings(deadline=None)
@given(convolutions())
def test_forward(c):
    rng = np.random.default_rng(c["seed"])
    channels, outs, groups = c["c"], c["k"], c["groups"]
    x = random(rng, c["n"], c["h"], c["w"], groups * channels)
    w = random(rng, groups * outs, c["r"], c["s"], channels)
    bias, residual = random(rng, groups * outs), random(rng, c["n"], c["oh"], c["ow"], groups * outs)
    panels = Guarded((panel_floats(c, c["r"] * c["s"], channels, outs),))
    taps = c["r"] * c["s"]
    pack = dict(groups=groups, outs=outs, tap_rows=c["r"], tap_cols=c["s"], reds=channels, panel_width=panel_width(c, outs),
                offset=0, group_stride=outs * taps * channels, out_stride=taps * channels,
                tap_row_stride=c["s"] * channels, tap_col_stride=channels, chunked=0, red_stride=1)
    if c["loaded"]:  # w[k,c,r,s], as models have it
        pack.update(tap_row_stride=c["s"], tap_col_stride=1, red_stride=taps)
    source = np.ascontiguousarray(np.moveaxis(w, 3, 1)) if c["loaded"] else w
    factors = random(rng, groups * outs)
    engines = [("igemm", blocks(c, outs))]
    if lines_apply(c):
        engines.append(("conv_lines", line_blocks(c, outs)))
    results = []
    for engine, sizes in engines:
        results.append(Guarded(residual.shape))
        members = dict(**forward_geometry(c, channels, outs), outs=outs, **sizes, **epilogue(c))
        run([("pack_panels", pack, [1, 2, 6 if c["factors"] else None]),
             (engine, members, [0, 2, 3 if c["bias"] else None, 4 if c["residual"] else None, 5])],
            [x, source, panels.array, bias, residual, results[-1].array, factors], c["isa"], outputs=[2, 5])

    seen = grouped(patches(x, c, c), groups)
    scaled = w * factors[:, None, None, None] if c["factors"] else w  # in float32, as they are packed
    weights = scaled.astype(np.float64).reshape(groups, outs, c["r"], c["s"], channels)
    expected = np.einsum("nabrsgc,gkrsc->nabgk", seen, weights).reshape(residual.shape)
    magnitude = np.einsum("nabrsgc,gkrsc->nabgk", abs(seen), abs(weights)).reshape(residual.shape) + 2
    expected = expected + c["bias"] * bias.astype(np.float64) + c["residual"] * residual.astype(np.float64)
    if c["activation"] == RELU:
        expected = np.maximum(expected, 0)
    for y in results:
        assert (abs(y.array - expected) <= tolerance(taps * channels, magnitude)).all()
        y.check()
    panels.check()


def phase_taps(phase, stride, dilation, pad, taps):
    """Taps that reach the outputs of a phase: (first tap, step of taps, count, start and step of the source), ascending
    in the source."""
    reached = [t for t in range(taps) if (phase + pad - t * dilation) % stride == 0]
    if not reached:
        return 0, 1, 0, 0, 1
    reached.reverse()
    at = [(phase + pad - t * dilation) // stride for t in reached]
    return reached[0], (reached[1] - reached[0] if at[1:] else 1), len(at), at[0], (at[1] - at[0] if at[1:] else 1)


@settings(deadline=None)
@given(convolutions())
def test_input_gradient(c):
    """Phases over dy; the transposed convolution. conv_lines takes those that have one tap column, or taps in ascending
    columns one apart."""
    rng = np.random.default_rng(c["seed"])
    channels, outs, groups = c["c"], c["k"], c["groups"]
    dy = random(rng, c["n"], c["oh"], c["ow"], groups * outs)
    w = random(rng, groups * outs, c["r"], c["s"], channels)
    dx = Guarded((c["n"], c["h"], c["w"], groups * channels))
    arrays, steps = [dy, w, dx.array], []
    row, col = c["w"] * groups * channels, groups * channels
    for p in range(min(c["stride"][0], c["h"])):
        for q in range(min(c["stride"][1], c["w"])):
            r0, r_step, r_count, row_start, row_step = phase_taps(p, c["stride"][0], c["dilation"][0], c["pad"][0], c["r"])
            s0, s_step, s_count, col_start, col_step = phase_taps(q, c["stride"][1], c["dilation"][1], c["pad"][1], c["s"])
            floats = panel_floats(c, r_count * s_count, outs, channels)
            arrays.append(np.full(max(floats, 1), np.nan, np.float32))
            if floats:
                steps.append(("pack_panels", dict(
                    groups=groups, outs=channels, tap_rows=r_count, tap_cols=s_count, reds=outs,
                    panel_width=panel_width(c, channels), offset=(r0 * c["s"] + s0) * channels,
                    group_stride=outs * c["r"] * c["s"] * channels, out_stride=1,
                    tap_row_stride=r_step * c["s"] * channels, tap_col_stride=s_step * channels,
                    chunked=0, red_stride=c["r"] * c["s"] * channels), [1, len(arrays) - 1, None]))
            lines = c["lines"] and groups == 1 and floats and (s_count == 1 or col_step == 1)
            steps.append(("conv_lines" if lines else "igemm", dict(
                images=c["n"], rows=c["oh"], cols=c["ow"], **dense(outs * groups, c["oh"], c["ow"]), groups=groups,
                channels=outs, grid_rows=-(-(c["h"] - p) // c["stride"][0]), grid_cols=-(-(c["w"] - q) // c["stride"][1]),
                row_step=1, col_step=1, tap_rows=r_count, tap_cols=s_count, tap_row_start=row_start,
                tap_col_start=col_start, tap_row_step=row_step, tap_col_step=col_step,
                out_offset=p * row + q * col, out_image_stride=c["h"] * row, out_row_stride=c["stride"][0] * row,
                out_col_stride=c["stride"][1] * col, outs=channels, **(line_blocks if lines else blocks)(c, channels), activation=NONE, alpha=0.0, beta=0.0),
                [0, len(arrays) - 1, None, None, 2]))
    run(steps, arrays, c["isa"], outputs=[2])

    weights = w.astype(np.float64).reshape(groups, outs, c["r"], c["s"], channels)
    spread = [np.einsum("nabgk,gkrsc->nabrsgc", grouped(f(dy.astype(np.float64)), groups), f(weights)) for f in (np.array, abs)]
    expected, magnitude = np.zeros((2, c["n"], c["h"], c["w"], groups * channels))
    rows, row_inside = sources(c["h"], c["oh"], c["stride"][0], c["dilation"][0], c["pad"][0], c["r"])
    cols, col_inside = sources(c["w"], c["ow"], c["stride"][1], c["dilation"][1], c["pad"][1], c["s"])
    for r in range(c["r"]):
        for s in range(c["s"]):
            for target, values in zip((expected, magnitude), spread):
                inside = (row_inside[r][:, None] & col_inside[s])[None, :, :, None]
                values = values[:, :, :, r, s].reshape(*dy.shape[:3], -1) * inside
                np.add.at(target, (slice(None), rows[r][:, None], cols[s][None, :]), values)
    assert (abs(dx.array - expected) <= tolerance(c["r"] * c["s"] * outs, magnitude + 1)).all()
    dx.check()


@settings(deadline=None)
@given(m=st.integers(1, 40), n=st.integers(1, 80), k=st.integers(1, 80), transpose=st.booleans(),
       isa=st.sampled_from(ISAS), kind=st.sampled_from([NONE, RELU]))
def test_matrix_product(m, n, k, transpose, isa, kind):
    rng = np.random.default_rng(m * n * k)
    a, b, width = random(rng, m, k), random(rng, *((n, k) if transpose else (k, n))), kernels.panel_width(isa)
    y, panels = Guarded((m, n)), np.full(-(-n // width) * width * k, np.nan, np.float32)
    pack = dict(groups=1, outs=n, tap_rows=1, tap_cols=1, reds=k, panel_width=width, offset=0, group_stride=0,
                out_stride=k if transpose else 1, tap_row_stride=0, tap_col_stride=0, chunked=0, red_stride=1 if transpose else n)
    gemm = dict(images=1, rows=1, cols=m, **dense(k, 1, m), groups=1, channels=k, grid_rows=1, grid_cols=m, row_step=1,
                col_step=1, tap_rows=1, tap_cols=1, tap_row_start=0, tap_col_start=0, tap_row_step=1, tap_col_step=1,
                out_offset=0, **dense(n, 1, m, "out_"), outs=n, panel_width=width, pixel_block=32, panel_block=2,
                reduction_block=64, activation=kind, alpha=0.0, beta=0.0)
    run([("pack_panels", pack, [1, 2, None]), ("igemm", gemm, [0, 2, None, None, 3])], [a, b, panels, y.array], isa, outputs=[3])
    right = (b.T if transpose else b).astype(np.float64)
    expected = a.astype(np.float64) @ right
    expected = np.maximum(expected, 0) if kind == RELU else expected
    assert (abs(y.array - expected) <= tolerance(k, abs(a.astype(np.float64)) @ abs(right))).all()
    y.check()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("reds", [1, 15, 16, 17, 32, 50])
def test_tiles_of_every_size(isa, reds):
    """Every number of rows and of vectors, all lanes in use or not; y is the memory of the residual; summed at once or in blocks."""
    rng = np.random.default_rng(reds)
    widths = {kernels.vector_length(isa), kernels.panel_width(isa)} | ({8, 24} if kernels.vector_length(isa) == 16 else set())
    for rows in range(1, 2 * kernels.tile_rows(isa) + 1):
        for width in sorted(widths):
            for outs, (kind, low, high), block in [(width, (RELU, 0, np.inf), 64), (width, (CLIP, -0.5, 0.7), 16), (width - 1, (NONE, -np.inf, np.inf), 64)]:
                a, panels, residual = random(rng, rows, reds), random(rng, reds, width), random(rng, rows, outs)
                y = Guarded((rows, outs))
                y.array[...] = residual
                gemm = dict(images=1, rows=1, cols=rows, **dense(reds, 1, rows), groups=1, channels=reds, grid_rows=1, grid_cols=rows, row_step=1,
                            col_step=1, tap_rows=1, tap_cols=1, tap_row_start=0, tap_col_start=0, tap_row_step=1, tap_col_step=1,
                            out_offset=0, **dense(outs, 1, rows, "out_"), outs=outs, panel_width=width, pixel_block=rows, panel_block=1,
                            reduction_block=block, activation=kind, alpha=low, beta=high)
                run([("igemm", gemm, [0, 1, None, 2, 2])], [a, panels, y.array], isa, outputs=[2])
                right = panels[:, :outs].astype(np.float64)
                magnitude = abs(a.astype(np.float64)) @ abs(right) + abs(residual)
                expected = np.clip(a.astype(np.float64) @ right + residual, low, high)
                assert (abs(y.array - expected) <= tolerance(reds + 1, magnitude)).all(), (rows, width, outs, kind)
                y.check()


# ---- weight gradients ------------------------------------------------------------------------------------------------

@settings(deadline=None)
@given(convolutions())
def test_weight_gradient(c):
    rng = np.random.default_rng(c["seed"])
    channels, outs, groups, parts, taps = c["c"], c["k"], c["groups"], c["parts"], c["r"] * c["s"]
    x = random(rng, c["n"], c["h"], c["w"], groups * channels)
    dy = random(rng, c["n"], c["oh"], c["ow"], groups * outs)
    engines = [("weight_gradient", dict(
        out_block=c["pixel_block"], red_block=c["panel_block"] * kernels.panel_width(c["isa"]), pixel_block=c["pixel_block"]))]
    if lines_apply(c):
        engines.append(("weight_gradient_lines", dict(line_block=c["panel_block"])))
    results = []
    for engine, sizes in engines:
        partial, dw = Guarded((parts, groups * outs, taps, channels)), Guarded((groups * outs, taps, channels))
        gradient = dict(**forward_geometry(c, channels, outs), outs=outs, parts=parts, **sizes)
        run([(engine, gradient, [0, 1, 2]), ("sum_parts", dict(parts=parts, count=dw.array.size), [2, 3])],
            [x, dy, partial.array, dw.array], c["isa"], outputs=[2, 3])
        results += [partial, dw]

    seen, gradients = grouped(patches(x, c, c), groups), grouped(dy.astype(np.float64), groups)
    expected = np.einsum("nabgk,nabrsgc->gkrsc", gradients, seen).reshape(dw.array.shape)
    magnitude = np.einsum("nabgk,nabrsgc->gkrsc", abs(gradients), abs(seen)).reshape(dw.array.shape)
    for result in results:
        result.check()
    for dw in results[1::2]:
        assert (abs(dw.array - expected) <= tolerance(c["n"] * c["oh"] * c["ow"], magnitude)).all()


# ---- depthwise -------------------------------------------------------------------------------------------------------

def channel_block(c, channels):
    return min(channels, c["panel_block"] * kernels.vector_length(c["isa"])) if c["narrow"] else channels


@settings(deadline=None)
@given(convolutions(depthwise=True))
def test_depthwise(c):
    rng = np.random.default_rng(c["seed"])
    channels = c["c"]
    x, w = random(rng, c["n"], c["h"], c["w"], channels), random(rng, c["r"], c["s"], channels)
    bias, residual = random(rng, channels), random(rng, c["n"], c["oh"], c["ow"], channels)
    y = Guarded(residual.shape)
    members = dict(**forward_geometry(c, channels, channels), row_block=c["parts"], channel_block=channel_block(c, channels),
                   **epilogue(c))
    run([("depthwise", members, [0, 1, 2 if c["bias"] else None, 3 if c["residual"] else None, 4])],
        [x, w, bias, residual, y.array], c["isa"], outputs=[4])
    seen = patches(x, c, c)
    expected = np.einsum("nabrsc,rsc->nabc", seen, w.astype(np.float64))
    magnitude = np.einsum("nabrsc,rsc->nabc", abs(seen), abs(w.astype(np.float64))) + 2
    expected = expected + c["bias"] * bias.astype(np.float64) + c["residual"] * residual.astype(np.float64)
    if c["activation"] == RELU:
        expected = np.maximum(expected, 0)
    assert (abs(y.array - expected) <= tolerance(c["r"] * c["s"], magnitude)).all()
    y.check()


@settings(deadline=None)
@given(convolutions(depthwise=True))
def test_depthwise_weight_gradient(c):
    rng = np.random.default_rng(c["seed"])
    channels, parts, taps = c["c"], c["parts"], c["r"] * c["s"]
    x, dy = random(rng, c["n"], c["h"], c["w"], channels), random(rng, c["n"], c["oh"], c["ow"], channels)
    partial, dw = Guarded((parts, taps, channels)), Guarded((taps, channels))
    members = dict(**forward_geometry(c, channels, channels), parts=parts, channel_block=channel_block(c, channels))
    run([("depthwise_weight_gradient", members, [0, 1, 2]), ("sum_parts", dict(parts=parts, count=dw.array.size), [2, 3])],
        [x, dy, partial.array, dw.array], c["isa"], outputs=[2, 3])
    seen = patches(x, c, c)
    expected = np.einsum("nabc,nabrsc->rsc", dy.astype(np.float64), seen).reshape(dw.array.shape)
    magnitude = np.einsum("nabc,nabrsc->rsc", abs(dy.astype(np.float64)), abs(seen)).reshape(dw.array.shape)
    assert (abs(dw.array - expected) <= tolerance(c["n"] * c["oh"] * c["ow"], magnitude)).all()
    partial.check()
    dw.check()


# ---- the runner ------------------------------------------------------------------------------------------------------

def summing_program(count=100000, repeats=1):
    """sum_parts from base 1 to the arena and from there to base 2."""
    first = kernels.sum_parts_params(parts=2, count=count)
    second = kernels.sum_parts_params(parts=1, count=count)
    tasks = kernels.conv_sizes("sum_parts", first)[0]
    return kernels.Program([("sum_parts", first, [(1, 0), (0, 0)], tasks),
                            ("sum_parts", second, [(0, 0), (2, 0)], tasks)] * repeats,
                           [count * 4, count * 8, count * 4], 0, written={2})


def test_steps_run_in_order_through_the_arena():
    program = summing_program()
    rng = np.random.default_rng(1)
    for threads in (1, 2, 5):
        x, y = random(rng, 2, 100000), np.zeros(100000, np.float32)
        program.bind(1, x)
        program.bind(2, y)
        program.run(threads)
        np.testing.assert_array_equal(y, x[0] + x[1])


def test_profile_has_one_time_per_step():
    program = summing_program()
    program.bind(1, np.zeros((2, 100000), np.float32))
    program.bind(2, np.zeros(100000, np.float32))
    for threads in (1, 2):
        times = program.run_profiled(threads)
        assert len(times) == 2 and all(t > 0 for t in times)


def test_clones_share_arrays_but_not_the_arena():
    program = summing_program()
    x = np.ones((2, 100000), np.float32)
    program.bind(1, x)
    clone = program.clone()
    results = [np.zeros(100000, np.float32) for _ in range(2)]
    for instance, result in zip((program, clone), results):
        instance.bind(2, result)
    threads = [threading.Thread(target=lambda p=p: [p.run(2) for _ in range(50)]) for p in (program, clone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, 2)


def test_a_step_that_follows_runs_task_by_task_behind_the_one_before():
    """It finds what the same task wrote before, on any number of threads, also where a second one follows."""
    count = 100000
    params = kernels.sum_parts_params(parts=2, count=count), kernels.sum_parts_params(parts=1, count=count)
    tasks = kernels.conv_sizes("sum_parts", params[0])[0]
    steps = [("sum_parts", params[0], [(1, 0), (0, 0)], tasks), ("sum_parts", params[1], [(0, 0), (0, 4 * count)], tasks), ("sum_parts", params[1], [(0, 4 * count), (2, 0)], tasks)]
    program = kernels.Program(steps, [8 * count, 8 * count, 4 * count], written=[2], follows=[1, 2])
    parts, result = np.random.default_rng(0).normal(size=(2, count)).astype(np.float32), np.empty(count, np.float32)
    program.bind(1, parts)
    program.bind(2, result)
    for run in (lambda: program.run(1), lambda: program.run(3), program.clone().run, lambda: program.run_profiled(2)):
        result[...] = np.nan
        run()
        np.testing.assert_array_equal(result, parts[0] + parts[1])
    assert len(program.run_profiled(1)) == 3 and min(program.run_profiled(1)) > 0
    for number in (0, 3):
        with pytest.raises(ValueError, match="as many tasks as the one before; got step"):
            kernels.Program(steps, [8 * count, 8 * count, 4 * count], written=[2], follows=[number])
    with pytest.raises(ValueError, match="as many tasks as the one before; got step 1 of 2"):
        kernels.Program([steps[0], (*steps[1][:3], tasks + 1)], [8 * count, 8 * count, 4 * count], follows=[1])


def test_bind_refuses_what_does_not_fit():
    program = summing_program()
    with pytest.raises(RuntimeError, match="no array is bound to base 1"):
        program.run(1)
    with pytest.raises(ValueError, match="base 1 has 800000 bytes"):
        program.bind(1, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="items of 8"):
        program.bind(1, np.zeros(100000, np.float64))
    with pytest.raises(ValueError, match="C-contiguous"):
        program.bind(1, np.zeros((100000, 2), np.float32).T)
    with pytest.raises(ValueError, match="base must be"):
        program.bind(0, np.zeros(100000, np.float32))
    with pytest.raises(TypeError, match="takes an array"):
        program.bind(1, 3)
    frozen = np.zeros(100000, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        program.bind(2, frozen)


def test_program_refuses_steps_that_do_not_fit():
    params = kernels.sum_parts_params(parts=1, count=4)
    for steps, message in [
        ([("no_such", params, [], 1)], "unknown kernel"),
        ([("sum_parts", params[:8], [None, None], 1)], "params of sum_parts"),
        ([("sum_parts", params, [None], 1)], "has 2 buffers"),
        ([("sum_parts", params, [(1, 0), (0, 0)], 1)], "lie in a base"),
        ([("sum_parts", params, [(0, 2), (0, 0)], 1)], "multiple of 4"),
        ([("sum_parts", params, [(0, 0), (0, 0)], 0)], "at least one task"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.Program(steps, [16])


def test_params_check_their_members():
    with pytest.raises(TypeError, match="no member parst"):
        kernels.sum_parts_params(parts=1, count=1, parst=2)
    with pytest.raises(ValueError, match="count"):
        kernels.sum_parts_params(parts=1)


def test_one_program_refuses_a_second_thread():
    """While one thread runs the program, others get an error, not wrong results."""
    program = summing_program(repeats=2000)
    program.bind(1, np.zeros((2, 100000), np.float32))
    program.bind(2, np.zeros(100000, np.float32))
    started = threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), program.run(1)))
    thread.start()
    started.wait()
    with pytest.raises(RuntimeError, match="another thread is running this program"):
        while thread.is_alive():
            program.bind(1, np.zeros((2, 100000), np.float32))
    thread.join()
    program.run(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_programs_run_in_a_forked_child():
    program = summing_program()
    y = np.zeros(100000, np.float32)
    program.bind(1, np.ones((2, 100000), np.float32))
    program.bind(2, y)
    program.run(2)
    y[...] = 0
    child = os.fork()
    if child == 0:
        program.run(2)
        os._exit(0 if (y == 2).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_instruction_sets():
    assert kernels.active_isa() in ISAS
    active = kernels.active_isa()
    for isa in ISAS:
        kernels.set_isa(isa)
        assert kernels.active_isa() == isa and kernels.panel_width() % kernels.vector_length() == 0
    kernels.set_isa(active)
    with pytest.raises(ValueError, match="instruction set must be one that this processor has"):
        kernels.set_isa("altivec")


# ---- spread_lines ------------------------------------------------------------------------------------------------------

@settings(deadline=None)
@given(st.data())
def test_spread_lines(data):
    """The input gradient is the sum, over pixels of dy and taps, of what each adds to dx; anything that falls outside of dx is lost."""
    draw = data.draw
    n, channels, outs = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 5, 6, 16, 20])), draw(st.sampled_from([1, 5, 16, 33]))
    taps = [draw(st.integers(1, 5)) for _ in range(2)]
    pads = [(draw(st.integers(0, 6)), draw(st.integers(0, 6))) for _ in range(2)]
    size = [draw(st.integers(max(1, t - sum(p)), 12)) for t, p in zip(taps, pads)]
    grid = [s + sum(p) - t + 1 for s, p, t in zip(size, pads, taps)]
    isa = draw(st.sampled_from(ISAS))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    dy, w = random(rng, n, *grid, outs), random(rng, outs, *taps, channels)
    run_length = taps[1] * channels
    width = draw(st.sampled_from([kernels.vector_length(isa), kernels.panel_width(isa)] + [8] * (kernels.vector_length(isa) == 16 and run_length <= 8)
                                 + [24] * (kernels.vector_length(isa) == 16)))
    pack = dict(groups=1, outs=run_length, tap_rows=taps[0], tap_cols=1, reds=outs, panel_width=width, offset=0, group_stride=0,
                out_stride=1, tap_row_stride=run_length, tap_col_stride=0, chunked=0, red_stride=taps[0] * run_length)
    members = dict(images=n, rows=size[0], cols=size[1], channels=channels, grid_rows=grid[0], grid_cols=grid[1], outs=outs,
                   tap_rows=taps[0], tap_cols=taps[1], pad_top=pads[0][0], pad_left=pads[1][0], panel_width=width,
                   line_block=draw(st.integers(1, 40)))
    panels, dx = Guarded((-(-run_length // width) * taps[0] * outs * width,)), Guarded((n, *size, channels))
    run([("pack_panels", pack, [1, 2, None]), ("spread_lines", members, [0, 2, 3])], [dy, w, panels.array, dx.array], isa, outputs=[2, 3])

    expected, magnitude = (np.zeros((n, *(s + sum(p) for s, p in zip(size, pads)), channels)) for _ in range(2))
    for r in range(taps[0]):
        for s in range(taps[1]):
            window = np.s_[:, r:r + grid[0], s:s + grid[1]]
            expected[window] += dy.astype(np.float64) @ w[:, r, s].astype(np.float64)
            magnitude[window] += np.abs(dy).astype(np.float64) @ np.abs(w[:, r, s])
    inside = np.s_[:, pads[0][0]:pads[0][0] + size[0], pads[1][0]:pads[1][0] + size[1]]
    assert (np.abs(dx.array - expected[inside]) <= tolerance(taps[0] * taps[1] * outs, magnitude[inside])).all()
    panels.check()
    dx.check()
