"""Every kind of image file that people have, against Pillow and closed forms; and damaged ones, which are named."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lightning_lab.data.images import read_images, read_predict_folder
from lightning_lab.runs.errors import InputError

Write = Callable[..., np.ndarray]


def read(path: Path, *, channels: int = 3, image_size: int = 8) -> Tensor:
    return read_images([path], channels=channels, image_size=image_size)[0]


def wave(edge: int = 64) -> np.ndarray:
    """Give a smooth picture (edge, edge, 3), which packs well."""
    y, x = np.mgrid[0:edge, 0:edge]
    return np.stack([x * 4, y * 4, x + y], -1).astype(np.uint8)


# --- kinds ---


def test_four_colours_of_print_become_three(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (200, 100, 0, 50)).save(tmp_path / "print.jpg", quality=100)
    expected = [(255 - ink) * (255 - 50) / 255 for ink in (200, 100, 0)]
    assert (read(tmp_path / "print.jpg").float().mean((1, 2)) - torch.tensor(expected)).abs().max() <= 2


@pytest.mark.parametrize("transparency", [None, 2, b"\x00\x01\xff"])
def test_a_palette_gives_its_colours(tmp_path: Path, transparency: Any) -> None:
    palette = [(0, 0, 0), (200, 100, 50), (7, 8, 9)]
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3)
    image.putpalette(sum(palette, ()))
    image.save(tmp_path / "a.png", **{} if transparency is None else {"transparency": transparency})
    expected = np.array(palette, np.uint8)[np.arange(64).reshape(8, 8) % 3]
    np.testing.assert_array_equal(read(tmp_path / "a.png").permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("mode", "shown"), [("LA", [90, 90, 90]), ("RGBA", [90, 60, 30])])
def test_transparency_is_dropped_as_torchvision_does(tmp_path: Path, mode: str, shown: list[int]) -> None:
    Image.new(mode, (8, 8), (90, 0) if mode == "LA" else (90, 60, 30, 0)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[:, 3, 3].tolist() == shown


@pytest.mark.parametrize(("name", "order"), [("a.png", "<u2"), ("a.tif", "<u2"), ("b.tif", ">u2"), ("a.pgm", "<u2")])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, name: str, order: str, channels: int) -> None:
    values = (np.arange(64) * 65535 // 63).astype(order).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / name)
    own = read(tmp_path / name, channels=channels).numpy()
    assert np.abs(own - values.astype(np.float64) / 257).max() < 1
    assert (own[:, 0, 0].max(), own[:, 7, 7].min()) == (0, 255)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((8, 8), 0.5, np.float32), "its pixels are fractions, of which nothing says what is white; save it"),
        (np.full((8, 8), 70_000, np.int32), "its pixels are 70000 to 70000; save it with 8 or 16 bits"),
        (np.full((8, 8), -1, np.int32), "its pixels are -1 to -1; save it with 8 or 16 bits"),
    ],
)  # fmt: skip
def test_thirty_two_bits_are_refused_rather_than_clipped(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=re.escape(f"deep.tif cannot be read as an image: {reason}")):
        read(tmp_path / "deep.tif")


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif")[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_what_the_camera_noted_is_applied_as_pillow_does(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"phone.{suffix}"
    Image.fromarray(wave(8)).save(path, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    np.testing.assert_array_equal(read(path).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "notes", [b"Exif\x00\x00 nothing of the kind", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif"]
)
def test_damaged_notes_of_the_camera_do_no_harm(tmp_path: Path, notes: bytes) -> None:
    Image.fromarray(wave(8)).save(tmp_path / "a.jpg", exif=notes)
    Image.fromarray(wave(8)).save(tmp_path / "b.jpg")
    assert torch.equal(read(tmp_path / "a.jpg"), read(tmp_path / "b.jpg"))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_the_thinnest_of_images_are_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "thin.png")
    assert torch.equal(read(tmp_path / "thin.png"), torch.tensor([9, 8, 7]).byte().view(3, 1, 1).expand(3, 8, 8))


# --- damage ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("letter.png", b"a letter, not a picture"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
        ("head.png", b"\x89PNG\r\n\x1a\n"),
        ("head.bmp", b"BM"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = rf"^{re.escape(str(tmp_path / name))} cannot be read as an image: it is no image\. Repair or remove it\.$"
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_predict_folder(str(tmp_path), channels=3, image_size=8)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "ppm", "tif", "webp"])
def test_a_file_cut_short_is_refused(tmp_path: Path, image: Write, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    image(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} cannot be read as an image: .*\. Repair or remove"):
        read(path)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path, bit: int) -> None:
    # Pillow alone reads one in five of these smooth pictures wrongly, and says nothing.
    packed = io.BytesIO()
    Image.fromarray(wave()).save(packed, "PNG")
    content, path = packed.getvalue(), tmp_path / "flipped.png"
    wrong = []
    for place in range(content.find(b"IDAT"), len(content) - 12):  # the last twelve are the mark of the end
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            wrong.append((place, read(path)))
        except InputError as error:
            assert str(error).startswith(f"{path} cannot be read as an image: ")  # noqa: PT017 - one of many
    assert wrong == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "ppm", "tif", "webp"])
def test_random_damage_is_read_or_refused_in_one_way(tmp_path: Path, image: Write, suffix: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[274], exif[270] = 6, "what is seen"
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(wave(16)).save(path, exif=exif)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(20):
        changed = content.copy()
        places = generator.integers(0, len(content) if seed % 2 else min(200, len(content)), 3)
        changed[places] ^= (1 << generator.integers(0, 8, 3)).astype(np.uint8)
        path.write_bytes(changed.tobytes())
        try:
            assert read(path).shape == (3, 8, 8)
        except InputError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - the other way that is right
            assert "\n" not in str(error)  # noqa: PT017


def test_images_that_do_not_fit_in_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    message = "^2 images of 20000 x 20000 need 2 GB of memory, more than there is. Choose a smaller `image_size`.$"
    with pytest.raises(InputError, match=message):
        read_images([tmp_path / "a.png", tmp_path / "b.png"], channels=3, image_size=20_000)
