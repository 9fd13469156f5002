"""compile(..., wait=False): the CPU answers until the device's program is made, nothing is lost on the way over."""

import threading
import warnings

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
from pycl_cnn import nn, optim
from pycl_cnn.backends.switching import SwitchingProgram
from pycl_cnn.errors import DeviceWarning

X = array(2, 3, 8, 8)
CPU, REFERENCE = pc.device("cpu"), pc.device("reference")


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class Gate:
    """A maker that waits until it is let go; on the reference backend, which is told from the CPU by its device."""

    def __init__(self, make):
        self.make, self.go = make, threading.Event()

    def __call__(self):
        assert self.go.wait(30)
        return self.make()


def switching(model, first, second):
    gate = Gate(second)
    return SwitchingProgram(first(), gate, REFERENCE, model.state_dict()), gate


def test_answers_come_from_the_cpu_then_from_the_device():
    model = network().eval()
    program, gate = switching(model, lambda: pc.compile(model, X.shape, device="cpu"), lambda: pc.compile(model, X.shape, device="reference"))
    expected = pc.compile(model, X.shape, device="cpu").run(X)
    np.testing.assert_array_equal(program.run(X), expected)
    assert program.pending and program.device == CPU and "answers while reference" in program.explain() and not program.wait(0.01)
    clone = program.clone()
    gate.go.set()
    assert program.wait(30) and program.device == REFERENCE
    np.testing.assert_allclose(program.run(X), expected, rtol=1e-4, atol=1e-5)
    assert "reference" in program.explain() and "since its kernels were ready" in program.explain() and "reference" in repr(program)
    assert clone.device == CPU
    np.testing.assert_array_equal(clone.run(X), expected)


@pytest.mark.parametrize("early", [True, False])
def test_weights_loaded_before_or_after_the_switch_arrive(early):
    model = network().eval()
    program, gate = switching(model, lambda: pc.compile(model, X.shape, device="cpu"), lambda: pc.compile(model, X.shape, device="reference"))
    other = {name: (0.5 * value).astype(np.float32) for name, value in model.state_dict().items()}
    if early:
        program.load(other)
        other = {name: value.copy() for name, value in other.items()}
    gate.go.set()
    program.wait(30)
    if not early:
        program.load(other)
    model.load_state_dict(other)
    np.testing.assert_allclose(program.run(X), model(X, device="reference"), rtol=1e-5, atol=1e-6)
    assert program.device == REFERENCE and program.memory.peak > 0 and len(program.steps) > 0 and program.setup_steps is not None


def test_training_goes_on_where_it_was():
    model, loss, target = network(), nn.CrossEntropyLoss(), np.array([0, 2], np.int32)
    optimizer = optim.SGD(lr=0.1, momentum=0.9)

    def make(device):
        return pc.compile(model, X.shape, device=device, train=True, loss=loss, optimizer=optimizer, target=target)

    hyper = [np.array(optimizer.rule.hyper(0.1, step), np.float32) for step in (1, 2, 3, 4)]
    alone = make("reference")
    expected = [alone.run(X, target, h)[0] for h in hyper]
    program, gate = switching(model, lambda: make("cpu"), lambda: make("reference"))
    got = [program.run(X, target, h)[0] for h in hyper[:2]]
    gate.go.set()
    program.wait(30)
    got += [program.run(X, target, h)[0] for h in hyper[2:]]
    assert program.device == REFERENCE
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    for name, array_ in alone.states().items():
        np.testing.assert_allclose(program.states()[name], array_, rtol=1e-3, atol=1e-5)


def test_a_failure_is_told_once_and_raised_by_wait():
    model = network().eval()

    def fail():
        raise pc.DeviceError("the compiler is on fire")

    program, gate = switching(model, lambda: pc.compile(model, X.shape, device="cpu"), fail)
    expected = program.run(X)
    gate.go.set()
    program._thread.join(30)
    with pytest.warns(DeviceWarning, match="on fire"):
        np.testing.assert_array_equal(program.run(X), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(program.run(X), expected)
    assert "on fire" in program.explain() and program.device == CPU
    with pytest.raises(pc.DeviceError, match="on fire"):
        program.wait()


def test_compile_without_waiting(device):
    model = network().eval()
    program = pc.compile(model, X.shape, device=device, wait=False)
    first = program.run(X)
    if device.backend != "opencl":
        assert not isinstance(program, SwitchingProgram)
        return
    assert program.wait(120) and program.device == device and program.plan is not None
    np.testing.assert_allclose(program.run(X), first, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(program.run(X), pc.compile(model, X.shape, device=device).run(X))
    assert len(program.profile(X, repeat=1).seconds) == len(program.steps)


def test_what_happens_to_the_model_after_compile_is_not_the_programs_business(device):
    tracers = []

    class Recorder(nn.Module):
        def forward(self, x):
            tracers.append(threading.current_thread())
            return x

    model = nn.Sequential(Recorder(), network()).eval()
    program = pc.compile(model, X.shape, device=device, wait=False)
    if isinstance(program, SwitchingProgram):
        assert program.wait(120)
    assert set(tracers) == {threading.current_thread()}, "a program is traced where compile was called, and when"
