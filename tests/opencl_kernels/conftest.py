"""Every OpenCL kernel by itself, on every OpenCL device of the machine, against float64 NumPy.

Small odd shapes throughout: the same tests run under the Oclgrind simulator, which looks for races, uninitialised reads and
accesses out of bounds.
"""

import numpy
import pytest

from pycl_cnn.backends.opencl import devices as opencl_devices
from pycl_cnn.backends.opencl.programs import open_context

try:
    DEVICES = opencl_devices.devices()
except opencl_devices.OpenCLUnavailable:  # no parameters: pytest skips what asks for a context
    DEVICES = []


@pytest.fixture(scope="module", params=[d.index for d in DEVICES], ids=[f"{d.index}-{d.platform} {d.platform_version}"[:48] for d in DEVICES])
def context(request):
    return open_context(request.param)


@pytest.fixture
def random():
    return numpy.random.default_rng(7)
