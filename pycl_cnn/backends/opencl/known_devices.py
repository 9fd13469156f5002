"""What is known of drivers: what the probe found on those that many machines have, so that a first start there need not wait for it.

A device is known by its platform, the beginning of its driver's version, and the vector width that the driver calls native (on CPUs
it tells the instruction set). Others are probed. Rates are GFLOP/s of one core of an AMD EPYC 9004 (AVX-512), 0 where the
candidate does not work.
"""

from __future__ import annotations

from .devices import DeviceInfo

POCL, INTEL = "Portable Computing Language", "Intel(R) OpenCL"

#: (platform, how its version says driver and compiler): drivers that read Clang's opencl-c.h for every program and bear its absence (kernels_cl/builtins.cl).
#: It takes PoCL 80 of the 90 ms that it needs for a small program, and 20 of 24 to find one in its cache.
HEADERS_NOT_NEEDED = ((POCL, "PoCL 3.0", "LLVM 14."), (POCL, "PoCL 3.1", "LLVM 15."))

#: (platform, beginning of the driver's version, native vector width): vector width, multiply-add form, {"width form": GFLOP/s}
KNOWN: dict[tuple[str, str, int], tuple[int, int, dict[str, float]]] = {
    (POCL, "3.0", 16): (8, 1, {"16 a*b+c": 0.0, "16 fma": 0.0, "16 mad": 0.0, "8 a*b+c": 85.5, "8 fma": 11.7, "8 mad": 11.7}),
    (POCL, "3.1", 16): (16, 1, {"16 a*b+c": 107.6, "16 fma": 107.7, "16 mad": 74.5, "8 a*b+c": 80.2, "8 fma": 79.4, "8 mad": 65.1}),
    (INTEL, "2026.", 16): (16, 1, {"16 a*b+c": 110.0, "16 fma": 110.1, "16 mad": 110.2, "8 a*b+c": 103.8, "8 fma": 104.7, "8 mad": 104.5}),
    ("rusticl", "22.3", 1): (8, 1, {"8 a*b+c": 0.126, "8 fma": 0.008, "8 mad": 0.118, "4 a*b+c": 0.096, "4 fma": 0.01, "4 mad": 0.092}),
    ("Oclgrind", "Oclgrind 21", 1): (8, 1, {"8 a*b+c": 0.0097, "8 fma": 0.0097, "8 mad": 0.0097, "4 a*b+c": 0.0055, "4 fma": 0.0055, "4 mad": 0.0056}),
}


def needs_no_headers(device: DeviceInfo) -> bool:
    """Whether a device's driver builds kernels with the declarations of kernels_cl/builtins.cl alone."""
    return any(device.platform == platform and driver in device.platform_version and compiler in device.platform_version for platform, driver, compiler in HEADERS_NOT_NEEDED)
