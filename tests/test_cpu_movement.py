"""The CPU's copies, transposes and fills on every instruction set, against NumPy."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, padded, run


def integers(shape):
    """All bit patterns, NaNs among them."""
    return np.random.default_rng(0).integers(-(2**31), 2**31 - 1, size=shape).astype(np.int32)


def copy(isa, src, dst, shape, src_stride, dst_stride, src_offset=0, dst_offset=0):
    strides = {"src_stride": padded(src_stride), "dst_stride": padded(dst_stride), "src_offset": src_offset, "dst_offset": dst_offset}
    run(isa, "strided_copy", {"size": int(np.prod(shape)), "rank": len(shape), "shape": padded(shape), **strides}, src, dst)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(24))
def test_any_permutation_and_direction(isa, seed):
    rng = np.random.default_rng(seed)
    rank = seed % 6 + 1
    shape = rng.integers(1, [60000, 300, 40, 14, 8, 6][rank - 1] + 1, size=rank)
    src = integers(shape)
    view = src.transpose(rng.permutation(rank))[tuple(slice(None, None, step) for step in rng.choice([-1, 1], rank))]
    dst = empty(*view.shape, dtype=np.int32)
    first = (view.__array_interface__["data"][0] - src.__array_interface__["data"][0]) // 4
    copy(isa, src, dst, view.shape, [s // 4 for s in view.strides], [s // 4 for s in dst.strides], first)
    np.testing.assert_array_equal(dst, view)


@pytest.mark.parametrize("isa", ISAS)
def test_expand(isa):
    for src, shape, stride in [(integers((7, 1, 5)), (7, 33, 5), (5, 0, 1)), (integers((9, 1)), (9, 100), (1, 0))]:
        dst = empty(*shape, dtype=np.int32)
        copy(isa, src, dst, shape, stride, [s // 4 for s in dst.strides])
        np.testing.assert_array_equal(dst, np.broadcast_to(src, shape))


@pytest.mark.parametrize("isa", ISAS)
def test_pad_with_interior(isa):
    src, dst = integers((4, 5)), np.zeros((9, 11), np.int32)
    copy(isa, src, dst, (4, 5), (5, 1), (22, 2), 0, 12)
    expected = np.zeros((9, 11), np.int32)
    expected[1:8:2, 1:10:2] = src
    np.testing.assert_array_equal(dst, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "batch, rows, cols",
    [(1, 1, 1), (2, 3, 1000), (2, 1000, 3), (1, 3, 3), (1, 3, 7), (1, 5, 3), (2, 64, 49), (2, 49, 64), (1, 17, 255), (1, 255, 17), (2, 100, 1), (1, 512, 196)],
)
def test_transpose(isa, batch, rows, cols):
    src, gap = integers((batch, rows, cols)), 2  # targets with a gap behind every row as well
    for blocks in (kernels.transpose_blocks(rows, cols), {"row_block": min(rows, 7), "col_block": min(cols, 50)}):
        for width in (rows, rows + gap):
            dst = empty(batch, cols, width, dtype=np.int32)
            strides = {"src_batch_stride": rows * cols, "src_row_stride": cols, "dst_batch_stride": cols * width, "dst_row_stride": width}
            run(isa, "transpose", {"batch": batch, "rows": rows, "cols": cols, **strides, **blocks}, src, dst)
            np.testing.assert_array_equal(dst[..., :rows], src.transpose(0, 2, 1))
            assert (dst[..., rows:] == empty(1, dtype=np.int32)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 7, 255, 16384, 50001])
def test_fill(isa, size):
    dst = empty(size)
    run(isa, "fill", {"size": size, "bits": int(np.float32(-1.5).view(np.int32))}, dst)
    assert (dst == -1.5).all()
