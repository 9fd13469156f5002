"""What is shipped about drivers spares the probe, and agrees with it."""

from dataclasses import replace

import pytest

from pycl_cnn.backends.opencl import probe
from pycl_cnn.backends.opencl.known_devices import HEADERS_NOT_NEEDED, KNOWN, needs_no_headers
from pycl_cnn.backends.opencl.sources import build_options, source_text


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


def test_drivers_that_need_no_headers_are_known_by_driver_and_compiler(found):
    named = any(driver in found.platform_version for _, driver, _ in HEADERS_NOT_NEEDED)
    assert needs_no_headers(found) == named
    assert not needs_no_headers(replace(found, platform_version=found.platform_version.replace("LLVM 1", "LLVM 9")))
    assert not needs_no_headers(replace(found, platform="another platform"))


def test_kernels_declare_what_they_call_only_where_headers_are_left_out(found):
    from pycl_cnn.backends.opencl.programs import open_context

    options = open_context(found.index).options("conv_igemm", {"MR": 2})
    assert ("-D_OPENCL_H_" in options) == ("-DDECLARE_BUILTINS=1" in options) == needs_no_headers(found)
    assert build_options({"VEC": 4}) == ("-cl-std=CL1.2", "-DVEC=4")
    assert source_text("conv_igemm").count("#define BUILTIN ") == source_text("movement").count("#define BUILTIN ") == 1


@pytest.mark.parametrize("width", [1, 4, 8, 16])
def test_every_program_builds_without_headers(found, width):
    """At each width that the declarations are for; those of a wider vector than the driver can do are not."""
    if not needs_no_headers(found):
        pytest.skip("this driver gets no declarations")
    from pycl_cnn.backends.opencl.programs import open_context

    context = open_context(found.index)
    for kind in range(36):
        if kind <= 12 or kind >= 20:
            context.program("pointwise", VEC=width, ACTIVATION=kind)
    for form in probe.MULTIPLY_ADD_FORMS:
        context.program("ceilings", VEC=width, MULTIPLY_ADD=form)
