"""Steps that NumPy does between kernels: dtypes that no kernel takes, operations that no backend has."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn, optim
from pycl_cnn.backends import backend
from pycl_cnn.backends.host import HostStep
from pycl_cnn.eager import finish
from pycl_cnn.graph import Graph
from pycl_cnn.ops.base import Spec
from pycl_cnn.ops.host import HostOp, OnnxNode
from pycl_cnn.ops.leaf import State
from pycl_cnn.ops.movement import Concat, Expand, Flip, Pad, Slice, Transpose
from pycl_cnn.ops.pointwise import Activation, Binary, Unary
from pycl_cnn.passes import canonical

DTYPES = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float16, np.float32, np.float64]


def step(name):
    """An operator of ONNX that is no more than its name here."""
    return OnnxNode(name, 20, {}, ())


def _mixed_program(device):
    """Kernels, a host step among them, a transposed mask, and integers out of a mask."""
    graph = Graph()
    x, mask = graph.input("x", (3, 5)), graph.input("mask", (3, 1), np.bool_)
    y = graph.apply(Unary(Activation("relu")), x)
    chosen = graph.apply(HostOp(step("Where"), lambda m, a: (np.where(m, a, -1),), (Spec((3, 5), np.dtype(np.float32)),)), mask, y)
    turned = graph.apply(Transpose((1, 0)), mask)
    counted = graph.apply(HostOp(step("Cast"), lambda m: (m.astype(np.int64),), (Spec((1, 3), np.dtype(np.int64)),)), turned)
    graph.outputs = [graph.apply(Binary("add"), chosen, y), turned, counted]
    return finish(canonical(graph), device, {})


def _expected(x, mask):
    y = np.maximum(x, 0)
    return np.where(mask, y, -1) + y, mask.T, mask.T.astype(np.int64)


def test_kernels_and_host_steps_alternate(device):
    program = _mixed_program(device)
    rng = np.random.default_rng(0)
    for runner in (program, program.clone(), program):
        x, mask = rng.standard_normal((3, 5)).astype(np.float32), rng.random((3, 1)) > 0.5
        for result, expected in zip(runner.run(x, mask), _expected(x, mask), strict=True):
            assert result.dtype == expected.dtype
            np.testing.assert_array_equal(result, expected)


def test_explain_says_what_runs_on_the_host_and_what_is_copied(device):
    if device.backend == "reference":
        pytest.skip("the reference does everything in NumPy")
    program = _mixed_program(device)
    steps = {step.operation: step for step in program.steps}
    assert steps["HostOp Where"].algorithm == "numpy" and "evaluated on the host" in steps["HostOp Where"].why
    assert steps["Unary relu"].algorithm != "numpy"
    moved = next(step for step in program.steps if "no kernel moves bool" in step.why)
    assert ("KiB back" in moved.why) == (device.backend == "opencl")
    profile = program.profile(np.zeros((3, 5), np.float32), np.ones((3, 1), bool), repeat=2)
    assert len(profile.seconds) == len(program.steps) and all(seconds > 0 for seconds in profile.seconds)


def test_clones_have_arenas_of_their_own():
    program = _mixed_program(pc.device("cpu"))
    failures = []

    def work(runner, seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            x, mask = rng.standard_normal((3, 5)).astype(np.float32), rng.random((3, 1)) > 0.5
            if not np.array_equal(runner.run(x, mask)[0], _expected(x, mask)[0]):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(program.clone(), seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_elements_of_every_size_move(device, dtype):
    graph = Graph()
    x = graph.input("x", (3, 1, 5), dtype)
    sliced = graph.apply(Slice((0, 0, 1), (3, 1, 5), (2, 1, 2)), x)
    padded = graph.apply(Pad((1, 0, 0), (0, 1, 0), (0, 0, 1)), sliced)
    wide = graph.apply(Expand((3, 4, 5)), x)
    graph.outputs = [padded, graph.apply(Flip((2,)), wide), graph.apply(Concat(2), graph.apply(Transpose((0, 2, 1)), x), graph.apply(Transpose((0, 2, 1)), x))]
    array = (np.arange(15).reshape(3, 1, 5) % 2 if dtype == np.bool_ else np.arange(15).reshape(3, 1, 5) * 7 % 100).astype(dtype)
    part = array[::2, :, 1::2]
    expected_pad = np.zeros((3, 2, 3), dtype)
    expected_pad[1:, :1, ::2] = part
    turned = array.transpose(0, 2, 1)
    results = finish(canonical(graph), device, {}).run(array)
    for result, expected in zip(results, (expected_pad, np.broadcast_to(array, (3, 4, 5))[:, :, ::-1], np.concatenate([turned, turned], 2)), strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_what_depends_on_weights_alone_is_evaluated_once(device):
    graph = Graph()
    x, weight = graph.input("x", (2, 3)), graph.state(State.plain("weight", (3,)))
    calls = []

    def doubled(w):
        calls.append(1)
        return (2 * w,)

    graph.outputs = [graph.apply(Binary("mul"), x, graph.apply(HostOp(step("Add"), doubled, (weight.spec,)), weight))]
    program = finish(canonical(graph), device, {"weight": np.arange(3, dtype=np.float32)})
    for _ in range(3):
        np.testing.assert_allclose(program.run(np.ones((2, 3), np.float32)), [[0, 2, 4]] * 2)
    assert len(calls) == 1 and len(program.setup_steps) == 1


def test_the_cpu_backend_does_what_no_kernel_is_right_for(monkeypatch):
    """A whole step of training on an OpenCL device none of whose kernels passed the check."""
    device = next((device for device in pc.devices() if device.backend == "opencl"), None)
    if device is None:
        pytest.skip("no OpenCL device")
    kind = type(backend("opencl"))
    monkeypatch.setattr(kind, "examine", lambda *_: None)
    monkeypatch.setattr(kind, "problem", lambda *_: "" if isinstance(_[1], HostStep) else "it is wrong")
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((4, 3, 8, 8)).astype(np.float32), np.array([0, 1, 2, 1])

    def trained(where):
        pc.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(8, 3)]
        trainer = pc.Trainer(nn.Sequential(*layers), nn.CrossEntropyLoss(), optim.SGD(lr=0.1, momentum=0.9), device=where)
        trainer.fit((x, labels), epochs=2, batch_size=4, progress=False)
        return trainer.model

    with pytest.warns(pc.DeviceWarning, match="cpu takes its place"):
        found = trained(device)
    for (name, array), expected in zip(found.state_dict().items(), trained("cpu").state_dict().values(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.warns(pc.DeviceWarning):
        program = pc.compile(found.eval(), x.shape, device=device)
    assert {step.algorithm for step in program.steps} <= {"cpu", "numpy"} and "cpu" in {step.algorithm for step in program.steps}
