"""precision="exact" leaves out what is no plain sum of products, on every device and in every way to run a model; "fast" keeps to its bound."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tolerance import assert_within, sum_bound

import pycl_cnn as pc
from pycl_cnn import nn, optim
from pycl_cnn.backends import backend
from pycl_cnn.errors import ShapeError, UnsupportedError
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight

ROOT = Path(__file__).parents[1]
CHANNELS, SIZE = 32, 24


def model() -> nn.Module:
    pc.manual_seed(3)
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Flatten())


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, CHANNELS, SIZE, SIZE)).astype(np.float32)


def inexact(device):
    """Names of the algorithms that are no plain sums, by operation."""
    tables = backend(device.backend).algorithms
    return {kind.__name__: {a.name for a in tables.get(kind, []) if not a.exact} for kind in (Conv, ConvBackwardInput, ConvBackwardWeight)}


def supported(device, geometry):
    """Of those names that take convolutions of fixed weights of this geometry."""
    graph, found = Graph(), {}
    x, dy = (graph.input(name, shape) for name, shape in (("x", geometry.input_shape), ("dy", geometry.output_shape)))
    w = graph.constant(np.zeros(geometry.weight_shape, np.float32))
    for kind, inputs in ((Conv, (x, w)), (ConvBackwardInput, (dy, w)), (ConvBackwardWeight, (x, dy))):
        node = graph.apply(kind(geometry), *inputs).node
        those = [a.name for a in backend(device.backend).algorithms[kind] if not a.exact and a.supports(node, device)]
        if those:
            found[kind.__name__] = those
    return found


def used(program):
    return {(step.operation, step.algorithm) for step in program.steps}


def test_only_plain_sums_are_called_exact(device):
    for kind, names in inexact(device).items():
        if device.backend != "reference":
            assert names, f"{kind} on {device}: this test has nothing to leave out"
    for table in backend(device.backend).algorithms.values():
        assert all(algorithm.exact != ("winograd" in algorithm.name and "filters" not in algorithm.name) for algorithm in table)


def test_exact_inference_has_plain_sums_and_says_so(device):
    if device.backend == "reference":
        pytest.skip("the reference has one algorithm for everything")
    fast, exact = (pc.compile(model().eval(), images().shape, device=device, precision=precision) for precision in ("fast", "exact"))
    left_out = {("Conv", name) for name in inexact(device)["Conv"]}
    assert used(fast) & left_out
    assert not used(exact) & left_out
    assert "precision='exact' leaves out winograd" in exact.explain()
    assert "precision=" not in fast.explain()


def test_exact_results_are_within_the_bound_of_a_plain_sum(device):
    pc.manual_seed(0)
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    x = images()
    expected = layer(x, device="reference")
    absolute = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    absolute.load_state_dict({name: np.abs(array) for name, array in layer.state_dict().items()})
    magnitude = absolute(np.abs(x), device="reference")
    assert_within(layer(x, device=device, precision="exact"), expected, sum_bound(9 * CHANNELS, magnitude))


def test_exact_training_steps_have_plain_sums(device):
    left_out = {(kind, name) for kind, names in inexact(device).items() for name in names}
    labels = np.zeros(2, np.int32)
    arguments = dict(train=True, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1), target=labels, device=device)
    programs = {precision: pc.compile(model(), images().shape, precision=precision, **arguments) for precision in ("fast", "exact")}
    assert not used(programs["exact"]) & left_out
    if device.backend != "reference":
        assert {kind for kind, _ in used(programs["fast"]) & left_out} == {"Conv", "ConvBackwardInput", "ConvBackwardWeight"}


def test_every_way_to_run_a_model_takes_a_precision():
    """Results of the exact programs agree with each other to the bit, and differ from the fast ones'."""
    x, net = images(), model()
    compiled = {precision: pc.compile(net.eval(), x.shape, device="cpu", precision=precision).run(x) for precision in ("fast", "exact")}
    assert (compiled["fast"] != compiled["exact"]).any()
    for precision, expected in compiled.items():
        assert (net(x, device="cpu", precision=precision) == expected).all()
        trainer = pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), device="cpu", precision=precision)
        assert (trainer.predict(x) == expected).all()
    gradients, weights = {}, {}
    for precision in ("fast", "exact"):
        net = model()
        _, gradients[precision] = pc.value_and_grad(net, nn.CrossEntropyLoss(), device="cpu", precision=precision)(x, np.array([1, 2]))
        pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=1.0), device="cpu", precision=precision, seed=0).fit((x, np.array([1, 2])), progress=False)
        weights[precision] = net.state_dict()
    for name in ("0.weight", "2.weight"):
        assert (gradients["fast"][name] != gradients["exact"][name]).any()
        assert (weights["fast"][name] != weights["exact"][name]).any()
        np.testing.assert_allclose(weights["fast"][name], weights["exact"][name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", ["high", "", None, 1e-4])
def test_other_precisions_are_refused_by_name(value):
    net = model()
    calls = {
        "compile": lambda: pc.compile(net, images().shape, device="cpu", precision=value),
        "Trainer": lambda: pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), device="cpu", precision=value),
        "model": lambda: net(images(), device="cpu", precision=value),
    }
    for call in calls.values():
        with pytest.raises(ShapeError, match=f"precision must be one of 'fast', 'exact'; received precision={value!r}"):
            call()


def test_an_inexact_algorithm_cannot_be_forced_into_an_exact_program(device):
    if device.backend == "reference":
        pytest.skip("the reference has one algorithm for everything")
    with pytest.raises(UnsupportedError, match="'winograd' is no plain sum of products, which precision='exact' asks for"):
        pc.compile(model(), images().shape, device=device, algorithms={"Conv": "winograd"}, precision="exact")


#: Channels, size, outputs, kernel and stride of layers of ResNet-18, VGG-16 and U-Net; the fourth has long sums and few tiles.
LAYERS = {
    "resnet18.layer1": (64, 56, 64, 3, 1),
    "vgg16.features.17": (128, 28, 256, 3, 1),
    "unet.decoder": (128, 32, 64, 3, 1),
    "resnet18.layer4": (256, 7, 512, 3, 1),
    "resnet18.layer2.0.conv1": (64, 56, 128, 3, 2),
    "resnet18.layer4.0.conv1": (256, 14, 512, 3, 2),
    "resnet18.conv1": (3, 112, 64, 7, 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_winograd_stays_below_1e_4_of_the_outputs_scale(device, name):
    """On inputs behind a ReLU, whose mean is not zero, as in networks: forward and both gradients."""
    if device.backend == "reference":
        pytest.skip("the reference has one algorithm for everything")
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not part of this distribution")
    sys.path.insert(0, str(ROOT))
    from benchmarks.errors import errors_of
    from pycl_cnn.geometry import ConvGeometry

    channels, size, outputs, kernel, stride = LAYERS[name]
    generator = np.random.default_rng(0)
    x = np.maximum(generator.standard_normal((1, size, size, channels)) + 0.5, 0).astype(np.float32)
    w = (generator.standard_normal((outputs, kernel, kernel, channels)) * (2 / (kernel**2 * channels)) ** 0.5).astype(np.float32)
    geometry = ConvGeometry.forward("conv", x.shape, w.shape, stride=stride, padding=kernel // 2)
    names = supported(device, geometry)
    if not names:
        pytest.skip("there is nothing but plain sums for this kernel with stride 2")
    for turn in range(max(map(len, names.values()))):
        forced = {kind: those[turn % len(those)] for kind, those in names.items()}
        errors = errors_of(geometry, x, w, device, forced)
        kinds = ("Conv", "ConvBackwardInput", "ConvBackwardWeight")
        assert all(error.algorithm == forced[kind] for kind, error in zip(kinds, errors, strict=True) if kind in forced)
        for error in errors:
            assert error.plain < 1e-5
            assert error.error < 1e-4
