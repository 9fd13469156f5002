"""What depends on weights alone is computed by the native backend, and OpenCL compiles no kernel for it."""

import itertools

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn
from pycl_cnn.backends import backend
from pycl_cnn.backends.prelude import cut_off
from pycl_cnn.backends.winograd import TILES, transformed_filters
from pycl_cnn.graph import Graph
from pycl_cnn.ops.leaf import State
from pycl_cnn.ops.movement import Reshape, Transpose
from pycl_cnn.ops.pointwise import Binary


class Scaled(nn.Module):
    """A result that depends on a weight alone, beside one that depends on the input."""

    def __init__(self):
        self.weight = nn.Parameter(array(3, 4))

    def forward(self, x):
        return F.matmul(x, F.tanh(self.weight)), F.exp(self.weight)


def folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    model.load_state_dict({name: array(*value.shape, seed=len(name), low=0.5) for name, value in model.state_dict().items()})
    return model


def only_opencl(device):
    if device.backend != "opencl":
        pytest.skip("a backend that compiles nothing prepares weights itself")


def test_weights_are_prepared_and_packed_on_the_host(device):
    only_opencl(device)
    program = pc.compile(folded(), (1, 3, 6, 6), device=device)
    steps = [(type(step.node.op).__name__, step.node.algorithm.name) for step in program.plan.setup]
    assert steps and {name for name, _ in steps} <= {"PackPanels", "TransformFilters"} and {algorithm for _, algorithm in steps} == {"numpy, once"}, steps
    assert {"Binary mul", "Transpose"} <= {step.operation for step in program.setup_steps}
    assert all(name.startswith("prelude.") for name in program.plan.graph.states)
    assert program.memory.setup == 0  # on the device


class Everything(nn.Module):
    """Weights of all kinds that are packed, with sizes that leave lanes over."""

    def __init__(self):
        self.few, self.wide = nn.Conv2d(3, 21, 5, padding=2, stride=2), nn.Conv2d(21, 37, 3, padding=1)
        self.grouped, self.single = nn.Conv2d(37, 74, 3, groups=37), nn.Conv2d(74, 74, 3, padding=1, groups=74)
        self.halves, self.up = nn.Conv2d(74, 18, 3, groups=2), nn.ConvTranspose2d(18, 19, 3, stride=2, padding=1)
        self.same, self.head = nn.ConvTranspose2d(19, 35, 3, padding=1), nn.Linear(35 * 11 * 11, 13)

    def forward(self, x):
        for layer in (self.few, self.wide, self.grouped, self.single, self.halves, self.up, self.same):
            x = layer(x)
        return self.head(F.flatten(x, 1))


def everything():
    model = Everything().eval()
    model.load_state_dict({name: array(*value.shape, seed=len(name)) for name, value in model.state_dict().items()})
    return model


def test_the_host_packs_as_the_kernels_do(device):
    """Training programs and operations on arrays pack with kernels; inference on the host."""
    only_opencl(device)
    kinds = set()
    for force in ({}, {"Conv": "winograd", "ConvBackwardInput": "winograd"}):
        model = Convolutions() if force else everything()
        program = pc.compile(model, (1, 16, 9, 9) if force else (1, 3, 20, 20), device=device, algorithms=force)
        for step in program.plan.setup:
            op, (weight,) = step.node.op, step.node.inputs
            given = array(*weight.shape, seed=5)
            graph = Graph()
            graph.outputs = [graph.apply(op, graph.input("weight", weight.shape))]
            kernel = backend("opencl").compile(graph, device, {})
            (packed,) = kernel.plan.run
            assert not packed.node.algorithm.once
            np.testing.assert_allclose(op.once(given), kernel.run(given), rtol=0, atol=0 if type(op).__name__ == "PackPanels" else 1e-6, err_msg=str(op))
            kinds.add(type(op).__name__)
    assert kinds == {"PackPanels", "TransformFilters"}


class Convolutions(nn.Module):
    """Filters for Winograd's method, forward and turned around."""

    def __init__(self):
        self.forward_filters, self.turned = nn.Conv2d(16, 35, 3, padding=1), nn.ConvTranspose2d(35, 21, 3, padding=1)

    def forward(self, x):
        return self.turned(self.forward_filters(x))


@pytest.mark.parametrize("tile, taps", [*((tile, 3) for tile in TILES), (4, 4)])
def test_transformed_filters_are_those_of_the_method(tile, taps):
    """G g G^T has the filter's polynomial at the method's points, each divided by its distances to the others, and at infinity the last tap."""
    filters = array(taps**2, 5, seed=3).astype(np.float64)
    side = tile + taps - 1
    got = transformed_filters(filters.astype(np.float32), tile).reshape(side, side, 5)
    pairs = [1, 2, 1 / 2][: (side - 1) // 2] if side < 9 else [1 / 4, 5 / 8, 9 / 8, 9 / 4]
    points = [sign * pair for pair in pairs for sign in (1, -1)] + [0] * (side % 2 == 0)
    scale = [1 / np.prod([p - q for q in points if q != p]) for p in points]
    for a, b in itertools.product(range(side - 1), repeat=2):
        value = sum(filters[taps * r + s] * points[a] ** r * points[b] ** s for r in range(taps) for s in range(taps))
        np.testing.assert_allclose(np.abs(got[a, b]), np.abs(value * scale[a] * scale[b]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[-1, -1], filters[-1], rtol=1e-6)


def test_packed_weights_give_what_the_reference_gives(device):
    model = everything()
    x = array(1, 3, 20, 20, seed=9)
    expected = pc.compile(model, x.shape, device="reference").run(x)
    got = pc.compile(model, x.shape, device=device).run(x)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_results_that_depend_on_weights_alone(device):
    model, x = Scaled(), array(2, 3)
    program = pc.compile(model, x.shape, device=device)
    product, power = program.clone().run(x)
    np.testing.assert_allclose(product, x @ np.tanh(model.weight.data), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(power, np.exp(model.weight.data), rtol=1e-5)
    program.load({"weight": 0 * model.weight.data})
    product, power = program.run(x)
    assert (product == 0).all() and (power == 1).all()


@pytest.mark.parametrize("fault", ["missing", "must keep its shape"])
def test_a_weight_that_does_not_fit_is_named(device, fault):
    program = pc.compile(folded(), (1, 3, 6, 6), device=device)
    states = dict(folded().state_dict())
    states["1.running_var"] = np.zeros(7, np.float32)
    if fault == "missing":
        del states["1.running_var"]
    with pytest.raises(pc.ShapeError, match=rf"1\.running_var.*{fault}"):
        program.load(states)


def test_views_and_updated_states_stay():
    graph = Graph()
    x = graph.input("x", (6,))
    viewed, moved, updated = (graph.state(State.plain(name, (2, 3))) for name in ("viewed", "moved", "updated"))
    flat = [graph.apply(Reshape((6,)), value) for value in (viewed, graph.apply(Transpose((1, 0)), moved), updated)]
    graph.outputs = [graph.apply(Binary("add"), x, value) for value in flat]
    graph.updates[updated] = graph.apply(Binary("add"), updated, updated)
    prelude = cut_off(graph)
    assert prelude is not None and set(prelude.states) == {"viewed", "moved"}
    assert set(graph.states) == {"updated", *prelude.names}
    results = prelude.results({"viewed": np.ones((2, 3)), "moved": np.arange(6.0).reshape(2, 3), "updated": None})
    np.testing.assert_array_equal(np.sort(np.concatenate(list(results.values()))), [0, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5])


def test_nothing_is_cut_off_where_weights_are_used_as_they_are():
    graph = Graph()
    graph.outputs = [graph.apply(Binary("add"), graph.input("x", (3,)), graph.state(State.plain("w", (3,))))]
    assert cut_off(graph) is None and set(graph.states) == {"w"}
