"""The same bits for any number of threads, at every run, and from whichever Python thread a program is used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.catalogue import CASES, array, labels
from helpers.graphs import result_and_gradients

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn, optim
from pycl_cnn.compiler import training_program


@pytest.fixture
def threads():
    """`pc.set_num_threads`, put back afterwards."""
    before = pc.get_num_threads()
    yield pc.set_num_threads
    pc.set_num_threads(before)


def same_bits(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.view(np.int32) if a.ndim else a, b.view(np.int32) if b.ndim else b)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operation_gives_the_same_bits_on_one_and_two_threads_and_twice(case, device, threads):
    runs = []
    for number in (1, 2, 2):
        threads(number)
        runs.append(result_and_gradients(lambda *x: case.call(F, *x), *case.arrays, device=device))
    same_bits(runs[0], runs[1])
    same_bits(runs[1], runs[2])


def network():
    pc.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Conv2d(24, 40, 3, stride=2), nn.Flatten(), nn.Linear(40 * 9, 10),
    )  # fmt: skip


def trained(device, steps=4):
    """Weights, statistics and slots after a few steps on images large enough to be split into many tasks."""
    model, rule = network(), optim.Adam(lr=0.01).rule
    program = training_program(model, nn.CrossEntropyLoss(), rule, [((8, 3, 18, 18), np.float32)], ((8,), np.int32), device)
    losses = []
    for step in range(1, steps + 1):
        x, hyper, rng = array(8, 3, 18, 18, seed=step), np.array(rule.hyper(0.01, step), np.float32), np.array([1, step], np.int32)
        loss, _ = program.run(x, target=labels(8, classes=10), hyper=hyper, rng=rng)
        losses.append(loss)
    return [np.array(losses), *program.states().values()]


def test_training_gives_the_same_bits_on_one_and_two_threads_and_twice(device, threads):
    runs = []
    for number in (1, 2, 2):
        threads(number)
        runs.append(trained(device))
    same_bits(runs[0], runs[1])
    same_bits(runs[1], runs[2])


def test_clones_run_side_by_side_with_the_same_weights(device):
    program = pc.compile(network(), (2, 3, 18, 18), device=device)
    inputs = [array(2, 3, 18, 18, seed=seed) for seed in range(4)]
    expected = [program.run(x) for x in inputs]

    def work(x):
        own = program.clone()
        return [own.run(x) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for results, want in zip(pool.map(work, inputs), expected, strict=True):
            for got in results:
                np.testing.assert_array_equal(got, want)


def test_one_program_refuses_two_threads_at_a_time():
    """On the reference backend a run can be held up by an operation that waits."""
    program = pc.compile(nn.ReLU(), (2, 3), device="reference")
    inside, go_on = threading.Event(), threading.Event()
    run = program._run

    def slow(inputs):
        inside.set()
        assert go_on.wait(10)
        return run(inputs)

    program._run = slow
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(program.run, array(2, 3))
        assert inside.wait(10)
        with pytest.raises(pc.DeviceError, match=r"running in another thread; give each thread a clone"):
            program.run(array(2, 3))
        go_on.set()
        np.testing.assert_array_equal(future.result(), np.maximum(array(2, 3), 0))
    np.testing.assert_array_equal(program.run(array(2, 3)), np.maximum(array(2, 3), 0))


def test_functions_and_models_may_be_called_from_several_threads(device):
    """Eager calls take programs out of their cache while they run."""
    model = network().eval()
    inputs = [array(1 + seed % 2, 3, 18, 18, seed=seed) for seed in range(6)]
    w = array(5, 3, 3, 3)
    expected = [(model(x, device=device), F.conv2d(x, w, device=device)) for x in inputs]

    def work(x):
        return [(model(x, device=device), F.conv2d(x, w, device=device)) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        for results, want in zip(pool.map(work, inputs), expected, strict=True):
            for got in results:
                same_bits(got, want)


def test_traces_of_different_threads_do_not_mix():
    """While one thread traces, eager calls of another compute."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, x):
            inside.set()
            assert go_on.wait(10)
            return F.relu(x)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: Waiting()(array(3), device="reference"))
        assert inside.wait(10)
        np.testing.assert_array_equal(F.neg(array(3), device="reference"), -array(3))
        go_on.set()
        np.testing.assert_array_equal(future.result(), np.maximum(array(3), 0))


@pytest.mark.parametrize("number", [0, -1, 1.5, "two"])
def test_the_number_of_threads_must_be_a_positive_integer(number):
    before = pc.get_num_threads()
    with pytest.raises((pc.PyclError, ValueError, TypeError)):
        pc.set_num_threads(number)
    assert pc.get_num_threads() == before
