"""`program.run(x, out=y)`: results go to arrays of the caller, on every device, and nothing else is written."""

import warnings

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.errors import DtypeError, ShapeError


@pytest.fixture
def program(device):
    pc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()).eval()
    return pc.compile(model, (2, 3, 6, 7), device=device)


def images(seed=0):
    return np.random.default_rng(seed).standard_normal((2, 3, 6, 7)).astype(np.float32)


def test_results_are_in_the_given_array(program):
    expected = program.run(images())
    room = np.full((4, *expected.shape[1:]), np.nan, np.float32)
    for _ in range(2):
        target = room[1:3]
        assert program.run(images(), out=target) is target
        np.testing.assert_array_equal(target, expected)
        assert np.isnan(room[[0, 3]]).all()


def test_later_runs_leave_an_array_alone(program):
    first, second = (np.empty((2, 5, 6, 7), np.float32) for _ in range(2))
    program.run(images(1), out=first)
    kept = first.copy()
    program.run(images(2), out=second)
    fresh = program.run(images(3))
    np.testing.assert_array_equal(first, kept)
    assert not np.may_share_memory(fresh, second)


def test_the_same_arrays_again(program):
    """They are not looked at again, but read; and between two such runs others may take their place."""
    x, target = images(1), np.empty((2, 5, 6, 7), np.float32)
    for seed in (1, 2, 3):
        x[...] = images(seed)
        expected = program.run(images(seed))
        for _ in range(2):
            assert program.run(x, out=target) is target
            np.testing.assert_array_equal(target, expected)
            target[...] = np.nan
        np.testing.assert_array_equal(program.run(x), expected)
    x[...] = images(4)
    np.testing.assert_array_equal(program.run(x, out=target), program.run(images(4)))


def test_the_same_arrays_changed_in_place_are_refused(program):
    x, target = images(), np.empty((2, 5, 6, 7), np.float32)
    program.run(x, out=target)
    target.flags.writeable = False
    with pytest.raises(ShapeError, match="writable"):
        program.run(x, out=target)
    target.flags.writeable = True
    x.resize((2, 3, 7, 6), refcheck=False)
    with pytest.raises(ShapeError, match="the shape the program was made for"):
        program.run(x, out=target)


def test_the_same_array_at_another_place_is_read_there(program):
    x, target = images(1), np.empty((2, 5, 6, 7), np.float32)
    program.run(x, out=target)
    x.resize((1 << 16, 3, 6, 7), refcheck=False)
    x.resize((2, 3, 6, 7), refcheck=False)
    x[...] = images(2)
    np.testing.assert_array_equal(program.run(x, out=target), program.run(images(2)))


def test_the_same_array_with_other_strides_is_read_so():
    program = pc.compile(nn.ReLU(), (4, 4), device="cpu")
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(program.run(x), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy advises against it
        x.strides = x.strides[::-1]
    np.testing.assert_array_equal(program.run(x), x)


def test_what_was_converted_is_converted_again(program):
    x = [[[[1.0] * 7] * 6] * 3] * 2
    first = program.run(x)
    x[0] = [[[2.0] * 7] * 6] * 3
    assert not np.array_equal(program.run(x), first)


def test_several_results_go_to_several_arrays():
    class Two(nn.Module):
        def forward(self, x):
            return x + 1.0, (x * 2.0).reshape(2, -1)

    program = pc.compile(Two().eval(), (2, 3, 6, 7), device="cpu")
    targets = np.empty((2, 3, 6, 7), np.float32), np.empty((2, 126), np.float32)
    results = program.run(images(), out=targets)
    assert all(result is target for result, target in zip(results, targets, strict=True))
    np.testing.assert_array_equal(targets[0], images() + 1)
    np.testing.assert_array_equal(targets[1], (images() * 2).reshape(2, -1))
    with pytest.raises(ShapeError, match="an array for each result"):
        program.run(images(), out=targets[0])


@pytest.mark.parametrize(
    "out, error, words",
    [
        (np.empty((2, 5, 6, 6), np.float32), ShapeError, r"of shape \(2, 5, 6, 7\)"),
        (np.empty((2, 5, 6, 7), np.float64), DtypeError, "float64"),
        (np.empty((2, 5, 6, 14), np.float32)[..., ::2], ShapeError, "C-contiguous"),
        (np.broadcast_to(np.float32(0), (2, 5, 6, 7)), ShapeError, "writable"),
        ([1.0], DtypeError, "float"),
    ],
    ids=["shape", "dtype", "strides", "read-only", "list"],
)
def test_other_arrays_are_refused(program, out, error, words):
    with pytest.raises(error, match=words):
        program.run(images(), out=out)


def test_results_may_not_go_to_the_inputs():
    program = pc.compile(nn.ReLU(), (4, 4), device="cpu")
    x = np.ones((4, 4), np.float32)
    with pytest.raises(ShapeError, match="share no memory"):
        program.run(x, out=x)
