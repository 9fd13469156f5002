"""ONNX tensors: from a TensorProto to a NumPy array, nothing believed that the bytes do not bear out.

The number of bytes that type and dims ask for must be there before any memory is taken. Raw data become views of the file's bytes,
without a copy. Data beside the model (external data) must lie in the model's folder.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FormatError
from ..records import record
from .wire import FIXED32, FIXED64, LENGTH, VARINT, Wire, signed, tag

#: Longest axis, most elements and most axes of an array.
MAX_ELEMENTS = 1 << 40
MAX_RANK = 32

#: Field numbers of the typed data.
_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S = 4, 5, 6, 7, 10, 11

#: data_type: (NumPy's or ml_dtypes' name, bits of an element in raw data, field number of the typed data)
TYPES = {
    1: ("float32", 32, _FLOATS),
    2: ("uint8", 8, _INT32S),
    3: ("int8", 8, _INT32S),
    4: ("uint16", 16, _INT32S),
    5: ("int16", 16, _INT32S),
    6: ("int32", 32, _INT32S),
    7: ("int64", 64, _INT64S),
    8: ("object", 0, _STRINGS),
    9: ("bool", 8, _INT32S),
    10: ("float16", 16, _INT32S),
    11: ("float64", 64, _DOUBLES),
    12: ("uint32", 32, _UINT64S),
    13: ("uint64", 64, _UINT64S),
    14: ("complex64", 64, _FLOATS),
    15: ("complex128", 128, _DOUBLES),
    16: ("bfloat16", 16, _INT32S),
    17: ("float8_e4m3fn", 8, _INT32S),
    18: ("float8_e4m3fnuz", 8, _INT32S),
    19: ("float8_e5m2", 8, _INT32S),
    20: ("float8_e5m2fnuz", 8, _INT32S),
    21: ("uint4", 4, _INT32S),
    22: ("int4", 4, _INT32S),
    23: ("float4_e2m1fn", 4, _INT32S),
    24: ("float8_e8m0fnu", 8, _INT32S),
    25: ("uint2", 2, _INT32S),
    26: ("int2", 2, _INT32S),
    27: ("float6_e2m3fn", 6, _INT32S),
    28: ("float6_e3m2fn", 6, _INT32S),
}
#: field of typed data: (how its entries are decoded, how one of them by itself is written)
_STORED: dict[int, tuple[np.dtype, int]] = {
    _FLOATS: (np.dtype(np.float32), FIXED32),
    _DOUBLES: (np.dtype(np.float64), FIXED64),
    **dict.fromkeys((_INT32S, _INT64S, _UINT64S), (np.dtype(np.uint64), VARINT)),
}
_SMALLEST_FOREIGN = 16  # from here on the names are those of ml_dtypes


def element_type(number: int) -> np.dtype:
    """ONNX's element type as a dtype. Raises ValueError for a number that ONNX does not define, FormatError without ml_dtypes."""
    if number not in TYPES:
        raise ValueError(f"{number} is no element type of ONNX")
    name = TYPES[number][0]
    if number < _SMALLEST_FOREIGN:
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise FormatError(f'onnx: tensors of type {name} need the package ml_dtypes: pip install "pycl_cnn[onnx]"') from error
    if not hasattr(ml_dtypes, name):
        raise FormatError(f"onnx: this ml_dtypes ({ml_dtypes.__version__}) has no {name}: pip install -U ml_dtypes")
    return np.dtype(getattr(ml_dtypes, name))


@record
class External:
    """Where external data lie."""

    location: str = ""
    offset: int = 0
    length: int | None = None


class Folder:
    """The folder of the model, of whose files external data may be read. No path: there are none."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._regions: dict[tuple[str, int, int], bytes] = {}
        self._left: dict[str, int] = {}  # bytes of each file that were not handed out yet

    def read(self, place: External, nbytes: int) -> bytes:
        """`nbytes` bytes of external data. Regions are shared, not read twice. Raises ValueError that tells the rule, OSError."""
        where = self._inside(place.location)
        if place.length is not None and place.length != nbytes:
            raise ValueError(f"its type and dims need {nbytes:,} bytes, its external data are said to be {place.length:,} bytes")
        region = (where, place.offset, nbytes)
        if region not in self._regions:
            with open(where, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not 0 <= place.offset <= size - nbytes:
                    raise ValueError(f"its external data, {nbytes:,} bytes from byte {place.offset:,} on, do not lie within the {size:,} bytes of {place.location!r}")
                # Regions that overlap could ask for many times the file's size.
                self._left[where] = self._left.get(where, size) - nbytes
                if self._left[where] < 0:
                    raise ValueError(f"the tensors with data in {place.location!r} need more than its {size:,} bytes together")
                file.seek(place.offset)
                self._regions[region] = file.read(nbytes)
            if len(self._regions[region]) != nbytes:
                raise ValueError(f"{place.location!r} became shorter while it was read")
        return self._regions[region]

    def _inside(self, location: str) -> str:
        """The real path of a regular file within the folder."""
        if self.path is None:
            raise ValueError(f"its data lie in another file, {location!r}: read the model by its path")
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or parts[0] == "" or ":" in parts[0] or ".." in parts:
            raise ValueError(f"its external data must lie in the model's folder, in a relative path without '..'; received {location!r}")
        folder = os.path.realpath(self.path)
        where = os.path.realpath(os.path.join(folder, *parts))
        if os.path.commonpath([folder, where]) != folder:
            raise ValueError(f"its external data must lie in the model's folder; {location!r} is a link that leads out of it")
        if not os.path.exists(where):
            raise ValueError(f"its external data, the file {location!r}, are not in the model's folder")
        if not stat.S_ISREG(os.stat(where).st_mode):
            raise ValueError(f"its external data must lie in a regular file; {location!r} is none")
        return where


class Tensors:
    """Reads the tensors of one file."""

    def __init__(self, wire: Wire, folder: Folder) -> None:
        self.wire, self.folder = wire, folder

    def read(self, start: int, end: int, owner: str) -> tuple[str, np.ndarray]:
        """Name and array of the TensorProto in bytes [start, end); `owner` names it in errors when it has no name."""
        wire = self.wire
        name, number, external, located = "", 0, [], False
        dims: list[int] = []
        typed = _Typed()
        raw: tuple[int, int] | None = None
        for key, first, last in wire.fields(start, end):
            slot, how = key >> 3, key & 7
            if key == tag(1, VARINT):
                dims.append(signed(first))
            elif key == tag(1, LENGTH):
                dims += wire.varints(first, last).view(np.int64)[: MAX_RANK + 1].tolist()
            elif key == tag(2, VARINT):
                number = first
            elif key == tag(3, LENGTH):
                wire.fail(f"{owner}: a tensor in segments is not supported")
            elif key == tag(_STRINGS, LENGTH):
                typed.texts.append(wire.text(first, last))
            elif slot in _STORED and how == LENGTH:
                typed.packed.append((slot, first, last))
            elif slot in _STORED and how == _STORED[slot][1]:
                typed.single.setdefault(slot, []).append(first)
            elif key == tag(8, LENGTH):
                name = wire.text(first, last)
            elif key == tag(9, LENGTH):
                raw = first, last
            elif key == tag(13, LENGTH):
                external.append((first, last))
            elif key == tag(14, VARINT):
                located = first == 1
        label = f"tensor {shown(name)}" if name else owner
        try:
            dtype = element_type(number)
            check_shape(dims)
            count, bits = math.prod(dims), TYPES[number][1]
            if number == 8:
                array = self._strings(typed.texts, count)
            elif located:
                data = self.folder.read(self._external(external), -(-count * bits // 8))
                array = self._from_raw(data, 0, len(data), number, dtype, count)
            elif raw is not None:
                array = self._from_raw(wire.data, *raw, number, dtype, count)
            else:
                array = self._from_typed(typed, number, dtype, count)
        except (ValueError, OSError) as error:
            if isinstance(error, FormatError):
                raise
            wire.fail(f"{label}: {error}")
        array.flags.writeable = False
        return name, array.reshape(dims)

    def _external(self, entries: list[tuple[int, int]]) -> External:
        found = {}
        for start, end in entries:
            key = value = ""
            for entry, first, last in self.wire.fields(start, end):
                if entry == tag(1, LENGTH):
                    key = self.wire.text(first, last)
                elif entry == tag(2, LENGTH):
                    value = self.wire.text(first, last)
            found[key] = value
        numbers = {}
        for key in ("offset", "length"):
            if key in found:
                if not (found[key].isascii() and found[key].isdigit() and len(found[key]) < 20):
                    raise ValueError(f"the {key} of its external data must be a number of bytes; received {shown(found[key])}")
                numbers[key] = int(found[key])
        return External(found.get("location", ""), **numbers)

    def _from_raw(self, data: bytes, first: int, last: int, number: int, dtype: np.dtype, count: int) -> np.ndarray:
        bits = TYPES[number][1]
        if last - first != -(-count * bits // 8):
            raise ValueError(f"{count:,} elements of type {dtype} need {-(-count * bits // 8):,} bytes, its raw data are {last - first:,}")
        if count == 0:
            return np.zeros(0, dtype)
        if bits >= 8 and number != 9:
            return np.frombuffer(data, dtype.newbyteorder("<"), count, first).astype(dtype, copy=False)
        octets = np.frombuffer(data, np.uint8, last - first, first)
        return octets != 0 if number == 9 else _unpacked(octets, bits, dtype, count)

    def _from_typed(self, typed: _Typed, number: int, dtype: np.dtype, count: int) -> np.ndarray:
        """Out of float_data, int32_data, ...: packed in one or several parts, or one by one."""
        _, bits, field = TYPES[number]
        wire = self.wire
        each = 2 if dtype.kind == "c" else 1
        per = 8 // bits if bits in (2, 4) else 1  # elements in one entry of int32_data
        stored, width = _STORED[field]
        packed = [wire.varints(first, last) if width == VARINT else wire.array(first, last, stored) for own, first, last in typed.packed if own == field]
        single = typed.single.get(field, [])
        if packed and single:
            raise ValueError("its data are written partly packed and partly not")
        if width == VARINT or not single:
            entries = packed[0] if len(packed) == 1 else np.concatenate([*packed, np.array(single, stored)])
        else:
            octets = b"".join([wire.data[first : first + stored.itemsize] for first in single])
            entries = np.frombuffer(octets, stored.newbyteorder("<")).astype(stored, copy=False)
        if len(entries) != -(-count * each // per):
            raise ValueError(f"{count:,} elements of type {dtype} need {-(-count * each // per):,} entries of data, it has {len(entries):,}")
        if count == 0:
            return np.zeros(0, dtype)
        if width != VARINT:
            return entries.view(dtype)
        if number == 9:
            return entries != 0
        if per > 1:
            return _unpacked(entries.astype(np.uint8), bits, dtype, count)
        if dtype.kind in "iu":
            return entries.astype(dtype)
        mask = (1 << bits) - 1  # floats by their bits
        return (entries & np.uint64(mask)).astype(np.uint16 if bits == 16 else np.uint8).view(dtype)

    def _strings(self, texts: list[str], count: int) -> np.ndarray:
        if len(texts) != count:
            raise ValueError(f"{count:,} texts are needed, it has {len(texts):,}")
        array = np.empty(count, object)
        array[:] = texts
        return array


@dataclass
class _Typed:
    """What a TensorProto has in the fields of typed data."""

    packed: list[tuple[int, int, int]] = field(default_factory=list)  # field number and where the numbers lie
    single: dict[int, list[int]] = field(default_factory=dict)  # by field number: varints, or where a float lies
    texts: list[str] = field(default_factory=list)


def _unpacked(octets: np.ndarray, bits: int, dtype: np.dtype, count: int) -> np.ndarray:
    """Elements of less than a byte, the first in the lowest bits; ml_dtypes keeps each in a byte of its own."""
    if bits == 6:  # four elements in three bytes
        stream = np.unpackbits(octets, bitorder="little")[: count * 6].reshape(count, 6)
        values = np.packbits(stream, axis=1, bitorder="little")[:, 0]
    else:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((octets[:, None] >> shifts) & ((1 << bits) - 1)).astype(np.uint8).ravel()[:count]
    return values.view(dtype)


def check_shape(dims: list[int]) -> None:
    """Raise ValueError for a shape that no array has."""
    if len(dims) > MAX_RANK:
        raise ValueError(f"it has more than {MAX_RANK} axes")
    if any(not 0 <= length <= MAX_ELEMENTS for length in dims) or math.prod(max(length, 1) for length in dims) > MAX_ELEMENTS:
        raise ValueError(f"its shape must have lengths of at least 0 and at most 2**40 elements; received {dims}")


def shown(text: str) -> str:
    """A name out of a file for an error: quoted, without control characters, not too long."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
