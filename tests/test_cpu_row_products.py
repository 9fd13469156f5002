"""The CPU's row products on every instruction set, and the programs that read a model's own arrays with them."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run
from helpers.tolerance import assert_within, sum_bound

import pycl_cnn as pc
from pycl_cnn import nn

RELU = 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("outs, reds", [(1, 1), (5, 3), (16, 16), (37, 67), (130, 1030), (37, 4100)])
@pytest.mark.parametrize("extras", [False, True])
def test_row_products(isa, rows, outs, reds, extras):
    rng = np.random.default_rng(outs)
    a, b, bias, residual = (rng.standard_normal(shape).astype(np.float32) for shape in [(rows, reds), (outs, reds), (outs,), (rows, outs)])
    y = empty(rows, outs)
    members = {"rows": rows, "outs": outs, "reds": reds, "out_block": 16, "activation": RELU if extras else 0, "alpha": 0.0, "beta": 0.0}
    run(isa, "row_products", members, a, b, bias if extras else None, residual if extras else None, y)
    expected, magnitude = a.astype(np.float64) @ b.T, np.abs(a).astype(np.float64) @ np.abs(b).T
    if extras:
        expected, magnitude = np.maximum(expected + bias + residual, 0), magnitude + np.abs(bias) + np.abs(residual)
    assert_within(y, expected, sum_bound(reds + 2, magnitude), isa)


def test_blocks_are_whole_vectors_and_cover_the_outs():
    for outs, reds in [(1, 1), (1000, 512), (4096, 25088), (17, 1 << 20)]:
        assert kernels.row_products_blocks(outs, reds)["out_block"] % 16 == 0


@pytest.mark.parametrize("batch", [1, 4])
def test_a_dense_layer_behind_images_reads_the_models_own_array(batch):
    """The images are channels last, the weight's rows channels first: the images are permuted, not the weight."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5 * 7, 33)).eval()
    x = np.random.default_rng(0).standard_normal((batch, 3, 7, 9)).astype(np.float32)
    program = pc.compile(model, x.shape, device="cpu", algorithms={"MatMul": "row_products"})
    weight = model[3].weight.data
    assert any(np.shares_memory(array, weight) for array in program.kept.given.values())
    expected = pc.compile(model, x.shape, device="reference").run(x)
    assert_within(program.run(x), expected, sum_bound(6 * 5 * 7 + 27, 30), "rows")


def test_large_layers_are_not_packed():
    model = nn.Sequential(nn.Linear(2048, 1100)).eval()
    assert "row_products" in pc.compile(model, (1, 2048), device="cpu").explain()
    assert "row_products" not in pc.compile(model, (64, 2048), device="cpu").explain()


def test_what_a_program_was_given_may_change_afterwards():
    """Arrays that somebody may write to are copied; clones follow what is loaded."""
    model = nn.Sequential(nn.Linear(3, 2)).eval()
    program = pc.compile(model, (1, 3), device="cpu", algorithms={"MatMul": "row_products"})
    clone = program.clone()
    x = np.ones((1, 3), np.float32)
    before = program.run(x)
    np.testing.assert_array_equal(clone.run(x), before)
    mine = {name: 2 * array for name, array in model.state_dict().items()}
    program.load(mine)
    for array in mine.values():
        array[...] = np.nan
    np.testing.assert_allclose(program.run(x), 2 * before, rtol=1e-6)
    np.testing.assert_array_equal(clone.run(x), program.run(x))
    model[0].weight.data = np.zeros((2, 3), np.float32)  # another array, which the program was not given
    np.testing.assert_array_equal(clone.run(x), program.run(x))
    np.testing.assert_allclose(program.clone().run(x), 2 * before, rtol=1e-6)
