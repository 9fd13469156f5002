"""Profiles: one time for every step, shares of measured ceilings, and a trace that viewers open."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
from pycl_cnn import cli, nn
from pycl_cnn.backends import backend, ceilings
from pycl_cnn.backends.ceilings import COPY_SIZES, Ceilings, best_rate, machine_key, measured, remembered
from pycl_cnn.report.profile import Profile, Span, StepReport


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and nothing known."""
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    monkeypatch.setattr(ceilings, "_known", {})
    return tmp_path


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def test_every_step_has_a_time_and_a_place_on_the_timeline(device):
    program = pc.compile(network(), (2, 3, 12, 12), device=device)
    profile = program.profile(array(2, 3, 12, 12), repeat=3)
    assert len(profile.seconds) == len(program.steps) and all(seconds > 0 for seconds in profile.seconds)
    assert profile.total == pytest.approx(sum(profile.seconds))
    starts = [span.start for span in profile.timeline]
    assert {span.step for span in profile.timeline} == set(range(len(program.steps)))
    assert starts[0] == pytest.approx(0, abs=1e-3) and starts == sorted(starts) and all(span.seconds > 0 for span in profile.timeline)
    steps = [span.step for span in profile.timeline]
    assert steps == sorted(steps), "steps run in the plan's order"
    text = str(profile)
    assert program.device.label in text and f"times by {profile.clock}" in text
    assert ("of the ceilings" in text) == (device.backend != "reference")
    assert profile.clock == "host" if device.backend != "opencl" else "OpenCL" in profile.clock or "host" in profile.clock


def test_profiling_changes_no_result(device):
    x = array(2, 3, 12, 12)
    program = pc.compile(network(), x.shape, device=device)
    before = program.run(x)
    program.profile(x, repeat=2)
    np.testing.assert_array_equal(program.run(x), before)


def test_events_that_end_before_they_begin_are_not_believed(device, monkeypatch):
    """Seen where a driver's threads change processors: the host's clock takes their place, and the profile says so."""
    if device.backend != "opencl":
        pytest.skip("events are OpenCL's")
    program = pc.compile(pc.nn.Linear(7, 5), (3, 7), device=device)
    event = SimpleNamespace(profile=SimpleNamespace(start=20, end=10))
    measured = type(program)._timed
    monkeypatch.setattr(program.context, "has_clock", True)
    monkeypatch.setattr(type(program), "_timed", lambda self, launch: (event, 0.0) if self.context.has_clock else measured(self, launch))
    profile = program.profile(np.ones((3, 7), np.float32))
    assert all(span.seconds > 0 and span.start >= 0 for span in profile.timeline)
    assert "the host, as this driver's events hold no times or impossible ones" in str(profile)


def test_ceilings_are_measured_and_remembered(device, cache):
    measured = backend(device.backend).ceilings(device)
    if device.backend == "reference":
        assert measured is None
        return
    assert measured.flops > 1e6 and measured.copies and all(rate > 1e5 for _, rate in measured.copies)
    (entry,) = json.loads((cache / ceilings.FILE).read_text()).values()
    assert entry["flops"] == measured.flops and entry["sessions"] == 1
    assert backend(device.backend).ceilings(device) is measured, "once in a process"


def test_the_best_of_the_first_processes_counts(cache, monkeypatch):
    calls = []

    def measure():
        calls.append(len(calls))
        return Ceilings(10.0 + len(calls) % 3, ((100, 5.0), (200, 1.0 + len(calls))))

    for _ in range(ceilings.SESSIONS + 2):
        monkeypatch.setattr(ceilings, "_known", {})
        known = remembered("here", measure)
    assert len(calls) == ceilings.SESSIONS and known.flops == 12.0 and known.bandwidth(150) == 1.0 + ceilings.SESSIONS
    assert known.bandwidth(1) == 5.0 and known.bandwidth(10**9) == known.bandwidth(150)
    assert machine_key("a", 2).endswith("| a | 2")


def test_a_floor_is_the_slower_of_arithmetic_and_memory():
    ceiling = Ceilings(100.0, ((8, 4.0), (1000, 2.0)))
    assert ceiling.floor(200, 4) == 2.0 and ceiling.floor(0, 8) == 2.0 and ceiling.floor(0, 100) == 50.0 and ceiling.floor(0, 0) == 0.0


def test_rates_are_found_whatever_a_round_takes(monkeypatch):
    """A clock that stands still but for the work: beginning takes a second's hundredth, a round a millionth."""
    now = [0.0]
    monkeypatch.setattr(ceilings, "perf_counter", lambda: now[0])

    def work(rounds):
        now[0] += 1e-2 + rounds * 1e-6
        return float(rounds)

    rate, seconds = best_rate(work)
    assert 0.7e6 < rate <= 1e6 and seconds == pytest.approx(1 / rate)

    def slow(rounds):
        now[0] += 2.0 * rounds
        return float(rounds)

    began = now[0]
    assert best_rate(slow)[0] == pytest.approx(0.5) and now[0] - began < 10
    assert len(measured(slow, lambda size: slow, 1 << 40).copies) == 1, "a slow device is not asked for large copies"
    assert [size for size, _ in measured(work, lambda size: work, COPY_SIZES[2]).copies] == list(COPY_SIZES[:3])


def step(name="conv", flops=100, nbytes=50):
    return StepReport("Conv", name, "igemm", ((1, 2),), (1, 3), 4 * flops, flops, nbytes, "why")


def test_profile_of_runs():
    runs = [[Span(0, 0.0, 2.0), Span(0, 2.0, 2.0), Span(1, 4.0, 1.0)], [Span(0, 0.0, 1.0), Span(0, 1.0, 1.0), Span(1, 2.0, 2.0)]]
    profile = Profile.of([step(), step("fc")], runs, "cpu", "host", Ceilings(100.0, ((1000, 100.0),)))
    assert profile.seconds == (2.0, 1.0) and profile.timeline == tuple(runs[1]) and profile.floors == (1.0, 1.0)
    assert "50%" in str(profile) and "67% of the ceilings" in str(profile)
    assert Profile.of([], [[]], "cpu", "host", None).total == 0


def check_trace(events, names):
    """The Trace Event Format, as chrome://tracing and Perfetto read it: complete events with numbers, metadata with names."""
    complete = [event for event in events if event["ph"] == "X"]
    meta = {event["name"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert len(complete) + len(meta) == len(events) and set(meta) == {"process_name", "thread_name"}
    for event in complete:
        assert isinstance(event["name"], str) and event["name"] and isinstance(event["cat"], str)
        assert event["ts"] >= 0 and event["dur"] > 0 and event["pid"] == 0 and event["tid"] == 0
        assert event["args"]["flops"] >= 0 and event["args"]["bytes"] > 0
    assert {event["args"]["step"] for event in complete} == set(range(len(names)))
    starts = [event["ts"] for event in complete]
    assert starts == sorted(starts)


@pytest.mark.parametrize("mode", [[], ["--train"]])
def test_the_command_writes_table_and_trace(device, tmp_path, capsys, mode):
    path = tmp_path / "trace.json"
    assert cli.main(["profile", "lenet5", "--device", device.label, "--batch", "2", "--repeat", "1", "--trace", str(path), *mode]) == 0
    out = capsys.readouterr().out
    assert "lenet5, batch 2" in out and "conv1" in out and str(path) in out and ("training step" in out) == bool(mode)
    trace = json.loads(path.read_text())
    steps = [line for line in out.splitlines() if line.split() and line.split()[0].isdigit()]
    check_trace(trace["traceEvents"], steps)
    assert trace["displayTimeUnit"] == "ms" and list(tmp_path.iterdir()) == [path]


def test_a_trace_that_cannot_be_written_is_told_before_the_work(capsys):
    assert cli.main(["profile", "lenet5", "--trace", "/nowhere/trace.json"]) == 2
    assert "--trace" in capsys.readouterr().err


def test_a_map_of_classes_trains_too():
    from pycl_cnn.cli_models import known_model, program_of
    from pycl_cnn.compiler import output_shape

    program, inputs = program_of(known_model("digits"), 3, pc.device("cpu"), training=True)
    assert set(inputs) == set(program.input_values) and np.isfinite(program.run(**inputs)[0])
    assert output_shape(nn.Sequential(nn.Conv2d(3, 2, 3)), (1, 3, 8, 7)) == (1, 2, 6, 5)
