"""Changes to the bytes and to the protocol-buffer fields of ONNX files, drawn from a seeded generator: for Hypothesis and for the fuzzer."""

from __future__ import annotations

from random import Random

LENGTH = 2

#: Numbers that rules look at.
NUMBERS = (0, 1, 2, 7, 16, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2)

#: Operators that make much out of little, or choose among graphs.
OPERATORS = tuple(
    name.encode()
    for name in ["Add", "CastLike", "Concat", "ConstantOfShape", "Conv", "ConvTranspose", "CumSum", "DepthToSpace", "Einsum", "Expand", "EyeLike", "Gather", "GatherND", "If", "Loop", "Max", "NonZero", "OneHot", "Pad", "Pow", "Range", "Reshape", "Resize", "ReverseSequence", "Scan", "ScatterND", "Shape", "Slice", "Split", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"]
)

Field = list  # [number, how, content]: an int for varints, bytes or the fields of a message for the others


def varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift >= 70:
            return value & (1 << 64) - 1, position


def fields(data: bytes) -> list[Field] | None:
    """The fields of a message; None where it is none."""
    found, position = [], 0
    try:
        while position < len(data):
            tag, position = _read_varint(data, position)
            how, number = tag & 7, tag >> 3
            if how == 0:
                content, position = _read_varint(data, position)
                found.append([number, how, content])
                continue
            size, position = (8, position) if how == 1 else (4, position) if how == 5 else _read_varint(data, position) if how == LENGTH else (-1, position)
            if number == 0 or size < 0 or position + size > len(data):
                return None
            found.append([number, how, data[position : position + size]])
            position += size
    except IndexError:
        return None
    return found


def encoded(message: list[Field]) -> bytes:
    parts = []
    for number, how, content in message:
        parts.append(varint(number << 3 | how))
        parts.append(varint(content) if how == 0 else (varint(len(content)) if how == LENGTH else b"") + content)
    return b"".join(parts)


def change_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, insert or repeat bytes anywhere."""
    place = random.randrange(len(data) + 1)
    length = random.choice((1, 1, 1, 2, 4, 8, 100))
    kind = random.randrange(5)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + bytes(random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))) for _ in range(length)) + data[place:]
    if kind == 3:
        return data[:place] + data[place : place + length] * 2 + data[place + length :]
    return data[:place] + bytes(random.randrange(256) for _ in range(min(length, 4))) + data[place + length :]


def texts(message: list[Field]) -> list[bytes]:
    """The short leaves of the tree: names, operators, small arrays."""
    found = []
    for _, how, content in message:
        if how == LENGTH:
            inner = fields(content) if len(content) > 3 else None
            found += texts(inner) if inner else [content] if len(content) < 32 else []
    return found


def change_fields(data: bytes, random: Random, pool: list[bytes] | None = None) -> bytes:
    """Change one field somewhere in the tree of messages, mostly a leaf; the lengths around it stay right."""
    message = fields(data)
    if not message:
        return change_bytes(data, random) if data else bytes([random.randrange(256)])
    pool = texts(message) if pool is None else pool
    index = random.randrange(len(message))
    field = message[index]
    if field[1] == LENGTH and random.random() < 0.9 and len(field[2]) > 3 and fields(field[2]):
        message[index] = [field[0], LENGTH, change_fields(field[2], random, pool)]
        return encoded(message)
    kind = random.randrange(10)
    if kind == 0:
        del message[index]
    elif kind == 1:
        message.insert(random.randrange(len(message) + 1), list(field))
    elif kind == 2:
        other = random.randrange(len(message))
        message[index], message[other] = message[other], message[index]
    elif kind == 3:
        field[0] = random.choice((field[0] + 1, max(field[0] - 1, 1), random.randrange(1, 26)))
    elif field[1] == 0:
        near = (field[2] + random.choice((-1, 1))) & (1 << 64) - 1
        field[2] = random.choice((near, near, random.randrange(9), random.choice(NUMBERS), field[2] ^ 1 << random.randrange(64)))
    elif field[1] == LENGTH:
        field[2] = random.choice((random.choice(pool or [b""]), random.choice(pool or [b""]), random.choice(OPERATORS), b"", change_bytes(field[2], random)))
    else:
        field[2] = random.choice((bytes(len(field[2])), bytes(random.randrange(256) for _ in field[2])))
    return encoded(message)


def mutated(data: bytes, random: Random) -> bytes:
    """`data` with a few changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = (change_fields if random.random() < 0.95 else change_bytes)(data, random)
    return data
