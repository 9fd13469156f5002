"""Matrix products and linear layers, around the sizes of register tiles and panels."""

from __future__ import annotations

import numpy as np
from helpers.catalogue import array
from helpers.graphs import evaluate
from helpers.linear import check_linear
from helpers.tolerance import assert_within, sum_bound
from hypothesis import example, given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn.eager import finish
from pycl_cnn.graph import Graph
from pycl_cnn.ops.matmul import MatMul

SIZES = st.sampled_from([1, 2, 3, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 33, 64, 65])


@given(m=SIZES, k=SIZES, n=SIZES)
@example(m=0, k=3, n=4)
@example(m=1, k=300, n=1)
@example(m=130, k=7, n=2)
def test_matmul(m, k, n, device):
    a, b = array(m, k), array(k, n, seed=1)
    y = F.matmul(a, b, device=device)
    assert_within(y, a.astype(np.float64) @ b, sum_bound(k, np.abs(a).astype(np.float64) @ np.abs(b)))


@given(m=SIZES, k=SIZES, n=SIZES, transpose_a=st.booleans(), transpose_b=st.booleans())
def test_every_transposition(m, k, n, transpose_a, transpose_b, device):
    """The gradients of a product are products with one or the other operand transposed."""
    graph = Graph()
    a, b = array(*((k, m) if transpose_a else (m, k))), array(*((n, k) if transpose_b else (k, n)), seed=1)
    values = graph.input("a", a.shape), graph.input("b", b.shape)
    graph.outputs = [graph.apply(MatMul(transpose_a, transpose_b), *values)]
    (exact,) = evaluate(graph, dict(zip(values, (a, b), strict=True)), graph.outputs)
    (magnitude,) = evaluate(graph, dict(zip(values, (np.abs(a), np.abs(b)), strict=True)), graph.outputs)
    np.testing.assert_allclose(exact, (a.T if transpose_a else a).astype(np.float64) @ (b.T if transpose_b else b))
    assert_within(finish(graph, device, {}).run(a, b), exact, sum_bound(k, magnitude))


@given(rows=SIZES, inputs=SIZES, outputs=SIZES)
def test_gradients_of_linear(rows, inputs, outputs, device):
    x, w = array(rows, inputs), array(outputs, inputs, seed=1)
    check_linear(F.linear, (x, w), (inputs, outputs, rows), device)


@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=3), bias=st.booleans())
def test_linear_over_any_leading_axes(shape, bias, device):
    x, w, b = array(*shape, 5), array(3, 5), array(3) if bias else None
    y = F.linear(x, w, b, device=device)
    expected = x.astype(np.float64) @ w.T + (0 if b is None else b)
    assert_within(y, expected, sum_bound(6, np.abs(x).astype(np.float64) @ np.abs(w.T) + (0 if b is None else np.abs(b))))


def test_a_linear_behind_flatten_is_packed_from_where_its_weight_lies():
    """Images are channels last inside, a Linear's rows channels first: no permuted copy of the weight is made on the CPU."""
    pc.manual_seed(0)
    model = pc.nn.Sequential(pc.nn.Conv2d(3, 7, 3, padding=1), pc.nn.ReLU(), pc.nn.Flatten(), pc.nn.Linear(7 * 5 * 6, 37)).eval()
    x = np.random.default_rng(0).standard_normal((3, 3, 5, 6)).astype(np.float32)
    program = pc.compile(model, x.shape, device="cpu")
    np.testing.assert_allclose(program.run(x), pc.compile(model, x.shape, device="reference").run(x), rtol=1e-5, atol=1e-6)
    assert all((37, 210) not in step.inputs or step.operation == "PackPanels" for step in program.setup_steps)
    assert not any(len(step.inputs[0]) == 4 and step.inputs[0][0] == 37 for step in program.setup_steps)
