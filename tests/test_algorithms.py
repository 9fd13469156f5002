"""Every algorithm of every device, forced by name, against the float64 reference: whatever the cost models would choose.

Winograd's transforms add and subtract before they multiply, so its rounding errors are larger than those of a plain sum; what is
promised for it is an error below 1e-4 of the output's scale.
"""

from contextlib import contextmanager

import numpy as np
import pytest
from helpers.tolerance import assert_within, sum_bound

import pycl_cnn as pc
from pycl_cnn.backends import backend
from pycl_cnn.backends.cpu import _kernels
from pycl_cnn.backends.cpu.winograd import PHASE_TILES
from pycl_cnn.backends.cpu.winograd_filters import TransformFilters
from pycl_cnn.backends.winograd import TILES, tiles_of
from pycl_cnn.errors import UnsupportedError
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from pycl_cnn.ops.matmul import MatMul
from pycl_cnn.ops.movement import Concat
from pycl_cnn.ops.pointwise import Activation, Unary
from pycl_cnn.passes import optimised

#: (batch, size, channels), (out_channels, kernel), keywords
CONVOLUTIONS = {
    "3x3": ((2, (9, 11), 5), (7, (3, 3)), {"padding": 1}),
    "3x3-wide": ((1, (13, 10), 33), (40, (3, 3)), {"padding": ((0, 2), (1, 3))}),
    "3x3-one-tile": ((1, (4, 3), 16), (17, (3, 3)), {"padding": 1}),
    "3x3-valid": ((3, (8, 8), 20), (35, (3, 3)), {}),
    "3x3-few-tiles-of-many-channels": ((5, (7, 6), 35), (200, (3, 3)), {"padding": 1}),
    "3x3-filters-transformed-by-tasks": ((5, (13, 14), 35), (260, (3, 3)), {"padding": 1}),
    "3x3-filters-transformed-by-tasks-backward": ((5, (13, 14), 260), (19, (3, 3)), {"padding": 1}),
    "3x3-padding-4": ((1, (5, 6), 8), (9, (3, 3)), {"padding": 4}),
    "3x3-stride-2": ((2, (9, 8), 6), (10, (3, 3)), {"stride": 2, "padding": 1}),
    "3x3-stride-2-wide": ((2, (15, 18), 33), (40, (3, 3)), {"stride": 2, "padding": ((0, 1), (2, 1))}),
    "3x3-stride-2-chunks": ((1, (17, 26), 32), (72, (3, 3)), {"stride": 2, "padding": 1}),
    "3x3-stride-2-few-tiles-of-many-channels": ((3, (9, 10), 20), (200, (3, 3)), {"stride": 2, "padding": 1}),
    "3x3-stride-2-padding-4": ((1, (3, 6), 5), (9, (3, 3)), {"stride": 2, "padding": 4}),
    "4x4-stride-2": ((2, (10, 11), 6), (9, (4, 4)), {"stride": 2, "padding": 1}),
    "4x4-stride-2-few-channels": ((2, (21, 16), 4), (20, (4, 4)), {"stride": 2}),
    "5x5-one-channel": ((2, (12, 12), 1), (6, (5, 5)), {"padding": 2}),
    "7x7-stride-2": ((1, (21, 19), 3), (16, (7, 7)), {"stride": 2, "padding": 3}),
    "5x5-stride-2": ((2, (15, 18), 21), (24, (5, 5)), {"stride": 2, "padding": ((2, 1), (0, 3))}),
    "5x5-stride-2-few-channels": ((1, (23, 24), 3), (18, (5, 5)), {"stride": 2, "padding": 2}),
    "6x6-stride-2": ((1, (17, 16), 6), (16, (6, 6)), {"stride": 2, "padding": 2}),
    "7x7-stride-2-wide": ((1, (22, 25), 20), (33, (7, 7)), {"stride": 2, "padding": ((3, 2), (1, 4))}),
    "7x7-stride-2-inside": ((2, (40, 57), 3), (24, (7, 7)), {"stride": 2}),
    "8x8-stride-2": ((1, (20, 18), 2), (16, (8, 8)), {"stride": 2, "padding": 3}),
    "1x1": ((2, (6, 5), 24), (40, (1, 1)), {}),
    "1x1-stride-2": ((2, (7, 7), 9), (16, (1, 1)), {"stride": 2}),
    "groups": ((1, (7, 6), 12), (8, (3, 3)), {"padding": 1, "groups": 4}),
    "depthwise": ((2, (9, 7), 19), (19, (3, 3)), {"padding": 1, "groups": 19}),
    "depthwise-stride-2": ((1, (10, 9), 32), (32, (3, 3)), {"padding": 1, "stride": 2, "groups": 32}),
    "dilated": ((1, (11, 12), 4), (5, (3, 2)), {"dilation": (2, 3), "padding": 2}),
}
KINDS = {"Conv": Conv, "ConvBackwardInput": ConvBackwardInput, "ConvBackwardWeight": ConvBackwardWeight}
WINOGRAD = 1e-4


def names_of(device, kind):
    return [algorithm.name for algorithm in backend(device.backend).algorithms.get(kind, [])]


def tile_of(name):
    """Outputs a side."""
    size = name.rpartition("_")[2]
    return int(size[0]) if size[0].isdigit() else 4


def shapes(kind, g):
    """Shapes of the operands, and how many products make an output element."""
    if kind is Conv:
        return (g.input_shape, g.weight_shape), g.reduction
    if kind is ConvBackwardInput:
        return (g.output_shape, g.weight_shape), g.out_channels // g.groups * g.kernel[0] * g.kernel[1]
    return (g.input_shape, g.output_shape), g.batch * g.out[0] * g.out[1]


def run(op, operands, device, force):
    graph = Graph()
    values = [graph.input(f"x{i}", operand.shape) for i, operand in enumerate(operands)]
    graph.outputs = [graph.apply(op, *values)]
    return backend(device.backend).compile(optimised(graph), device, {}, force).run(*operands)


def operands_of(rng, *sizes):
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


EPILOGUES = {"plain": Epilogue(), "relu": Epilogue(True, True, Activation("relu")), "silu": Epilogue(True, False, Activation("silu"))}


@pytest.mark.parametrize("epilogue", EPILOGUES.values(), ids=EPILOGUES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_every_convolution_algorithm(device, shape, kind, epilogue):
    (n, size, c), (k, kernel), keywords = CONVOLUTIONS[shape]
    g = ConvGeometry.forward("conv", (n, *size, c), (k, *kernel, c // keywords.get("groups", 1)), **keywords)
    op_kind = KINDS[kind]
    if op_kind is ConvBackwardWeight and epilogue != Epilogue():
        pytest.skip("weight gradients have no epilogue")
    sizes, length = shapes(op_kind, g)
    op = op_kind(g) if op_kind is ConvBackwardWeight else op_kind(g, epilogue)
    target = g.output_shape if op_kind is Conv else g.input_shape
    sizes = (*sizes, *([(target[3],)] if epilogue.bias else []), *([target] if epilogue.residual else []))
    operands = operands_of(np.random.default_rng(len(shape)), *sizes)
    (expected,) = op.reference(*operands)
    (magnitude,) = (op_kind(g).reference(*(np.abs(operand) for operand in operands[:2])))
    tried = 0
    for name in names_of(device, op_kind):
        try:
            y = run(op, operands, device, {kind: name})
        except UnsupportedError:
            continue
        tried += 1
        if "winograd" in name:
            assert np.abs(y - expected).max() <= WINOGRAD * np.abs(expected).max(), name
        else:
            assert_within(y, expected, sum_bound(length, magnitude + sum(np.abs(extra) for extra in operands[2:])), name)
    assert tried or device.backend == "reference"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_work_of_an_algorithm(device, kind, stride):
    """The products that Winograd's tiles need, (t + 2)^2 for each, or (2t + 1)^2 for all phases of a stride of 2; 84 is a multiple of all tiles."""
    op_kind, channels, outs, size = KINDS[kind], 16, 32, 84 if stride == 1 else 167  # 84 outputs, and 84 of each phase of an input gradient
    g = ConvGeometry.forward("conv", (1, size, size, channels), (outs, 3, 3, channels), stride=stride, padding=1)
    sizes, _ = shapes(op_kind, g)
    direct = 2 * 9 * 84 * 84 * channels * outs
    found = {}
    for name in names_of(device, op_kind):
        graph = Graph()
        graph.outputs = [graph.apply(op_kind(g), *(graph.input(f"x{i}", size) for i, size in enumerate(sizes)))]
        try:
            program = backend(device.backend).compile(optimised(graph), device, {}, {kind: name})
        except UnsupportedError:
            continue
        (step,) = (step for step in program.steps if step.algorithm == name and step.operation == kind)
        assert step.flops == direct
        found[name] = step.work
    for name, work in found.items():
        tiles = [t for t in (2, 4, 6, 7) if work == 2 * ((t + 2) if stride == 1 else (2 * t + 1)) ** 2 * (84 // t) ** 2 * channels * outs]
        if "winograd" not in name:
            assert work == direct, name
        elif device.backend == "cpu":
            assert tiles == [tile_of(name)], name
        else:
            assert len(tiles) == 1, name
    assert device.backend == "reference" or stride == 2 or any("winograd" in name for name in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_of_large_images(device, kind, stride):
    """On the CPU, rows of arrays larger than 4 MiB are read before tiles are; parts of a weight gradient begin inside of images."""
    op_kind, channels = KINDS[kind], 67
    g = ConvGeometry.forward("conv", (5, 66, 63, channels), (channels, 3, 3, 1), stride=stride, padding=1, groups=channels)
    sizes, length = shapes(op_kind, g)
    epilogue = Epilogue() if op_kind is ConvBackwardWeight else Epilogue(True, True)
    target = g.output_shape if op_kind is Conv else g.input_shape
    op = op_kind(g) if op_kind is ConvBackwardWeight else op_kind(g, epilogue)
    extra = [(channels,), target] if epilogue.bias else []
    operands = operands_of(np.random.default_rng(stride), *sizes, *extra)
    (expected,), (magnitude,) = op.reference(*operands), op_kind(g).reference(*(np.abs(operand) for operand in operands[:2]))
    y = run(op, operands, device, {})
    assert_within(y, expected, sum_bound(length, magnitude + sum(np.abs(operand) for operand in operands[2:])), kind)


@contextmanager
def tiles_of_7(device, outs):
    """Where OpenCL has them; the CPU has algorithms of their own for each tile."""
    if device.backend != "opencl":
        yield
        return
    from pycl_cnn.backends.opencl.call import device_context
    from pycl_cnn.backends.opencl.winograd_fused import usual_block
    from pycl_cnn.tuning.space import Problem, Variant

    tuning = device_context(device).tuning
    fused = usual_block(Problem.of("winograd_fused", outs=outs), tuning.limits, 7)
    with tuning.trying({} if tuning.limits.is_gpu else {"winograd_tile": Variant.of("winograd", TILE=7), "winograd_fused": fused}):
        yield


@pytest.mark.parametrize("kind, images, size, channels, outs", [(Conv, 1, 14, 2048, 32), (Conv, 4, 14, 256, 64), (ConvBackwardInput, 1, 28, 64, 512)])
def test_winograds_errors_do_not_grow_with_the_depth_of_sums(device, kind, images, size, channels, outs):
    """The transform back multiplies the rounding errors of sums, which are added up in parts: a half of what is promised, and a third in practice.
    In one go they are up to 1e-4 with tiles of 7."""
    names = [a.name for a in backend(device.backend).algorithms.get(kind, []) if not a.exact and "few" not in a.name and "strided" not in a.name]
    if not names:
        pytest.skip("the reference has one algorithm for everything")
    g = ConvGeometry.forward("conv", (images, size, size, channels), (outs, 3, 3, channels), padding=1)
    x, w = operands_of(np.random.default_rng(channels), *shapes(kind, g)[0])
    x = np.maximum(x, 0) if channels == 256 else x
    (expected,) = kind(g).reference(x, w)
    for name in names:
        with tiles_of_7(device, g.channels if kind is ConvBackwardInput else outs):
            y = run(kind(g), (x, w), device, {kind.__name__: name})
        assert np.abs(y - expected).max() <= WINOGRAD / 2 * np.abs(expected).max(), name


@pytest.mark.parametrize("size, channels", [(56, 64), (28, 128), (14, 256), (7, 512), (8, 1024)])
def test_winograd_keeps_its_promise_on_the_layers_of_networks(size, channels):
    """Activations after a rectifier, as the layers see them: sums do not cancel, and the scale is that of the output."""
    g = ConvGeometry.forward("conv", (1, size, size, channels), (32, 3, 3, channels), padding=1)
    x, w = operands_of(np.random.default_rng(channels), g.input_shape, g.weight_shape)
    operands = (np.maximum(x, 0), w / np.float32(3 * np.sqrt(channels)))
    (expected,) = Conv(g).reference(*operands)
    names = [name for name in names_of(pc.device("cpu"), Conv) if "winograd" in name and "strided" not in name]
    assert len(names) == 4
    for name in names:
        y = run(Conv(g), operands, pc.device("cpu"), {"Conv": name})
        assert np.abs(y - expected).max() <= WINOGRAD * np.abs(expected).max(), name


def patches_in_float64(g, x):
    """Each tap (row, column) and what it sees of the padded input: the operations' own references take minutes at the sizes of networks."""
    padded = np.pad(x.astype(np.float64), ((0, 0), *g.padding, (0, 0)))
    rows, cols = (step * (outs - 1) + 1 for step, outs in zip(g.stride, g.out, strict=True))
    for r, s in np.ndindex(g.kernel):
        yield (r, s), padded[:, r : r + rows : g.stride[0], s : s + cols : g.stride[1]]


#: Layers of stride 2: the networks' own, tasks that transform large filters themselves, many tiles of few channels.
STRIDED = [(1, 224, 3, 64, 7), (1, 56, 64, 128, 3), (1, 28, 256, 256, 3), (2, 14, 512, 512, 3), (4, 16, 320, 300, 3), (2, 30, 130, 260, 8), (1, 32, 64, 96, 5), (3, 63, 4, 20, 4)]


@pytest.mark.parametrize("images, size, channels, outs, kernel", STRIDED)
def test_winograd_by_phases_keeps_its_promise_on_the_strided_layers_of_networks(images, size, channels, outs, kernel):
    """Forward and input gradient, with the same bits for any number of threads."""
    g = ConvGeometry.forward("conv", (images, size, size, channels), (outs, kernel, kernel, channels), stride=2, padding=(kernel - 1) // 2)
    x, w = operands_of(np.random.default_rng(channels), g.input_shape, g.weight_shape)
    operands = (np.maximum(x, 0), w / np.float32(kernel * np.sqrt(channels)))
    y = sum(patch @ operands[1][:, r, s].T.astype(np.float64) for (r, s), patch in patches_in_float64(g, operands[0]))
    dy = (np.random.default_rng(1).standard_normal(y.shape) * (y > 0)).astype(np.float32)
    padded = np.zeros((images, *(n + before + after for n, (before, after) in zip(g.size, g.padding, strict=True)), channels))
    for r, s in np.ndindex(g.kernel):
        padded[:, r : r + 2 * g.out[0] - 1 : 2, s : s + 2 * g.out[1] - 1 : 2] += dy @ operands[1][:, r, s].astype(np.float64)
    (top, _), (left, _) = g.padding
    dx = padded[:, top : top + size, left : left + size]
    before = pc.get_num_threads()
    for kind, given, expected in ((Conv, operands, y), (ConvBackwardInput, (dy, operands[1]), dx)):
        names = [name for name in names_of(pc.device("cpu"), kind) if "strided" in name]
        names = [name for name in names if tile_of(name) in PHASE_TILES[kernel]]
        assert len(names) == len(PHASE_TILES[kernel])
        for name in names:
            results = []
            for threads in (1, 2):
                pc.set_num_threads(threads)
                results.append(run(kind(g), given, pc.device("cpu"), {kind.__name__: name}))
            pc.set_num_threads(before)
            assert np.abs(results[0] - expected).max() <= WINOGRAD * np.abs(expected).max(), (kind, name)
            np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["winograd", "winograd_2x2", "winograd_6x6", "winograd_7x7"])
@pytest.mark.parametrize("images, size, channels, outs", [(2, (13, 10), (32, 21), 40), (3, (7, 6), (16, 33), 200), (1, (5, 7), (16, 32), 40)], ids=["tiles", "transformed before", "few"])
@pytest.mark.parametrize("read_twice", [False, True])
def test_winograd_joins_two_inputs_as_it_reads_them(name, images, size, channels, outs, read_twice):
    """A concatenation for a convolution alone is not made; where something else reads it, it is there."""
    g = ConvGeometry.forward("conv", (images, *size, sum(channels)), (outs, 3, 3, sum(channels)), padding=1)
    op = Conv(g, EPILOGUES["relu"])
    graph, shapes = Graph(), [*((images, *size, c) for c in channels), g.weight_shape, (outs,), g.output_shape]
    first, rest, *others = (graph.input(f"x{i}", shape) for i, shape in enumerate(shapes))
    x = graph.apply(Concat(3), first, rest)
    graph.outputs = [graph.apply(op, x, *others), *([graph.apply(Unary(Activation("relu")), x)] if read_twice else [])]
    program = backend("cpu").compile(optimised(graph), pc.device("cpu"), {}, {"Conv": name})
    operands = operands_of(np.random.default_rng(outs), *shapes)
    whole = np.concatenate(operands[:2], 3)
    (expected,) = op.reference(whole, *operands[2:])
    y, *copies = results if isinstance(results := program.run(*operands), list | tuple) else [results]
    assert np.abs(y - expected).max() <= WINOGRAD * np.abs(expected).max()
    assert ("Concat" in program.explain()) is read_twice
    assert all(np.array_equal(copy, np.maximum(whole, 0)) for copy in copies)


def test_winograd_transforms_fixed_filters_once_and_those_of_a_run_as_it_needs_them():
    """With the same bits."""
    op = Conv(ConvGeometry.forward("conv", (1, 24, 24, 16), (200, 3, 3, 16), padding=1), Epilogue())
    x, w = operands_of(np.random.default_rng(0), op.geometry.input_shape, op.geometry.weight_shape)
    results, kept = [], []
    for fixed in (False, True):
        graph = Graph()
        given = (x,) if fixed else (x, w)
        graph.outputs = [graph.apply(op, graph.input("x", x.shape), graph.constant(w) if fixed else graph.input("w", w.shape))]
        program = backend("cpu").compile(optimised(graph), pc.device("cpu"), {}, {"Conv": "winograd"})
        results.append(program.run(*given))
        kept.append(any(isinstance(node.op, TransformFilters) for node in program.plan.graph.nodes()))
    assert kept == [False, True]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("epilogue", EPILOGUES.values(), ids=EPILOGUES)
@pytest.mark.parametrize("kind", [Conv, ConvBackwardInput])
@pytest.mark.parametrize("images, size, channels, outs, padding", [(1, (7, 7), 512, 48, 1), (1, (4, 3), 16, 80, 1), (2, (3, 4), 48, 16, 1), (1, (12, 2), 32, 16, 2), (4, (4, 4), 64, 32, 1), (1, (7, 8), 16, 32, 0)])
def test_winograd_of_few_tiles_transforms_filters_in_registers(images, size, channels, outs, padding, kind, epilogue):
    """1 to 4 tiles, with the same bits for any number of threads. Where there are too few registers they are transformed before."""
    g = ConvGeometry.forward("conv", (images, *size, channels), (outs, 3, 3, channels), padding=padding)
    source, target = (g.input_shape, g.output_shape) if kind is Conv else (g.output_shape, g.input_shape)
    sizes = (source, g.weight_shape, *([(target[3],)] if epilogue.bias else []), *([target] if epilogue.residual else []))
    operands = operands_of(np.random.default_rng(outs), *sizes)
    (expected,) = kind(g, epilogue).reference(*operands)
    blocks = _kernels.winograd_blocks(tile=4, kernel=3, step=1, short_rows=0, short_cols=0, tiles=tiles_of(target, 4), outs=target[3], channels=source[3])
    assert 1 <= tiles_of(target, 4) <= 4 and blocks["few"] == (_kernels.few_tiles() == 4)
    results, before = [], pc.get_num_threads()
    try:
        for threads in (1, 2):
            pc.set_num_threads(threads)
            results.append(run(kind(g, epilogue), operands, pc.device("cpu"), {kind.__name__: "winograd"}))
    finally:
        pc.set_num_threads(before)
    assert np.abs(results[0] - expected).max() <= WINOGRAD * np.abs(expected).max()
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("norm", [False, True])
def test_winograd_of_few_tiles_takes_filters_as_they_were_loaded(norm):
    """[out, channel, row, column], with a batch norm's factors: packed in one go, in chunks."""
    pc.manual_seed(0)
    model = pc.nn.Sequential(pc.nn.Conv2d(32, 40, 3, padding=1), *([pc.nn.BatchNorm2d(40)] if norm else [])).eval()
    x = np.random.default_rng(0).standard_normal((1, 32, 7, 7)).astype(np.float32)
    program, expected = pc.compile(model, x.shape, device="cpu", algorithms={"Conv": "winograd"}), pc.compile(model, x.shape, device="reference").run(x)
    assert np.abs(program.run(x) - expected).max() <= WINOGRAD * np.abs(expected).max()


#: images, size, channels, outs, kernel, stride
GRADIENTS = [
    (2, (34, 33), 70, 130, 3, 1),
    (9, (7, 7), 64, 65, 3, 1),
    (36, (14, 13), 24, 65, 3, 1),
    (40, (14, 14), 70, 70, 3, 1),
    (1, (30, 61), 65, 33, 3, 1),
    (2, (69, 66), 70, 130, 3, 2),
    (9, (14, 14), 64, 65, 3, 2),
    (2, (35, 122), 65, 33, 4, 2),
    (2, (112, 114), 3, 64, 7, 2),
    (2, (53, 54), 40, 64, 5, 2),
    (3, (61, 62), 20, 17, 8, 2),
]


@pytest.mark.parametrize("images, size, channels, outs, kernel, stride", GRADIENTS)
def test_winograds_weight_gradient_in_several_blocks_and_parts(images, size, channels, outs, kernel, stride):
    """Where several tasks need the same transforms they are made before, for all parts."""
    g = ConvGeometry.forward("conv", (images, *size, channels), (outs, kernel, kernel, channels), stride=stride, padding=kernel // 2)
    x, dy = operands_of(np.random.default_rng(outs), g.input_shape, g.output_shape)
    taps = [patch.reshape(-1, channels) for _, patch in patches_in_float64(g, x)]
    expected = np.stack([dy.reshape(-1, outs).T.astype(np.float64) @ tap for tap in taps], 1).reshape(g.weight_shape)
    names = [name for name in names_of(pc.device("cpu"), ConvBackwardWeight) if "winograd" in name and ("strided" in name) == (stride == 2)]
    names = [name for name in names if tile_of(name) in (TILES if stride == 1 else PHASE_TILES[kernel])]
    assert names
    for name in names:
        dw = run(ConvBackwardWeight(g), (x, dy), pc.device("cpu"), {"ConvBackwardWeight": name})
        assert np.abs(dw - expected).max() <= WINOGRAD * np.abs(expected).max(), name


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("m, n, k", [(1, 10, 84), (33, 17, 5), (64, 120, 400), (7, 1, 1)])
def test_every_matrix_product_algorithm(device, m, n, k, transpose_a, transpose_b):
    a_shape, b_shape = ((k, m) if transpose_a else (m, k)), ((n, k) if transpose_b else (k, n))
    operands = operands_of(np.random.default_rng(m), a_shape, b_shape)
    op = MatMul(transpose_a, transpose_b)
    (expected,), (magnitude,) = op.reference(*operands), op.reference(*map(np.abs, operands))
    for name in names_of(device, MatMul):
        try:
            y = run(op, operands, device, {"MatMul": name})
        except UnsupportedError:
            continue
        assert_within(y, expected, sum_bound(k, magnitude), name)


def test_an_unknown_algorithm_is_named_with_those_there_are():
    operands = operands_of(np.random.default_rng(0), (1, 4, 4, 2), (3, 3, 3, 2))
    g = ConvGeometry.forward("conv", (1, 4, 4, 2), (3, 3, 3, 2))
    with pytest.raises(UnsupportedError, match=r"there is no algorithm 'fft' on cpu; there are .*igemm"):
        run(Conv(g), operands, pc.device("cpu"), {"Conv": "fft"})
