"""The plan: nothing alive is ever overwritten, nothing is allocated that was not announced."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array, labels
from helpers.graphs import evaluate, trace
from helpers.tolerance import assert_close
from hypothesis import given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn, optim
from pycl_cnn.compiler import training_program
from pycl_cnn.eager import finish
from pycl_cnn.ops.conv import Conv
from pycl_cnn.ops.movement import Reshape
from pycl_cnn.passes import canonical
from pycl_cnn.plan import ALIGNMENT, Kind
from pycl_cnn.trace import Tracer, tracing

CHANNELS, SIZE = 3, 4


def random_function(draw):
    """A directed acyclic graph of operations of many kinds on images [1,c,4,4] and rows [1,c*16], as a function of three inputs.

    Values are used again much later than they were made, results are handed out in the middle, views overlap with what they view.
    """
    weights = {c: array(c, c, 3, 3, seed=c) for c in range(1, 5 * CHANNELS)}
    moves = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=14))
    handed_out = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3))

    def function(*inputs):
        values = list(inputs)
        for kind, first, second in moves:
            a, b = values[first % len(values)], values[second % len(values)]
            if kind == 0:
                values.append(F.tanh(a))
            elif kind == 1 and a.shape == b.shape:
                values.append(a + b * 0.5)
            elif kind == 2 and a.ndim == 4:
                values.append(F.conv2d(a, weights[a.shape[1]] * np.float32(0.2), padding=1))
            elif kind == 3 and a.ndim == b.ndim == 4 and a.shape[1] + b.shape[1] < 4 * CHANNELS:
                values.append(F.cat([a, b], 1))
            elif kind == 4:
                values.append(F.reshape(a, (1, -1)) if a.ndim == 4 else F.reshape(a, (1, -1, SIZE, SIZE)))
            elif kind == 5:
                values.append(F.relu(a))
            elif kind == 6 and a.ndim == 4:
                values.append(a * F.mean(a, (2, 3), True))
            elif kind == 7:
                values.append(F.softmax(a, 1))
            elif kind == 8 and a.ndim == 4:
                values.append(F.permute(a, (0, 1, 3, 2)))
            elif kind == 9 and a.ndim == 4:
                values.append(F.max_pool2d(a, 3, 1, 1))
        return (*(values[index % len(values)] for index in handed_out), values[-1])

    return function


INPUTS = tuple(array(1, CHANNELS, SIZE, SIZE, seed=seed, low=-1, high=1) for seed in range(3))


def overlaps(plan):
    """Pairs of storages of the arena that share bytes while both are alive; lifetimes are found again from the steps themselves."""
    position = {step.node: index for index, step in enumerate(plan.run)}
    lives: dict = {}

    def touch(storage, index):
        first, last = lives.get(storage, (index, index))
        lives[storage] = (min(first, index), max(last, index))

    for index, step in enumerate(plan.run):
        for value in (*step.node.inputs, *step.node.outputs):
            if plan.places[value].kind is Kind.ARENA and value.nbytes:
                touch(plan.places[value], index)
        if step.workspace is not None:
            touch(step.workspace, index - step.follows)
            touch(step.workspace, index)
    assert position
    found = []
    alive = list(lives)
    for i, a in enumerate(alive):
        assert a.offset % ALIGNMENT == 0 and a.offset + a.nbytes <= plan.arenas[a.arena]
        for b in alive[:i]:
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            if together and a.arena == b.arena and a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes:
                found.append((a, b))
    return found


def clobbered(plan):
    """Values read after something else was written to their storage: a run of the plan with owners instead of bytes."""
    owner: dict = {}
    found = []

    def root(value):
        while isinstance(value.op, Reshape):
            value = value.node.inputs[0]
        return value

    for step in plan.run:
        for value in step.node.inputs:
            storage = plan.places[value]
            if storage.kind is Kind.ARENA and value.nbytes and owner.get(storage) is not root(value):
                found.append((step.node, value))
        for value in step.node.outputs:
            owner[plan.places[value]] = value
    return found


@given(data=st.data())
def test_random_graphs_on_every_device(data, device):
    """Executed on the device, the plan gives what the graph means; and by brute force no two live values overlap."""
    function = random_function(data.draw)
    expected = trace(function, *INPUTS).reference()
    traced = trace(function, *INPUTS)
    program = finish(canonical(traced.graph), device, {})
    assert overlaps(program.plan) == [] and clobbered(program.plan) == []
    for _ in range(2):  # the second run finds the arena as the first one left it
        results = program.run(*INPUTS)
        for got, want in zip(results if isinstance(results, tuple) else (results,), expected, strict=True):
            assert_close(got, want, 2000)


NETWORKS = {
    "lenet": (lambda: nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)), (2, 1, 12, 12)),
    "normalised": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AvgPool2d(2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 5)),
        (3, 2, 6, 6),
    ),
    "followed": (
        lambda: nn.Sequential(
            *[nn.Sequential(nn.Conv2d(c, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()) for c in (3, 8)],
            nn.MaxPool2d(12), nn.Flatten(), nn.Linear(8, 5),
        ),
        (3, 3, 12, 12),
    ),
}  # fmt: skip


def training(name, device):
    make, shape = NETWORKS[name]
    model = make()
    return training_program(model, nn.CrossEntropyLoss(), optim.Adam().rule, [(shape, np.float32)], ((shape[0],), np.int32), device)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_have_sound_plans(name, device):
    plan = training(name, device).plan
    assert overlaps(plan) == [] and clobbered(plan) == []


def test_statistics_are_taken_behind_what_writes_for_them():
    """On the CPU, where the convolution's tasks write whole rows: that step comes right before."""
    program = training("followed", pc.device("cpu"))
    plan = program.plan
    behind = [(before.node.op.name, step.node.op.name) for before, step in zip(plan.run, plan.run[1:], strict=False) if step.follows]
    assert behind == [("Conv", "BatchNormStatistics")] * 4
    assert program.explain().count("piece by piece behind the step before") == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_state_is_updated_after_everything_else_has_read_it(name, device):
    plan = training(name, device).plan
    position = {step.node: index for index, step in enumerate(plan.run)}
    for state, new in plan.graph.updates.items():
        writer = position[new.node]
        storage = plan.places[state]
        assert plan.places[new] is storage and storage.kind is Kind.STATE
        for step in plan.run:
            for value in step.node.inputs:
                if plan.places[value] is storage and step.node is not new.node:
                    assert position[step.node] < writer


def test_an_update_does_not_keep_its_gradient_alive_to_the_end():
    """Each parameter is updated as soon as its gradient is there, so that the gradients' memory is used again."""
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(10)])
    program = training_program(model, nn.MSELoss(), optim.SGD(lr=0.1).rule, [((2, 64), np.float32)], ((2, 64), np.float32), pc.device("reference"))
    assert program.memory.arena < 4 * 64 * 64 * 4  # not ten weight gradients at once


def test_memory_is_known_before_a_run_and_adds_up(device):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    program = pc.compile(model, (2, 1, 12, 12), device=device)
    memory, plan = program.memory, program.plan
    assert memory.inputs == 2 * 144 * 4 and memory.outputs == 2 * 5 * 4
    assert memory.arena == plan.arena_bytes >= max((s.offset + s.nbytes for s in plan.storages if s.kind is Kind.ARENA), default=0)
    assert memory.peak == memory.states + memory.weights + memory.arena + memory.inputs + memory.outputs + memory.setup
    parameters = sum(value.nbytes for value in model.state_dict().values())
    assert memory.states + memory.weights >= parameters


def test_the_arena_of_a_chain_holds_two_values_at_a_time():
    """However long the chain is."""
    sizes = []
    for depth in (3, 12):
        model = nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1))])
        sizes.append(pc.compile(model, (1, 4, 16, 16), device="reference").memory.arena)
    assert sizes[0] == sizes[1] == 2 * 4 * 16 * 16 * 4


def test_pointwise_operations_work_in_place():
    traced = trace(lambda x: F.exp(F.neg(F.sigmoid(F.square(F.tanh(F.conv2d(x, array(3, 3, 1, 1)))) * 2))), INPUTS[0])
    plan = finish(canonical(traced.graph), pc.device("reference"), {}).plan
    arena = {plan.places[value] for step in plan.run for value in step.node.outputs if plan.places[value].kind is Kind.ARENA}
    assert len(arena) <= 2


@pytest.mark.parametrize("kernel, stride, groups", [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 32), (5, 1, 4)])
def test_a_convolution_writes_over_its_residual(kernel, stride, groups, device):
    """Whatever the algorithm, where nothing reads the residual afterwards; and not where something does, be it the convolution itself."""
    rng = np.random.default_rng(kernel)
    x = rng.standard_normal((2, 32, 15, 13), dtype=np.float32)
    weight = rng.standard_normal((32, 32 // groups, kernel, kernel), dtype=np.float32)

    def places(function):
        expected = trace(function, x).reference()[0]
        program = finish(canonical(trace(function, x).graph), device, {})
        assert_close(program.run(x), expected, 32 * kernel * kernel)
        (node,) = (step.node for step in program.plan.run if isinstance(step.node.op, Conv))
        assert node.op.epilogue.residual
        return program.plan.places[node.inputs[2]], program.plan.places[node.outputs[0]]

    def block(x, residual):
        return F.max_pool2d(F.relu(F.conv2d(x, weight, stride=stride, padding=kernel // 2, groups=groups) + residual), 3)

    def read_once(x):
        return block(F.tanh(x), F.exp(F.max_pool2d(x, stride, ceil_mode=True)))

    def read_again(x):
        residual = F.exp(F.max_pool2d(x, stride, ceil_mode=True))
        return block(F.tanh(x), residual) + F.max_pool2d(residual, 3)

    def convolved(x):
        x = F.tanh(x)
        return block(x, x)

    residual, result = places(read_once)
    assert residual is result
    for function in (read_again, *([convolved] if stride == 1 else [])):
        residual, result = places(function)
        assert residual is not result


def test_in_place_needs_the_last_reader():
    """x + relu(x) must not find x overwritten by relu."""
    y = trace(lambda x: F.add(F.tanh(x), F.relu(F.tanh(x))), INPUTS[0])
    tracer = Tracer()
    with tracing(tracer):
        h = F.tanh(tracer.input("x", INPUTS[0].shape))
        tracer.graph.outputs = [(h + F.exp(h) * F.sqrt(F.abs(h))).value]
    (expected,) = evaluate(tracer.graph, {tracer.graph.inputs[0]: INPUTS[0].astype(np.float64)}, tracer.graph.outputs)
    program = finish(canonical(tracer.graph), pc.device("reference"), {})
    assert clobbered(program.plan) == []
    assert_close(program.run(INPUTS[0]), expected, 16)
    assert y.graph.outputs


def test_results_stay_what_they_were_when_the_program_runs_again(device):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Flatten())
    program = pc.compile(model, (1, 1, 6, 6), device=device)
    first = program.run(array(1, 1, 6, 6))
    kept = first.copy()
    program.run(array(1, 1, 6, 6, seed=1))
    np.testing.assert_array_equal(first, kept)


class Everything(nn.Module):
    """Results that are inputs, weights, views and each other."""

    def __init__(self):
        self.weight = nn.Parameter(array(3))

    def forward(self, x):
        y = F.tanh(x)
        return x, F.reshape(x, (3, 2)), F.mul(self.weight, 1.0), y, y, F.flatten(y), F.reshape(F.add(self.weight, np.zeros(3, np.float32)), (1, 3))


def test_results_may_be_inputs_weights_views_and_each_other(device):
    model, x = Everything(), array(2, 3)
    results = model(x, device=device)
    expected = x, x.reshape(3, 2), model.weight.data, np.tanh(x), np.tanh(x), np.tanh(x).ravel(), model.weight.data[None]
    for index, (got, want) in enumerate(zip(results, expected, strict=True)):
        assert_close(got, want.astype(np.float64), 16, str(index))
        got[...] = 0  # an array of its own: writing to it spoils none of the others
    again = model(x, device=device)
    assert_close(again[2], model.weight.data.astype(np.float64))


def test_explain_names_every_step(device):
    make, shape = NETWORKS["lenet"]
    program = pc.compile(make(), shape, device=device)
    text = program.explain()
    for step in program.steps:
        assert step.operation in text and step.algorithm in text
        assert step.nbytes > 0 and step.output
    assert str(program.device) in text and "MiB" in text
    assert sum(step.flops for step in program.steps) >= 2 * 2 * (4 * 8 * 8 * 25 + 64 * 5)


def test_a_program_with_a_target_takes_labels(device):
    program = training("lenet", device)
    loss, result = program.run(array(2, 1, 12, 12), labels(2, classes=5), np.array(optim.Adam().rule.hyper(1e-3, 1), np.float32))
    assert result.shape == (2, 5) and loss.shape == () and np.isfinite(loss)


def test_weights_are_folded_in_place_when_they_are_loaded():
    """The transposed weight and its product with the batch norm's factor are one piece of memory."""
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)).eval()
    program = pc.compile(model, (1, 64, 16, 16), device="cpu")
    weight = 4 * 64 * 64 * 9
    assert weight <= program.plan.setup_bytes < 1.1 * weight
