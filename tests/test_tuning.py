"""Tuning: spaces and their rules, what is looked up where, and the process that tries variants, watched over by the one that must survive."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tolerance import assert_within, sum_bound
from hypothesis import given
from hypothesis import strategies as st

import pycl_cnn as pc
from pycl_cnn.backends import backend
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight
from pycl_cnn.ops.matmul import MatMul
from pycl_cnn.passes import optimised
from pycl_cnn.tuning import search, tuner, worker
from pycl_cnn.tuning.database import Record, Tuning, TuningError, own_path, own_records, read, shipped
from pycl_cnn.tuning.space import Family, Limits, Problem, Rule, Space, Variant

pytest.importorskip("pyopencl", reason="tuning chooses OpenCL kernels")

from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.backends.opencl.conv import DEPTHWISE
from pycl_cnn.backends.opencl.conv_weight_gradient import WEIGHT_GRADIENT
from pycl_cnn.backends.opencl.tiles import PRODUCT, product_problem
from pycl_cnn.backends.opencl.winograd import WINOGRAD

CPU = Limits(False, 8, (), 4096, (4096, 4096, 4096), 1 << 20)
GPU = Limits(True, 4, (), 1024, (1024, 1024, 64), 48 << 10)
SMALL_GPU = Limits(True, 4, (), 64, (64, 64, 64), 8 << 10)
FACTS = {"platform": "Toy OpenCL 1.2", "name": "Toy 9000", "vendor": "Toys", "driver": "1.0", "type": "gpu"}


# ---- spaces -------------------------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 5000)
FAMILIES = {
    "product": (PRODUCT, ("pixels", "outs", "reds", "taps", "groups")),
    "weight_gradient": (WEIGHT_GRADIENT, ("pixels", "outs", "reds", "taps", "groups")),
    "depthwise": (DEPTHWISE, ("rows", "columns", "inside", "channels", "taps")),
    "winograd": (WINOGRAD, ("tiles", "ins", "outs")),
}
LIMITS = st.builds(
    Limits,
    is_gpu=st.booleans(),
    width=st.sampled_from([4, 8, 16]),
    broken_widths=st.just(()),
    max_work_group=st.sampled_from([1, 16, 64, 128, 256, 1024]),
    max_work_item_sizes=st.sampled_from([(1, 1, 1), (64, 64, 64), (1024, 1024, 64)]),
    local_memory=st.sampled_from([0, 16 << 10, 32 << 10, 64 << 10]),
).map(lambda limits: replace(limits, width=4) if limits.is_gpu else limits)


@pytest.mark.parametrize("name", FAMILIES)
@given(sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES), limits=LIMITS)
def test_what_is_chosen_without_knowledge_is_allowed(name, sizes, limits):
    family, names = FAMILIES[name]
    problem = Problem.of(name, **dict(zip(names, sizes, strict=False)))
    assert family.broken(family.default(problem, limits), problem, limits) is None
    assert Problem.parse(name, problem.key) == problem


def test_only_variants_that_the_device_can_run_are_offered():
    problem = product_problem(3136, 64, 64, 9, 1)
    offered = list(PRODUCT.variants(problem, SMALL_GPU))
    assert {variant.kernel for variant in offered} == {"conv_igemm", "conv_igemm_tiled"}
    for v in offered:
        if v.kernel == "conv_igemm":
            assert v["LANES"] <= 64 and v["WORK"] == 0
            continue
        assert v["COLUMNS"] * v["LINES"] <= 64
        x_tile, w_tile = v["STEP"] * (v["MR"] * v["LINES"] + 4), v["STEP"] * v["NV"] * v["VEC"] * v["COLUMNS"]
        assert 4 * v["BUFFERS"] * (x_tile + w_tile) <= 8 << 10
        assert (v["COLUMNS"] * v["LINES"]) % (v["STEP"] // v["VEC"]) == 0
    assert all(variant.kernel == "conv_igemm" for variant in PRODUCT.variants(problem, CPU))
    narrow = replace(CPU, width=16, broken_widths=(16,))
    assert {variant["VEC"] for variant in PRODUCT.variants(problem, narrow)} == {4, 8}
    gradients = list(WEIGHT_GRADIENT.variants(Problem.of("weight_gradient", pixels=9, outs=3, reds=5, taps=1, groups=1), CPU))
    assert gradients and all(v["MO"] <= 3 and v["VEC"] * v["NV"] <= 5 for v in gradients)


def test_a_rule_that_is_broken_is_named():
    problem = product_problem(10, 10, 10, 1, 1)
    good = PRODUCT.default(problem, CPU)
    assert "registers" in str(PRODUCT.broken(good.but("MR", 14).but("NV", 3), problem, CPU))
    assert "MR is one of" in str(PRODUCT.broken(good.but("MR", 99), problem, CPU))
    assert "the parameters are" in str(PRODUCT.broken(Variant.of("conv_igemm", MR=1), problem, CPU))
    assert "is done by" in str(PRODUCT.broken(Variant.of("fft"), problem, CPU))
    tiled = PRODUCT.default(problem, GPU)
    assert "bytes of local memory" in str(PRODUCT.broken(tiled, problem, replace(GPU, local_memory=1000)))


# ---- every variant is right -----------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(5)


def _operands(*shapes):
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


def _conv(c, k, size, groups=1, stride=1, kernel=3):
    return ConvGeometry.forward("tune", (2, *size, c), (k, kernel, kernel, c // groups), stride, kernel // 2, 1, groups)


G, DEEP, PLAIN = _conv(37, 35, (7, 6), stride=2), _conv(19, 19, (7, 9), groups=19), _conv(37, 35, (9, 6))
#: operation, its algorithm, shapes of its operands, products of an output element
WORK = {
    "conv": (Conv(G), "igemm", (G.input_shape, G.weight_shape), G.reduction),
    "input gradient": (ConvBackwardInput(G), "igemm", (G.output_shape, G.weight_shape), 9 * 35),
    "matmul": (MatMul(False, True), "igemm", ((33, 41), (37, 41)), 41),
    "weight gradient": (ConvBackwardWeight(G), "weight_gradient", (G.input_shape, G.output_shape), 2 * G.out[0] * G.out[1]),
    "outer products": (MatMul(True, False), "outer_products", ((41, 33), (41, 37)), 41),
    "depthwise": (Conv(DEEP), "depthwise", (DEEP.input_shape, DEEP.weight_shape), 9),
    "depthwise input gradient": (ConvBackwardInput(DEEP), "depthwise", (DEEP.output_shape, DEEP.weight_shape), 9),
    "winograd": (Conv(PLAIN), "winograd", (PLAIN.input_shape, PLAIN.weight_shape), 9 * 37),
    "winograd gradient": (ConvBackwardWeight(PLAIN), "winograd", (PLAIN.input_shape, PLAIN.output_shape), 2 * 9 * 6),
}


@contextmanager
def limits_of(context, **changes):
    """The device as if it had other limits."""
    before = context.tuning
    context.tuning = Tuning(before.facts, replace(before.limits, **changes), "", (), ())
    try:
        yield context.tuning
    finally:
        context.tuning = before


def _program(op, algorithm, shapes, device):
    graph = Graph()
    graph.outputs = [graph.apply(op, *(graph.input(f"x{i}", shape) for i, shape in enumerate(shapes)))]
    return backend("opencl").compile(optimised(graph), device, {}, {type(op).__name__: algorithm})


def _cover(variants, pairs):
    """Few variants in which every value (every pair of values) that some variant has occurs."""

    def parts(variant):
        values = [(variant.kernel, *pair) for pair in variant.parameters]
        return {frozenset((a, b)) for a in values for b in values if pairs or a == b}

    variants = list(variants)
    random.Random(3).shuffle(variants)
    wanted = set().union(*map(parts, variants))
    chosen = []
    while wanted:
        sample = [variant for variant in variants if parts(variant) & wanted][:200]
        chosen.append(max(sample, key=lambda variant: len(parts(variant) & wanted)))
        wanted -= parts(chosen[-1])
    return chosen


def _try_all(device, work, pairs, **limits):
    op, algorithm, shapes, length = WORK[work]
    operands = _operands(*shapes)
    (expected,), (magnitude,) = op.reference(*operands), op.reference(*map(np.abs, operands))
    context = device_context(device)
    tried = 0
    with limits_of(context, **limits) as tuning:
        with tuning.trying({}) as asked:
            _program(op, algorithm, shapes, device)
        for family, problem in {family.name: (family, problem) for family, problem, _ in asked}.values():
            for variant in _cover(family.variants(problem, tuning.limits), pairs):
                with tuning.trying({family.name: variant}) as used:
                    y = _program(op, algorithm, shapes, device).run(*operands)
                assert variant in [v for _, _, v in used]
                tried += 1
                if algorithm == "winograd":
                    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max(), variant
                else:
                    assert_within(y, expected, sum_bound(length, magnitude), str(variant))
    assert tried >= 4


@pytest.mark.parametrize("work", WORK)
def test_every_value_of_every_parameter_gives_right_results(device, work):
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    _try_all(device, work, pairs=False)


@pytest.mark.parametrize("work", ["conv", "matmul", "weight gradient", "outer products", "winograd", "winograd gradient"])
def test_variants_for_gpus_give_right_results(device, work):
    """Local memory, float4, two buffers, on whatever device there is."""
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    group = min(64, device_context(device).device.max_work_group)
    _try_all(device, work, pairs=False, is_gpu=True, width=4, max_work_group=group)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("work", WORK)
def test_every_pair_of_values_gives_right_results(device, work, gpu):
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    _try_all(device, work, pairs=True, **({"is_gpu": True, "width": 4} if gpu else {}))


# ---- looking up -----------------------------------------------------------------------------------------------------------------

TOY = Family("toy", (Space("toy", {"A": (1, 2, 3, 4, 5, 6, 7)}, lambda p, d: Variant.of("toy", A=7), (Rule("A under 8", lambda v, p, d: v["A"] < 8),)),))
HERE = Problem.of("toy", n=100)


def _record(level, a, match, key=HERE.key, kernels=""):
    families = {"toy": {key: [{"kernel": "toy", "A": a}] if key == "*" else {"kernel": "toy", "A": a}}}
    return Record.parse({"format": 1, "title": f"{level} {a}", "level": level, "match": match, "kernels": kernels, "families": families}, "test")


OWN_MATCH = {name: FACTS[name] for name in ("platform", "name", "driver")}
LADDER = [
    (_record("device", 1, OWN_MATCH, kernels="k"), "tuned on this device"),
    (_record("device", 2, {**OWN_MATCH, "driver": "0.9"}, kernels="k"), "tuned with another driver"),
    (_record("architecture", 3, {"name": "toy 9..."}), "defaults: architecture 3"),
    (_record("vendor", 4, {"vendor": "^toys$"}, "*"), "defaults: vendor 4"),
    (_record("type", 5, {"type": "gpu"}, "*"), "defaults: type 5"),
]


def test_lookup_falls_back_from_device_to_architecture_vendor_type_and_rule():
    foreign = [_record("device", 6, {**OWN_MATCH, "name": "Other"}, kernels="k"), _record("device", 6, OWN_MATCH, kernels="older kernels")]
    strangers = [_record("vendor", 6, {"vendor": "AMD"}), _record("type", 6, {"type": "cpu"})]
    for first in range(len(LADDER) + 1):
        own = [record for record, source in LADDER[first:] if source.startswith("tuned")]
        defaults = [record for record, source in LADDER[first:] if source.startswith("defaults")]
        choice = Tuning(FACTS, GPU, "k", [*foreign, *own[::-1]], [*strangers, *defaults[::-1]]).choose(TOY, HERE)
        a, source = (first + 1, LADDER[first][1]) if first < len(LADDER) else (7, "rule by sizes")
        assert (choice.variant["A"], choice.source) == (a, source)


def test_lookup_takes_the_same_shape_then_the_nearest_of_its_class():
    def choose(*keys, problem=HERE):
        families = {"toy": {key: {"kernel": "toy", "A": a} for a, key in enumerate(keys, 1)}}
        record = Record.parse({"format": 1, "title": "t", "level": "device", "match": OWN_MATCH, "families": families}, "test")
        return Tuning(FACTS, GPU, "", [record], ()).choose(TOY, problem)

    assert choose("n=90", "n=100").variant["A"] == 2
    assert str(choose("n=80", "n=99", "n=120")) == "toy A=2 (tuned on this device, as for n=99)"
    assert choose("n=5", "n=4000").source == "rule by sizes", "other classes of shape say nothing"
    assert choose("n=100").source == "tuned on this device"


def test_a_variant_that_the_device_does_not_allow_is_passed_over():
    data = {"format": 1, "title": "t", "level": "type", "match": {"type": "gpu"}, "families": {"toy": {"*": [{"kernel": "toy", "A": 9}, {"kernel": "toy", "A": 3}]}}}
    assert Tuning(FACTS, GPU, "", (), [Record.parse(data, "t")]).choose(TOY, HERE).variant["A"] == 3


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"level": "planet"}, {"match": {"colour": "red"}}, {"families": {"toy": {"n=1": {"kernel": 3}}}}, {"families": []}, {"families": {"toy": {"n=x": {"kernel": "toy"}}}}, {"level": "vendor", "match": {"vendor": "("}}],
)
def test_what_is_no_record_is_refused_and_a_damaged_one_counts_as_absent(change, tmp_path, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    data = {**LADDER[0][0].data, **change}
    with pytest.raises(TuningError, match="no tuning record"):
        Record.parse(data, "it")
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "a.json").write_text(json.dumps(data))
    (tmp_path / "tuning" / "b.json").write_text("{")
    assert own_records() == []


def test_shipped_records_are_sound():
    """Every variant that is shipped is one of its family's, and each kind of device named in the docs has a record."""
    families = {family.name: family for family, _ in FAMILIES.values()}
    for record in shipped():
        for name, problems in record.families.items():
            for variants in problems.values():
                for variant in variants:
                    (space,) = (space for space in families[name].spaces if space.kernel == variant.kernel)
                    assert set(dict(variant.parameters)) == set(space.parameters), (record.title, variant)
                    assert all(value in space.parameters[parameter] for parameter, value in variant.parameters), (record.title, variant)


DEVICES = {
    "NVIDIA": {"platform": "NVIDIA CUDA OpenCL 3.0 CUDA 12.4", "name": "NVIDIA H200", "vendor": "NVIDIA Corporation", "driver": "550.54", "type": "gpu"},
    "AMD": {"platform": "AMD Accelerated Parallel Processing OpenCL 2.1", "name": "gfx1100", "vendor": "Advanced Micro Devices, Inc.", "driver": "3590", "type": "gpu"},
    "Intel": {"platform": "Intel(R) OpenCL Graphics OpenCL 3.0", "name": "Intel(R) Arc(TM) A770", "vendor": "Intel(R) Corporation", "driver": "23.17", "type": "gpu"},
    "Mali": {"platform": "ARM Platform OpenCL 2.1", "name": "Mali-G78", "vendor": "ARM", "driver": "2.1", "type": "gpu"},
    "Adreno": {"platform": "QUALCOMM Snapdragon(TM) OpenCL 2.0", "name": "QUALCOMM Adreno(TM)", "vendor": "QUALCOMM", "driver": "OpenCL 2.0 QUALCOMM build", "type": "gpu"},
}


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("limits", [GPU, SMALL_GPU, replace(GPU, max_work_group=256, max_work_item_sizes=(256, 256, 256), local_memory=32 << 10)])
def test_gpus_get_the_defaults_of_their_vendor(name, limits):
    tuning = Tuning(DEVICES[name], limits, "", (), shipped())
    for problem in (product_problem(3136, 64, 64, 9, 1), product_problem(49, 512, 512, 9, 1), product_problem(1, 1000, 512, 1, 1)):
        choice = tuning.choose(PRODUCT, problem)
        assert PRODUCT.broken(choice.variant, problem, limits) is None
        assert choice.source == f"defaults: {name} GPUs"


# ---- one process tries, the other survives ----------------------------------------------------------------------------------------

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


# ---- the real worker ----------------------------------------------------------------------------------------------------------------


def _opencl():
    found = [device for device in pc.devices() if device.backend == "opencl"]
    if not found:
        pytest.skip("no OpenCL device on this machine")
    return found[0]


def test_wrong_variants_are_found_out(cache, monkeypatch):
    """A kernel that is wrong when its loop is unrolled: none of those variants is kept."""
    from pycl_cnn.backends.opencl import programs

    device = _opencl()
    context = device_context(device)
    text = programs.source_text("conv_igemm")
    broken = text.replace("multiply_add(value##m, weight##v, sum", "multiply_add(value##m * (UNROLL == 1 ? 1.0f : 1.01f), weight##v, sum")
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
    device = _opencl()
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
    device = _opencl()
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


def test_explain_says_where_a_choice_came_from(monkeypatch):
    device = _opencl()
    context = device_context(device)
    model, shape = pc.nn.Linear(40, 30), (20, 40)
    with limits_of(context):
        assert "(rule by sizes)" in pc.compile(model, shape, device=device).explain()
    before = context.tuning
    variant = {**PRODUCT.default(product_problem(20, 30, 40, 1, 1), before.limits).data, "MR": 4}
    match = {name: before.facts[name] for name in ("platform", "name", "driver")}
    data = {"format": 1, "title": "t", "level": "device", "match": match, "kernels": "k", "families": {"product": {product_problem(20, 30, 40, 1, 1).key: variant}}}
    monkeypatch.setattr(context, "tuning", Tuning(before.facts, before.limits, "k", [Record.parse(data, "t")], ()))
    program = pc.compile(model, shape, device=device)
    assert "MR=4" in program.explain() and "(tuned on this device)" in program.explain()
    x = RNG.standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(program.run(x), x @ model.weight.data.T + model.bias.data, rtol=1e-4, atol=1e-5)


def test_nothing_is_tuned_unless_asked_for(tmp_path):
    _opencl()
    code = (
        "import sys, pycl_cnn as pc, numpy as np\n"
        "d = next(d for d in pc.devices() if d.backend == 'opencl')\n"
        "m = pc.nn.Sequential(pc.nn.Conv2d(3, 8, 3, padding=1), pc.nn.ReLU())\n"
        "pc.compile(m, (1, 3, 9, 9), device=d).run(np.ones((1, 3, 9, 9), np.float32))\n"
        "assert not [name for name in sys.modules if name in ('pycl_cnn.tuning.tuner', 'pycl_cnn.tuning.worker', 'pycl_cnn.tuning.search')]\n"
    )
    import os

    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYCL_CNN_CACHE": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (Path(tmp_path) / "tuning").exists()


RUNTIMES = {
    "PoCL 3.0": {"platform": "Portable Computing Language OpenCL 3.0 PoCL 3.0-rc2", "name": "pthread-CPU", "vendor": "AuthenticAMD", "driver": "3.0-rc2", "type": "cpu"},
    "PoCL 3.1": {"platform": "Portable Computing Language OpenCL 3.0 PoCL 3.1", "name": "pthread-CPU", "vendor": "AuthenticAMD", "driver": "3.1", "type": "cpu"},
    "Intel's CPU runtime": {"platform": "Intel(R) OpenCL OpenCL 3.1 LINUX", "name": "CPU", "vendor": "Intel(R) Corporation", "driver": "2026.22", "type": "cpu"},
    "rusticl on llvmpipe": {"platform": "rusticl OpenCL 3.0", "name": "llvmpipe (LLVM 15.0.6, 256 bits)", "vendor": "Mesa", "driver": "22.3.6", "type": "cpu"},
    "Oclgrind": {"platform": "Oclgrind OpenCL 1.2 (Oclgrind 21.10)", "name": "Oclgrind Simulator", "vendor": "University of Bristol", "driver": "Oclgrind 21.10", "type": "cpu"},
}


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("width", [4, 8, 16])
def test_known_runtimes_get_their_defaults_and_nothing_that_is_too_wide(name, width):
    """The shapes that were measured come from the record; where its vectors are wider than the device's, from the rule."""
    limits = replace(CPU, width=width)
    tuning = Tuning(RUNTIMES[name], limits, "", (), shipped())
    (record,) = (record for record in shipped() if record.title == name)
    assert [other.title for other in shipped() if other.holds_for(RUNTIMES[name])] == [name]
    for key, (variant,) in record.families["product"].items():
        problem = Problem.parse("product", key)
        choice = tuning.choose(PRODUCT, problem)
        assert PRODUCT.broken(choice.variant, problem, limits) is None
        if variant["VEC"] <= width:
            assert (choice.variant, choice.source) == (variant, f"defaults: {name}")


def test_two_runs_note_what_they_tried_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    first, second = ({**tuner._opened(FACTS, "k"), "path": own_path(FACTS)} for _ in range(2))
    tuner._remember(first, "a", "v", 0.9)
    tuner._remember(second, "b", "w", 0.8)
    tuner._remember(first, "a", "x", 0.7)
    assert read(own_path(FACTS))["tried"] == {"a": {"v": 0.9, "x": 0.7}, "b": {"w": 0.8}}


def test_what_variants_are_held_to_is_plain_sums():
    op = Conv(ConvGeometry.forward("t", (1, 56, 56, 16), (16, 3, 3, 16), 1, 1, 1, 1))
    step = worker.Step(op, "igemm", pc.device("cpu"), ((1, 56, 56, 16), (16, 3, 3, 16)))
    (exact,) = op.reference(*step.operands)
    off = np.abs(worker.native_result(step) - exact).max() / np.abs(exact).max()
    assert off < 1e-6, "Winograd's method is off by more"
