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


def _automatic() -> Device:
    """A GPU or accelerator where OpenCL offers one; otherwise the native CPU backend, which is the faster one there."""
    found = opencl_devices()
    for candidate in found:
        if candidate.kind in ("gpu", "accelerator"):
            return replace(candidate, reason=f"auto: an OpenCL {candidate.kind} is present")
    native = backend("cpu").devices()[0]
    return replace(native, reason="auto: no OpenCL GPU is present" if not found else "auto: OpenCL offers only CPUs, where the native backend is faster")


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
