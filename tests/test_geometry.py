"""Sizes: output shapes, phases of the input gradient, windows and tables, all against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import pycl_cnn as pc
from pycl_cnn.geometry import AxisRule, ConvGeometry, PoolAxis, pool_out, resolve_padding

AXIS = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))


def conv_axis(n, k, s, before, after, d):
    assume(n + before + after >= d * (k - 1) + 1)
    return ConvGeometry.forward("conv", (1, n, 1, 1), (1, k, 1, 1), (s, 1), ((before, after), (0, 0)), (d, 1))


@given(axis=AXIS)
def test_output_size_counts_the_positions_of_the_kernel(axis):
    n, k, s, before, after, d = axis
    positions = [p for p in range(0, n + before + after, s) if p + d * (k - 1) < n + before + after]
    assert conv_axis(*axis).out[0] == len(positions)


@given(axis=AXIS)
def test_phases_of_the_input_gradient_reach_every_tap_once(axis):
    """Over all phases the pairs (input pixel, kernel element) with their output are exactly those of the forward pass."""
    n, k, s, before, _, d = axis
    g = conv_axis(*axis)
    forward = {(a * s + r * d - before, r, a) for a in range(g.out[0]) for r in range(k) if 0 <= a * s + r * d - before < n}
    backward, covered = set(), []
    for rows in {phase.rows for phase in g.backward_input_phases}:
        for a in range(rows.grid):
            pixel = a * rows.out_step + rows.out_offset
            covered.append(pixel)
            for t in range(rows.taps):
                source = a * rows.step + rows.start + t * rows.tap_step
                if 0 <= source < g.out[0]:
                    backward.add((pixel, rows.index + t * rows.index_step, source))
    assert backward == forward
    assert sorted(covered) == list(range(n))


@given(axis=AXIS, extra=st.integers(0, 3))
def test_a_transposed_convolution_is_the_convolution_seen_from_its_output(axis, extra):
    n, k, s, before, after, d = axis
    assume(extra < max(s, d) and (n - 1) * s - before - after + d * (k - 1) + extra + 1 >= 1)
    g = ConvGeometry.transposed("t", (2, n, 1, 6), (6, k, 1, 2), (s, 1), ((before, after), (0, 0)), (extra, 0), (d, 1), 2)
    assert g.size == ((n - 1) * s - before - after + d * (k - 1) + extra + 1, 1)
    assert (g.out, g.channels, g.out_channels) == ((n, 1), 4, 6)
    if s > extra and g.size[0] + before + after >= d * (k - 1) + 1:
        assert ConvGeometry.forward("c", g.input_shape, g.weight_shape, (s, 1), ((before, after), (0, 0)), (d, 1), 2).out == (n, 1)


def test_every_form_of_padding():
    sizes = (7, 8), (3, 4), (2, 3), (1, 1)
    forms = {
        1: ((1, 1), (1, 1)),
        (1, 2): ((1, 1), (2, 2)),
        ((0, 1), (2, 3)): ((0, 1), (2, 3)),
        "valid": ((0, 0), (0, 0)),
        "same": ((1, 1), (1, 1)),
    }
    for form, pairs in forms.items():
        assert resolve_padding("conv", form, *sizes) == pairs
    assert resolve_padding("conv", "same", (5,), (4,), (1,), (1,)) == ((1, 2),)  # the extra element comes last
    assert resolve_padding("conv", np.int64(2), (5,), (4,), (1,), (1,)) == ((2, 2),)


@given(axis=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)), pad=st.integers(0, 2), ceil_mode=st.booleans())
def test_windows_of_a_pooling_begin_inside_and_leave_nothing_out(axis, pad, ceil_mode):
    n, k, s, d = axis
    try:
        out = pool_out("pool", n, k, s, (pad, pad), d, ceil_mode)
    except pc.ShapeError:
        return
    windows = PoolAxis(n, out, k, s, pad, d).windows
    assert len(windows) == out and all(0 <= first < end <= n for first, end in windows)
    last = (out - 1) * s - pad
    assert last < n and (ceil_mode or last + d * (k - 1) < n + pad)
    assert last + s + d * (k - 1) >= n + pad or (ceil_mode and last + s >= n)  # the next one would not fit


RULES = st.one_of(
    st.builds(AxisRule, st.just("adaptive"), st.integers(1, 9), st.integers(1, 12)),
    st.builds(AxisRule, st.sampled_from(["nearest", "linear", "linear_corners"]), st.integers(1, 9), st.integers(1, 12)),
    st.builds(AxisRule, st.sampled_from(["average", "sum"]), st.integers(3, 9), st.just(2), st.integers(1, 3), st.integers(1, 2)),
)


def matrix(rule):
    starts, index, weight = rule.table
    dense = np.zeros(rule.shape)
    for i in range(rule.shape[0]):
        np.add.at(dense[i], list(index[starts[i] : starts[i + 1]]), weight[starts[i] : starts[i + 1]])
    return dense


@given(rule=RULES)
def test_a_rule_and_its_transpose_are_one_matrix(rule):
    np.testing.assert_array_equal(matrix(rule.transpose()), matrix(rule).T)
    assert rule.transpose().transpose() == rule
    starts, index, _ = rule.table
    assert all(list(index[a:b]) == sorted(set(index[a:b])) for a, b in itertools.pairwise(starts))
    if rule.kind != "sum":
        np.testing.assert_allclose(matrix(rule).sum(1), 1)


def test_multiply_adds_of_known_layers():
    """VGG-16's second layer: 64 x 64 x 9 products for each of 224 x 224 pixels."""
    g = ConvGeometry.forward("conv", (1, 224, 224, 64), (64, 3, 3, 64), padding=1)
    assert (g.multiply_adds, g.reduction) == (1_849_688_064, 576)
    depthwise = ConvGeometry.forward("conv", (1, 112, 112, 32), (32, 3, 3, 1), padding=1, groups=32)
    assert depthwise.is_depthwise and depthwise.multiply_adds == 112 * 112 * 32 * 9
