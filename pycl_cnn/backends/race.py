"""How fast the devices of this machine run a small convolutional network, beside the native CPU backend: what device "auto" goes by.

Measured in the first few sessions for each device, driver and machine, in turns with the native backend, so that other programs disturb both;
the least times are remembered in the user's cache folder, as is the problem of a device that fails. A session spends about two seconds on
it: what it does not come to, a later one measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np

from ..cache import read_cache, update_cache
from ..geometry import ConvGeometry
from ..graph import Graph
from ..ops.conv import Conv, Epilogue
from ..ops.leaf import State
from ..ops.pointwise import Activation
from ..records import record
from . import backend
from .base import Device
from .ceilings import machine_key

FILE = "placement.json"
ENTRY = ("seconds", "native", "problem", "sessions")
SESSION_SECONDS = 2.0  # after which no further device is begun with
SESSIONS = 3  # that measure a device
MEASURE_SECONDS = 0.25  # that runs of both are repeated for
SLOW_SECONDS = 0.05  # a device that needs longer for a small part of the work is not asked for the whole
CHANNELS, LAYERS = 64, 4
SMALL, LARGE = 14, 56  # edges of the images, of which the kernels' blocks are multiples


@record
class Result:
    """Seconds of a device and of the native backend beside it, or the problem that the device has."""

    device: Device
    seconds: float = 0.0
    native: float = 0.0
    problem: str = ""
    sessions: int = 1  # that it was measured in

    def with_earlier(self, earlier: Result) -> Result:
        """The least times of this session and earlier ones."""
        sessions = self.sessions + earlier.sessions
        if self.problem or earlier.problem:  # what failed may have been the session's trouble, a full memory say: it is asked again, and the last answer counts
            return replace(self, sessions=sessions)
        return Result(self.device, min(self.seconds, earlier.seconds), min(self.native, earlier.native), "", sessions)

    def __str__(self) -> str:
        took = f"fails ({self.problem})" if self.problem else f"{self.seconds * 1e3:.2f} ms, cpu {self.native * 1e3:.2f} ms"
        return f"{self.device.label} {took}"


def race(native: Device, devices: Sequence[Device]) -> tuple[list[Result], list[Device]]:
    """What is known or now measured about `devices`, in their order, and the devices that there was no time for."""
    known = read_cache(FILE)
    results: list[Result] = []
    left: list[Device] = []
    begin = perf_counter()
    for device in devices:
        entry = known.get(_key(native, device))
        earlier = Result(device, **entry) if isinstance(entry, dict) and set(entry) == set(ENTRY) else None
        late = perf_counter() - begin > SESSION_SECONDS
        if earlier is not None and (late or earlier.sessions >= SESSIONS):
            results.append(earlier)
        elif late:
            left.append(device)
        else:
            result = _measured(native, device)
            results.append(result.with_earlier(earlier) if earlier else result)
            update_cache(FILE, {_key(native, device): {name: getattr(results[-1], name) for name in ENTRY}})
    return results, left


def _key(native: Device, device: Device) -> str:
    from .. import __version__
    from .cpu.threads import get_num_threads

    return machine_key(__version__, device.platform, device.name, device.driver, native.driver, f"{get_num_threads()} threads")


def _measured(native: Device, device: Device) -> Result:
    try:
        (small,) = _least([_runner(device, SMALL, 1)])
        if small > SLOW_SECONDS:
            scale = LAYERS * (LARGE / SMALL) ** 2
            (beside,) = _least([_runner(native, LARGE, LAYERS)])
            return Result(device, small * scale, beside)
        seconds, beside = _least([_runner(device, LARGE, LAYERS), _runner(native, LARGE, LAYERS)])
        return Result(device, seconds, beside)
    except Exception as error:  # whatever a broken driver does, the choice goes on without it
        return Result(device, problem=" ".join(f"{type(error).__name__}: {error}".split())[:200])


def _runner(device: Device, edge: int, layers: int) -> Callable[[], object]:
    """A run of `layers` convolutions 3x3 with ReLU on one image, copies to and from the device included."""
    generator, graph = np.random.default_rng(0), Graph()
    x = generator.standard_normal((1, edge, edge, CHANNELS), dtype=np.float32)
    filters = (CHANNELS, 3, 3, CHANNELS)
    states = {f"w{layer}": 0.05 * generator.standard_normal(filters, dtype=np.float32) for layer in range(layers)}
    convolution = Conv(ConvGeometry.forward("race", x.shape, filters, padding=1), Epilogue(activation=Activation("relu")))
    y = graph.input("x", x.shape)
    for name in states:
        y = graph.apply(convolution, y, graph.state(State.plain(name, filters)))
    graph.outputs = [y]
    program = backend(device.backend).compile(graph, device, states, {"Conv": "igemm"})
    if not np.isfinite(program.run(x)).all():
        raise ArithmeticError("the results are not finite")
    return lambda: program.run(x)


def _least(runs: Sequence[Callable[[], object]]) -> list[float]:
    """The least seconds of each, run in turns."""
    best, begin = [float("inf")] * len(runs), perf_counter()
    while perf_counter() - begin < MEASURE_SECONDS:
        for index, run in enumerate(runs):
            start = perf_counter()
            run()
            best[index] = min(best[index], perf_counter() - start)
    return best
