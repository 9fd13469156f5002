"""What all tests share: the devices they run on and Hypothesis' settings.

A test that takes an argument `device` runs once on the float64 reference and once on every device of ``pc.devices()``. Restrict
them with ``--devices cpu,opencl`` or the environment variable PYCL_CNN_TEST_DEVICES; "opencl" stands for all of OpenCL's.
Examples are the same at every run; HYPOTHESIS_PROFILE=explore looks for new ones.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import pycl_cnn as pc
from pycl_cnn import cli

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much], "print_blob": True}
# The plain run and the CI see the same examples every time; "explore" looks for new ones.
settings.register_profile("default", max_examples=25, derandomize=True, database=None, **_COMMON)
settings.register_profile("explore", max_examples=300, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--devices", default=os.environ.get("PYCL_CNN_TEST_DEVICES", ""), help="only these, e.g. reference,cpu,opencl:0 (default: all)")


def _devices(config: pytest.Config) -> list:
    wanted = [name.strip() for name in config.getoption("--devices").split(",") if name.strip()]
    if not wanted:
        return [pc.device("reference"), *pc.devices()]
    found = []
    for name in wanted:
        found += [device for device in pc.devices() if device.backend == "opencl"] if name == "opencl" else [pc.device(name)]
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        found = _devices(metafunc.config)
        metafunc.parametrize("device", found, ids=[device.label for device in found])


@pytest.fixture
def call(capsys):
    """Run a command line: its status, what it wrote to stdout, and to stderr."""

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
