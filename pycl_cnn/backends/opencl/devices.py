"""The OpenCL devices of this machine: what they are, and what was measured about them once.

pyopencl is imported when a device is asked for, never by ``import pycl_cnn``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zlib
from dataclasses import asdict, dataclass

from ...errors import DeviceError

# Candidates for one multiply-add, numbered as MULTIPLY_ADD in kernels_cl/vectors.cl.
MULTIPLY_ADD_FORMS = {1: "a*b+c", 2: "fma", 3: "mad"}

_PROBE_ROUNDS = 12
_PROBE_SECONDS = 60
_PROBE = pathlib.Path(__file__).with_name("probe.py")


class OpenCLUnavailable(DeviceError):
    """No OpenCL device can be used; the message says why and what to install."""


@dataclass(frozen=True)
class DeviceInfo:
    """One OpenCL device.  `index` is its place in the flat list over all platforms; sizes are in bytes."""

    index: int
    platform: str
    platform_version: str
    name: str
    vendor: str
    driver_version: str
    is_gpu: bool
    compute_units: int
    max_work_group: int
    max_work_item_sizes: tuple
    local_memory: int
    max_allocation: int
    global_memory: int
    preferred_vector_width: int
    native_vector_width: int

    @property
    def key(self):
        """Identifies device and driver across sessions: what is measured on one holds for no other."""
        return f"{self.platform} {self.platform_version} | {self.name} | {self.driver_version}"


@dataclass(frozen=True)
class Capabilities:
    """What the probe found: vector width and multiply-add form of the fastest correct register-blocked product.

    `measured` maps "width form" to GFLOP/s, 0 where the build, the result or the process failed.
    """

    vector_width: int
    multiply_add: int
    measured: dict


def import_pyopencl():
    try:
        return importlib.import_module("pyopencl")
    except Exception as error:     # a broken installation fails with ImportError, OSError or an error of its own
        raise OpenCLUnavailable(
            f"[opencl] pyopencl cannot be imported ({type(error).__name__}: {error}); "
            "install it with: pip install pyopencl"
        ) from error


def _platform_devices():
    cl = import_pyopencl()
    try:
        platforms = cl.get_platforms()
    except cl.Error:               # the loader's way of saying that no driver is installed
        return []
    found = []
    for platform in platforms:
        try:
            found.extend(platform.get_devices())
        except cl.Error:           # a platform without a device
            continue
    return found


@functools.cache
def _native_devices():
    return tuple(_platform_devices())


def _describe(index, native):
    cl = import_pyopencl()
    is_gpu = bool(native.type & (cl.device_type.GPU | cl.device_type.ACCELERATOR)) and not native.type & cl.device_type.CPU
    return DeviceInfo(
        index=index,
        platform=native.platform.name.strip(),
        platform_version=native.platform.version.strip(),
        name=native.name.strip(),
        vendor=native.vendor.strip(),
        driver_version=native.driver_version.strip(),
        is_gpu=is_gpu,
        compute_units=native.max_compute_units,
        max_work_group=native.max_work_group_size,
        max_work_item_sizes=tuple(native.max_work_item_sizes),
        local_memory=native.local_mem_size,
        max_allocation=native.max_mem_alloc_size,
        global_memory=native.global_mem_size,
        preferred_vector_width=native.preferred_vector_width_float,
        native_vector_width=native.native_vector_width_float,
    )


@functools.cache
def devices():
    """All OpenCL devices of all platforms as a flat tuple of `DeviceInfo`; empty when no driver is installed.

    Raises OpenCLUnavailable when pyopencl itself is missing or broken.
    """
    return tuple(_describe(index, native) for index, native in enumerate(_native_devices()))


def native_device(index):
    """The pyopencl device with this place in `devices()`.  Raises OpenCLUnavailable, naming the devices there are."""
    found = _native_devices()
    if not 0 <= index < len(found):
        names = ", ".join(f"{d.index}: {d.name} ({d.platform})" for d in devices()) or "none"
        raise OpenCLUnavailable(f"[opencl] no device {index}; devices found: {names}")
    return found[index]


def cache_folder():
    """Where measurements are remembered: PYCL_CNN_CACHE, else the user's cache folder."""
    named = os.environ.get("PYCL_CNN_CACHE")
    if named:
        return pathlib.Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "pycl_cnn"


def read_cache(name):
    """The remembered dictionary `name`; empty when there is none or it cannot be read."""
    try:
        with open(cache_folder() / name, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(name, content):
    """Remembers a dictionary; written beside the old one and renamed, so that a reader never sees half of it.

    A folder that cannot be written only means that the next session measures again.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=name, suffix=".new")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, sort_keys=True)
        os.replace(path, folder / name)
    except OSError:
        return


def _candidates(device):
    """(vector width, multiply-add form), the one to be kept in a tie first.

    What a driver calls its native width is only a hint: some name 16 and crash on it, some name 1 and like 8.
    """
    if device.is_gpu:
        widths = [4]
    elif device.native_vector_width > 8:
        widths = [16, 8]
    else:
        widths = [8, 4]
    return [(width, form) for width in widths for form in MULTIPLY_ADD_FORMS]


def _ask_probe(device, candidates, rounds):
    """(answers of probe.py, what it complained about); fewer answers than expected where it died or hung."""
    from . import programs

    request = json.dumps({"index": device.index, "source": programs.source_text("conv_igemm"), "candidates": candidates, "rounds": rounds})
    try:
        done = subprocess.run([sys.executable, str(_PROBE)], input=request, capture_output=True, text=True, timeout=_PROBE_SECONDS)
        answer, complaint = done.stdout, done.stderr
    except subprocess.TimeoutExpired as slow:
        answer, complaint = (slow.stdout or b"").decode(errors="replace"), f"no answer in {_PROBE_SECONDS} s"
    return [json.loads(line) for line in answer.splitlines() if line.startswith("{") and line.endswith("}")], complaint


def _measure(device):
    """GFLOP/s of every candidate, 0 where it does not work; in processes that may die: some compilers crash on vectors they do not support.

    Raises OpenCLUnavailable when not one gives the correct result.
    """
    waiting = _candidates(device)
    measured, failures = dict.fromkeys(waiting, 0.0), []
    working = []
    while waiting:
        answers, complaint = _ask_probe(device, waiting, 0)
        working += [candidate for candidate, answer in zip(waiting, answers, strict=False) if not answer["failure"]]
        failures += [answer["failure"] for answer in answers if answer["failure"]]
        if len(answers) < len(waiting):
            failures.append(f"the compiler or the kernel crashed or hung on {waiting[len(answers)]}; {complaint[-1000:]}")
        waiting = waiting[len(answers) + 1:]
    if not working:
        raise OpenCLUnavailable(
            f"[opencl] device {device.index} ({device.name}, {device.platform_version}) builds no correct kernel: {failures[0]}"
        )
    answers, _ = _ask_probe(device, working, _PROBE_ROUNDS)
    rates = answers[0]["gflops"] if answers else [1.0] * len(working)      # too slow to be timed: the first that works
    measured.update(zip(working, rates, strict=True))
    return measured


@functools.cache
def capabilities(device):
    """The `Capabilities` of a device: measured once (a few seconds), then remembered in the user's cache folder."""
    from . import programs

    # What was measured with another kernel says nothing about this one.
    name = f"opencl-probe-{zlib.crc32((programs.source_text('conv_igemm') + _PROBE.read_text(encoding='utf-8')).encode()):08x}.json"
    known = read_cache(name).get(device.key)
    if known is not None:
        return Capabilities(**known)
    measured = _measure(device)
    fastest = max(measured.values())
    width, form = next(candidate for candidate in _candidates(device) if measured[candidate] >= 0.95 * fastest)
    result = Capabilities(width, form, {f"{w} {MULTIPLY_ADD_FORMS[f]}": rate for (w, f), rate in measured.items()})
    write_cache(name, {**read_cache(name), device.key: asdict(result)})
    return result
