"""What is shipped about drivers spares the probe, and agrees with it."""

from dataclasses import replace

import pytest

from pycl_cnn.backends.opencl import probe
from pycl_cnn.backends.opencl.known_devices import KNOWN


@pytest.fixture
def found(device):
    """The DeviceInfo of an OpenCL device."""
    if device.backend != "opencl":
        pytest.skip("only OpenCL devices are probed")
    from pycl_cnn.backends.opencl.devices import devices

    return devices()[device.index]


def test_every_entry_names_a_width_and_a_form_that_worked():
    for (platform, driver, _), (width, form, measured) in KNOWN.items():
        assert platform and driver and measured[f"{width} {probe.MULTIPLY_ADD_FORMS[form]}"] >= 0.95 * max(measured.values()), (platform, driver)


def test_known_devices_are_not_probed_and_others_are(found, monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "measure", lambda device: asked.append(device) or "measured")
    probe.capabilities.cache_clear()
    try:
        assert (probe.capabilities(found) == "measured") == (probe.known(found) is None) == bool(asked)
        other = replace(found, driver_version="0.0 of nobody")
        assert probe.known(other) is None and probe.capabilities(other) == "measured"
        assert probe.known(replace(found, is_gpu=True)) is None
    finally:
        probe.capabilities.cache_clear()


def test_the_probe_agrees(found):
    shipped = probe.known(found)
    if shipped is None:
        pytest.skip(f"nothing is shipped about {found.driver_version}")
    measured = probe.measure(found).measured
    rate = measured[f"{shipped.vector_width} {probe.MULTIPLY_ADD_FORMS[shipped.multiply_add]}"]
    assert rate > 0.6 * max(measured.values()), measured  # other programs disturb; a wrong entry is slower by far more
    assert {name for name, value in shipped.measured.items() if not value} == {name for name, value in measured.items() if not value}
