"""MNIST, Fashion-MNIST and their like: four IDX files in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FormatError
from .idx import read_idx

#: Mean and standard deviation of MNIST's training pixels, scaled to 0..1.
MEAN, STD = 0.1307, 0.3081

#: Axes of the file's content and how its name goes on, by what is in it.
PARTS = {"images": (3, "idx3"), "labels": (1, "idx1")}


class Dataset(NamedTuple):
    """Training data and held-out data; x float32 [n,c,h,w], labels int32 [n]."""

    x: np.ndarray
    labels: np.ndarray
    held_out_x: np.ndarray
    held_out_labels: np.ndarray

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return self.x, self.labels

    @property
    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        return self.held_out_x, self.held_out_labels


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Pixels 0..255 [n,h,w] as float32 [n,1,h,w]: ``(pixel / 255 - 0.1307) / 0.3081``, so that MNIST has mean 0 and variance 1."""
    x = pixels[:, None].astype(np.float32)
    x -= np.float32(255 * MEAN)
    x /= np.float32(255 * STD)
    return x


def load_mnist(folder: str | os.PathLike[str]) -> Dataset:
    """The training and test set in `folder`, images passed through :func:`normalise`.

    Files are called train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-.., t10k-labels-..; with "." in place of the
    last "-" or not, gzipped (.gz) or not. Raises FileNotFoundError that says what is missing, FormatError for what does not fit.
    """
    base = Path(folder)
    if not base.is_dir():
        raise FileNotFoundError(f"load_mnist: there is no folder {base}")
    arrays: list[np.ndarray] = []
    for split in ("train", "t10k"):
        images, labels = (_read_part(base, split, part) for part in PARTS)
        if len(images) != len(labels):
            raise FormatError(f"load_mnist: {base}: {split} has {len(images)} images and {len(labels)} labels")
        if not len(images):
            raise FormatError(f"load_mnist: {base}: {split} holds no images")
        arrays += [normalise(images), labels.astype(np.int32)]
    return Dataset(*arrays)


def _read_part(base: Path, split: str, part: str) -> np.ndarray:
    axes, suffix = PARTS[part]
    names = [f"{split}-{part}{joint}{suffix}-ubyte{ending}" for joint in "-." for ending in ("", ".gz")]
    path = next((base / name for name in names if (base / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"load_mnist: {base} holds no {names[0]} (or {', '.join(names[1:])})")
    array = read_idx(path)
    if array.ndim != axes or array.dtype != np.uint8:
        raise FormatError(f"load_mnist: {path} must hold bytes with {axes} axes; it holds {array.dtype} {list(array.shape)}")
    return array
