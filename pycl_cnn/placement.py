"""Which devices there are, and which one is meant."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any

from .backends import backend
from .backends.base import Device
from .errors import DeviceError


def devices() -> list[Device]:
    """All devices: the native CPU backend first, then every OpenCL device of every platform."""
    return [*backend("cpu").devices(), *opencl_devices()]


def opencl_devices() -> list[Device]:
    """The OpenCL devices; none where OpenCL is missing or broken (`pycl_cnn.device("opencl")` then says what is wrong)."""
    try:
        return list(backend("opencl").devices())
    except DeviceError:
        return []


@lru_cache(maxsize=64)
def _find(spec: str) -> Device:
    name = spec.strip().lower()
    if name == "cpu":
        return backend("cpu").devices()[0]
    if name == "reference":
        return backend("reference").devices()[0]
    if name == "auto":
        return _automatic()
    found = list(backend("opencl").devices())  # raises with the cause where OpenCL is broken
    if name == "opencl" or name.startswith("opencl:"):
        return _by_index(spec, name, found)
    matching = [d for d in found if name in f"{d.name} {d.platform} {d.kind}".lower()]
    if not matching:
        listed = ", ".join(f'"{d.label}" ({d.name}, {d.platform})' for d in devices())
        raise DeviceError(f'device: nothing matches "{spec}"; there are {listed}; also "auto" and part of a name')
    return matching[0]


def _by_index(spec: str, name: str, found: list[Device]) -> Device:
    if not found:
        raise DeviceError(
            'device: OpenCL works but offers no device; install a driver, e.g. "pip install pyopencl[pocl]" or "apt-get install pocl-opencl-icd", or use device="cpu"; `pycl-cnn doctor` tells more'
        )
    if name == "opencl":
        return next((d for d in found if d.kind == "gpu"), found[0])
    index = name.partition(":")[2]
    if not index.isdigit() or int(index) >= len(found):
        raise DeviceError(f'device: "{spec}" must be opencl:0 to opencl:{len(found) - 1}')
    return found[int(index)]


#: What an OpenCL device's time over the native backend's must be for "auto". On the same processor a tie is noise.
MARGINS = {"gpu": 1.0, "accelerator": 1.0, "cpu": 0.8}


def _automatic() -> Device:
    """The device that runs a small network fastest, GPUs asked first; measured once, see backends/race.py."""
    native, found = backend("cpu").devices()[0], opencl_devices()
    if not found:
        return replace(native, reason="auto: there is no OpenCL device")
    from .backends.race import race

    results, left = race(native, sorted(found, key=lambda candidate: candidate.kind == "cpu"))
    measured = "; ".join(map(str, results)) + "".join(f"; {device.label} not yet measured" for device in left)
    working = [result for result in results if not result.problem]
    if working:
        least = min(result.native for result in working)  # another program may have been in the way of one
        best = min(working, key=lambda result: result.seconds / MARGINS[result.device.kind])
        if best.seconds < MARGINS[best.device.kind] * least:
            return replace(best.device, reason=f"auto: the fastest at a small network ({measured})")
    return replace(native, reason=f"auto: no OpenCL device is clearly faster at a small network ({measured})")


def device(spec: Any = None) -> Device:
    """The device meant by `spec`: "cpu", "opencl", "opencl:1", part of a device's or platform's name, "auto", "reference", or a Device.

    None means the environment variable PYCL_CNN_DEVICE, or "auto". Raises DeviceError, naming what there is.
    """
    if isinstance(spec, Device):
        return spec
    if spec is None:
        spec = os.environ.get("PYCL_CNN_DEVICE") or "auto"
    if not isinstance(spec, str):
        raise DeviceError(f"device: must be text or a Device; received {spec!r}")
    return _find(spec)
