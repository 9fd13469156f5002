"""Several threads at one OpenCL device: programs share weights and the device's queue, but no kernel object and no memory of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn
from pycl_cnn.backends.opencl import devices
from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.backends.opencl.launch import Launch
from pycl_cnn.tuning.database import Record, Tuning

pytest.importorskip("pyopencl")
INFOS = devices.devices()
pytestmark = pytest.mark.skipif(not INFOS, reason="no OpenCL device on this machine")
THREADS, RUNS = 4, 150


@pytest.fixture(params=INFOS, ids=[f"opencl:{d.index}" for d in INFOS])
def where(request):
    return pc.device(f"opencl:{request.param.index}")


def network():
    pc.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 20, 3, groups=20), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(20 * 16, 7), nn.Softmax(1)).eval()


def each(work, *tasks):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, *tasks))


def test_four_threads_run_clones_of_one_program(where):
    program = pc.compile(network(), (2, 3, 10, 10), device=where)
    inputs = [array(2, 3, 10, 10, seed=seed) for seed in range(THREADS)]
    expected = [program.run(x) for x in inputs]

    def work(x, want):
        own = program.clone()
        return all((own.run(x).view(np.int32) == want.view(np.int32)).all() for _ in range(RUNS))

    assert each(work, inputs, expected) == [True] * THREADS


def test_four_threads_call_one_model(where):
    model = network()
    inputs = [array(1 + seed % 2, 3, 10, 10, seed=seed) for seed in range(THREADS)]
    expected = [(model(x, device=where), F.exp(x, device=where)) for x in inputs]

    def work(x, want):
        return all((model(x, device=where) == want[0]).all() and (F.exp(x, device=where) == want[1]).all() for _ in range(RUNS // 2))

    assert each(work, inputs, expected) == [True] * THREADS


def test_programs_are_made_while_others_run(where):
    model, x = network(), array(2, 3, 10, 10)
    expected = pc.compile(model, x.shape, device=where).run(x)

    def work(number):
        results = []
        for _ in range(6):
            program = pc.compile(model, x.shape, device=where)
            results += [program.run(x) for _ in range(5)]
        return all((result == expected).all() for result in results)

    assert each(work, range(THREADS)) == [True] * THREADS


def test_no_kernel_object_and_no_memory_of_a_run_is_shared(where):
    program = pc.compile(network(), (2, 3, 10, 10), device=where)
    twin = program.clone()
    kernels = [{launch.kernel.int_ptr for launch in one.launches if isinstance(launch, Launch)} for one in (program, twin)]
    assert len(kernels[0]) == len(program.launches) and not kernels[0] & kernels[1]
    memory = [{buffer.int_ptr for buffer in (*one.own.values(), *one.arenas)} for one in (program, twin)]
    assert not memory[0] & memory[1]
    assert program.kept is twin.kept


def test_the_first_use_may_come_from_several_threads_at_once(where, tmp_path):
    """A process with an empty cache, in which four threads ask for the device at the same time: it is opened, probed and checked once."""
    code = f"""
import threading, numpy as np, pycl_cnn as pc
from pycl_cnn import nn
pc.manual_seed(1)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
x = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)
results, start = [], threading.Barrier({THREADS})
def work():
    start.wait()
    program = pc.compile(model, x.shape, device={where.label!r})
    results.append((program.context, program.run(x).tobytes()))
threads = [threading.Thread(target=work) for _ in range({THREADS})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(results), len({{id(context) for context, _ in results}}), len({{result for _, result in results}}))
"""
    environment = {**os.environ, "PYCL_CNN_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == [str(THREADS), "1", "1"], done.stderr


def test_a_clone_has_the_variants_that_its_weights_were_packed_for(where, monkeypatch):
    """Tuning may refuse a variant for another model's sake while a program lives."""
    context, x = device_context(where), array(2, 3, 10, 10)
    before = context.tuning
    narrow = {"kernel": "conv_igemm", "LANES": 1, "MR": 4, "NV": 1, "UNROLL": 1, "VEC": 4, "WORK": 18}
    match = {name: before.facts[name] for name in ("platform", "name", "driver")}
    data = {"format": 1, "title": "t", "level": "device", "match": match, "kernels": "k", "families": {"product": {"*": [narrow]}}}
    monkeypatch.setattr(context, "tuning", Tuning(before.facts, before.limits, "k", [Record.parse(data, "t")], ()))
    model = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 40, 3, padding=1), nn.Flatten(), nn.Linear(4000, 7)).eval()
    program = pc.compile(model, x.shape, device=where)
    expected, choices = program.run(x), [choice for step in program.plan.run for choice in step.node.settled or ()]
    assert choices
    for choice in choices:
        context.tuning.refuse("product", choice.variant, "of this test")
    np.testing.assert_array_equal(program.clone().run(x), expected)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors of a process are known on Linux")
@pytest.mark.parametrize(
    "given, processors, settled",
    [({}, 4, "1"), ({"POCL_AFFINITY": "0"}, 4, "0"), ({}, 1, None), ({"POCL_MAX_PTHREAD_COUNT": "2"}, 4, None), ({"POCL_CPU_MAX_CU_COUNT": "2"}, 4, None), ({"POCL_MAX_PTHREAD_COUNT": "4"}, 4, "1")],
)
def test_pocl_is_asked_for_a_processor_a_thread_where_all_may_be_used(given, processors, settled, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(processors)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for name in ("POCL_AFFINITY", "POCL_MAX_PTHREAD_COUNT", "POCL_CPU_MAX_CU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    devices._give_threads_processors()
    assert os.environ.get("POCL_AFFINITY") == settled
