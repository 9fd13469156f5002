"""Memory of OpenCL devices: known beforehand, in pieces no longer than the device gives, from one pool, and never more with time."""

from __future__ import annotations

import gc
import re
import resource
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
from pycl_cnn import models, nn, optim
from pycl_cnn.backends import backend
from pycl_cnn.backends.opencl import devices
from pycl_cnn.backends.opencl.programs import open_context
from pycl_cnn.compiler import training_program

pytest.importorskip("pyopencl")
INFOS = devices.devices()
pytestmark = pytest.mark.skipif(not INFOS, reason="no OpenCL device on this machine")


@pytest.fixture(params=INFOS, ids=[f"opencl:{d.index}" for d in INFOS])
def where(request):
    return pc.device(f"opencl:{request.param.index}")


def pool(where):
    gc.collect()
    return open_context(where.index).pool


def network():
    """Too few channels for Winograd's method, whose filters are one long piece of memory."""
    pc.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 40, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 16, 10),
    )  # fmt: skip


def step(model, batch, where):
    return training_program(model, nn.CrossEntropyLoss(), optim.Adam().rule, [((batch, 3, 18, 18), np.float32)], ((batch,), np.int32), where)


@pytest.mark.parametrize("train", [False, True])
def test_memory_is_what_the_program_takes(where, train):
    model = network()
    (step if train else lambda model, batch, where: pc.compile(model, (batch, 3, 18, 18), device=where))(model, 4, where)  # shared constants exist
    before = pool(where).active_bytes
    program = step(model, 4, where) if train else pc.compile(model, (4, 3, 18, 18), device=where)
    taken, memory = pool(where).active_bytes - before, program.memory
    kept = memory.peak - memory.setup
    assert kept <= taken <= kept * 1.002 + 64 * 64, (kept, taken)
    del program
    assert pool(where).active_bytes == before


def test_loading_takes_no_more_than_was_said(where, monkeypatch):
    """Most bytes at one time, counted at every allocation."""
    model = models.resnet18().eval()
    context, most = open_context(where.index), 0
    pc.compile(model, (1, 3, 64, 64), device=where)
    before = pool(where).active_bytes
    allocate = type(context).buffer

    def counting(self, nbytes):
        nonlocal most
        buffer = allocate(self, nbytes)
        most = max(most, self.pool.active_bytes - before)
        return buffer

    monkeypatch.setattr(type(context), "buffer", counting)
    program = pc.compile(model, (1, 3, 64, 64), device=where)
    tables_of_the_setup = 64 * 1024
    assert program.memory.peak * 0.9 <= most <= program.memory.peak * 1.002 + tables_of_the_setup


@pytest.mark.parametrize("largest", [70_000, 150_000, 400_000])
def test_an_arena_spans_several_pieces_where_they_are_short(where, largest):
    model = network().eval()
    x = array(2, 3, 18, 18)
    wide, narrow = pc.compile(model, x.shape, device=where), pc.compile(model, x.shape, device=replace(where, largest=largest))
    plan = narrow.plan
    assert max(*plan.arenas, *plan.setup_arenas, *(s.nbytes for s in plan.storages)) <= largest
    assert len(plan.arenas) > 1 or wide.plan.arena_bytes <= largest
    np.testing.assert_array_equal(wide.run(x), narrow.run(x))


def test_training_in_short_pieces_gives_the_same_bits(where):
    results = []
    for device in (where, replace(where, largest=130_000)):
        program = step(network(), 4, device)
        for number in range(1, 3):
            hyper = np.array(optim.Adam().rule.hyper(1e-3, number), np.float32)
            loss, _ = program.run(array(4, 3, 18, 18), target=np.arange(4, dtype=np.int32), hyper=hyper)
        results.append([loss, *program.states().values()])
        assert (len(program.plan.arenas) > 1) == (device.largest == 130_000)
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_a_piece_that_is_too_long_is_named_with_the_batch_that_fits(where):
    small = replace(where, largest=150_000)
    with pytest.raises(pc.DeviceError, match=r"one array needs \S+ MiB, and the longest piece .* is 0\.14 MiB; a batch of (\d+) is the largest that fits instead of 64") as caught:
        pc.compile(network(), (64, 3, 18, 18), device=small)
    batch = int(re.search(r"a batch of (\d+)", str(caught.value))[1])
    assert pc.compile(network(), (batch, 3, 18, 18), device=small).run(array(batch, 3, 18, 18)).shape == (batch, 10)
    with pytest.raises(pc.DeviceError):
        pc.compile(network(), (batch + 1, 3, 18, 18), device=small)


@pytest.mark.parametrize("train", [False, True])
def test_too_much_in_all_is_named_with_the_batch_that_fits(where, train):
    used = pool(where).active_bytes
    small = replace(where, memory=used + 4 * 2**20)
    make = (lambda batch: step(network(), batch, small)) if train else (lambda batch: pc.compile(network(), (batch, 3, 18, 18), device=small))
    with pytest.raises(pc.DeviceError, match=r"the program needs \S+ MiB \(states .*\), and of the device's .* other programs here use .*; a batch of \d+ is the largest") as caught:
        make(512)
    batch = int(re.search(r"a batch of (\d+)", str(caught.value))[1])
    assert 1 <= batch < 512 and make(batch).memory.peak <= 4 * 2**20
    with pytest.raises(pc.DeviceError):
        make(batch + 1)


def test_a_network_that_does_not_fit_at_all(where):
    with pytest.raises(pc.DeviceError, match=r"not even a batch of 1 fits instead of 2"):
        pc.compile(network(), (2, 3, 18, 18), device=replace(where, memory=open_context(where.index).pool.active_bytes + 1000))


def test_a_driver_that_refuses_is_told_with_numbers(where):
    context = open_context(where.index)
    with pytest.raises(pc.DeviceError, match=r"has no \d+\.\d\d MiB more: it has \d+\.\d\d MiB, \S+ MiB of them in use here"):
        context.buffer(2 * context.device.global_memory)
    assert pc.compile(network(), (1, 3, 18, 18), device=where).run(array(1, 3, 18, 18)).shape == (1, 10)


def test_what_a_driver_refuses_limits_the_batch(where, monkeypatch):
    """A driver that promises more than it gives."""
    context, model = open_context(where.index), network()
    pc.compile(model, (1, 3, 18, 18), device=where)
    most = pool(where).active_bytes + 3 * 2**20

    class Stingy:
        def __init__(self, pool):
            self._pool = pool

        def allocate(self, nbytes):
            refused = self._pool.active_bytes + nbytes > most
            return self._pool.allocate(1 << 50 if refused else nbytes)

        def __getattr__(self, name):
            return getattr(self._pool, name)

    monkeypatch.setattr(context, "pool", Stingy(context.pool))
    with pytest.raises(pc.DeviceError, match=r"has no \S+ MiB more: .* a batch of (\d+) is the largest that fits instead of 256") as caught:
        pc.compile(model, (256, 3, 18, 18), device=where)
    batch = int(re.search(r"a batch of (\d+)", str(caught.value))[1])
    gc.collect()
    assert 1 < batch < 256 and pc.compile(model, (batch, 3, 18, 18), device=where).run(array(batch, 3, 18, 18)).shape == (batch, 10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_ten_thousand_runs_take_no_more_memory(where):
    program = pc.compile(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)), (1, 1, 6, 6), device=where)
    x = array(1, 1, 6, 6)

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    for _ in range(1500):
        program.run(x)
    host, device = resident(), pool(where).managed_bytes
    for _ in range(10_000):
        program.run(x)
    assert resident() - host < 2 * 2**20  # a kernel's event that is not given back is 100 bytes or more: 4 MB
    assert pool(where).managed_bytes == device


def test_programs_that_come_and_go_take_no_more_memory(where):
    """What one gives back to the pool, the next one uses."""
    for size in (8, 12, 16) * 2:
        pc.compile(nn.Conv2d(3, 8, 3), (2, 3, size, size), device=where).run(array(2, 3, size, size))
    managed = pool(where).managed_bytes
    for size in (8, 12, 16) * 5:
        pc.compile(nn.Conv2d(3, 8, 3), (2, 3, size, size), device=where).run(array(2, 3, size, size))
    assert pool(where).managed_bytes == managed


def test_the_limits_come_from_the_driver(where):
    info = INFOS[where.index]
    assert 0.99 * min(info.max_allocation, 2**33) <= where.largest <= min(info.max_allocation, 2**33)
    assert backend("cpu").devices()[0].largest == 0
