"""Winograd's method beside its kernels: which tile is chosen where, and what the backends share about it."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.tuning import CPU, GPU

import pycl_cnn as pc
from pycl_cnn.backends import backend
from pycl_cnn.backends.cpu.winograd import OutputAxis
from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.backends.opencl.winograd import LEAST_GAIN, LINE, WINOGRAD_TILE, cost, direct_cost, tile_problem, tile_stride
from pycl_cnn.backends.opencl.winograd_gradient import GRADIENT_TILE
from pycl_cnn.backends.opencl.winograd_gradient import cost as gradient_cost
from pycl_cnn.backends.winograd import TILES, filter_view, frequencies, padding_before, tiles_of
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv, ConvBackwardInput


def chosen(family, limits, n, size, c, learned=1):
    more = {} if family is GRADIENT_TILE else {"learned": learned}
    problem = tile_problem(family, (n, size, size, c), (n, size, size, c), **more)
    return family.default(problem, limits)["TILE"], problem


def test_tiles_are_small_where_reading_filters_costs_most_and_large_where_images_are():
    """Layers of ResNet-18 and VGG-16; each was measured with every tile."""
    assert chosen(WINOGRAD_TILE, CPU, 1, 7, 512)[0] == 2
    assert chosen(WINOGRAD_TILE, CPU, 1, 14, 256)[0] == 4
    assert chosen(WINOGRAD_TILE, CPU, 1, 54, 64)[0] == 6
    assert {chosen(WINOGRAD_TILE, CPU, n, size, c)[0] for n, size, c in ((1, 56, 64), (1, 28, 128), (8, 14, 256), (8, 7, 512), (1, 224, 64))} == {7}


def test_tiles_are_smaller_where_each_run_transforms_the_filters():
    assert chosen(WINOGRAD_TILE, CPU, 8, 7, 512, learned=2)[0] == 4
    assert chosen(WINOGRAD_TILE, CPU, 8, 56, 64, learned=2)[0] == 7


def test_weight_gradients_have_the_tile_that_was_fastest():
    """Layers of ResNet-18 and others; each was measured with every tile. The last has fewer tiles than sums are worth."""
    layers = {(8, 56, 64): 7, (8, 14, 256): 7, (32, 7, 512): 7, (8, 54, 64): 6, (16, 16, 256): 4}
    assert {layer: chosen(GRADIENT_TILE, CPU, *layer)[0] for layer in layers} == layers
    _, problem = chosen(GRADIENT_TILE, CPU, 8, 7, 512)
    assert all(gradient_cost(problem, tile, CPU) > LEAST_GAIN * direct_cost(problem) for tile in TILES)


def test_a_core_keeps_tiles_to_itself_where_they_are_many_and_filters_are_few(device):
    """Layers of ResNet-18: large images in one kernel, small ones with all cores at each product."""
    if device.backend != "opencl" or device_context(device).device.compute_units > 4:
        pytest.skip("for OpenCL devices of few cores: each has to have some tiles")

    def algorithm(size, c):
        layer = pc.nn.Conv2d(c, c, 3, padding=1, bias=False)
        return [node.algorithm.name for node in pc.compile(layer, (1, c, size, size), device=device).plan.graph.nodes() if isinstance(node.op, Conv)]

    assert [algorithm(112, 64), algorithm(14, 256)] == [["winograd_fused"], ["winograd"]]
    wide = device_context(device).capabilities.vector_width == 16
    assert algorithm(7, 512) == ["winograd_few" if wide else "winograd"]
    assert algorithm(2, 512) != ["winograd_few"]  # most of the tile is not there


def test_scratch_of_all_work_items_is_one_piece_of_memory_and_its_size_changes_no_bit(device):
    if device.backend != "opencl" or device_context(device).device.compute_units > 4:
        pytest.skip("for OpenCL devices of few cores: each has to have some tiles")
    layer = pc.nn.Conv2d(32, 32, 3, padding=1, bias=False)
    x = np.random.default_rng(1).standard_normal((1, 32, 40, 40)).astype(np.float32)
    wide, narrow = (pc.compile(layer, x.shape, device=where, algorithms={"Conv": "winograd_fused"}) for where in (device, replace(device, largest=400_000)))
    assert max(narrow.plan.arenas) <= 400_000 < max(wide.plan.arenas)
    np.testing.assert_array_equal(wide.run(x), narrow.run(x))


@pytest.mark.parametrize("images, size, channels, outs, padding", [(1, (7, 7), 64, 48, 1), (1, (3, 4), 32, 5, 1), (2, (4, 4), 16, 33, 1), (3, (6, 5), 16, 16, 0)])
def test_few_tiles_take_filters_that_are_given_once(device, images, size, channels, outs, padding):
    """Forward with a batch norm folded in, and a transposed convolution; other weights are refused by name."""
    if device.backend != "opencl":
        pytest.skip("the CPU's: test_algorithms.py")
    x = np.random.default_rng(channels).standard_normal((images, channels, *size)).astype(np.float32)
    layers = pc.nn.Sequential(pc.nn.Conv2d(channels, outs, 3, padding=padding), pc.nn.BatchNorm2d(outs), pc.nn.ReLU())
    turned = pc.nn.Sequential(pc.nn.ConvTranspose2d(channels, outs, 3, padding=2 - padding), pc.nn.ReLU())
    for model, kind in ((layers.eval(), "Conv"), (turned.eval(), "ConvBackwardInput")):
        program = pc.compile(model, x.shape, device=device, algorithms={kind: "winograd_few"})
        expected = pc.compile(model, x.shape, device="reference").run(x)
        got = program.run(x)
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
        np.testing.assert_array_equal(got, program.run(x))
    graph, g = Graph(), ConvGeometry.forward("conv", (1, 7, 7, 16), (16, 3, 3, 16), padding=1)
    graph.outputs = [graph.apply(Conv(g), graph.input("x", g.input_shape), graph.input("weight", g.weight_shape))]
    with pytest.raises(pc.UnsupportedError, match="algorithm 'winograd_few' does not take"):
        backend("opencl").compile(graph, device, {}, {"Conv": "winograd_few"})


def first_layer(channels, outs, size, device, **keywords):
    """A 7x7 convolution with stride 2, and with a bias and a rectifier: model, input, program."""
    model = pc.nn.Sequential(pc.nn.Conv2d(channels, outs, 7, stride=2, **keywords), pc.nn.ReLU()).eval()
    x = np.random.default_rng(channels).standard_normal((2, channels, *size)).astype(np.float32)
    return model, x, pc.compile(model, x.shape, device=device, algorithms={"Conv": "winograd_strided"})


@pytest.mark.parametrize("channels, outs, size, padding", [(3, 37, (37, 46), 3), (2, 16, (40, 41), 0), (4, 67, (30, 19), 5), (3, 5, (7, 8), 0), (3, 32, (66, 66), 0)])
def test_first_layers_by_phases(device, channels, outs, size, padding):
    """Images that end anywhere in a tile; twice the same bits."""
    if device.backend != "opencl":
        pytest.skip("the CPU's phases: test_algorithms.py")
    model, x, program = first_layer(channels, outs, size, device, padding=padding)
    expected = pc.compile(model, x.shape, device="reference").run(x)
    got = program.run(x)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(got, program.run(x))


def test_phases_are_for_large_first_layers_whose_weights_are_given_once(device):
    if device.backend != "opencl" or device_context(device).device.is_gpu or device_context(device).device.compute_units > 4:
        pytest.skip("for OpenCL CPUs of few cores: each has to have some tiles")

    def algorithm(channels, size, **keywords):
        layer = pc.nn.Conv2d(channels, 64, 7, stride=2, padding=3)
        program = pc.compile(layer, (1, channels, size, size), device=device, **keywords)
        return [node.algorithm.name for node in program.plan.graph.nodes() if isinstance(node.op, Conv)]

    assert algorithm(3, 224) == ["winograd_strided"]
    assert algorithm(3, 224, precision="exact") == algorithm(3, 16) == ["igemm_rows"]
    assert algorithm(5, 64) == ["igemm_rows"]
    graph, g = Graph(), ConvGeometry.forward("conv", (1, 224, 224, 3), (64, 7, 7, 3), stride=2, padding=3)
    graph.outputs = [graph.apply(Conv(g), graph.input("x", g.input_shape), graph.input("weight", g.weight_shape))]
    assert {step.algorithm for step in backend("opencl").compile(graph, device, {}).steps if step.operation == "Conv"} == {"igemm_rows"}


def test_where_the_filters_alone_take_longer_no_tile_pays():
    _, problem = chosen(WINOGRAD_TILE, CPU, 1, 4, 512)
    assert all(cost(problem, tile, CPU) > LEAST_GAIN * direct_cost(problem) for tile in TILES)


@pytest.mark.parametrize("family", [WINOGRAD_TILE, GRADIENT_TILE])
def test_gpus_have_the_tile_that_was_measured_there(family):
    assert {chosen(family, GPU, n, size, c)[0] for n, size, c in ((1, 7, 512), (32, 7, 512), (1, 56, 64), (32, 112, 64))} == {4}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("channels", [1, 21, 64, 512])
def test_tiles_lie_an_odd_number_of_cache_lines_apart(tile, channels):
    stride = tile_stride(tile, channels)
    assert frequencies(tile) * channels <= stride < frequencies(tile) * channels + 2 * LINE
    assert stride % LINE == 0 and stride // LINE % 2 == 1


@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
def test_an_input_gradient_is_a_convolution_with_the_filters_turned_around(padding):
    g = ConvGeometry.forward("t", (2, 6, 5, 3), (4, 3, 3, 3), 1, padding, 1, 1)
    random = np.random.default_rng(0)
    weight, dy = random.standard_normal(g.weight_shape), random.standard_normal(g.output_shape)
    view = filter_view(ConvBackwardInput(g))
    top, left = padding_before(ConvBackwardInput(g))
    element = weight.itemsize
    strides = (view.out_stride, view.tap_row_stride, view.tap_column_stride, view.red_stride)
    turned = np.lib.stride_tricks.as_strided(weight.reshape(-1)[view.offset :], (3, 3, 3, 4), [element * s for s in strides])
    as_forward = ConvGeometry.forward("t", g.output_shape, (3, 3, 3, 4), 1, ((top, top), (left, left)), 1, 1)
    (expected,) = ConvBackwardInput(g).reference(dy, weight)
    (result,) = Conv(as_forward).reference(dy, turned)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_tiles_cover_every_image():
    assert [tiles_of((2, 7, 9, 5), tile) for tile in TILES] == [2 * 4 * 5, 2 * 2 * 3, 2 * 2 * 2, 2 * 1 * 2]


def test_layers_of_stride_2_run_by_phases_where_filters_cost_less_than_is_saved():
    """The strided layers of ResNet-18; the last has 49 pixels for filters of 4.5 MiB."""
    layers = {(3, 64, 7, 224): "winograd_strided_6x6", (64, 128, 3, 56): "winograd_strided", (128, 256, 3, 28): "winograd_strided_2x2", (256, 512, 3, 14): "igemm"}
    for (channels, outs, kernel, size), expected in layers.items():
        program = pc.compile(pc.nn.Conv2d(channels, outs, kernel, stride=2, padding=kernel // 2), (1, channels, size, size), device="cpu")
        assert [node.algorithm.name for node in program.plan.graph.nodes() if isinstance(node.op, Conv)] == [expected], (channels, outs)
        assert "stride 2" in program.explain() or expected == "igemm"


@pytest.mark.parametrize("channels, size, expected", [(64, 56, "winograd_7x7"), (128, 28, "winograd_7x7"), (64, 54, "winograd_6x6"), (64, 16, "winograd")])
def test_tiles_fit_the_image(channels, size, expected):
    program = pc.compile(pc.nn.Conv2d(channels, channels, 3, padding=1), (1, channels, size, size), device="cpu")
    assert [node.algorithm.name for node in program.plan.graph.nodes() if isinstance(node.op, Conv)] == [expected]
    assert "of the multiplications" in program.explain()


@pytest.mark.parametrize("rejected", [{"groups": 2}, {"stride": (2, 1)}, {"dilation": 2}, {"kernel_size": (3, 4)}, {"kernel_size": 9}], ids=str)
def test_forms_that_there_are_no_transforms_for_are_refused_by_name(rejected):
    layer = pc.nn.Conv2d(16, 16, **({"kernel_size": 3, "stride": 2} | rejected))
    with pytest.raises(pc.UnsupportedError, match="algorithm 'winograd_strided' does not take"):
        pc.compile(layer, (1, 16, 24, 24), device="cpu", algorithms={"Conv": "winograd_strided"})


@pytest.mark.parametrize("kernel, padding, size", [(3, 1, 56), (3, 0, 9), (3, 2, 8), (4, 1, 10), (5, 2, 12), (7, 3, 15), (8, 2, 13)])
def test_the_phases_of_an_input_gradient_make_every_element_once(kernel, padding, size):
    axis = OutputAxis.of(kernel, padding, size)
    random = np.random.default_rng(kernel)
    w, dy = random.standard_normal(kernel), random.standard_normal((size + 2 * padding - kernel) // 2 + 1)
    expected = np.zeros(size + 2 * padding + 1)
    for u in range(kernel):
        expected[u : u + 2 * len(dy) : 2][: len(dy)] += dy * w[u]
    around = np.pad(dy, 3 * kernel)
    result, written = np.zeros(size), np.zeros(size, int)
    for p in (0, 1):
        for i in range(axis.outputs):
            if 0 <= (place := axis.places[p] + 2 * i) < size:
                first = 3 * kernel + axis.first + i
                result[place] += sum(around[first + v] * w[2 * (axis.taps[p] - 1 - v) + p] for v in range(axis.taps[p]))
                written[place] += 1
    assert (written == 1).all()
    np.testing.assert_allclose(result, expected[padding : padding + size], atol=1e-12)
    assert axis.outputs <= (size + 1) // 2 + 1
    assert (kernel, padding) not in ((3, 1), (7, 3)) or axis.outputs == (size + 1) // 2  # the usual ones compute nothing in vain
