"""Asks drivers, in a process that may die. Run by the doctor as ``python probe.py load LIBRARY | list | try INDEX``; prints one line of JSON.

    load LIBRARY   {"error": what the dynamic linker says, "" where it loads}
    list           {"pyopencl": version, "loader": path, "platforms": [{..., "devices": [{...}]}]} or {"error": ..., "stage": ...}
    try INDEX      {"error": what went wrong with a small kernel on this device, "", "seconds": to build and run it}
"""

from __future__ import annotations

import json
import sys
from typing import Any

KERNEL = "__kernel void twice(__global const float *x, __global float *y) { const int i = get_global_id(0); y[i] = 2.0f * x[i] + 1.0f; }"


def load(library: str) -> dict[str, Any]:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError as error:
        return {"error": str(error) or "it cannot be loaded"}
    return {"error": ""}


def flat_devices(cl: Any) -> list[tuple[Any, list[Any]]]:
    """Every platform with its devices, in the order in which pycl_cnn counts them."""
    found = []
    for platform in cl.get_platforms():
        try:
            found.append((platform, platform.get_devices()))
        except cl.Error:  # the platform's way of saying that it has none
            found.append((platform, []))
    return found


def loader() -> str:
    """The path of the OpenCL library that this process has loaded, "" where the system does not tell."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            return next((line.split(maxsplit=5)[5].strip() for line in maps if "/libOpenCL" in line), "")
    except OSError:
        return ""


def listed() -> dict[str, Any]:
    try:
        import pyopencl as cl
    except ModuleNotFoundError as error:
        missing = error.name == "pyopencl"
        return {"stage": "missing" if missing else "import", "error": str(error)}
    except Exception as error:  # a broken installation fails in ways of its own
        return {"stage": "import", "error": f"{type(error).__name__}: {error}"}
    answer: dict[str, Any] = {"pyopencl": cl.VERSION_TEXT, "loader": loader(), "platforms": []}
    try:
        platforms = flat_devices(cl)
    except cl.Error as error:
        return {**answer, "stage": "platforms", "error": str(error)}
    index = 0
    for platform, devices in platforms:
        facts = {"name": platform.name.strip(), "vendor": platform.vendor.strip(), "version": platform.version.strip(), "devices": []}
        for device in devices:
            facts["devices"].append({"index": index, **describe(cl, device)})
            index += 1
        answer["platforms"].append(facts)
    return answer


def describe(cl: Any, device: Any) -> dict[str, Any]:
    kinds = {"cpu": cl.device_type.CPU, "gpu": cl.device_type.GPU, "accelerator": cl.device_type.ACCELERATOR}
    return {
        "name": device.name.strip(),
        "vendor": device.vendor.strip(),
        "kind": next((name for name, bit in kinds.items() if device.type & bit), "other"),
        "version": device.version.strip(),
        "language": device.opencl_c_version.strip(),
        "driver": device.driver_version.strip(),
        "compute_units": device.max_compute_units,
        "work_group": device.max_work_group_size,
        "memory": device.global_mem_size,
        "largest_buffer": device.max_mem_alloc_size,
        "local_memory": device.local_mem_size,
        "extensions": sorted(device.extensions.split()),
    }


def tried(index: int) -> dict[str, Any]:
    import time

    import numpy as np
    import pyopencl as cl

    device = [device for _, devices in flat_devices(cl) for device in devices][index]
    start = time.perf_counter()
    try:
        context = cl.Context([device])
        queue = cl.CommandQueue(context)
        x = np.arange(37, dtype=np.float32)
        y = np.full_like(x, np.nan)
        source = cl.Buffer(context, cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR, hostbuf=x)
        target = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=y)
        cl.Program(context, KERNEL).build(options=["-cl-std=CL1.2"]).twice(queue, x.shape, None, source, target)
        cl.enqueue_copy(queue, y, target)
    except Exception as error:  # whatever it is, it is what the user wants to know
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500], "seconds": 0.0}
    wrong = int(np.count_nonzero(y != 2 * x + 1))
    return {"error": f"{wrong} of {x.size} results of a small kernel are wrong" if wrong else "", "seconds": time.perf_counter() - start}


def main(arguments: list[str]) -> None:
    command, *rest = arguments
    answer = load(rest[0]) if command == "load" else listed() if command == "list" else tried(int(rest[0]))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
