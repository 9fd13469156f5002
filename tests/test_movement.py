"""Operations that move elements: exactly NumPy's results, for floats and for integers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pycl_cnn as pc
import pycl_cnn.functional as F

SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, max_side=6)
DTYPES = st.sampled_from([np.float32, np.int32])


def numbered(shape, dtype=np.float32):
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_permute(shape, dtype, data, device):
    dims = tuple(data.draw(st.permutations(range(len(shape)))))
    np.testing.assert_array_equal(F.permute(numbered(shape, dtype), dims, device=device), numbered(shape, dtype).transpose(dims))


@pytest.mark.parametrize("dims", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3)])
def test_permute_of_images(dims, device):
    x = array(3, 33, 17, 40)
    np.testing.assert_array_equal(F.permute(x, dims, device=device), x.transpose(dims))


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_basic_indexing(shape, dtype, data, device):
    """Integers, slices with steps of any sign, None and Ellipsis."""
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=6))
    x = numbered(shape, dtype)
    np.testing.assert_array_equal(F.getitem(x, index, device=device), x[index])


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_pad_and_crop(shape, dtype, data, device):
    """Pairs from the last axis backwards; negative ones crop."""
    axes = data.draw(st.integers(0, len(shape)))
    amounts = []
    for axis in range(axes):
        n = shape[-1 - axis]
        low = data.draw(st.integers(-(n - 1), 3))
        amounts += [low, data.draw(st.integers(-(n - 1 + min(low, 0)), 3))]
    x, value = numbered(shape, dtype), 7.0
    expected = x
    for axis in range(axes):
        low, high = amounts[2 * axis : 2 * axis + 2]
        place = len(shape) - 1 - axis
        expected = expected.take(range(max(-low, 0), shape[place] - max(-high, 0)), place)
        widths = [(0, 0)] * len(shape)
        widths[place] = (max(low, 0), max(high, 0))
        expected = np.pad(expected, widths, constant_values=value)
    np.testing.assert_array_equal(F.pad(x, amounts, value=value, device=device), expected)


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_cat(shape, dtype, data, device):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    parts = []
    for number, length in enumerate(lengths):
        sizes = list(shape)
        sizes[axis] = length
        parts.append(numbered(sizes, dtype) * (number + 1))
    np.testing.assert_array_equal(F.cat(parts, axis, device=device), np.concatenate(parts, axis))


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_flip(shape, dtype, data, device):
    dims = data.draw(st.sets(st.integers(0, len(shape) - 1)).map(tuple))
    np.testing.assert_array_equal(F.flip(numbered(shape, dtype), dims, device=device), np.flip(numbered(shape, dtype), dims))


@given(shape=SHAPES, dtype=DTYPES, data=st.data())
def test_expand(shape, dtype, data, device):
    ones = tuple(1 if data.draw(st.booleans()) else n for n in shape)
    front = data.draw(st.lists(st.integers(1, 3), max_size=1))
    x = numbered(ones, dtype)
    np.testing.assert_array_equal(F.expand(x, (*front, *shape), device=device), np.broadcast_to(x, (*front, *shape)))
    np.testing.assert_array_equal(F.expand(x, [-1] * len(shape), device=device), x)


@given(shape=SHAPES, data=st.data())
@example(shape=(2, 3), data=None)
def test_reshape_and_flatten(shape, data, device):
    x = numbered(shape)
    order = data.draw(st.permutations(range(len(shape)))) if data else (1, 0)
    target = [shape[i] for i in order]
    np.testing.assert_array_equal(F.reshape(x, target, device=device), x.reshape(target))
    target[0] = -1
    np.testing.assert_array_equal(F.reshape(x, target, device=device), x.reshape(target))
    np.testing.assert_array_equal(F.flatten(x, device=device), x.ravel())


def test_results_are_arrays_of_their_own(device):
    """Writing to a result changes neither the input nor a later result, even where the operation is a view."""
    x = array(2, 6)
    for function in (lambda x: F.reshape(x, (3, 4), device=device), lambda x: F.flatten(x, device=device), lambda x: F.permute(x, (0, 1), device=device)):
        before = x.copy()
        y = function(x)
        y[...] = 99
        np.testing.assert_array_equal(x, before)
        assert function(x).ravel()[0] == before[0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.reshape(x, (4, 5)), r"reshape: the number of elements must stay the same; received input=\(2, 3, 4\), shape=\(4, 5\)"),
        (lambda x: F.reshape(x, (-1, 5)), r"reshape: the number of elements must stay the same"),
        (lambda x: F.reshape(x, (-1, -1)), r"reshape: sizes must not be negative, but for one -1"),
        (lambda x: F.reshape(x, (-2, 3)), r"reshape: sizes must not be negative"),
        (lambda x: F.permute(x, (0, 1)), r"transpose: the permutation must name every axis once; .*permutation=\(0, 1\)"),
        (lambda x: F.permute(x, (0, 1, 1)), r"transpose: the permutation must name every axis once"),
        (lambda x: F.transpose(x, 0, 3), r"transpose: the axis must be one of the input's; received dim=3, axes=3"),
        (lambda x: F.cat([x, x[:, :2]], 0), r"cat: all sizes but the one along the axis must agree; .*\(2, 3, 4\), \(2, 2, 4\).*axis=0"),
        (lambda x: F.cat([x, np.zeros((2, 3, 4), np.int32)], 0), r"cat: all .*must agree"),
        (lambda x: F.flatten(x, 2, 1), r"flatten: start_dim must not come after end_dim"),
        (lambda x: F.expand(x, (2, 3, 5)), r"expand: only axes of length 1 can be repeated; .*\(2, 3, 4\).*\(2, 3, 5\)"),
        (lambda x: F.expand(x, (3, 4)), r"expand: the shape must have at least the input's axes"),
        (lambda x: F.pad(x, (1, 2, 3)), r"pad: pairs \(before, after\) must be given"),
        (lambda x: F.pad(x, (-3, -2)), r"pad: .*crop|slice: "),
        (lambda x: F.pad(x, (1, 1), "reflect"), r'pad: mode must be "constant"; received mode=.reflect'),
        (lambda x: F.getitem(x, (0, 0, 0, 0)), r"getitem: too many indices"),
        (lambda x: F.getitem(x, 2), r"getitem: the index must lie inside the axis; received input=\(2, 3, 4\), index=2"),
        (lambda x: F.getitem(x, 1.5), r"getitem: indices must be integers, slices, None or Ellipsis"),
        (lambda x: F.getitem(x, True), r"getitem: indices must be integers"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call(array(2, 3, 4))
