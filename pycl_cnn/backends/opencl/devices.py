"""The OpenCL devices of this machine and what they say about themselves. What was measured about them: probe.py.

pyopencl is imported when a device is asked for, never by ``import pycl_cnn``.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading

from ...errors import DeviceError
from ...records import record


class OpenCLUnavailable(DeviceError):
    """No OpenCL device can be used; the message says why and what to install."""


@record
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


def made_once(function):
    """`functools.cache` for what must not be made twice: a thread that comes second waits."""
    lock, cached = threading.RLock(), functools.cache(function)

    @functools.wraps(function)
    def call(*arguments):
        with lock:
            return cached(*arguments)

    call.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return call


def import_pyopencl():
    try:
        return importlib.import_module("pyopencl")
    except Exception as error:     # a broken installation fails with ImportError, OSError or an error of its own
        raise OpenCLUnavailable(
            f"[opencl] pyopencl cannot be imported ({type(error).__name__}: {error}); "
            "install it with: pip install pyopencl"
        ) from error


def _give_threads_processors():
    """Ask PoCL to keep each of its threads on a processor of its own, unless POCL_AFFINITY says otherwise: Linux wakes several of them on one
    processor and parts them after milliseconds, when the kernel is over. PoCL takes processors by number, from 0 on: only where it may and will take all.
    """
    processors = os.cpu_count() or 1
    told = (os.environ.get(name, "") for name in ("POCL_MAX_PTHREAD_COUNT", "POCL_CPU_MAX_CU_COUNT"))
    fewer = any(number.isdigit() and int(number) < processors for number in told)
    if not fewer and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == processors:
        os.environ.setdefault("POCL_AFFINITY", "1")


def _platform_devices():
    cl = import_pyopencl()
    _give_threads_processors()  # PoCL reads it when it is asked for platforms
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


@made_once
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


@made_once
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
