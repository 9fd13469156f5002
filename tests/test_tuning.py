"""Tuning: what is looked up where, and the records that are shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tuning import CPU, FACTS, FAMILIES, GPU, HERE, SMALL_GPU, TOY, first_opencl_device, limits_of, record_of

import pycl_cnn as pc
from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.backends.opencl.tiles import PRODUCT, product_problem
from pycl_cnn.tuning.database import Record, Tuning, TuningError, own_records, shipped
from pycl_cnn.tuning.space import Problem

OWN_MATCH = {name: FACTS[name] for name in ("platform", "name", "driver")}
LADDER = [
    (record_of("device", 1, OWN_MATCH, kernels="k"), "tuned on this device"),
    (record_of("device", 2, {**OWN_MATCH, "driver": "0.9"}, kernels="k"), "tuned with another driver"),
    (record_of("architecture", 3, {"name": "toy 9..."}), "defaults: architecture 3"),
    (record_of("vendor", 4, {"vendor": "^toys$"}, "*"), "defaults: vendor 4"),
    (record_of("type", 5, {"type": "gpu"}, "*"), "defaults: type 5"),
]


def test_lookup_falls_back_from_device_to_architecture_vendor_type_and_rule():
    foreign = [record_of("device", 6, {**OWN_MATCH, "name": "Other"}, kernels="k"), record_of("device", 6, OWN_MATCH, kernels="older kernels")]
    strangers = [record_of("vendor", 6, {"vendor": "AMD"}), record_of("type", 6, {"type": "cpu"})]
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


def test_explain_says_where_a_choice_came_from(monkeypatch):
    device = first_opencl_device()
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
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(program.run(x), x @ model.weight.data.T + model.bias.data, rtol=1e-4, atol=1e-5)


def test_nothing_is_tuned_unless_asked_for(tmp_path):
    first_opencl_device()
    code = (
        "import sys, pycl_cnn as pc, numpy as np\n"
        "d = next(d for d in pc.devices() if d.backend == 'opencl')\n"
        "m = pc.nn.Sequential(pc.nn.Conv2d(3, 8, 3, padding=1), pc.nn.ReLU())\n"
        "pc.compile(m, (1, 3, 9, 9), device=d).run(np.ones((1, 3, 9, 9), np.float32))\n"
        "assert not [name for name in sys.modules if name in ('pycl_cnn.tuning.tuner', 'pycl_cnn.tuning.worker', 'pycl_cnn.tuning.search')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYCL_CNN_CACHE": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (Path(tmp_path) / "tuning").exists()
