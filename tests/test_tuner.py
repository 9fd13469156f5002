"""The process that tries variants, watched over by the one that must survive it."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
from helpers.tuning import FACTS, GPU, HERE, TOY, first_opencl_device

import pycl_cnn as pc
from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.ops.conv import Conv
from pycl_cnn.tuning import search, tuner, worker
from pycl_cnn.tuning.database import Record, Tuning, TuningError, own_path, own_records, read
from pycl_cnn.tuning.space import Variant

FAKE = """
import json, sys, time
json.loads(sys.stdin.readline())
def say(**message): print(json.dumps(message), flush=True)
say(event="device", facts={facts}, kernels="k", tasks=1)
tried = json.loads(sys.stdin.readline())["tried"].get("step", {{}})
{body}
say(event="done", finished=True)
"""
TRY = """
for a in range(1, 7):
    label = json.dumps({"toy": {"kernel": "toy", "A": a}})
    if label in tried: continue
    say(event="trying", task="step", variant=label)
    %s
    say(event="result", task="step", variant=label, share=1.0, ratio=1.1 - a / 10, choices=[["toy", "n=100", {"kernel": "toy", "A": a}]])
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    return tmp_path


def _fake(body):
    return [sys.executable, "-c", FAKE.format(facts=FACTS, body=body)]


def _tune(body, budget=20.0, **options):
    return tuner.tune("lenet5", "opencl", budget, command=_fake(body), **options)


def _kept():
    return read(own_path(FACTS))


def test_what_is_found_is_kept_for_the_device_and_looked_up(cache):
    summary = _tune(TRY % "pass")
    assert summary.finished and summary.tried == 6 and summary.best == {"step": pytest.approx(0.5)}
    assert _kept()["families"] == {"toy": {"n=100": {"kernel": "toy", "A": 6}}}
    (record,) = own_records()
    assert Tuning(FACTS, GPU, "k", [record], ()).choose(TOY, HERE).source == "tuned on this device"
    assert not list((cache / "tuning").glob("*.new"))


def test_a_child_that_dies_costs_only_its_variant(cache):
    summary = _tune(TRY % "import os\n    if a == 3: os._exit(9)")
    assert (summary.tried, summary.died, summary.finished) == (5, 1, True)
    tried = _kept()["tried"]["step"]
    assert [value for value in tried.values() if isinstance(value, str)] == ["its process died"]
    assert _kept()["families"]["toy"]["n=100"]["A"] == 6


def test_a_child_that_hangs_costs_only_its_variant(cache):
    summary = _tune(TRY % "if a == 2: time.sleep(60)", patience=1.0)
    assert (summary.tried, summary.died, summary.finished) == (5, 1, True)
    assert "no answer in 1 s" in _kept()["tried"]["step"].values()


def test_a_failed_or_slower_variant_is_never_kept(cache):
    body = """
for a, outcome in ((1, {"failure": "error 1e+00, allowed 1e-06"}), (2, {"ratio": 0.99, "choices": [["toy", "n=100", {"kernel": "toy", "A": 2}]]})):
    say(event="trying", task="step", variant=str(a))
    say(event="result", task="step", variant=str(a), share=1.0, **outcome)
"""
    summary = _tune(body)
    assert (summary.tried, summary.failed) == (2, 1)
    assert _kept()["families"] == {} and _kept()["tried"]["step"]["1"].startswith("error")


def test_the_budget_is_kept(cache):
    start = time.monotonic()
    summary = _tune(TRY % "time.sleep(1.0)", budget=2.5)
    assert time.monotonic() - start < 2.5 + tuner.GRACE_SECONDS + 2
    assert 1 <= summary.tried <= 6


def test_interrupted_it_keeps_what_was_found_and_goes_on_from_there(cache):
    calls = []

    def interrupt(summary, seconds):
        calls.append(summary.tried)
        if summary.tried == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _tune(TRY % "pass", progress=interrupt)
    assert len(_kept()["tried"]["step"]) == 2
    summary = _tune(TRY % "pass")
    assert summary.tried == 4, "the two from before are not tried again"
    assert len(_kept()["tried"]["step"]) == 6 and _kept()["families"]["toy"]["n=100"]["A"] == 6


def test_records_of_older_kernels_are_begun_anew(cache):
    _tune(TRY % "pass")
    path = own_path(FACTS)
    path.write_text(path.read_text().replace('"kernels": "k"', '"kernels": "older"'))
    assert _tune(TRY % "pass").tried == 6


def test_a_mistake_is_told(cache):
    with pytest.raises(TuningError, match="nothing to tune"):
        _tune('say(event="error", text="nothing to tune")')
    with pytest.raises(pc.DeviceError, match="its process died before the first variant"):
        tuner.tune("lenet5", "opencl", 5, command=[sys.executable, "-c", "raise SystemExit(1)"])


def test_export_has_what_others_need_and_no_more(cache, tmp_path):
    with pytest.raises(TuningError, match="nothing was tuned"):
        tuner.export(FACTS, tmp_path / "mine.json")
    _tune(TRY % "pass")
    assert tuner.export(FACTS, tmp_path / "mine.json") == 1
    data = json.loads((tmp_path / "mine.json").read_text())
    assert "tried" not in data and data["vendor"] == "Toys" and Record.parse(data, "mine").holds_for(FACTS)


def test_the_search_walks_to_the_best_neighbour():
    """On a valley with one bottom it ends there, and tries nothing twice."""
    task = search.Task("t", 1, {"toy": Variant.of("toy", A=7)}, 1.0)
    asked = {"toy": (TOY, HERE)}
    while (variants := search.next_variants(task, asked, GPU)) is not None:
        label = task.label(variants)
        assert label not in task.tried and variants != task.start
        task.tried[label] = 0.5 + abs(variants["toy"]["A"] - 3) / 10
    assert search.best_variants(task)["toy"]["A"] == 3


def test_two_runs_note_what_they_tried_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    first, second = ({**tuner._opened(FACTS, "k"), "path": own_path(FACTS)} for _ in range(2))
    tuner._remember(first, "a", "v", 0.9)
    tuner._remember(second, "b", "w", 0.8)
    tuner._remember(first, "a", "x", 0.7)
    assert read(own_path(FACTS))["tried"] == {"a": {"v": 0.9, "x": 0.7}, "b": {"w": 0.8}}


def test_wrong_variants_are_found_out(cache, monkeypatch):
    """A kernel that is wrong when its loop is unrolled: none of those variants is kept."""
    from pycl_cnn.backends.opencl import programs

    device = first_opencl_device()
    context = device_context(device)
    text = programs.source_text("conv_igemm")
    broken = text.replace("ADD_TIMES(m, x##m[i])", "ADD_TIMES(m, x##m[i] * (UNROLL == 1 ? 1.0f : 1.01f))")
    assert broken != text
    monkeypatch.setattr(programs, "source_text", lambda stem, known=programs.source_text: broken if stem == "conv_igemm" else known(stem))
    monkeypatch.setattr(context, "_programs", {})
    monkeypatch.setattr(worker, "next_variants", lambda task, asked, limits: next(({"product": task.start["product"].but("UNROLL", n)} for n in (2, 4) if task.label({"product": task.start["product"].but("UNROLL", n)}) not in task.tried), None))
    before, messages = context.tuning, []
    try:
        request = {"device": device.label, "model": "lenet5", "shape": None, "train": False, "budget": 30}
        worker.run(request, lambda **message: messages.append(message), dict)
    finally:
        context.tuning = before
    results = [message for message in messages if message["event"] == "result"]
    assert len(results) >= 2 and all("error" in result["failure"] for result in results)


def test_the_command_tunes_a_network(cache, capsys):
    device = first_opencl_device()
    from pycl_cnn.cli import main

    assert main(["tune", "--model", "lenet5", "--device", device.label, "--budget", "12", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "variants tried" in out and "of the untuned time" in out
    (path,) = (cache / "tuning").glob("*.json")
    data = json.loads(path.read_text())
    assert data["match"]["name"] == device.name and sum(len(tried) for tried in data["tried"].values()) >= 1
    if data["families"]:
        assert main(["tune", "--device", device.label, "--export", str(cache / "mine.json")]) == 0


@pytest.mark.parametrize("train", [False, True])
def test_tasks_are_the_shapes_of_the_network(train, tmp_path):
    """By name and, for inference, from an ONNX file; training adds gradients."""
    device = first_opencl_device()
    shape = (3, 1, 28, 28)
    tasks = {task.name: task.count for task, _ in worker.tasks_of("lenet5", shape, train, device)}
    assert any(name.startswith("Conv ") and "3x28x28x1" in name for name in tasks)
    assert any("ConvBackwardWeight" in name for name in tasks) == train
    if not train:
        pytest.importorskip("onnx", reason="writes an ONNX file")
        model = pc.models.get("lenet5").build().eval()
        path = str(tmp_path / "net.onnx")
        pc.onnx.export(model, path, shape)
        assert {task.name: task.count for task, _ in worker.tasks_of(path, shape, False, device)} == tasks
        assert worker.network_of(path, None)[1][1:] == shape[1:]


def test_what_variants_are_held_to_is_plain_sums():
    op = Conv(ConvGeometry.forward("t", (1, 56, 56, 16), (16, 3, 3, 16), 1, 1, 1, 1))
    step = worker.Step(op, "igemm", pc.device("cpu"), ((1, 56, 56, 16), (16, 3, 3, 16)))
    (exact,) = op.reference(*step.operands)
    off = np.abs(worker.native_result(step) - exact).max() / np.abs(exact).max()
    assert off < 1e-6, "Winograd's method is off by more"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_every_step_of_a_network_can_be_tried(name):
    """Also by algorithms that take only weights that are given once."""
    device = pc.device(f"opencl:{first_opencl_device().index}")
    context = device_context(device)
    before = context.tuning
    context.tuning = before.without_own()
    try:
        pairs = worker.tasks_of(name, None, False, device)
        steps = {step.algorithm: (task, step) for task, step in pairs}
        assert all(step.given[1] for _, step in steps.values())
        for task, step in steps.values():
            assert worker.Trial(task, step, context.tuning).seconds > 0
    finally:
        context.tuning = before
