"""Arrays of numbers from a MATLAB file, level 5: what ``save`` writes by default, and with ``-v6`` and ``-v7``.

Not scipy's reader: that one crashes the process on some damaged files (a flipped bit is enough), and unpacks whatever
size the file claims. This one knows arrays of numbers alone, and reads no byte before its length is checked.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

#: More than this, packed or unpacked, is not read. The labs' file unpacks to 6 MB.
MOST_BYTES = 256 * 2**20
# By the format's codes: types of stored numbers, and the classes of arrays that hold numbers.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = range(6, 16)
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800  # among the flags of an array


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays by their names.

    Args:
        path: The file.
        names: The arrays that are wanted.

    Returns:
        The arrays, with their shapes in MATLAB, and in the types they are stored in: the smallest that hold the values.

    Raises:
        ValueError: If the file is of another format, damaged, or larger than `MOST_BYTES`, or an array is missing or
            holds no real numbers.

    Reference:
        MathWorks, MAT-File Format, chapter 1, level 5.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes, at most {MOST_BYTES} are read")
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or struct.unpack(order + "H", content[124:126])[0] != 0x0100:
        raise ValueError("no MATLAB file of version 5 to 7, save it with -v7")
    arrays: dict[str, np.ndarray] = {}
    left = MOST_BYTES
    for kind, data in _elements(content[128:], order):
        if kind == _COMPRESSED:
            unpacked = _unpack(data, left)
            left -= len(unpacked)
            inside = list(_elements(unpacked, order))
            if len(inside) != 1:
                raise ValueError(f"{len(inside)} elements packed as one")
            kind, data = inside[0]
        if kind != _MATRIX:
            raise ValueError(f"an element of unknown type {kind}")
        name, array = _matrix(data, order, names)
        if name in arrays:
            raise ValueError(f"two arrays {name}")
        if array is not None:
            arrays[name] = array
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"no array {' and no '.join(missing)}")
    return arrays


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        if len(content) - at < 8:
            raise ValueError("it ends in the middle")
        kind, size = struct.unpack_from(order + "2I", content, at)
        if kind >> 16:  # a short one: both numbers in one word, and the data in the other
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError(f"a short element of {size} bytes")
        else:
            start = at + 8
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content):
            raise ValueError("it ends in the middle")
        yield kind, content[start : start + size]
        at = end


def _unpack(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, most + 1)  # 0 would be no limit
    except zlib.error as error:
        raise ValueError(f"packed data are damaged: {error}") from error
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
    if not unpacker.eof:  # only at the end is the checksum compared
        raise ValueError("packed data end in the middle")
    return content


def _matrix(data: bytes, order: str, names: Sequence[str]) -> tuple[str, np.ndarray | None]:
    parts = list(_elements(data, order))
    if len(parts) < 3 or [kind for kind, _ in parts[:3]] != [6, 5, 1] or len(parts[0][1]) != 8:
        raise ValueError("an array without flags, size and name")
    (_, flags), (_, sizes), (_, letters) = parts[:3]
    name = letters.decode("latin-1")
    if name not in names:
        return name, None
    word = struct.unpack(order + "I", flags[:4])[0]
    if word & 0xFF not in _CLASSES or word & _COMPLEX or len(parts) != 4 or parts[3][0] not in _STORED:
        raise ValueError(f"{name} holds no real numbers")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
    kind, numbers = parts[3]
    stored = np.dtype(order + _STORED[kind])
    if not 2 <= len(shape) <= 32 or min(shape) < 0 or math.prod(shape) * stored.itemsize != len(numbers):
        raise ValueError(f"{name} has {len(numbers)} bytes for the size {shape}")
    values = np.frombuffer(numbers, stored).astype(stored.newbyteorder("="))
    return name, values.reshape(shape, order="F")
