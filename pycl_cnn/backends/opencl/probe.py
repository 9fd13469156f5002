"""Vector width and multiply-add form of the fastest correct register-blocked product on a device, measured in a child process.

The payload is the convolution kernel itself on ones, whose result is known. Its activation is gelu, which is the identity there, but
calls the exponential and the root: some runtimes multiply wide vectors well and crash in their functions. One work-item
on one core: how many cores are free at the moment does not matter, and the candidates race in turns.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...cache import read_cache, update_cache
from ...records import record
from .devices import DeviceInfo, OpenCLUnavailable, made_once
from .known_devices import KNOWN
from .sources import build_options, source_text
from .trials import MEMORY, Payload, decoded, run

# Candidates for one multiply-add, numbered as MULTIPLY_ADD in kernels_cl/vectors.cl.
MULTIPLY_ADD_FORMS = {1: "a*b+c", 2: "fma", 3: "mad"}
ROWS, VECTORS = 6, 2
GELU = 6
ROUNDS = 12
# (terms of a sum, blocks of ROWS pixels), the first for simulators, later ones as far as a device is fast.
SIZES = ((32, 1), (128, 1), (1024, 1), (1024, 4), (1024, 16), (1024, 64), (1024, 256))


@record
class Capabilities:
    """What the probe found: vector width and multiply-add form of the fastest correct register-blocked product.

    `measured` maps "width form" to GFLOP/s, 0 where the build, the result or the process failed.
    """

    vector_width: int
    multiply_add: int
    measured: dict[str, float]


def _candidates(device: DeviceInfo) -> list[tuple[int, int]]:
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


def _payload(width: int, form: int, sizes: tuple[tuple[int, int], ...]) -> tuple[Payload, int]:
    """Sums of ones in every size, and where the results lie."""
    panel = width * VECTORS
    reds, blocks = sizes[-1]
    payload = Payload()
    ones = payload.place(np.ones(reds * panel, np.float32))
    y = payload.place(np.full(ROWS * blocks * panel, np.nan, np.float32))
    options = build_options({"VEC": width, "MULTIPLY_ADD": form, "MR": ROWS, "NV": VECTORS, "ACTIVATION": GELU})
    for reds, blocks in sizes:
        pixels = ROWS * blocks
        arguments = {
            "x": (MEMORY, ones),
            "panels": (MEMORY, ones),
            "y": (MEMORY, y),
            "bias": None,
            "residual": None,
            "taps": np.zeros(2, np.int32),
            "zeros": np.zeros(reds, np.float32),
            "images": 1,
            "grid_rows": 1,
            "grid_columns": pixels,
            "x_rows": 1,
            "x_columns": pixels,
            "y_column_stride": panel,
            "tap_count": 1,
            "reds": reds,
            "outs": panel,
            "blocks_per_item": blocks,
            "alpha": 0.0,
            "beta": 0.0,
            **dict.fromkeys(("row_step", "column_step"), 1),
            # Pixel strides of x are 0: every pixel reads the same ones.
            **dict.fromkeys(("x_image_stride", "x_row_stride", "x_column_stride", "y_image_stride", "y_row_stride"), 0),
        }
        payload.launch("conv_igemm", "conv_igemm", source_text("conv_igemm"), options, (1, 1, 1), (1, 1, 1), arguments)
    return payload, y


def _failures(device: DeviceInfo, candidates: list[tuple[int, int]]) -> list[str]:
    """What is wrong with each candidate, or nothing; judged by one block."""
    payloads = [_payload(*candidate, SIZES[:1]) for candidate in candidates]
    failures = []
    for outcome, (_, y), (width, _) in zip(run(device, [{"run": payload.request()} for payload, _ in payloads], 1), payloads, candidates, strict=True):
        if not outcome.problem:
            result = decoded(outcome.result)[y : y + ROWS * width * VECTORS].view(np.float32)
            right = np.allclose(result, SIZES[0][0], rtol=1e-5, atol=0)
            failures.append("" if right else f"{result[0]} instead of {SIZES[0][0]}")
        else:
            failures.append(outcome.problem)
    return failures


def _measure(device: DeviceInfo) -> dict[tuple[int, int], float]:
    """GFLOP/s of every candidate, 0 where it does not work. Raises OpenCLUnavailable when not one gives the correct result."""
    candidates = _candidates(device)
    failures = _failures(device, candidates)
    working = [candidate for candidate, failure in zip(candidates, failures, strict=True) if not failure]
    if not working:
        raise OpenCLUnavailable(f"[opencl] device {device.index} ({device.name}, {device.platform_version}) builds no correct kernel: {failures[0]}")
    payloads = [_payload(*candidate, SIZES)[0].request() for candidate in working]
    (outcome,) = run(device, [{"race": payloads, "rounds": ROUNDS}], 1)
    measured = dict.fromkeys(candidates, 0.0)
    if outcome.problem:  # too slow to be timed: the first that works
        return measured | dict.fromkeys(working, 1.0)
    size, seconds = outcome.result
    reds, blocks = SIZES[size]
    for candidate, best in zip(working, seconds, strict=True):
        measured[candidate] = round(2e-9 * reds * blocks * ROWS * candidate[0] * VECTORS / best, 4)
    return measured


def known(device: DeviceInfo) -> Capabilities | None:
    """The `Capabilities` of a device whose driver others have measured."""
    for (platform, driver, width), facts in KNOWN.items():
        if device.platform == platform and device.driver_version.startswith(driver) and device.native_vector_width == width and not device.is_gpu:
            return Capabilities(*facts)
    return None


@made_once
def capabilities(device: DeviceInfo) -> Capabilities:
    """The `Capabilities` of a device: known, or measured once (a few seconds) and remembered in the user's cache folder."""
    shipped = known(device)
    return measure(device) if shipped is None else shipped


def measure(device: DeviceInfo) -> Capabilities:
    """What was measured on this device with these kernels: earlier, or now."""
    # What was measured with another kernel says nothing about this one.
    text = source_text("conv_igemm") + Path(__file__).read_text(encoding="utf-8")
    name = f"opencl-probe-{zlib.crc32(text.encode()):08x}.json"
    remembered = read_cache(name).get(device.key)
    if remembered is not None:
        return Capabilities(**remembered)
    measured = _measure(device)
    fastest = max(measured.values())
    width, form = next(candidate for candidate in _candidates(device) if measured[candidate] >= 0.95 * fastest)
    result = Capabilities(width, form, {f"{w} {MULTIPLY_ADD_FORMS[f]}": rate for (w, f), rate in measured.items()})
    update_cache(name, {device.key: asdict(result)})
    return result
