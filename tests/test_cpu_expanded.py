"""A 1x1 convolution and the depthwise one behind it as one step of the CPU backend: the kernel, and when the pair is made one."""

import numpy as np
import pytest
from helpers.tolerance import assert_within, gamma, sum_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cpu_kernels import ISAS, Guarded, convolutions, forward_geometry, panel_width, patches, random, run

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.backends import backend
from pycl_cnn.backends.cpu import _kernels as kernels
from pycl_cnn.backends.cpu.expanded import ExpandedDepthwise, pays
from pycl_cnn.errors import UnsupportedError
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.graph import Graph
from pycl_cnn.ops.base import floats
from pycl_cnn.ops.conv import Conv, Epilogue
from pycl_cnn.ops.pointwise import Activation, Unary
from pycl_cnn.passes import optimised

RELU, LEAKY = 1, 2  # a clip, which the tiles of the GEMM end with, and one that comes behind them


@settings(deadline=None, max_examples=60)
@given(convolutions(depthwise=True), st.sampled_from([1, 2, 7, 16, 21, 40]), st.sampled_from([RELU, LEAKY]), st.integers(1, 5), st.integers(1, 4))
def test_kernel(c, reds, activation, row_block, band_rows):
    """Any taps, strides, dilations and paddings, in tasks and bands of any number of rows and channels."""
    rng = np.random.default_rng(c["seed"])
    channels, width = c["c"], panel_width(c, c["c"])
    x, w = random(rng, c["n"], c["h"], c["w"], reds), random(rng, channels, reds)
    expand_bias, taps, bias = random(rng, channels), random(rng, c["r"], c["s"], channels), random(rng, channels)
    residual = random(rng, c["n"], c["oh"], c["ow"], channels)
    panels, y = Guarded((-(-channels // width) * reds * width,)), Guarded(residual.shape)
    pack = dict(groups=1, outs=channels, tap_rows=1, tap_cols=1, reds=reds, panel_width=width, offset=0, group_stride=0, out_stride=reds,
                tap_row_stride=0, tap_col_stride=0, chunked=0, red_stride=1)
    strides = {f"{of}_stride": size for of, size in zip(("image", "row", "col"), (c["h"] * c["w"] * reds, c["w"] * reds, reds), strict=True)}
    members = forward_geometry(c, channels, channels) | strides | dict(
        reds=reds, panel_width=width, row_block=row_block, band_rows=min(band_rows, row_block), channel_block=min(channels, c["panel_block"] * width),
        expand_activation=activation, expand_alpha=0.25, expand_beta=0.0, activation=c["activation"], alpha=0.0, beta=0.0)
    run([("pack_panels", pack, [1, 2, None]),
         ("expanded_depthwise", members, [0, 2, 3 if c["bias"] else None, 4, 5 if c["bias"] else None, 6 if c["residual"] else None, 7])],
        [x, w, panels.array, expand_bias, taps, bias, residual, y.array], c["isa"], outputs=[7])

    x, w, taps = (array.astype(np.float64) for array in (x, w, taps))
    e = x @ w.T + c["bias"] * expand_bias.astype(np.float64)
    e = np.where(e > 0, e, e * (0 if activation == RELU else 0.25))
    e_magnitude = np.abs(x) @ np.abs(w).T + c["bias"] * np.abs(expand_bias)
    expected = np.einsum("nabrsc,rsc->nabc", patches(e, c, c), taps) + c["bias"] * bias.astype(np.float64) + c["residual"] * residual
    magnitude = np.einsum("nabrsc,rsc->nabc", patches(e_magnitude, c, c), np.abs(taps)) + 2
    if c["activation"]:
        expected = np.maximum(expected, 0)
    # The errors of the first sums go through the second ones: they add, as for a sum as long as both.
    assert_within(y.array, expected, sum_bound(reds + c["r"] * c["s"] + 8, magnitude), str(c))
    y.check()
    panels.check()


def pair(size=(14, 13), channels=20, wide=70, kernel=(3, 3), batch=2, first=None, second=None, **keywords):
    """The operations of a pair."""
    g = ConvGeometry.forward("conv", (batch, *size, channels), (wide, 1, 1, channels))
    keywords = {"padding": 1} | keywords
    h = ConvGeometry.forward("conv", g.output_shape, (wide, *kernel, 1), groups=wide, **keywords)
    return Conv(g, first or Epilogue(True, False, Activation("clip", 0.0, 6.0))), Conv(h, second or Epilogue(True, False, Activation("relu")))


def program_of(expand, depthwise, force=None, also_read=False, precision="fast"):
    """A program of the pair and arrays to run it on: x, both weights, then bias and residual of either."""
    graph = Graph()
    g, h = expand.geometry, depthwise.geometry
    shapes = [g.input_shape, g.weight_shape, h.weight_shape]
    shapes += [(g.out_channels,)] * expand.epilogue.bias + [g.output_shape] * expand.epilogue.residual
    shapes += [(h.out_channels,)] * depthwise.epilogue.bias + [h.output_shape] * depthwise.epilogue.residual
    x, w, taps, *extra = (graph.input(f"x{i}", shape) for i, shape in enumerate(shapes))
    operands = expand.epilogue.operands
    between = graph.apply(expand, x, w, *extra[:operands])
    graph.outputs = [graph.apply(depthwise, between, taps, *extra[operands:])]
    if also_read:
        graph.outputs.append(graph.apply(Unary(Activation("tanh")), between))
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return backend("cpu").compile(optimised(graph), pc.device("cpu"), {}, force, precision), arrays


CASES = {
    "as in MobileNetV2": {},
    "stride 2": {"stride": 2},
    "5x5, stride 2, hardswish": {"kernel": (5, 5), "padding": 2, "stride": 2, "first": Epilogue(True, False, Activation("hardswish"))},
    "dilated, silu": {"dilation": 2, "padding": 2, "second": Epilogue(False, False, Activation("silu"))},
    "no padding, residual": {"padding": 0, "second": Epilogue(True, True, Activation("relu"))},
    "padded on one side": {"padding": ((0, 2), (1, 3)), "stride": (1, 3), "kernel": (2, 3)},
    "nothing fused": {"first": Epilogue(), "second": Epilogue()},
    "one row, many channels": {"size": (1, 9), "wide": 530, "channels": 130},
    "tall bands": {"size": (90, 7), "wide": 33, "batch": 1},
    "more padding than image": {"size": (3, 2), "padding": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_forced_it_is_what_two_steps_are(case):
    expand, depthwise = pair(**CASES[case])
    program, arrays = program_of(expand, depthwise, {"ExpandedDepthwise": "bands"})
    apart, _ = program_of(expand, depthwise, {"ExpandedDepthwise": "none"})
    assert [step.operation for step in program.steps if "Pack" not in step.operation] == ["ExpandedDepthwise"]
    assert sorted(step.operation for step in apart.steps if "Pack" not in step.operation) == ["Conv", "Conv"]
    y = program.run(*arrays)
    op = ExpandedDepthwise(expand, depthwise)
    (expected,) = op.reference(*arrays)
    absolute = [np.abs(array) for array in arrays]
    bare = [Conv(part.geometry, Epilogue(part.epilogue.bias, part.epilogue.residual)) for part in (expand, depthwise)]
    (magnitude,) = ExpandedDepthwise(*bare).reference(*absolute)
    length = expand.geometry.channels + depthwise.geometry.reduction
    # Activations of slope up to 1.1, each with errors of its own of a few units in the last place.
    bound = 1.3 * sum_bound(length + 64, magnitude + 1)
    assert_within(y, expected, bound, case)
    assert_within(apart.run(*arrays), expected, bound, case)
    before = pc.get_num_threads()
    try:
        for threads in (1, 2, 3):
            pc.set_num_threads(threads)
            assert np.array_equal(program.run(*arrays), y)
    finally:
        pc.set_num_threads(before)


def test_it_says_what_it_does_and_counts_both():
    expand, depthwise = pair(size=(56, 56), channels=24, wide=144, batch=1)
    program, _ = program_of(expand, depthwise)
    (step,) = (step for step in program.steps if step.operation == "ExpandedDepthwise")
    assert step.algorithm == "bands" and "stays in cache" in program.explain()
    assert step.flops == sum(op.flops((), (floats(*op.geometry.output_shape),)) for op in (expand, depthwise))
    apart, _ = program_of(expand, depthwise, {"ExpandedDepthwise": "none"})
    assert program.memory.arena < 56 * 56 * 144 * 4 <= apart.memory.arena  # what is between takes no place


def operations(*arguments, **keywords):
    program, _ = program_of(*arguments, **keywords)
    return [step.operation for step in program.steps]


def test_where_the_pair_stays_two_steps():
    expand, depthwise = pair()
    assert "ExpandedDepthwise" in operations(expand, depthwise)
    assert "ExpandedDepthwise" in operations(expand, depthwise, precision="exact")
    assert "ExpandedDepthwise" not in operations(expand, depthwise, also_read=True)
    assert "ExpandedDepthwise" not in operations(*pair(first=Epilogue(True, True)))
    assert "ExpandedDepthwise" not in operations(expand, depthwise, {"ExpandedDepthwise": "none"})
    strided = ConvGeometry.forward("conv", (2, 28, 26, 20), (70, 1, 1, 20), stride=2)
    assert "ExpandedDepthwise" not in operations(Conv(strided, expand.epilogue), depthwise, {"ExpandedDepthwise": "bands"})
    with pytest.raises(UnsupportedError, match=r"no algorithm 'fast' on cpu; there are \['bands'\]"):
        operations(expand, depthwise, {"ExpandedDepthwise": "fast"})


def test_a_residual_that_is_the_expansion_is_no_pair():
    """The depthwise convolution of something else, to which the 1x1 convolution is added."""
    expand, depthwise = pair(second=Epilogue(False, True))
    graph = Graph()
    x, w, taps, other = (graph.input(f"x{i}", s) for i, s in enumerate((expand.geometry.input_shape, expand.geometry.weight_shape, depthwise.geometry.weight_shape, depthwise.geometry.input_shape)))
    bias = graph.input("bias", (expand.geometry.out_channels,))
    graph.outputs = [graph.apply(depthwise, other, taps, graph.apply(expand, x, w, bias))]
    program = backend("cpu").compile(optimised(graph), pc.device("cpu"), {}, {"ExpandedDepthwise": "bands"})
    assert "ExpandedDepthwise" not in [step.operation for step in program.steps]


def test_the_cost_model_refuses_what_would_be_slower():
    assert all(pays(ExpandedDepthwise(*pair((n, n), c, wide, batch=1, stride=s))) for n, c, wide, s in ((112, 16, 96, 2), (56, 24, 144, 1), (28, 32, 192, 1), (14, 96, 576, 2), (7, 160, 960, 1)))
    # A wide x is read again for every block of channels; pixels of 4 KiB share one set of a first-level cache.
    assert not pays(ExpandedDepthwise(*pair((112, 112), 512, 1024)))
    assert not pays(ExpandedDepthwise(*pair((7, 7), 1024, 1024)))


def test_in_a_network_and_in_its_training():
    """Inference makes the pair one step; training, whose gradients read what is between, does not."""
    def block():
        return nn.Sequential(nn.Conv2d(8, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6(), nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48), nn.ReLU6())

    model = block().eval()
    x = np.random.default_rng(0).standard_normal((2, 8, 12, 12)).astype(np.float32)
    program = pc.compile(model, x.shape, device="cpu")
    assert "ExpandedDepthwise" in [step.operation for step in program.steps]
    exact = pc.compile(model, x.shape, device="reference").run(x)
    assert_within(program.run(x), exact, 4 * gamma(8 + 9 + 16) * (1 + np.abs(exact).max()), "block")
    step = pc.compile(block().train(), x.shape, device="cpu", train=True, loss=nn.MSELoss(), optimizer=pc.optim.SGD(lr=0.1), target=exact)
    assert "ExpandedDepthwise" not in [s.operation for s in step.steps]


@pytest.mark.parametrize("isa", ISAS)
def test_blocks_are_what_the_kernel_takes(isa):
    """Channels of a task are whole panels; rows of a band are no more than those of a task; no task is without work."""
    for images, rows, grid_rows, row_step, twice, channels in ((1, 112, 56, 2, 1, 96), (1, 56, 56, 1, 2, 144), (1, 1, 1, 1, 2, 5), (3, 9, 3, 3, 0, 700), (1, 300, 300, 1, 2, 17)):
        b = kernels.expanded_depthwise_blocks(images, rows, grid_rows, row_step, twice, channels, isa)
        assert b["channel_block"] == channels or b["channel_block"] % b["panel_width"] == 0
        assert 1 <= b["band_rows"] <= b["row_block"] and b["channel_block"] <= channels
