"""The protocol buffers' wire format, read from bytes that nobody vouches for (https://protobuf.dev/programming-guides/encoding).

A message is a sequence of fields, each with a tag (its number and how it is written). `Wire.fields` walks them without copying: a
nested message, a text or an array is handed on as where it begins and ends. Unknown fields are passed over, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from ..errors import FormatError

#: How a field is written: a number of 7 bits a byte; 8 bytes; a length and so many bytes; 4 bytes.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

#: Fields that are walked in one file at most, so that a file of nothing but tiny fields takes seconds, not minutes.
MAX_FIELDS = 5_000_000

#: Packed numbers are decoded so many bytes at a time: that takes a few times as much memory.
CHUNK = 1 << 14


class Wire:
    """The bytes of one file. `source` is its name in errors."""

    def __init__(self, data: bytes, source: str) -> None:
        self.data, self.source = data, source
        self.fields_left = MAX_FIELDS

    def fail(self, rule: str) -> NoReturn:
        """Raise FormatError."""
        raise FormatError(f"onnx: {self.source}: {rule}")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The fields of the message in bytes [start, end), as (tag, first, last).

        The tag is ``number << 3 | how``. A varint's value is `first`; all others lie in bytes [first, last).
        """
        data, position = self.data, start
        while position < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                self.fail(f"it has more than {MAX_FIELDS:,} fields")
            tag = data[position]
            position += 1
            if tag >= 0x80:
                tag, position = self.varint(position - 1, end)
            how = tag & 7
            if tag < 8:
                self.fail(f"a field at byte {position - 1} has the number 0: this is no ONNX model, or it is damaged")
            if how == LENGTH:
                if position < end and data[position] < 0x80:
                    length = data[position]
                    position += 1
                else:
                    length, position = self.varint(position, end)
                first, position = position, position + length
                if position > end:
                    self.fail(f"a field of {length:,} bytes at byte {first:,} goes beyond its message, which ends at byte {end:,}: the file is cut short or damaged")
                yield tag, first, position
            elif how == VARINT:
                first, position = self.varint(position, end)
                yield tag, first, 0
            elif how in (FIXED32, FIXED64):
                first, position = position, position + (4 if how == FIXED32 else 8)
                if position > end:
                    self.fail(f"a number at byte {first:,} goes beyond its message, which ends at byte {end:,}: the file is cut short or damaged")
                yield tag, first, position
            else:
                self.fail(f"the field at byte {position - 1:,} is of the unknown kind {how}: this is no ONNX model, or it is damaged")

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """The number at `position`, below 2**64, and where the next field begins."""
        value = shift = 0
        for byte in self.data[position : min(position + 10, end)]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value & (1 << 64) - 1, position + shift // 7
        self.fail(f"a number at byte {position:,} does not end: the file is cut short or damaged")

    def text(self, first: int, last: int) -> str:
        """Text; bytes that are no UTF-8 are written as \\x..."""
        return self.data[first:last].decode("utf-8", "backslashreplace")

    def float32(self, first: int) -> float:
        """The shortest decimal number that is this float32, as its writer will have meant it: 0.1, not 0.10000000149011612."""
        return float(str(np.frombuffer(self.data, "<f4", 1, first)[0]))

    def array(self, first: int, last: int, dtype: np.dtype) -> np.ndarray:
        """The numbers in bytes [first, last), a read-only view that may be unaligned."""
        count, rest = divmod(last - first, dtype.itemsize)
        if rest:
            self.fail(f"{last - first:,} bytes at byte {first:,} are no whole number of {dtype}")
        if not count:
            return np.zeros(0, dtype)
        return np.frombuffer(self.data, dtype.newbyteorder("<"), count, first).astype(dtype, copy=False)

    def varints(self, first: int, last: int) -> np.ndarray:
        """Packed varints as uint64."""
        parts = []
        while first < last:
            octets = np.frombuffer(self.data, np.uint8, min(CHUNK, last - first), first)
            ends = np.flatnonzero(octets < 0x80) + 1
            if not len(ends):
                self.fail(f"a number at byte {first:,} does not end: the file is cut short or damaged")
            octets = octets[: ends[-1]]
            begins = np.concatenate(([0], ends[:-1]))
            lengths = ends - begins
            if lengths.max() > 10:
                self.fail(f"a number near byte {first:,} has more than 10 bytes: the file is damaged")
            shifts = (np.arange(len(octets)) - np.repeat(begins, lengths)).astype(np.uint64) * np.uint64(7)
            parts.append(np.add.reduceat((octets & 0x7F).astype(np.uint64) << shifts, begins, dtype=np.uint64))
            first += len(octets)
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def tag(number: int, how: int) -> int:
    """The tag of a field."""
    return number << 3 | how


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value
