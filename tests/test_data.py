"""Readers of data: IDX files good and bad, MNIST's folder, scikit-learn's digits, pictures."""

import gzip
import struct

import numpy as np
import pytest
from helpers.idx_files import TYPES, idx, write_mnist

import pycl_cnn as pc
from pycl_cnn import data


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_of_every_dtype(tmp_path, code, packed):
    array = np.arange(24).reshape(2, 3, 4)
    content = idx(array, code)
    (tmp_path / "x").write_bytes(gzip.compress(content) if packed else content)
    read = data.read_idx(tmp_path / "x")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(TYPES[code]).newbyteorder("=")


GOOD = idx(np.arange(24).reshape(2, 3, 4))
PACKED = gzip.compress(GOOD)
HUGE = bytes([0, 0, 0x0E, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:3],
        GOOD[:10],
        GOOD[:-1],
        GOOD + b"\0",
        b"\x89PNG" + GOOD[4:],
        b"\0\0\x07\x03" + GOOD[4:],
        HUGE,
        gzip.compress(HUGE),
        PACKED[:-9],
        PACKED[:20],
        PACKED[:12] + b"\xff\xff" + PACKED[14:],
        b"\x1f\x8b",
        gzip.compress(GOOD[:-1]),
        gzip.compress(GOOD + b"\0"),
    ],
    ids=["empty", "magic cut", "header cut", "short", "long", "foreign", "dtype", "huge", "packed huge", "trailer cut", "gzip cut", "damaged", "gzip magic", "packed short", "packed long"],
)
def test_bad_idx_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken-file").write_bytes(content)
    with pytest.raises(pc.FormatError, match="broken-file"):
        data.read_idx(tmp_path / "broken-file")


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_folder(tmp_path, joint, ending):
    found = data.load_mnist(write_mnist(tmp_path / "m", joint, ending))
    assert found.x.shape == (6, 1, 28, 28) and found.held_out_x.shape == (3, 1, 28, 28)
    assert found.x.dtype == np.float32 and found.labels.dtype == np.int32
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    np.testing.assert_allclose(found.x[:, 0], (pixels / 255 - 0.1307) / 0.3081, atol=1e-6)


def test_mnist_folder_with_something_missing_or_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.load_mnist(tmp_path / "nowhere")
    folder = write_mnist(tmp_path / "m")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        data.load_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(pc.FormatError, match="3 images and 4 labels"):
        data.load_mnist(folder)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros((3, 1))))
    with pytest.raises(pc.FormatError, match="1 axes"):
        data.load_mnist(folder)


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
    digits = data.load_digits()
    assert digits.x.shape == (1348, 1, 8, 8) and digits.held_out_x.shape == (449, 1, 8, 8)
    assert digits.x.min() == 0 and digits.x.max() == 1 and set(digits.labels) == set(range(10))
    assert not {x.tobytes() for x in digits.held_out_x} & {x.tobytes() for x in digits.x}
    np.testing.assert_array_equal(data.load_digits().held_out_labels, digits.held_out_labels)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(pc.PyclError, match=r"pycl_cnn\[demo\]"):
        data.load_digits()


def test_images_of_every_kind(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    expected = data.normalise(pixels[None])
    image_module.fromarray(pixels).save(tmp_path / "a.png")
    image_module.fromarray(255 - pixels).save(tmp_path / "inverted.png")
    np.save(tmp_path / "bytes.npy", pixels)
    np.save(tmp_path / "floats.npy", expected)
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(pixels[None]))
    for name in ("a.png", "bytes.npy", "floats.npy", "a-idx3-ubyte"):
        np.testing.assert_array_equal(data.read_images(tmp_path / name, (1, 28, 28)), expected, err_msg=name)
    np.testing.assert_array_equal(data.read_images(tmp_path / "inverted.png", (1, 28, 28), invert=True), expected)
    assert data.read_images(tmp_path / "a.png", (3, 12, 16)).shape == (1, 3, 12, 16)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x93NUMPY\x01\x00", idx(np.arange(4))], ids=["empty", "text", "npy cut", "labels"])
def test_bad_images_are_refused_by_name(tmp_path, content):
    pytest.importorskip("PIL", reason="pictures are read by Pillow")
    (tmp_path / "strange").write_bytes(content)
    with pytest.raises(pc.FormatError, match="strange"):
        data.read_images(tmp_path / "strange", (1, 28, 28))
