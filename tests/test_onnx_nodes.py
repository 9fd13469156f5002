"""ONNX's own backend tests: all of the operators that image networks use pass, and nothing fails, on the CPU backend and on OpenCL.

What is expected of each test is in tests/data/onnx_nodes.json; docs/generate_onnx.py writes it, and the page with the table.
"""

from __future__ import annotations

import json
import unittest

import numpy as np
import pytest
from helpers.scripts import documentation

import pycl_cnn as pc

onnx = pytest.importorskip("onnx", reason="ONNX's backend tests are part of the package onnx")

docs = documentation("generate_onnx")
EXPECTED = json.loads(docs.DATA.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results():
    """What became of every test, by device; a device runs them once."""
    done: dict[str, dict[str, str]] = {}

    def get(device):
        if device.label not in done:
            done[device.label] = {case.name: docs.run(case, device.label.upper()) for case in docs.cases()}
        return done[device.label]

    return get


def _tested(device):
    """The CPU backend and one OpenCL device; the others with --devices."""
    if device.backend == "reference" or device.index > 0:
        pytest.skip("the node tests run on the CPU backend and on OpenCL's first device")
    return device


def test_nothing_fails(device, results):
    found = results(_tested(device))
    assert not {name: result for name, result in found.items() if result.startswith("fail")}


def test_every_test_of_a_listed_operator_passes(device, results):
    found = results(_tested(device))
    missing = {
        case.name: found[case.name]
        for case in docs.cases()
        if set(case.operators) <= docs.LISTED and case.kind == "node" and found[case.name] != "pass"
    }
    assert not missing


def test_what_passed_once_passes_still(device, results):
    found = results(_tested(device))
    lost = {name: found[name] for name, state in EXPECTED["tests"].items() if state == "pass" and found.get(name, "pass") != "pass"}
    assert not lost
    if onnx.__version__ == EXPECTED["onnx"]:
        assert {name: result.partition(":")[0] for name, result in found.items()} == EXPECTED["tests"], "run docs/generate_onnx.py"


def test_the_page_is_up_to_date():
    text = docs.PAGE.read_text(encoding="utf-8")
    passed = sum(state == "pass" for state in EXPECTED["tests"].values())
    assert f"**{passed} pass" in text and "0 fail**" in text
    for case_name in ("conv_with_strides_padding", "resize_upsample_sizes_nearest", "nonmaxsuppression_two_batches"):
        assert case_name in text


def test_the_suite_runs_unchanged():
    """A part of onnx.backend.test.BackendTest, as its users run it."""
    from onnx.backend.test import BackendTest

    from pycl_cnn.onnx import backend

    suite = BackendTest(backend, __name__)
    suite.include("test_(relu|conv_with_strides_padding|softmax_axis_1|maxpool_2d_ceil)_cpu")
    outcome = unittest.TestResult()
    for test_case in suite.test_cases.values():
        unittest.defaultTestLoader.loadTestsFromTestCase(test_case).run(outcome)
    assert outcome.testsRun - len(outcome.skipped) == 4 and outcome.wasSuccessful()


def test_backend_interface(device):
    from pycl_cnn.onnx import backend

    if device.backend == "reference":
        assert not backend.supports_device("REFERENCE")
        return
    name = device.label.upper()
    assert backend.supports_device(name) and not backend.supports_device("CUDA")
    node = onnx.helper.make_node("Add", ["x", "y"], ["z"])
    x, y = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    np.testing.assert_array_equal(backend.run_node(node, [x, y], name)[0], x + y)
    np.testing.assert_array_equal(backend.run_node(node, {"x": x, "y": y}, name)[0], x + y)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "sum", [info("x", 1, [3]), info("y", 1, [3])], [info("z", 1, [3])])
    model = onnx.helper.make_model(graph)
    np.testing.assert_array_equal(backend.run_model(model, [x, y], name)[0], x + y)
    assert backend.is_compatible(model)
    strange = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("LSTM", ["x", "y", "y"], ["z"], hidden_size=1)], "lstm", [info("x", 1, [1, 1, 1]), info("y", 1, [1, 4, 1])], [info("z", 1, [1, 1, 1, 1])]))
    assert not backend.is_compatible(strange)
    with pytest.raises(pc.UnsupportedError, match="LSTM"):
        backend.prepare(strange, name)
