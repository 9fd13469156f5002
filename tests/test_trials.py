"""Kernels that crash, hang, do not build or are simply fine, tried in child processes; and what is remembered between sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pycl_cnn import cache
from pycl_cnn.backends.opencl import devices, trials
from pycl_cnn.backends.opencl.sources import signatures
from pycl_cnn.errors import DeviceError

pytest.importorskip("pyopencl")
DEVICES = devices.devices()
needs_device = pytest.mark.skipif(not DEVICES, reason="no OpenCL device on this machine")

FINE = "__kernel void fill(__global int *y, const int y_offset, const int count, const int value, const int span) { y[y_offset + get_global_id(0)] = value; }"
WRONG_SYNTAX = FINE.replace("value;", "no such thing;")
ENDLESS = FINE.replace("{", "{ volatile int go = 1; while (go) ;")
DEADLY = FINE.replace("{", "{ *(volatile __global int *)0 = 1;")


@pytest.fixture(params=DEVICES, ids=[f"{d.index}-{d.platform_version[11:24]}" for d in DEVICES])
def info(request):
    return request.param


def request(source, value=7):
    """A launch of what claims to be the kernel `fill` of movement.cl, and where its three results lie."""
    payload = trials.Payload()
    y = payload.place(np.zeros(3, np.int32))
    assert {p.name for p in signatures("movement")["fill"]} == {"y", "y_offset", "count", "value", "span"}
    payload.launch("movement", "fill", source, (), (3,), None, {"y": (trials.MEMORY, y), "count": 3, "value": value, "span": 1})
    return {"run": payload.request()}, y


@needs_device
def test_a_kernel_that_works_gives_its_memory_and_leaves_the_rest_alone(info):
    asked, y = request(FINE)
    (outcome,) = trials.run(info, [asked])
    assert outcome.problem == ""
    memory, before = trials.decoded(outcome.result), trials.decoded(asked["run"]["memory"])
    np.testing.assert_array_equal(memory[y : y + 3], 7)
    np.testing.assert_array_equal(np.delete(memory, slice(y, y + 3)), np.delete(before, slice(y, y + 3)))


@needs_device
def test_a_death_costs_only_the_kernel_it_was_at(info, monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 20.0)
    sources = [FINE, DEADLY, FINE, WRONG_SYNTAX, FINE, DEADLY, FINE]
    asked = [request(source, number) for number, source in enumerate(sources)]
    outcomes = trials.run(info, [r for r, _ in asked])
    for number, (source, outcome, (_, y)) in enumerate(zip(sources, outcomes, asked)):
        if source is FINE:
            np.testing.assert_array_equal(trials.decoded(outcome.result)[y : y + 3], number)
            continue
        assert (outcome.program, outcome.entry, outcome.result) == (0, "fill", None)
        assert outcome.problem.startswith("does not build: " if source is WRONG_SYNTAX else "kills its process (SIG")


def test_no_two_children_build_the_same_kernel():
    """Requests of shared and of own kernels, answered by children that take time."""
    asked = [launches("ab"), launches("abc"), launches("ab"), launches("d"), launches("cd"), launches("e"), launches("a")]
    tasks, building, built, twice = trials._Queue(asked), set(), set(), []
    lock = threading.Lock()

    class Child:
        def ask(self, request):
            mine = {p[0] for p in request["run"]["programs"]}
            with lock:
                new = mine - built
                twice.extend(new & building)
                building.update(new)
            time.sleep(0.01 * len(new))
            with lock:
                built.update(new)
                building.difference_update(new)
            return trials.Outcome("".join(sorted(mine)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tasks.serve, [Child(), Child()]))
    assert [outcome.result for outcome in tasks.outcomes] == ["ab", "abc", "ab", "d", "cd", "e", "a"]
    assert built == set("abcde") and twice == [], twice


def test_a_kernel_that_failed_is_not_tried_in_another_request():
    tasks, asked = trials._Queue([launches("ba"), launches("cb"), launches("d")]), []

    class Child:
        def ask(self, request):
            names = [p[0] for p in request["run"]["programs"]]
            asked.append("".join(names))
            return trials.Outcome(None, "dies", names.index("b"), "fill") if "b" in names else trials.Outcome("fine")

    tasks.serve(Child())
    assert len(asked) == 2 and "d" in asked
    assert [(o.problem, o.program) for o in tasks.outcomes] == [("dies", 0), ("dies", 1), ("", -1)]


def launches(names):
    """A request that launches programs of these names."""
    payload = trials.Payload()
    y = payload.place(np.zeros(3, np.int32))
    for name in names:
        payload.launch("movement", "fill", name, (), (3,), None, {"y": (trials.MEMORY, y), "count": 3, "value": 0, "span": 1})
    return {"run": payload.request()}


@needs_device
def test_a_kernel_that_hangs_is_given_up(info, monkeypatch):
    (ready,) = trials.run(info, [request(FINE)[0]])  # the time limit below is not for starting a process on a busy machine
    assert not ready.problem
    monkeypatch.setattr(trials, "SECONDS", 5.0)
    hanging, fine = trials.run(info, [request(ENDLESS)[0], request(FINE)[0]])
    assert hanging.problem == "hangs: no answer in 5 s while running" and hanging.entry == "fill"
    assert not fine.problem


@needs_device
def test_a_child_that_ended_meanwhile_is_started_again():
    asked, _ = request(FINE)
    assert not trials.run(DEVICES[0], [asked])[0].problem
    (worker,) = [w for w in trials._workshop(DEVICES[0])._workers if w._process is not None][:1]
    worker._process.send_signal(signal.SIGKILL)
    assert not trials.run(DEVICES[0], [asked])[0].problem


@needs_device
def test_kernels_can_be_tried_inside_this_process(monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CHECK", "inside")
    asked, y = request(FINE)
    fine, wrong = trials.run(DEVICES[0], [asked, request(WRONG_SYNTAX)[0]])
    np.testing.assert_array_equal(trials.decoded(fine.result)[y : y + 3], 7)
    assert wrong.problem.startswith("does not build: ")


@needs_device
def test_an_interpreter_that_is_none_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setattr(trials, "_workshops", {})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match=r"the process that tries kernels cannot be used: .*PYCL_CNN_CHECK=inside"):
        trials.run(DEVICES[0], [request(FINE)[0]])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeviceError, match=r"cannot be used: .*nowhere.*PYCL_CNN_CHECK=inside"):
        trials.run(DEVICES[0], [request(FINE)[0]])


def test_processes_that_remember_at_the_same_time_lose_nothing(tmp_path, monkeypatch):
    code = "import sys; from pycl_cnn.cache import update_cache\nfor i in range(20): update_cache('x.json', {f'{sys.argv[1]}-{i}': i})"
    environment = {**os.environ, "PYCL_CNN_CACHE": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", code, str(number)], env=environment) for number in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    assert len(cache.read_cache("x.json")) == 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.json.lock"]


def test_a_cache_that_cannot_be_read_or_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path / "file" / "below"))
    cache.update_cache("x.json", {"a": 1})
    assert cache.read_cache("x.json") == {}
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    (tmp_path / "x.json").write_text('{"half": ')
    assert cache.read_cache("x.json") == {}
    cache.update_cache("x.json", {"a": 1, "b": 2})
    assert cache.read_cache("x.json") == {"a": 1, "b": 2}
    cache.update_cache("x.json", {"a": None})
    assert cache.read_cache("x.json") == {"b": 2}


@needs_device
def test_an_interrupted_request_leaves_no_answer_for_the_next(info):
    worker = trials._Worker(info)
    (first, _), (second, y) = request(FINE, 1), request(FINE, 2)
    assert worker.ask(first).problem == ""
    lines, worker._lines = worker._lines, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        worker.ask(first)
    worker._lines = lines
    outcome = worker.ask(second)
    np.testing.assert_array_equal(trials.decoded(outcome.result)[y : y + 3], 2)
    worker._forget(worker._process)


class Interrupted:
    def get(self, timeout):
        raise KeyboardInterrupt
