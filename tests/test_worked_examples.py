"""The fifty worked examples: the lines of Python on the docs page give the known answers, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scripts import documentation
from helpers.tolerance import ULPS, assert_within, sum_bound

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn

docs = documentation("generate_worked_examples")
EXAMPLES = docs.load()
COMPUTED = [example for example in EXAMPLES if example["op"] != "shape"]
COUNTED = [example for example in EXAMPLES if example["op"] == "shape"]


def test_there_are_fifty():
    assert len(EXAMPLES) == 50 and len({example["name"] for example in EXAMPLES}) == 50


def work(example, **extra):
    """Run the example's lines as the page shows them; their names."""
    names = {"np": np, "pc": pc, "nn": nn, "F": F, **docs.arrays(example), **extra}
    exec(compile(docs.snippet(example), example["name"], "exec"), names)
    return names


def bound(example):
    """Nothing for sums of products of whole numbers; otherwise the rounding of the longest sum (and of a root, for norms)."""
    arrays = docs.arrays(example)
    whole = all(np.array_equal(array, np.round(array)) for array in arrays.values())
    if whole and example["op"] not in ("avg_pool1d", "avg_pool2d", "lp_pool2d"):
        return 0.0
    length = max(int(np.prod(np.shape(example["inputs"].get("weight", ()))[1:])), 9)  # no pooling window here is larger
    largest = np.prod([max(np.abs(array).max(), 1.0) for name, array in arrays.items() if name != "bias"])
    return sum_bound(length + ULPS * (example["op"] == "lp_pool2d"), length * float(largest))


@pytest.mark.parametrize("example", COMPUTED, ids=lambda example: example["name"])
def test_result(example, device, monkeypatch):
    monkeypatch.setenv("PYCL_CNN_DEVICE", device.label)
    y = work(example)["y"]
    expected = np.array(example["expected"])
    if expected.ndim < y.ndim:  # two examples leave out the batch
        expected = expected[np.newaxis]
    assert_within(y, expected, bound(example))


@pytest.mark.parametrize("example", COUNTED, ids=lambda example: example["name"])
def test_shape_and_counts(example):
    names = work(example)
    for question, expression in docs.questions(example).items():
        answer = eval(expression, names)
        assert (list(answer) if isinstance(answer, tuple) else answer) == example[question], question


@pytest.mark.parametrize("example", COUNTED, ids=lambda example: example["name"])
def test_shape_when_run(example, device):
    """The layer, run, gives what its summary says."""
    names = work(example)
    if device.backend == "reference" and names["summary"].multiply_adds > 10_000_000:
        pytest.skip("too large for the float64 reference, which works pixel by pixel")
    y = names["layer"](np.zeros(example["input_shape"], np.float32), device=device)
    assert list(y.shape) == example["output_shape"]


def test_page_is_up_to_date():
    assert docs.PAGE.read_text(encoding="utf-8") == docs.page(), "run: python docs/generate_worked_examples.py"
