"""What the passes promise: no transposes but at the doors, one step per block, and never another result."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array, labels
from helpers.graphs import evaluate
from helpers.tolerance import assert_close
from hypothesis import given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn, optim
from pycl_cnn.compiler import training_program
from pycl_cnn.graph import FixedNodes, Graph
from pycl_cnn.ops.leaf import Constant, Input, State
from pycl_cnn.ops.movement import Reshape, Transpose
from pycl_cnn.passes import canonical, optimised
from pycl_cnn.trace import Tracer, tracing


def traced_model(model, shape, training=False):
    """(graph, feeds): the model as it is written, before any pass, with weights as feeds."""
    tracer = Tracer(training)
    for name, parameter in model.named_tensors():
        tracer.register(name, parameter)
    with tracing(tracer):
        result = model(tracer.input("x", shape))
    tracer.graph.outputs = [result.value]
    return tracer.graph


def feeds_of(graph, model, x):
    tensors = dict(model.named_tensors())
    feeds = {value: value.op.store(tensors[name].data).astype(np.float64) for name, value in graph.states.items()}
    return {**feeds, graph.inputs[0]: x.astype(np.float64)}


def steps(graph):
    """Names of what a run would do: leaves, views, and what depends on weights alone left out."""
    fixed = FixedNodes(graph)
    return [type(node.op).__name__ for node in graph.nodes() if node.inputs and node not in fixed and not isinstance(node.op, Reshape)]


def same_result(model, shape, training=False):
    """The optimised graph, checked to give what the graph gave before."""
    x = array(*shape)
    graph = traced_model(model, shape, training)
    (expected,) = evaluate(graph, feeds_of(graph, model, x), graph.outputs)
    optimised(canonical(graph))
    (actual,) = evaluate(graph, feeds_of(graph, model, x), graph.outputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    return graph


def shaken(model):
    """The model with statistics, factors and biases that are not the initial ones."""
    for index, (name, parameter) in enumerate(model.named_tensors()):
        parameter.data = array(*parameter.shape, seed=index, low=0.2 if name.endswith("var") else -1.0, high=1.0)
    return model


class Residual(nn.Module):
    def __init__(self, channels=4, activation=F.relu):
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.activation = activation

    def forward(self, x):
        return self.activation(self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x))))) + x)


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10),
    )  # fmt: skip


def test_lenet_is_one_step_per_layer_with_no_transpose_but_at_the_door():
    """The images have one channel: the door is a view, and the weight behind the flatten is permuted instead of the images."""
    graph = same_result(shaken(lenet()), (2, 1, 28, 28))
    assert steps(graph) == ["Conv", "MaxPool", "Conv", "MaxPool", "MatMul", "MatMul"]


def test_transposes_stand_only_at_the_doors():
    model = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Residual(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(4, 5, 1)))
    graph = same_result(model, (2, 3, 8, 8))
    fixed = FixedNodes(graph)  # weights are transposed once
    transposes = [node for node in graph.nodes() if isinstance(node.op, Transpose) and node not in fixed]
    assert len(transposes) == 2
    first, last = transposes
    assert isinstance(first.inputs[0].op, Input) and graph.outputs == [last.outputs[0]]


def test_channels_last_needs_no_transpose_at_all():
    model = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)))
    program = pc.compile(model, (2, 8, 8, 3), layout="NHWC", device="reference")
    assert [step.operation for step in program.steps] == ["Conv", "Conv"]


def test_convolution_batch_norm_and_activation_are_one_step_in_inference():
    for activation in (nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.Sigmoid(), nn.Tanh(), nn.GELU()):
        graph = same_result(shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation)), (1, 3, 6, 6))
        assert steps(graph) == ["Transpose", "Conv", "Transpose"]


@pytest.mark.parametrize(
    ("layer", "shape", "step"),
    [
        (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), (1, 4, 6, 6), "Conv"),
        (lambda: nn.Conv2d(6, 6, 3, groups=6), (1, 6, 6, 6), "Conv"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 5, 5), "ConvBackwardInput"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), "ConvBackwardInput"),
    ],
)
def test_batch_norm_folds_into_every_convolution(layer, shape, step):
    graph = same_result(shaken(nn.Sequential(layer(), nn.BatchNorm2d(6), nn.ReLU())), shape)
    assert steps(graph).count(step) == 1 and "Binary" not in steps(graph)


def test_batch_norm_folds_into_linear():
    graph = same_result(shaken(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU())), (3, 5))
    assert steps(graph) == ["MatMul"]


def test_residual_block_is_two_convolutions():
    """Batch norm, addition and activation ride in the stores."""
    graph = same_result(shaken(Residual()), (2, 4, 6, 6))
    assert steps(graph) == ["Transpose", "Conv", "Conv", "Transpose"]


def test_an_activation_before_the_batch_norm_is_not_folded_through():
    graph = same_result(shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))), (1, 3, 6, 6))
    assert steps(graph)[:2] == ["Transpose", "Conv"] and steps(graph).count("Binary") >= 1


class Branches(nn.Module):
    """The convolution's result is also used as it is: nothing that changes it may move into its store."""

    def __init__(self):
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return F.cat([F.relu(y), self.bn(y), y * 2, y + F.sigmoid(y)], 1)


def test_a_value_with_several_readers_is_left_alone():
    same_result(shaken(Branches()), (2, 3, 5, 5))


def kinds_of_training(model, shape, target, loss=None):
    program = training_program(model, loss or nn.CrossEntropyLoss(), optim.SGD(lr=0.1).rule, [(shape, np.float32)], target, pc.device("reference"))
    return program, [type(step.node.op).__name__ for step in program.plan.run]


def test_activations_fuse_in_training_too():
    """relu rides in the convolution's store; its gradient is taken at the output."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4))
    _, kinds = kinds_of_training(model, (2, 1, 6, 6), ((2,), np.int32))
    assert kinds.count("Conv") == 1 and "Unary" not in kinds
    assert "Transpose" not in kinds


def test_batch_norm_and_its_activation_fuse_in_training():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 4))
    _, kinds = kinds_of_training(model, (2, 3, 6, 6), ((2,), np.int32))
    assert kinds.count("BatchNormTraining") == kinds.count("BatchNormBackward") == 1
    assert "Unary" not in kinds and "UnaryBackward" not in kinds


def test_residual_addition_and_activation_are_one_step_in_training():
    model = nn.Sequential(Residual(), nn.Flatten(), nn.Linear(4 * 36, 3))
    program, kinds = kinds_of_training(model, (2, 4, 6, 6), ((2,), np.int32))
    assert "Unary" not in kinds
    sums = [step.node for step in program.plan.run if type(step.node.op).__name__ == "Binary" and step.node.op.kind == "add"]
    assert any(node.op.activation for node in sums)


def test_training_has_no_transposes_but_those_of_the_input():
    """Weights, their gradients and optimizer slots are stored as they are used."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5))
    _, kinds = kinds_of_training(model, (2, 3, 8, 8), ((2,), np.int32))
    assert kinds.count("Transpose") == 1


LAYERS = {
    "conv": lambda c: (nn.Conv2d(c, 3, 3, padding=1), 3),
    "depthwise": lambda c: (nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), c),
    "transposed": lambda c: (nn.ConvTranspose2d(c, 2, 1), 2),
    "bn": lambda c: (nn.BatchNorm2d(c), c),
    "relu": lambda c: (nn.ReLU(), c),
    "silu": lambda c: (nn.SiLU(), c),
    "softmax": lambda c: (nn.Softmax(1), c),
    "scale": lambda c: (Scale(c), c),
    "residual": lambda c: (Residual(c, F.tanh), c),
    "pool": lambda c: (nn.AvgPool2d(3, 1, 1), c),
    "maxpool": lambda c: (nn.MaxPool2d(3, 1, 1), c),
    "mix": lambda c: (Mix(), 2 * c),
    "tricks": lambda c: (Tricks(), c),
}


class Scale(nn.Module):
    def __init__(self, channels):
        self.factor, self.shift = nn.Parameter(array(channels, 1, 1)), nn.Parameter(array(1, channels, 1, 1))

    def forward(self, x):
        return self.shift - x * self.factor


class Mix(nn.Module):
    def forward(self, x):
        return F.cat([x, F.flip(x, 3)], 1)


class Tricks(nn.Module):
    """Layouts written by hand: means over axes, rows as a batch, transposes there and back."""

    def forward(self, x):
        rows = F.permute(x, (0, 2, 1, 3))
        swapped = F.transpose(rows, 1, 2) + F.mean(x, (2, 3), True)
        return F.pad(swapped[:, :, 1:, :], (0, 0, 1, 0)) * F.amax(F.reshape(x, (x.shape[0], -1)), 1, True).reshape(-1, 1, 1, 1)


@given(names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5), training=st.booleans())
def test_passes_never_change_a_result(names, training):
    """Random networks, evaluated in float64 before and after."""
    channels, layers = 2, []
    for name in names:
        layer, channels = LAYERS[name](channels)
        layers.append(layer)
    same_result(shaken(nn.Sequential(*layers)), (2, 2, 5, 4), training)


@given(names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4))
def test_random_networks_on_every_device(names, device):
    channels, layers = 2, []
    for name in names:
        layer, channels = LAYERS[name](channels)
        layers.append(layer)
    model, x = shaken(nn.Sequential(*layers)), array(2, 2, 5, 4)
    graph = traced_model(model, x.shape)
    (expected,) = evaluate(graph, feeds_of(graph, model, x), graph.outputs)
    assert_close(pc.compile(model, x.shape, device=device).run(x), expected, 400)


@given(names=st.lists(st.sampled_from(sorted(set(LAYERS) - {"maxpool", "tricks"})), min_size=1, max_size=3))
def test_gradients_of_random_networks_on_every_device(names, device):
    channels, layers = 2, []
    for name in names:
        layer, channels = LAYERS[name](channels)
        layers.append(layer)
    model = shaken(nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 20, 3)))
    x, t = array(2, 2, 5, 4), labels(2, classes=3)
    before = model.state_dict()
    results = []
    for where in ("reference", device):
        model.load_state_dict(before)
        results.append(pc.value_and_grad(model, nn.CrossEntropyLoss(), device=where)(x, t))
    (expected, expected_grads), (value, grads) = results
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for name in grads:
        assert_close(grads[name], expected_grads[name], 4000, name)


def test_states_are_stored_as_they_are_used_and_come_back_as_they_were():
    """In training; otherwise they are moved once, when weights are loaded."""
    model = shaken(lenet())
    target = np.zeros(1, np.int32)
    program = pc.compile(model, (1, 1, 28, 28), device="reference", train=True, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(0.1), target=target)
    moves = {name: value.op.moves for name, value in program.plan.graph.states.items()}
    assert moves["0.weight"] and moves["7.weight"]
    for name, value in program.plan.graph.states.items():
        op = value.op
        assert isinstance(op, State)
        weights = model.state_dict()[name]
        np.testing.assert_array_equal(op.load(op.store(weights)), weights)


def test_folding_is_done_once_not_at_every_run():
    program = pc.compile(shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())), (1, 3, 6, 6), device="reference")
    assert [step.operation for step in program.steps] == ["Transpose", "Conv", "Transpose"]
    assert len(program.setup_steps) > 0


def test_new_weights_are_folded_anew(device):
    model = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).eval()
    x = array(1, 3, 6, 6)
    first = model(x, device=device)
    model.load_state_dict({**model.state_dict(), "1.running_mean": array(4, seed=77)})
    second = model(x, device=device)
    assert (first != second).any()
    np.testing.assert_array_equal(second, pc.compile(model, x.shape, device=device).run(x))


def test_constants_stay_constants():
    graph = Graph()
    x = graph.input("x", (2, 3))
    graph.outputs = [graph.apply(Reshape((3, 2)), x), graph.constant(np.ones(3, np.float32))]
    optimised(canonical(graph))
    assert isinstance(graph.outputs[1].op, Constant)
