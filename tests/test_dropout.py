"""Dropout: the generator, the draw that is the same everywhere, the rate, and one mask for both directions."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.graphs import result_and_gradients, trace

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn
from pycl_cnn.eager import finish
from pycl_cnn.graph import Graph
from pycl_cnn.ops.dropout import Dropout, philox4x32

#: Counter, key and result from the known-answer file of Random123 (Salmon et al.), philox 4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, result):
    np.testing.assert_array_equal(philox4x32(words(counter), tuple(int(k) for k in words(key))), words(result))


def draw(size, p, seed, step, stream, device):
    graph = Graph()
    x, rng = graph.input("x", (size,)), graph.input("rng", (2,), np.int32)
    graph.outputs = [graph.apply(Dropout(p, stream), x, rng)]
    return finish(graph, device, {}).run(np.ones(size, np.float32), np.array([seed, step], np.int32))


@pytest.mark.parametrize(("seed", "step", "stream"), [(0, 0, 1), (1, 1, 1), (12345, 678, 3), (2**31 - 1, 2**31 - 1, 7)])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 63, 64, 65, 1003])
def test_the_draw_is_the_same_on_every_device(seed, step, stream, size, device):
    """Element i is kept where word i % 4 of Philox(key (seed, stream), counter (i // 4, step, 0, 0)) says so."""
    p = 0.3
    counters = np.zeros((-(-size // 4), 4), np.uint32)
    counters[:, 0], counters[:, 1] = np.arange(len(counters)), step
    keep = (philox4x32(counters, (seed, stream)).ravel()[:size] >> 8) / 2.0**24 >= np.float32(p)
    np.testing.assert_allclose(draw(size, p, seed, step, stream, device), np.where(keep, 1 / (1 - p), 0), rtol=1e-6)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_rate_and_the_mean_are_kept(p, device):
    n = 40_000
    y = draw(n, p, 7, 3, 1, device)
    deviation = np.sqrt(p * (1 - p) / n)
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - p)


def test_steps_seeds_and_streams_draw_independently(device):
    masks = [draw(4096, 0.5, *key, device) > 0 for key in [(0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2)]]
    for i in range(len(masks)):
        for j in range(i):
            assert 0.45 < (masks[i] == masks[j]).mean() < 0.55


PATHS = {
    "plain": lambda x: F.dropout(x, 0.4),
    "behind a convolution": lambda x: F.dropout(F.conv2d(x, array(3, 4, 3, 3)), 0.4),
    "before a flatten": lambda x: F.flatten(F.dropout(F.conv2d(x, array(3, 4, 3, 3)), 0.4), 1),
    "between transposes": lambda x: F.flatten(F.permute(F.dropout(F.permute(x, (0, 2, 3, 1)), 0.3), (0, 2, 1, 3))),
    "twice": lambda x: F.flatten(F.permute(F.dropout(F.permute(F.dropout(x, 0.4), (0, 2, 3, 1)), 0.3), (3, 0, 1, 2))),
    "before a pooling": lambda x: F.avg_pool2d(F.dropout(x, 0.4), 2),
    "in another layout": lambda x: F.conv2d(F.dropout(F.permute(x, (0, 3, 1, 2)), 0.4), array(3, 6, 3, 3)),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_gradient_uses_the_same_mask(path, device):
    """These functions are linear in x, so that <gradient, x> is their weighted sum itself: only with one mask for both directions."""
    x = array(2, 4, 7, 6)
    y, grad = result_and_gradients(PATHS[path], x, device=device)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(np.float32)
    total = float((y.astype(np.float64) * weights).sum())
    assert float((grad.astype(np.float64) * x).sum()) == pytest.approx(total, rel=1e-4, abs=1e-3)
    assert (y == 0).any() or (grad == 0).any()


def test_training_draws_anew_at_every_step_and_again_from_the_same_seed(device):
    model, x = nn.Dropout(0.5), np.ones((8, 32), np.float32)

    def run():
        pc.manual_seed(11)
        return [model(x, device=device) for _ in range(3)]

    first, second = run(), run()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != first[1]).any() and (first[1] != first[2]).any()


def test_two_dropouts_of_a_model_draw_differently(device):
    class Two(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5), F.dropout(x, 0.5)

    a, b = Two()(np.ones(256, np.float32), device=device)
    assert (a != b).any()


def test_inference_is_the_identity(device):
    x = array(4, 9)
    np.testing.assert_array_equal(nn.Dropout(0.9).eval()(x, device=device), x)
    np.testing.assert_array_equal(F.dropout(x, 0.9, False, device=device), x)
    np.testing.assert_array_equal(F.dropout(x, 0.0, device=device), x)
    assert pc.compile(nn.Dropout(0.5), (4, 9), device=device).run(x).tolist() == x.tolist()


def test_probability_one_leaves_nothing(device):
    assert not F.dropout(array(4, 9), 1.0, device=device).any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_the_probability_must_be_one(p):
    with pytest.raises(pc.ShapeError, match="dropout: the probability must lie between 0 and 1"):
        trace(lambda x: F.dropout(x, p), array(3))
    with pytest.raises(pc.ShapeError, match="Dropout: the probability must lie between 0 and 1"):
        nn.Dropout(p)
