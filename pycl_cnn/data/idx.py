"""Reader of IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist/), gzipped or not.

A file is: two zero bytes, a byte for the dtype, a byte for the number of axes, the axes' lengths as big-endian uint32, the
elements in row-major order, big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from typing import Any

import numpy as np

from ..errors import FormatError

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

GZIP_MAGIC = b"\x1f\x8b"

#: A deflate stream cannot grow by more than this, so that a file says how much may be in it.
MOST_EXPANSION = 1032

CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file. Nothing is allocated for sizes that the file cannot hold.

    Raises FormatError, naming the file, for what is no IDX file or is shorter or longer than its header says; FileNotFoundError.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            most = os.fstat(file.fileno()).st_size * (MOST_EXPANSION if packed else 1)
            return _read(path, gzip.GzipFile(fileobj=file) if packed else file, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"read_idx: {os.fspath(path)} is a damaged or cut-off gzip file ({error})") from error


def _read(path: str | os.PathLike[str], stream: Any, most: int) -> np.ndarray:
    name = os.fspath(path)
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES:
        raise FormatError(f"read_idx: {name} is no IDX file; it starts with {head.hex(' ') or 'nothing'}")
    axes = head[3]
    lengths = stream.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise FormatError(f"read_idx: {name} ends within its header")
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    dtype = np.dtype(DTYPES[head[2]])
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise FormatError(f"read_idx: {name} must hold {size} bytes for shape {list(shape)}; it is too small for them")
    content = bytearray()
    while len(content) <= size and (chunk := stream.read(CHUNK)):
        content += chunk
    if len(content) != size:
        found = f"{len(content)}" if len(content) < size else "more"
        raise FormatError(f"read_idx: {name} must hold {size} bytes for shape {list(shape)}; it holds {found}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
