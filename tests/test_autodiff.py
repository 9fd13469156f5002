"""Gradients: of every operation of the catalogue, against finite differences in float64 and, on every device, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import CASES, IMAGE, MATRIX, array
from helpers.graphs import evaluate, result_and_gradients, trace, trace_gradients
from helpers.tolerance import assert_close

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn
from pycl_cnn.autodiff import gradients
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv
from pycl_cnn.ops.pointwise import Binary
from pycl_cnn.ops.reduce import Reduce


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operation_and_its_gradients_on_every_device(case, device):
    """Value and gradients agree with the graph evaluated node by node in float64, before any pass touched it."""
    expected = trace_gradients(lambda *x: case.call(F, *x), *case.arrays).reference()
    actual = result_and_gradients(lambda *x: case.call(F, *x), *case.arrays, device=device)
    for index, (got, want) in enumerate(zip(actual, expected, strict=True)):
        assert_close(got, want, case.length, f"{case.name} " + ("value" if index == 0 else f"gradient {index - 1}"))


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=str)
def test_gradients_are_the_slopes_of_the_reference(case):
    """Along a random direction v, <gradient, v> equals the central difference quotient of the float64 reference."""
    traced = trace_gradients(lambda *x: case.call(F, *x), *case.arrays)
    y, *grads = traced.reference()
    weights = np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(np.float32)
    floats = [value for value in traced.inputs if value.dtype == np.float32]
    rng, h = np.random.default_rng(1), 1e-6
    for value, grad in zip(floats, grads, strict=True):
        direction = rng.standard_normal(value.shape)
        moved = [{**traced.feeds, value: traced.feeds[value] + step * direction} for step in (h, -h)]
        high, low = (float((evaluate(traced.graph, feeds, [traced.graph.outputs[0]])[0] * weights).sum()) for feeds in moved)
        slope = (high - low) / (2 * h)
        assert slope == pytest.approx(float((grad * direction).sum()), rel=2e-6, abs=2e-6), f"input {floats.index(value)}"


def test_a_value_that_the_loss_does_not_depend_on_has_no_gradient():
    graph = Graph()
    a, b = graph.input("a", (3,)), graph.input("b", (3,))
    loss = graph.apply(Reduce("sum", (0,)), graph.apply(Binary("mul"), a, a))
    graph.outputs = [loss]
    grads = gradients(graph, loss, [a, b])
    assert grads[0] is not None and grads[1] is None


def test_the_loss_must_be_one_number():
    graph = Graph()
    a = graph.input("a", (3,))
    with pytest.raises(pc.ShapeError, match="single number"):
        gradients(graph, graph.apply(Binary("mul"), a, a), [a])


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (lambda x, w: F.conv2d(x, w, None, (2, 1), 1, 1, 2), (IMAGE, array(6, 2, 3, 2))),
        (lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1), (array(2, 4, 3, 5), array(4, 3, 3, 3))),
        (lambda a, b: F.linear(a, b), (MATRIX, array(4, 7))),
        (lambda a, b: F.matmul(a, b), (MATRIX, array(7, 3))),
        (lambda a, b: F.div(a, b), (MATRIX, array(7, low=0.5))),
        (lambda a, b: F.interpolate(a * b, (9, 8), mode="bilinear"), (IMAGE, array(4, 1, 1))),
        (lambda a, b: F.cat([a[:2], F.pad(b[:, 1:3], (1, 3))], 0) * a[:, ::-1], (array(4, 6), array(2, 7))),
    ],
    ids=["conv2d", "conv_transpose2d", "linear", "matmul", "div", "interpolate", "movement"],
)
def test_second_derivatives(function, arrays):
    """The gradient of |gradient|^2 / 2 is a gradient like any other."""
    traced = trace(function, *arrays)
    graph, wanted = traced.graph, traced.inputs

    def total(value):
        return graph.apply(Reduce("sum", tuple(range(len(value.shape)))), value)

    y = graph.outputs[0]
    loss = total(graph.apply(Binary("mul"), y, y))
    graph.outputs = [loss]
    first = gradients(graph, loss, wanted)
    norm = graph.apply(Binary("add"), *(total(graph.apply(Binary("mul"), g, g)) for g in first))
    graph.outputs = [norm]
    second = gradients(graph, norm, wanted)
    graph.outputs = [norm, *second]
    _, *grads = traced.reference()
    rng, h = np.random.default_rng(2), 1e-6
    for value, grad in zip(wanted, grads, strict=True):
        direction = rng.standard_normal(value.shape)
        high, low = (float(evaluate(graph, {**traced.feeds, value: traced.feeds[value] + s * direction}, [norm])[0]) for s in (h, -h))
        assert (high - low) / (2 * h) == pytest.approx(float((grad * direction).sum()), rel=1e-5)


def test_the_gradient_of_a_convolution_is_made_of_convolutions():
    """No operation of its own is needed for higher derivatives of a convolution: the three are each other's gradients."""
    traced = trace_gradients(lambda x, w: F.conv2d(x, w), IMAGE, array(3, 4, 3, 3))
    kinds = {type(node.op).__name__ for node in traced.graph.nodes()}
    assert {"Conv", "ConvBackwardInput", "ConvBackwardWeight"} <= kinds
    assert sum(isinstance(node.op, Conv) for node in traced.graph.nodes()) == 1


class Shared(nn.Module):
    """One linear layer used twice, one parameter used not at all, one frozen."""

    def __init__(self):
        self.layer = nn.Linear(5, 5)
        self.unused = nn.Linear(2, 3)
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.frozen(F.tanh(self.layer(F.tanh(self.layer(x)))))


def test_value_and_grad_of_shared_unused_and_frozen_parameters(device):
    pc.manual_seed(3)
    model, loss = Shared(), nn.MSELoss()
    x, target = array(4, 5), array(4, 5, seed=1)
    value, grads = pc.value_and_grad(model, loss, device=device)(x, target)
    assert list(grads) == ["layer.weight", "layer.bias", "unused.weight", "unused.bias"]
    assert not grads["unused.weight"].any() and grads["unused.weight"].shape == (3, 2)
    parameters = dict(model.named_parameters())

    def at(name, array_):
        weights = {key: p.data.astype(np.float64) for key, p in parameters.items()} | {name: array_}

        def dense(layer, h):
            return h @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]

        return np.mean((dense("frozen", np.tanh(dense("layer", np.tanh(dense("layer", x.astype(np.float64)))))) - target) ** 2)

    assert value == pytest.approx(at("layer.bias", parameters["layer.bias"].data.astype(np.float64)), rel=1e-6)
    rng = np.random.default_rng(0)
    for name in ("layer.weight", "layer.bias"):
        base, direction = parameters[name].data.astype(np.float64), rng.standard_normal(parameters[name].shape)
        slope = (at(name, base + 1e-5 * direction) - at(name, base - 1e-5 * direction)) / 2e-5
        assert slope == pytest.approx(float((grads[name] * direction).sum()), rel=1e-4)


def test_value_and_grad_gives_gradients_in_the_parameters_shapes(device):
    """However the engine stores them (channels last, permuted behind a flatten)."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 3, 5))
    _, grads = pc.value_and_grad(model, nn.CrossEntropyLoss(), device=device)(array(2, 2, 6, 5), np.array([0, 4]))
    assert {name: grad.shape for name, grad in grads.items()} == {name: value.shape for name, value in model.state_dict().items()}


def test_the_loss_object_decides_even_when_its_predecessor_is_gone(device):
    """Programs are kept by loss; a new loss at an old one's address must not be taken for it."""
    model = nn.Linear(3, 3)
    x, target = array(4, 3), probabilities_like(4, 3)
    seen = [pc.value_and_grad(model, nn.MSELoss(reduction=kind), device=device)(x, target)[0] for kind in ("mean", "sum") for _ in range(3)]
    assert seen[3] == pytest.approx(12 * seen[0], rel=1e-6)
    assert len({round(v, 4) for v in seen}) == 2


def probabilities_like(n, c):
    p = np.random.default_rng(5).uniform(0.1, 1, (n, c)).astype(np.float32)
    return p / p.sum(1, keepdims=True)
