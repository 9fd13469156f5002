"""Writes IDX files and small folders like MNIST's."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    """The content of an IDX file whose elements have the dtype `code`."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(TYPES[code]).tobytes()


def write_mnist(folder: Path, joint: str = "-", ending: str = "", train: int = 6, test: int = 3) -> Path:
    """Four files of random images, labels 0, 1, 2, ...; the folder."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        for part, array in (("images", rng.integers(0, 256, (count, 28, 28))), ("labels", np.arange(count) % 10)):
            name = f"{split}-{part}{joint}idx{array.ndim}-ubyte{ending}"
            (folder / name).write_bytes(gzip.compress(idx(array)) if ending else idx(array))
    return folder
