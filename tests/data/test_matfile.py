"""MATLAB files against scipy's reader and writer, and damaged ones, which scipy's reader crashes on."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lightning_lab.data import Digits, matfile
from lightning_lab.data.matfile import read_arrays
from lightning_lab.runs.errors import InputError

Mat = Callable[..., Path]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (0, 4), (2, 3, 4)])
def test_arrays_are_those_of_scipy(tmp_path: Path, kind: str, shape: tuple[int, ...], packed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    savemat(tmp_path / "a.mat", {"other": [1.5], "wanted": values, "text": "abc"}, do_compression=packed)
    (array,) = read_arrays(tmp_path / "a.mat", ["wanted"]).values()
    np.testing.assert_array_equal(array, loadmat(tmp_path / "a.mat")["wanted"])


def test_files_of_either_byte_order_are_read(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">2I", kind, len(data)) + data + bytes(-len(data) % 8)

    numbers = element(4, struct.pack(">6H", 1, 2, 3, 4, 5, 600))
    name = struct.pack(">2H", 1, 1) + b"X\0\0\0"  # type and size in one word
    matrix = element(6, struct.pack(">2I", 6, 0)) + element(5, struct.pack(">2i", 2, 3)) + name + numbers
    (tmp_path / "a.mat").write_bytes(bytes(124) + b"\x01\x00MI" + element(14, matrix))
    assert read_arrays(tmp_path / "a.mat", ["X"])["X"].tolist() == [[1, 3, 5], [2, 4, 600]]


@pytest.mark.parametrize(
    ("value", "options", "reason"),
    [
        (np.ones((2, 2)), {"format": "4"}, "no MATLAB file of version 5 to 7, save it with -v7"),
        (np.ones((2, 2)) * 1j, {}, "X holds no real numbers"),
        ("text", {}, "X holds no real numbers"),
        ({"field": 1}, {}, "X holds no real numbers"),
        (np.array([[1], "a"], dtype=object), {}, "X holds no real numbers"),
    ],
    ids=["version 4", "complex", "text", "struct", "cell"],
)
def test_what_is_no_array_of_numbers_is_refused(
    tmp_path: Path, value: Any, options: dict[str, Any], reason: str
) -> None:
    savemat(tmp_path / "a.mat", {"X": value}, **options)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_arrays(tmp_path / "a.mat", ["X"])


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": 1})
    with pytest.raises(ValueError, match=r"^no array y and no z$"):
        read_arrays(tmp_path / "a.mat", ["X", "y", "z"])


def test_an_array_that_stands_twice_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": 1})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content + content[128:])
    with pytest.raises(ValueError, match=r"^two arrays X$"):
        read_arrays(tmp_path / "a.mat", ["X"])


@pytest.mark.parametrize(
    ("packed", "limit", "reason"),
    [(True, 4000, "it unpacks to more than 4000 bytes"), (False, 4000, "8184 bytes, at most 4000 are read")],
)
def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, limit: int, reason: str
) -> None:
    monkeypatch.setattr(matfile, "MOST_BYTES", limit)
    savemat(tmp_path / "a.mat", {"X": np.zeros((1000, 1))}, do_compression=packed)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_arrays(tmp_path / "a.mat", ["X"])


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (128, 99, "an element of unknown type 99"),
        (136, 5, "an array without flags, size and name"),
        (144, 1, "X holds no real numbers"),
        (160, 3, "X has 9 bytes for the size (3, 9)"),
        (160, -1, "X has 9 bytes for the size (-1, 9)"),
        (132, 6000, "it ends in the middle"),
        (128, 15 | 9 << 16, "a short element of 9 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, place: int, value: int, reason: str) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"X": np.arange(9, dtype=np.uint8).reshape(1, 9)})
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<i", value)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        read_arrays(path, ["X"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "it ends in the middle"),
        (lambda data: data[:4] + struct.pack("<I", len(data) - 9) + data[8:-1], "packed data end in the middle"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "packed data are damaged: .*incorrect data check"),
        (lambda data: struct.pack("<2I", 15, 8) + b"x\x9c\x03\x00\x00\x00\x00\x01", "0 elements packed as one"),
    ],
    ids=["file cut", "element cut", "checksum", "nothing"],
)
def test_damage_of_packed_data_is_named(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"X": np.arange(900).reshape(1, 900)}, do_compression=True)
    content = path.read_bytes()
    path.write_bytes(content[:128] + change(content[128:]))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_arrays(path, ["X"])


def loads_or_is_refused(path: Path) -> bool:
    try:
        module = Digits(str(path))
        module.setup("fit")
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - the other way that is right
        assert "\n" not in str(error)  # noqa: PT017
        return False
    sizes = {name: part.x.shape for name, part in module._parts.items()}
    assert sizes == {"train": (40, 1, 16, 16), "val": (20, 1, 16, 16)}
    assert all(set(part.y.tolist()) <= set(range(10)) for part in module._parts.values())
    return True


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ["cut", "flipped", "flipped in the heads"])
def test_random_damage_is_read_or_refused(mat: Mat, tmp_path: Path, how: str, packed: bool, seed: int) -> None:
    path = mat(tmp_path / "digits.mat")
    if packed:
        savemat(path, {name: value for name, value in loadmat(path).items() if name[0] != "_"}, do_compression=True)
    generator = np.random.default_rng(seed)
    content = path.read_bytes()
    heads = np.concatenate([np.arange(60) + content.find(name) - 48 for name in (b"X\0", b"y\0", b"Xvalid", b"yvalid")])
    for _ in range(60):
        changed = bytearray(content)
        if how == "cut":
            del changed[generator.integers(0, len(content) - 4000) :]
        else:
            places = heads if how == "flipped in the heads" and not packed else np.arange(120, len(content))
            for place in generator.choice(places, generator.integers(1, 4)):
                changed[place] ^= 1 << generator.integers(0, 8)
        path.write_bytes(changed)
        read = loads_or_is_refused(path)
        assert not (read and how == "cut")
        assert not (read and packed and how == "flipped" and changed[128:-4000] != content[128:-4000])
