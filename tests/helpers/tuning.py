"""What the tests of tuning share: limits of made-up devices, the families of all kernels, a toy family and records for it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

import pycl_cnn as pc
from pycl_cnn.tuning.database import Record, Tuning
from pycl_cnn.tuning.space import Family, Limits, Problem, Rule, Space, Variant

pytest.importorskip("pyopencl", reason="tuning chooses OpenCL kernels")

from pycl_cnn.backends.opencl.conv import DEPTHWISE
from pycl_cnn.backends.opencl.conv_weight_gradient import WEIGHT_GRADIENT
from pycl_cnn.backends.opencl.tiles import PRODUCT
from pycl_cnn.backends.opencl.winograd import WINOGRAD, WINOGRAD_TILE
from pycl_cnn.backends.opencl.winograd_fused import WINOGRAD_FUSED
from pycl_cnn.backends.opencl.winograd_gradient import GRADIENT_TILE
from pycl_cnn.backends.opencl.winograd_phases import WINOGRAD_PHASES

CPU = Limits(False, 8, (), 4096, (4096, 4096, 4096), 1 << 20)
GPU = Limits(True, 4, (), 1024, (1024, 1024, 64), 48 << 10)
SMALL_GPU = Limits(True, 4, (), 64, (64, 64, 64), 8 << 10)
FACTS = {"platform": "Toy OpenCL 1.2", "name": "Toy 9000", "vendor": "Toys", "driver": "1.0", "type": "gpu"}

#: Families with the names of their problems' sizes.
FAMILIES = {
    "product": (PRODUCT, ("pixels", "outs", "reds", "taps", "groups")),
    "weight_gradient": (WEIGHT_GRADIENT, ("pixels", "outs", "reds", "taps", "groups")),
    "depthwise": (DEPTHWISE, ("rows", "columns", "inside", "channels", "taps")),
    "winograd": (WINOGRAD, ("tile", "tiles", "ins", "outs")),
    "winograd_tile": (WINOGRAD_TILE, ("images", "rows", "columns", "ins", "outs", "learned")),
    "winograd_fused": (WINOGRAD_FUSED, ("images", "rows", "columns", "ins", "outs", "learned")),
    "winograd_phases": (WINOGRAD_PHASES, ("images", "rows", "columns", "ins", "outs")),
    "winograd_gradient_tile": (GRADIENT_TILE, ("images", "rows", "columns", "ins", "outs")),
}

TOY = Family("toy", (Space("toy", {"A": (1, 2, 3, 4, 5, 6, 7)}, lambda p, d: Variant.of("toy", A=7), (Rule("A under 8", lambda v, p, d: v["A"] < 8),)),))
HERE = Problem.of("toy", n=100)


def record_of(level, a, match, key=HERE.key, kernels=""):
    families = {"toy": {key: [{"kernel": "toy", "A": a}] if key == "*" else {"kernel": "toy", "A": a}}}
    return Record.parse({"format": 1, "title": f"{level} {a}", "level": level, "match": match, "kernels": kernels, "families": families}, "test")


@contextmanager
def limits_of(context, **changes):
    """The device as if it had other limits."""
    before = context.tuning
    context.tuning = Tuning(before.facts, replace(before.limits, **changes), "", (), ())
    try:
        yield context.tuning
    finally:
        context.tuning = before


def first_opencl_device():
    found = [device for device in pc.devices() if device.backend == "opencl"]
    if not found:
        pytest.skip("no OpenCL device on this machine")
    return found[0]
