"""Device "auto": the race that it goes by, what is remembered, and devices that fail or are slow."""

import json

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import placement
from pycl_cnn.backends import race
from pycl_cnn.backends.base import Device

CPU = pc.device("cpu")
GPU = Device("opencl", 0, "Wonder", "gpu", "Acme OpenCL 3.0", "7")
POCL = Device("opencl", 1, "pthread", "cpu", "Portable OpenCL 3.0", "3.1")
BROKEN = Device("opencl", 2, "Broken", "gpu", "Bad OpenCL 1.2", "0")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    return tmp_path


def choose(monkeypatch, devices, results, left=()):
    """What "auto" is where the race ends so."""
    monkeypatch.setattr(placement, "opencl_devices", lambda: list(devices))
    monkeypatch.setattr(race, "race", lambda native, found: ([race.Result(device, *results[device]) for device in found if device in results], list(left)))
    return placement._automatic()


def test_a_faster_gpu_is_chosen_and_both_times_are_told(monkeypatch):
    chosen = choose(monkeypatch, [POCL, GPU], {GPU: (0.001, 0.004), POCL: (0.005, 0.004)})
    assert chosen.label == "opencl:0" and "opencl:0 1.00 ms, cpu 4.00 ms" in chosen.reason


def test_a_slower_gpu_is_not(monkeypatch):
    chosen = choose(monkeypatch, [GPU], {GPU: (0.005, 0.004)})
    assert chosen.label == "cpu" and "opencl:0 5.00 ms, cpu 4.00 ms" in chosen.reason


@pytest.mark.parametrize(("seconds", "label"), [(0.0039, "cpu"), (0.003, "opencl:1")])
def test_on_the_same_processor_opencl_must_be_clearly_faster(monkeypatch, seconds, label):
    assert choose(monkeypatch, [POCL], {POCL: (seconds, 0.004)}).label == label


def test_a_disturbed_native_time_does_not_decide(monkeypatch):
    assert choose(monkeypatch, [GPU, POCL], {GPU: (0.006, 0.004), POCL: (0.005, 0.04)}).label == "cpu"


def test_devices_that_fail_or_wait_are_named(monkeypatch):
    chosen = choose(monkeypatch, [BROKEN, GPU, POCL], {BROKEN: (0.0, 0.0, "it burns"), GPU: (0.001, 0.002)}, [POCL])
    assert chosen.label == "opencl:0" and "opencl:2 fails (it burns)" in chosen.reason and "opencl:1 not yet measured" in chosen.reason
    only = choose(monkeypatch, [BROKEN], {BROKEN: (0.0, 0.0, "it burns")})
    assert only.label == "cpu" and "it burns" in only.reason
    assert choose(monkeypatch, [], {}).reason == "auto: there is no OpenCL device"


def test_each_device_is_measured_once_and_a_session_is_short(cache, monkeypatch):
    asked, clock = [], [0.0]

    def runner(device, edge, layers):
        asked.append((device.label, edge))
        if device is BROKEN:
            raise RuntimeError("it\nburns")
        clock[0] += 1.1

        def run():
            clock[0] += 0.01 if device is not POCL else 0.2

        return run

    monkeypatch.setattr(race, "_runner", runner)
    monkeypatch.setattr(race, "perf_counter", lambda: clock[0])
    results, left = race.race(CPU, [BROKEN, GPU, POCL])
    assert [result.device for result in results] == [BROKEN, GPU] and left == [POCL]
    assert results[0].problem == "RuntimeError: it burns" and results[1].seconds == pytest.approx(0.01) and results[1].native == pytest.approx(0.01)
    asked.clear()
    for _ in range(race.SESSIONS):
        results, left = race.race(CPU, [BROKEN, GPU, POCL])
    assert not left and [result.device for result in results] == [BROKEN, GPU, POCL]
    assert (POCL.label, race.LARGE) not in asked, "a slow device does the small part"
    assert asked.count((BROKEN.label, race.SMALL)) == race.SESSIONS - 1, "a failing device is asked again: what failed may have been the session's trouble"
    assert asked.count((GPU.label, race.LARGE)) == race.SESSIONS - 1 and results[1].sessions == race.SESSIONS
    assert results[2].seconds == pytest.approx(0.2 * race.LAYERS * (race.LARGE / race.SMALL) ** 2)
    assert len(json.loads((cache / race.FILE).read_text())) == 3


def test_the_least_times_of_the_first_sessions_count():
    earlier = race.Result(GPU, 3.0, 1.0, "", 2)
    assert race.Result(GPU, 2.0, 4.0).with_earlier(earlier) == race.Result(GPU, 2.0, 1.0, "", 3)
    assert race.Result(GPU, problem="burns").with_earlier(earlier) == race.Result(GPU, problem="burns", sessions=3)
    assert race.Result(GPU, 2.0, 4.0).with_earlier(race.Result(GPU, problem="full")) == race.Result(GPU, 2.0, 4.0, "", 2), "it works again"


def test_the_race_itself(device, cache):
    if device.backend == "reference":
        pytest.skip("the reference does not race")
    if device.backend == "cpu":
        run = race._runner(device, 6, 2)
        assert np.asarray(run()).shape == (1, 6, 6, race.CHANNELS)
        return
    (result,), left = race.race(CPU, [device])
    assert not left and not result.problem and result.seconds > 0 and result.native > 0 and device.label in str(result)


def test_auto_says_why(cache):
    chosen = placement._automatic()
    assert chosen.reason.startswith("auto: ")
    assert chosen.label in [device.label for device in pc.devices()]
    for device in placement.opencl_devices():
        assert device.label in chosen.reason
