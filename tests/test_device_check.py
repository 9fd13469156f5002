"""The device check: kernels that are wrong, do not build, hang or kill their process are found before they are used; what takes their
place gives the right result, says so, and the process that asked lives on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from helpers.catalogue import CASES, array
from helpers.graphs import trace_gradients

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import cache, cli, models, nn, optim
from pycl_cnn.backends import backend
from pycl_cnn.backends.opencl import ceilings, certificate, check, devices, samples, sources, trials
from pycl_cnn.backends.opencl.pointwise import UnaryLoop
from pycl_cnn.backends.opencl.programs import open_context
from pycl_cnn.compiler import training_program
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv
from pycl_cnn.ops.pointwise import Unary
from pycl_cnn.plan import does_work
from pycl_cnn.tuning.database import Choice
from pycl_cnn.tuning.space import Variant

pytest.importorskip("pyopencl")
INFOS = devices.devices()
pytestmark = pytest.mark.skipif(not INFOS, reason="no OpenCL device on this machine")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache of its own: nothing is known about kernels."""
    for info in INFOS:
        check.device_check(info.index)  # the probe's measurements need not be repeated
    monkeypatch.setenv("PYCL_CNN_CACHE", str(tmp_path))
    check.device_check.cache_clear()
    yield tmp_path
    check.device_check.cache_clear()


@pytest.fixture(params=INFOS, ids=[f"opencl:{d.index}" for d in INFOS])
def where(request, fresh):
    return pc.device(f"opencl:{request.param.index}")


@pytest.fixture
def sabotage(monkeypatch):
    """Changes a kernel file: ``sabotage(stem, old, new)``."""
    real, changes = sources._kernel_file, {}

    class Changed:
        def __init__(self, stem):
            self.stem = stem

        def read_text(self, encoding):
            text = real(self.stem).read_text(encoding=encoding)
            for old, new in changes.get(self.stem, []):
                assert old in text, (self.stem, old)
                text = text.replace(old, new)
            return text

    def forget():
        sources.source_text.cache_clear()
        check.source_mark.cache_clear()
        check.device_check.cache_clear()

    def change(stem, old, new):
        changes.setdefault(stem, []).append((old, new))
        forget()

    monkeypatch.setattr(sources, "_kernel_file", Changed)
    yield change
    monkeypatch.undo()
    forget()


def verdicts(folder):
    found = {}
    for path in folder.glob("opencl-check-*.json"):
        found |= json.loads(path.read_text())
    return found


X, W, B = array(2, 20, 9, 8), array(24, 20, 3, 3, seed=1), array(24, seed=2)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(20, 24, 3, padding=1)

    def forward(self, x):
        return F.relu(self.conv(x))


def convolution(where, **more):
    model = Convolution()
    model.load_state_dict({"conv.weight": W, "conv.bias": B})
    program = pc.compile(model, X.shape, device=where, **more)
    expected = pc.compile(model, X.shape, device="reference").run(X)
    return program, np.abs(program.run(X) - expected).max() / np.abs(expected).max()


def conv_step(program):
    return next(step for step in program.steps if step.operation == "Conv")


def test_a_kernel_that_passes_is_used_and_remembered(where, fresh, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", pc.DeviceWarning)
        program, error = convolution(where)
    assert error < 1e-5 and conv_step(program).algorithm != "cpu"
    known = verdicts(fresh)
    assert known and all(entry["ok"] and entry["error"] <= entry["allowed"] for entry in known.values())
    # Another process reads the file and tries nothing.
    check.device_check.cache_clear()
    monkeypatch.setattr(trials, "run", lambda *_: pytest.fail("a known kernel is tried again"))
    assert convolution(where)[1] < 1e-5


def test_a_wrong_kernel_gives_way_to_the_next_algorithm(where, fresh, sabotage):
    sabotage("winograd_transforms", "load_private(results + k * VEC) + bias", "load_private(results + k * VEC) * 1.5f + bias")
    with pytest.warns(pc.DeviceWarning, match=r"Conv on opencl:\d .*not winograd, since .*winograd\.winograd_output.* is wrong by .*; igemm takes its place"):
        program = pc.compile(nn.Conv2d(32, 32, 3, padding=1), (1, 32, 40, 40), device=where)
    assert conv_step(program).algorithm == "igemm"
    assert "not winograd, since" in program.explain()
    failed = [entry for entry in verdicts(fresh).values() if not entry["ok"]]
    assert failed and all("winograd" in entry["what"] and entry["error"] > entry["allowed"] for entry in failed)


BROKEN = {
    "wrong": ("conv_igemm", "__kernel void conv_igemm(", "#undef multiply_add\n#define multiply_add(a, b, c) ((a) - (b) + (c))\n__kernel void conv_igemm(", "is wrong by"),
    "does not build": ("conv_igemm", "__kernel void conv_igemm(", "no such type;\n__kernel void conv_igemm(", "does not build"),
    "hangs": ("conv_igemm", "const int blocks_per_item, const float alpha, const float beta)\n{", "{0}\n    volatile int go = 1; while (go) ;", "hangs: no answer in"),
    "kills": ("conv_igemm", "const int blocks_per_item, const float alpha, const float beta)\n{", "{0}\n    *(volatile __global int *)0 = 1;", "kills its process \\(SIG"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_no_kernel_does_right_is_done_by_the_host(where, fresh, sabotage, monkeypatch, kind):
    stem, old, new, text = BROKEN[kind]
    if kind == "hangs":
        monkeypatch.setattr(trials, "SECONDS", 8.0)
    sabotage(stem, old, new.replace("{0}", old))
    with pytest.warns(pc.DeviceWarning, match=rf"Conv on opencl:\d .*not igemm, since .*conv_igemm\.conv_igemm.*{text}.*; cpu takes its place"):
        program, error = convolution(where)
    assert error < 1e-6
    step = conv_step(program)
    assert step.algorithm == "cpu" and "not igemm, since" in step.why and "copies" in step.why and "KiB to the host" in step.why
    assert "not igemm, since" in program.explain()
    # The next session knows it without trying.
    check.device_check.cache_clear()
    monkeypatch.setattr(trials, "run", lambda *_: pytest.fail("a known kernel is tried again"))
    with pytest.warns(pc.DeviceWarning):
        assert convolution(where)[1] < 1e-6


def test_a_mended_kernel_is_used_again(where, sabotage, fresh):
    sabotage("conv_igemm", *BROKEN["wrong"][1:3])
    with pytest.warns(pc.DeviceWarning):
        assert conv_step(convolution(where)[0]).algorithm == "cpu"
    sabotage("conv_igemm", "((a) - (b) + (c))", "((a) * (b) + (c))")  # other source, other verdict
    program, error = convolution(where)
    assert conv_step(program).algorithm != "cpu" and error < 1e-5


def test_a_forced_algorithm_that_fails_is_an_error(where, sabotage):
    sabotage("conv_igemm", *BROKEN["wrong"][1:3])
    with pytest.raises(pc.UnsupportedError, match=r"algorithm 'igemm' does not take .*not igemm, since conv_igemm.* is wrong"):
        convolution(where, algorithms={"Conv": "igemm"})


class Careless(UnaryLoop):
    """Writes one element too many."""

    name = "careless"

    def calls(self, node, context):
        (call,) = super().calls(node, context)
        return [type(call)(call.stem, call.entry, call.global_size, call.local_size, {**call.arguments, "count": call.arguments["count"] + 1}, call.defines)]


class Halved(UnaryLoop):
    """Leaves the second half undone."""

    name = "halved"

    def calls(self, node, context):
        (call,) = super().calls(node, context)
        return [type(call)(call.stem, call.entry, call.global_size, call.local_size, {**call.arguments, "count": call.arguments["count"] // 2}, call.defines)]


@pytest.mark.parametrize("algorithm, problem", [(Careless(), "writes outside of its results"), (Halved(), "is wrong by inf")], ids=["careless", "halved"])
def test_a_wrong_algorithm_gives_way(where, monkeypatch, algorithm, problem):
    real = backend("opencl").algorithms
    monkeypatch.setitem(backend("opencl").__dict__, "algorithms", {**real, Unary: [algorithm, *real[Unary]]})
    with pytest.warns(pc.DeviceWarning, match=rf"Unary on opencl.*not {algorithm.name}, since pointwise.unary {problem}.*; vector loop takes its place"):
        program = pc.compile(nn.Tanh(), (3, 37), device=where)
    x = array(3, 37)
    np.testing.assert_allclose(program.run(x), np.tanh(x), rtol=1e-5)
    assert [step.algorithm for step in program.steps] == ["vector loop"]


def test_a_wrong_variant_gives_way_to_another_of_its_algorithm(where, sabotage, monkeypatch):
    """A tuned block of two rows, which is wrong in this kernel only: the rule by sizes has another."""
    context = open_context(where.index)
    tuning = context.tuning
    bad = Variant.of("conv_igemm", MR=2, NV=1, VEC=8, UNROLL=1, LANES=1, WORK=18)
    monkeypatch.setattr(context, "tuning", own := tuning.without_own())
    real = own._look_up.__func__

    def look_up(self, family, problem):
        if family.name == "product" and bad not in self._refused.get("product", {}):
            return Choice(bad, "tuned on this device")
        return real(self, family, problem)

    monkeypatch.setattr(type(own), "_look_up", look_up)
    old = BROKEN["kills"][1]
    sabotage("conv_igemm", old, old + "\n    if (MR == 2) *(volatile __global int *)0 = 1;")
    with pytest.warns(pc.DeviceWarning, match=r"Conv by igemm.*not conv_igemm .*MR=2.*, since conv_igemm.conv_igemm kills its process .*; conv_igemm .* takes its place"):
        program, error = convolution(where)
    step = conv_step(program)
    assert error < 1e-5 and step.algorithm == "igemm" and "MR=2" in step.why and "kills its process" in step.why


def test_a_device_that_was_short_of_memory_is_asked_again_by_the_next_process(where, fresh, monkeypatch):
    short = [trials.Outcome(None, "the device has no memory", 0, "conv_igemm", passing=True)]
    with monkeypatch.context() as now:
        now.setattr(trials, "run", lambda _, requests: short * len(requests))
        with pytest.warns(pc.DeviceWarning, match="the device has no memory"):
            program, error = convolution(where)
        assert error < 1e-6 and conv_step(program).algorithm == "cpu"
    assert not [entry for entry in verdicts(fresh).values() if not entry["ok"]]
    check.device_check.cache_clear()  # as another process begins
    program, error = convolution(where)
    assert error < 1e-5 and conv_step(program).algorithm != "cpu"


def test_only_the_kernel_that_failed_loses_its_variant(where):
    """Of a unit with two tuned kernels, one of which did not build; where its result alone is wrong both are suspects."""
    variants = {name: Variant.of(name, MR=2) for name in ("conv_igemm", "winograd")}
    unit = check.Unit("Conv by both", ("conv_igemm.conv_igemm -DMR=2 #0", "winograd.winograd_input #0"), None, (), (), None, tuple(variants.items()))
    device_check = check.device_check(where.index)
    assert device_check._suspects(unit) == list(variants.items())
    device_check._verdicts[unit.kernels[0]] = check.Verdict(unit.kernels[0], unit.kernels[:1], False, problem="does not build")
    assert device_check._suspects(unit) == [("conv_igemm", variants["conv_igemm"])]


def test_loops_that_measure_the_device_are_tried_before(where, sabotage, fresh):
    context = open_context(where.index)
    assert ceilings.problem(context) == "" and any(key.startswith("ceilings") for key in verdicts(fresh))
    sabotage("ceilings", "const int first = get_global_id(0) * item_step;", "const int first = 1 + get_global_id(0) * item_step;")
    assert "is wrong" in ceilings.problem(context)
    with pytest.raises(pc.DeviceError, match="cannot be measured: ceilings"):
        ceilings.measure(context)
    sabotage("ceilings", "const int item = get_global_id(0);", "const int item = get_global_id(0); *(volatile __global int *)0 = 1;")
    assert "kills its process" in ceilings.problem(context)


def test_the_process_survives_a_driver_that_dies(where, fresh):
    """In a process of its own: what would have crashed it is the child's death."""
    code = f"""
import warnings, numpy as np, pycl_cnn as pc
from pycl_cnn.backends.opencl import sources
real = sources._expand
sources._expand = lambda stem, seen: real(stem, seen).replace("load_some(x + i", "load_some((__global const float *)0 + i").replace("load(x + i)", "load((__global const float *)0 + i)")
warnings.simplefilter("ignore")
program = pc.compile(pc.nn.Tanh(), (3, 5), device={where.label!r})
x = np.linspace(-2, 2, 15, dtype=np.float32).reshape(3, 5)
assert np.allclose(program.run(x), np.tanh(x), atol=1e-6)
assert "kills its process" in program.explain(), program.explain()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "alive", done.stderr


# ---- samples ----------------------------------------------------------------------------------------------------------------


def training(model, shape, where):
    rule = optim.SGD(lr=0.1, momentum=0.9).rule
    return training_program(model, nn.CrossEntropyLoss(), rule, [(shape, np.float32)], ((shape[0],), np.int32), where)


@pytest.mark.parametrize("name, shape", [("resnet18", (2, 3, 64, 64)), ("mobilenet_v2", (1, 3, 96, 96)), ("lenet5", (64, 1, 28, 28))])
def test_samples_are_small_and_have_the_kernels_of_the_large_node(name, shape):
    where = pc.device("opencl:0")
    model = getattr(models, name)()
    own = check.device_check(0)
    own._units.clear()
    training(model, shape, where)
    units = [unit for unit in own._units.values() if unit is not None]
    assert len(units) > 10
    for unit in units:
        (_, specs), graph, choices = own.sample(unit)
        with own.context.tuning.trying(choices):
            kernels = own._kernels(graph)
        assert set(kernels) >= set(unit.kernels), unit.what
        assert sum(spec.nbytes for spec in specs) <= 2 << 20, (unit.what, unit.specs, specs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_references_of_the_check_agree_with_the_catalogue(case):
    """Every operation has samples for the check whose operands its reference takes, with finite results."""
    graph = trace_gradients(lambda *x: case.call(F, *x), *case.arrays, settle=True).graph
    for node in graph.nodes():
        if not does_work(node) or type(node.op).__name__ == "HostOp":
            continue
        specs = tuple(value.spec for value in node.inputs)
        small, chosen = next(iter(samples.samples(node.op, specs)), (node.op, specs))
        assert isinstance(small, type(node.op))
        results = small.reference(*samples.operands(small, chosen))
        for result, spec in zip(results, small.infer(*chosen)):
            assert result.shape == spec.shape and np.isfinite(result).all(), (small, chosen)


def test_the_tolerance_grows_with_the_sums():
    graph = Graph()
    node = graph.add(Conv(samples.ConvGeometry.forward("conv", (1, 9, 9, 32), (8, 3, 3, 32))), graph.input("x", (1, 9, 9, 32)), graph.input("w", (8, 3, 3, 32)))[0].node
    specs, out = [value.spec for value in node.inputs], [value.spec for value in node.outputs]
    assert samples.terms(node.op, specs, out[0], out) == 2 * 3 * 3 * 32


# ---- pycl-cnn check -----------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_certificate(where, fresh, capsys):
    path = fresh / "certificate.json"
    assert cli.main(["check", "--device", where.label, "--out", str(path)]) == 0
    (written,) = json.loads(path.read_text())["certificates"]
    assert (written["device"], written["driver"], written["platform"]) == (where.name, where.driver, where.platform)
    assert written["failed"] == 0 and written["passed"] == len(written["checks"]) > 30
    for entry in written["checks"]:
        assert entry["ok"] and 0 <= entry["error"] <= entry["allowed"] and entry["kernels"] and not entry["problem"]
    text = capsys.readouterr().out
    assert "Conv by winograd" in text and "winograd_output" in text and f"{written['passed']} pass, 0 fail" in text
    program = pc.compile(models.lenet5().eval(), (4, 1, 28, 28), device=where)  # what was checked needs no check
    assert program.run(array(4, 1, 28, 28)).shape == (4, 10)


def test_the_command_finds_what_fails_and_what_was_mended(where, fresh, sabotage, capsys):
    path = fresh / "certificate.json"
    sabotage("max_pool", "__kernel void max_pool(", "no such type;\n__kernel void max_pool(")
    assert cli.main(["check", "--device", where.label, "--out", str(path)]) == 1
    (written,) = json.loads(path.read_text())["certificates"]
    failed = [entry for entry in written["checks"] if not entry["ok"]]
    assert failed and all(entry["what"].startswith("MaxPool") and "does not build" in entry["problem"] for entry in failed)
    assert "FAILS: " in capsys.readouterr().out.splitlines()[-3]
    # A verdict that was wrong, say because the machine was too busy, is replaced.
    own = check.device_check(where.index)
    unit = next(unit for unit in own._units.values() if unit is not None and unit.what.startswith("Transpose"))
    own._verdicts[unit.key] = check.Verdict(unit.what, unit.kernels, False, problem="hangs")
    (kernel,) = unit.kernels
    cache.update_cache(own._file, {kernel: asdict(own._verdicts[unit.key])})
    own._remember()
    own._verdicts[unit.key] = check.Verdict(unit.what, unit.kernels, False, problem="hangs")
    assert not own.examine([unit])[0].ok and own.examine([unit], again=True)[0].ok
    assert verdicts(fresh)[unit.key]["ok"] and kernel not in verdicts(fresh)


def test_the_command_needs_an_opencl_device(capsys):
    assert cli.main(["check", "--device", "cpu"]) == 2
    assert "cpu (" in (text := capsys.readouterr().err) and "compiles no kernels" in text


@pytest.mark.slow
def test_everything_passes(where, fresh):
    own = certificate.certify(where, True, lambda done, total: None)
    assert own["failed"] == 0 and own["passed"] > 200, [entry for entry in own["checks"] if not entry["ok"]]
