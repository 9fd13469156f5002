"""Batch norms whose readers normalise as they read: the kernels on every instruction set, and the programs that use them.

A kernel that normalises as it reads gives the same bits as the one that reads what was normalised before.
"""

import numpy as np
import pytest
from helpers import cpu_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cpu_kernels import Guarded, blocks, channel_block, convolutions, epilogue, forward_geometry, panel_floats, random, run

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.backends.cpu import _kernels as kernels
from pycl_cnn.ops.pointwise import KINDS

BOUNDS = {"identity": (0, -np.inf, np.inf), "relu": (KINDS["relu"], 0, np.inf), "clip": (KINDS["clip"], -0.25, 0.5)}


@st.composite
def reads(draw, depthwise=False):
    """A convolution that reads a batch norm's result: of pixels alone, or depthwise."""
    c = draw(convolutions(depthwise))
    if not depthwise:
        c.update(r=1, s=1, stride=(1, 1), dilation=(1, 1), pad=(0, 0), pad_after=(0, 0), oh=c["h"], ow=c["w"])
    return {**c, "bounds": draw(st.sampled_from(sorted(BOUNDS)))}


def normalisation(c, x, rng):
    """(x normalised, the table), each by its own kernel."""
    channels, rows = x.shape[-1], x.size // x.shape[-1]
    kind, low, high = BOUNDS[c["bounds"]]
    members = dict(rows=rows, c=channels, activation=kind, alpha=low if kind == KINDS["clip"] else 0.0, beta=high if kind == KINDS["clip"] else 0.0,
                   eps=1e-5, momentum=0.1, **kernels.batch_norm_blocks(rows, channels))
    gamma, beta, mean, rstd = (random(rng, channels) for _ in range(4))
    z, table = Guarded(x.shape), Guarded((5, channels))
    for kernel, buffers in (("batch_norm_normalise", (x, gamma, beta, mean, rstd, z.array)), ("batch_norm_normaliser", (gamma, beta, mean, rstd, table.array))):
        params = getattr(kernels, f"{kernel}_params")(**members)
        program = kernels.Program([(kernel, params, [(i, 0) for i in range(1, len(buffers) + 1)], kernels.kernel_tasks(kernel, params))],
                                  [0, *(b.nbytes for b in buffers)], written=[len(buffers)], isa=c["isa"])
        for base, buffer in enumerate(buffers, 1):
            program.bind(base, buffer)
        program.run(2)
    z.check()
    table.check()
    exact = (x.astype(np.float64) - mean) * rstd * gamma + beta
    assert (abs(z.array - np.clip(exact, low, high)) <= 8 * np.finfo(np.float32).eps * 8).all()
    np.testing.assert_array_equal(table.array[3:], np.broadcast_to(np.array([[low], [high]], np.float32), (2, channels)))
    return z.array, table.array


def compared(kernel, members, x, z, table, others, target, c):
    """`kernel` on z, and its reader of x with the table: the same bits, and nothing outside of the target."""
    plain, reader = Guarded(target), Guarded(target)
    arrays = [other for other in others if other is not None]
    places = iter(range(1, len(arrays) + 1))
    buffers = [None if other is None else next(places) for other in others]
    last = len(arrays) + 1
    run([(kernel, members, [0, *buffers, last])], [z, *arrays, plain.array], c["isa"], outputs=[last])
    run([(f"{kernel}_normalised", members, [0, *buffers, last, last + 1])], [x, *arrays, reader.array, table], c["isa"], outputs=[last])
    np.testing.assert_array_equal(reader.array, plain.array)
    assert not np.isnan(reader.array).any()
    reader.check()


@settings(deadline=None)
@given(reads())
def test_products_of_pixels(c):
    rng = np.random.default_rng(c["seed"])
    channels, outs, groups = c["c"], c["k"], c["groups"]
    x = random(rng, c["n"], c["h"], c["w"], groups * channels)
    z, table = normalisation(c, x, rng)
    panels = random(rng, panel_floats(c, 1, channels, outs))
    members = dict(**forward_geometry(c, channels, outs), outs=outs, **blocks(c, outs), **epilogue(c))
    target = (c["n"], c["h"], c["w"], groups * outs)
    bias, residual = random(rng, groups * outs) if c["bias"] else None, random(rng, *target) if c["residual"] else None
    compared("igemm", members, x, z, table, (panels, bias, residual), target, c)


@settings(deadline=None)
@given(reads())
def test_weight_gradient_of_pixels(c):
    rng = np.random.default_rng(c["seed"])
    channels, outs, groups = c["c"], c["k"], c["groups"]
    x, dy = random(rng, c["n"], c["h"], c["w"], groups * channels), random(rng, c["n"], c["h"], c["w"], groups * outs)
    z, table = normalisation(c, x, rng)
    sizes = dict(out_block=c["pixel_block"], red_block=c["panel_block"] * kernels.panel_width(c["isa"]), pixel_block=c["pixel_block"], parts=c["parts"])
    members = dict(**forward_geometry(c, channels, outs), outs=outs, **sizes)
    compared("weight_gradient", members, x, z, table, (dy,), (c["parts"], groups * outs, channels), c)


@settings(deadline=None)
@given(reads(depthwise=True))
def test_depthwise(c):
    rng = np.random.default_rng(c["seed"])
    x, w = random(rng, c["n"], c["h"], c["w"], c["c"]), random(rng, c["r"], c["s"], c["c"])
    z, table = normalisation(c, x, rng)
    target = (c["n"], c["oh"], c["ow"], c["c"])
    members = dict(**forward_geometry(c, c["c"], c["c"]), row_block=c["parts"], channel_block=channel_block(c, c["c"]), **epilogue(c))
    bias, residual = random(rng, c["c"]) if c["bias"] else None, random(rng, *target) if c["residual"] else None
    compared("depthwise", members, x, z, table, (w, bias, residual), target, c)


@settings(deadline=None)
@given(reads(depthwise=True))
def test_depthwise_weight_gradient(c):
    rng = np.random.default_rng(c["seed"])
    x, dy = random(rng, c["n"], c["h"], c["w"], c["c"]), random(rng, c["n"], c["oh"], c["ow"], c["c"])
    z, table = normalisation(c, x, rng)
    members = dict(**forward_geometry(c, c["c"], c["c"]), parts=c["parts"], channel_block=channel_block(c, c["c"]))
    compared("depthwise_weight_gradient", members, x, z, table, (dy,), (c["parts"], c["r"] * c["s"], c["c"]), c)


@pytest.mark.parametrize("isa", kernels.isa_list())
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_of_images_in_memory(isa, stride):
    """Large ones are read row by row before tiles are: the same bits as of each image by itself, which is small."""
    rng = np.random.default_rng(stride)
    images, size, channels = 17, 31, 67
    c = {"isa": isa, "bounds": "clip", "n": images, "h": size, "w": size, "oh": -(-size // stride), "ow": -(-size // stride), "r": 3, "s": 3,
         "stride": (stride, stride), "dilation": (1, 1), "pad": (1, 1), "groups": 1}
    x, w, dy = random(rng, images, size, size, channels), random(rng, 3, 3, channels), random(rng, images, c["oh"], c["ow"], channels)
    assert x.size >= 1 << 20 > 16 * x[0].size
    z, table = normalisation(c, x, rng)
    whole = forward_geometry(c, channels, channels)
    plain = {"activation": 0, "alpha": 0.0, "beta": 0.0}
    for kernel, sizes, others, target in (
        ("depthwise", {"row_block": 5, "channel_block": channels, **plain}, (w, None, None), dy.shape),
        ("depthwise_weight_gradient", {"parts": images, "channel_block": channels}, (dy,), (images, 9, channels)),
    ):
        compared(kernel, whole | sizes, x, z, table, others, target, c)
        operands = [other for other in others if other is not None]
        buffers = [0, *(None if other is None else 1 for other in others), 2]
        together, alone = Guarded(target), Guarded(target)
        run([(kernel, whole | sizes, buffers)], [z, *operands, together.array], isa, outputs=[2])
        for image in range(images):
            part = Guarded((1, *target[1:]))
            one = whole | sizes | {"images": 1} | ({"parts": 1} if "parts" in sizes else {})
            run([(kernel, one, buffers)], [z[image], *(o[image] if o is dy else o for o in operands), part.array], isa, outputs=[2])
            alone.array[image] = part.array[0]
        np.testing.assert_array_equal(together.array, alone.array)


@pytest.mark.parametrize("isa", kernels.isa_list())
@pytest.mark.parametrize("bounds", sorted(BOUNDS))
@pytest.mark.parametrize("channels", [1, 17, 64, 300])
def test_max_pool(isa, bounds, channels):
    """Windows of 3x3 at every second pixel, padded; also which element is the largest. Clipped ones are equal: the first counts."""
    rng = np.random.default_rng(channels)
    x = random(rng, 2, 9, 7, channels)
    x[0, 3, 2, 0] = np.nan
    z, table = normalisation({"bounds": bounds, "isa": isa}, np.nan_to_num(x), rng)
    z[0, 3, 2, 0] = np.nan
    rows, cols = ([0, 1, 3, 5, 7], [2, 4, 6, 8, 9]), ([0, 1, 3, 5], [2, 4, 6, 7])
    windows = np.concatenate([*rows, *cols]).astype(np.int32)
    members = dict(n=2, h=9, w=7, c=channels, oh=5, ow=4, row_dilation=1, col_dilation=1, **kernels.window_blocks(10, 4, channels, 9))
    results = []
    for kernel, source, extra in (("max_pool", z, ()), ("max_pool_normalised", x, (table,))):
        y, indices = cpu_kernels.empty(2, 5, 4, channels), cpu_kernels.empty(2, 5, 4, channels, dtype=np.int32)
        cpu_kernels.run(isa, kernel, members, source, windows, y, indices, *extra)
        results.append((y, indices))
    np.testing.assert_array_equal(results[1][0], results[0][0])
    np.testing.assert_array_equal(results[1][1], results[0][1])


# ---- programs ----------------------------------------------------------------------------------------------------------


def block(activation, *, bias=False, stride=1, kernel=3, again=1):
    """An inverted residual block: its batch norms are read by 1x1 and depthwise convolutions; the last by the head's average."""
    return nn.Sequential(
        nn.Conv2d(3, 20, kernel, padding=1),
        nn.BatchNorm2d(20),
        activation(),
        nn.Conv2d(20, 20, 3, stride=stride, padding=1, groups=20, bias=bias),
        nn.BatchNorm2d(20),
        activation(),
        nn.Conv2d(20, 7, 1, bias=bias),
        nn.BatchNorm2d(7),
        *[layer for _ in range(again) for layer in (nn.Conv2d(7, 7, 1, bias=bias), nn.BatchNorm2d(7))],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 5),
    )


def trained(model, force, steps=2):
    """(losses of some steps, all states after them, the program)."""
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(3, 3, 11, 13)).astype(np.float32), np.array([0, 4, 2], np.int32)
    optimizer = pc.optim.SGD(lr=0.1, momentum=0.9)
    program = pc.compile(model.train(), images.shape, device="cpu", train=True, loss=nn.CrossEntropyLoss(), optimizer=optimizer, target=labels, algorithms=force)
    losses = [float(program.run(images, labels, np.array(optimizer.rule.hyper(0.1, i + 1), np.float32))[0]) for i in range(steps)]
    return losses, program.states(), program


@pytest.mark.parametrize("activation, normalised", [(nn.ReLU, 3), (nn.ReLU6, 3), (nn.Identity, 3), (nn.SiLU, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_step_has_the_same_bits_as_with_batch_norms_that_write(activation, normalised, stride):
    """SiLU is no clip: batch norms with it write their result. So does the last one, which is read by a mean."""
    pc.manual_seed(3)
    model = block(activation, stride=stride, bias=True)
    losses, states, program = trained(model, {})
    expected, reference, writing = trained(model, {"BatchNormTraining": "partial sums"})
    assert losses == expected
    for name, state in reference.items():
        np.testing.assert_array_equal(states[name], state)
    assert [step.operation for step in program.steps].count("BatchNormStatistics") == normalised
    assert [step.operation for step in writing.steps].count("BatchNormTraining") == 4
    assert program.memory.arena <= writing.memory.arena


def test_explain_names_who_normalises():
    _, _, program = trained(block(nn.ReLU6), {})
    readers = [step for step in program.steps if "normalises" in step.why and "as it reads" in step.why and step.operation != "BatchNormStatistics"]
    assert [(step.operation, step.algorithm, step.why.rpartition("normalises ")[2]) for step in readers] == [
        ("Conv", "depthwise", "1 as it reads"),
        ("Conv", "igemm", "4 as it reads"),
        ("Conv", "igemm", "7 as it reads"),
        ("ConvBackwardWeight", "weight_gradient", "7 as it reads"),
        ("ConvBackwardWeight", "weight_gradient", "4 as it reads"),
        ("ConvBackwardWeight", "depthwise_weight_gradient", "1 as it reads"),
    ]
    assert "what reads the result normalises it as it reads" in program.explain()


def test_a_stem_is_normalised_as_it_is_pooled():
    model = nn.Sequential(
        nn.Conv2d(3, 20, 7, stride=2, padding=3), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 5)
    )
    losses, states, program = trained(model, {})
    expected, reference, _ = trained(model, {"BatchNormTraining": "partial sums"})
    assert losses == expected and next(step.why for step in program.steps if step.operation == "MaxPool").endswith("normalises 1 as it reads")
    for name, state in reference.items():
        np.testing.assert_array_equal(states[name], state)


class Branches(nn.Module):
    """A batch norm with two readers, one of which cannot normalise."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.narrow, self.wide = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        z = self.norm(self.stem(x))
        return self.head((self.narrow(z) + self.wide(z)).mean((2, 3)))


def test_one_reader_that_cannot_normalise_is_enough_to_write():
    _, _, program = trained(Branches(), {})
    assert [step.operation for step in program.steps if step.operation.startswith("BatchNorm")] == ["BatchNormTraining", "BatchNormBackward"]


def test_depthwise_convolutions_as_products_do_not_normalise():
    """Their patches are no pixels: the batch norm before them writes, the two before 1x1 convolutions do not."""
    model = block(nn.ReLU)
    losses, _, program = trained(model, {"Conv": "igemm"})
    assert losses == trained(model, {"Conv": "igemm", "BatchNormTraining": "partial sums"})[0]
    assert [step.operation for step in program.steps].count("BatchNormStatistics") == 2


def test_gradients_against_the_reference():
    """Against float64, node by node: what no kernel computed."""
    pc.manual_seed(5)
    model = block(nn.ReLU6)
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    _, states, _ = trained(model, {}, steps=1)
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(3, 3, 11, 13)).astype(np.float32), np.array([0, 4, 2], np.int32)
    optimizer = pc.optim.SGD(lr=0.1, momentum=0.9)
    reference = pc.compile(model.train(), images.shape, device="reference", train=True, loss=nn.CrossEntropyLoss(), optimizer=optimizer, target=labels)
    reference.run(images, labels, np.array(optimizer.rule.hyper(0.1, 1), np.float32))
    exact = reference.states()
    for name, value in before.items():
        if name not in exact or not name.endswith(("weight", "bias")):
            continue
        step, expected = states[name].astype(np.float64) - value, exact[name].astype(np.float64) - value
        assert np.linalg.norm(step - expected) <= 1e-4 * np.linalg.norm(expected) + 1e-7, name
