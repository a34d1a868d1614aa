"""Image files against Pillow and torchvision: listing, decoding, resizing, and errors that name the file."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from lightning_lab.data.images import read_images, read_predict_folder, read_tree
from lightning_lab.data.listing import check_same_classes, class_folders, list_images
from lightning_lab.runs.errors import InputError

Write = Callable[..., np.ndarray]
Tree = Callable[..., Path]


# --- folders ---


def test_classes_are_the_visible_folders_by_name(tmp_path: Path) -> None:
    for name in ("dog", "cat", ".cache", "bird"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert class_folders(tmp_path) == ["bird", "cat", "dog"]


def test_missing_folder_of_classes_is_refused(tmp_path: Path) -> None:
    where = re.escape(str(tmp_path / "train"))
    message = rf"^There is no folder {where}\. Expected an image tree: {where}/<class>/<image>\.$"
    with pytest.raises(InputError, match=message):
        class_folders(tmp_path / "train")


@pytest.mark.parametrize("names", [[], ["cat"]])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    [(tmp_path / name).mkdir() for name in names]
    message = rf"{re.escape(str(tmp_path))} has {len(names)} class folders; at least two are needed"
    with pytest.raises(InputError, match=message):
        class_folders(tmp_path)


@pytest.mark.parametrize(
    ("test", "differences"),
    [
        (("a", "c"), "missing: b; not in train: none"),
        (("a",), "missing: b, c; not in train: none"),
        ((".hidden",), "missing: a, b, c; not in train: none"),
        (("a", "b", "c", "d"), "missing: none; not in train: d"),
        (("a", "x", "y"), "missing: b, c; not in train: x, y"),
    ],
)
def test_parts_with_other_classes_are_refused(tmp_path: Path, test: tuple[str, ...], differences: str) -> None:
    [(tmp_path / "train" / name).mkdir(parents=True) for name in "abc"]
    [(tmp_path / "test" / name).mkdir(parents=True) for name in test]
    with pytest.raises(InputError, match=rf"test are not those of .*train: {differences}\. Both need the same"):
        check_same_classes(tmp_path / "train", tmp_path / "test")


def test_missing_test_part_is_refused(tmp_path: Path) -> None:
    [(tmp_path / "train" / name).mkdir(parents=True) for name in "abc"]
    where = re.escape(str(tmp_path))
    message = rf"^There is no folder {where}/test\. It needs the class folders of {where}/train\.$"
    with pytest.raises(InputError, match=message):
        check_same_classes(tmp_path / "train", tmp_path / "test")


def test_images_are_listed_by_path_whatever_the_case_of_their_suffix(tmp_path: Path, image: Write) -> None:
    names = ["b.png", "a.JPG", "sub/c.bmp"]
    [image(tmp_path / name) for name in names]
    (tmp_path / "._a.jpg").touch()
    (tmp_path / "notes.txt").touch()
    assert list_images(tmp_path) == [tmp_path / "a.JPG", tmp_path / "b.png", tmp_path / "sub" / "c.bmp"]


def test_missing_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^There is no folder {re.escape(str(tmp_path / 'no'))}\.$"):
        list_images(tmp_path / "no")


def test_tree_is_read_by_class_and_name(tmp_path: Path, image: Write) -> None:
    names = ["cat/2.png", "cat/10.png", "ant/3.png"]
    pixels = {name: image(tmp_path / name, seed=seed) for seed, name in enumerate(names)}
    examples = read_tree(tmp_path, ("ant", "cat"), channels=3, image_size=32)
    assert examples.y.tolist() == [0, 1, 1]
    assert examples.y.dtype == torch.int64
    expected = np.stack([pixels[name] for name in ("ant/3.png", "cat/10.png", "cat/2.png")])
    np.testing.assert_array_equal(examples.x.permute(0, 2, 3, 1).numpy(), expected)


def test_class_without_an_image_is_refused(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "ant" / "1.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"cat has no image in it \(looked for \.bmp, \.gif, .*\.webp\)\.$"):
        read_tree(tmp_path, ("ant", "cat"), channels=3, image_size=32)


# --- the folder of the verb predict ---


def test_predict_folder_gives_files_and_no_labels(tmp_path: Path, image: Write) -> None:
    one, two = (image(tmp_path / name, seed=seed) for seed, name in enumerate(("b.png", "a.png")))
    files, examples = read_predict_folder(str(tmp_path), channels=3, image_size=32)
    assert files == [tmp_path / "a.png", tmp_path / "b.png"]
    assert examples.y.tolist() == [-1, -1]
    np.testing.assert_array_equal(examples.x.permute(0, 2, 3, 1).numpy(), np.stack([two, one]))


def test_predict_without_a_folder_is_refused() -> None:
    with pytest.raises(InputError, match=r"^predict needs a folder of images: --data\.predict_folder FOLDER\.$"):
        read_predict_folder(None, channels=3, image_size=32)


def test_predict_with_an_empty_folder_is_refused(tmp_path: Path) -> None:
    message = rf"^{re.escape(str(tmp_path))} has no image in it \(looked for \.bmp, .*\)\.$"
    with pytest.raises(InputError, match=message):
        read_predict_folder(str(tmp_path), channels=3, image_size=32)


def test_predict_with_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^There is no folder .*absent\.$"):
        read_predict_folder(str(tmp_path / "absent"), channels=3, image_size=32)


# --- decoding ---


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif"])
def test_pixels_are_those_of_the_file(tmp_path: Path, image: Write, suffix: str) -> None:
    pixels = image(tmp_path / f"a.{suffix}")
    read = read_images([tmp_path / f"a.{suffix}"], channels=3, image_size=32)
    assert (read.shape, read.dtype) == ((1, 3, 32, 32), torch.uint8)
    np.testing.assert_array_equal(read[0].permute(1, 2, 0).numpy(), pixels)


def test_grey_file_as_colour_has_three_equal_channels(tmp_path: Path, image: Write) -> None:
    pixels = image(tmp_path / "a.png", mode="L")
    read = read_images([tmp_path / "a.png"], channels=3, image_size=32)
    np.testing.assert_array_equal(read[0].numpy(), np.stack([pixels] * 3))


def test_colour_file_as_grey_is_its_luma(tmp_path: Path, image: Write) -> None:
    pixels = image(tmp_path / "a.png")
    read = read_images([tmp_path / "a.png"], channels=1, image_size=32)
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert read.shape == (1, 1, 32, 32)
    assert np.abs(read[0, 0].numpy() - luma).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_can_be_read(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new("RGB", (32, 32), "white").convert(mode).save(tmp_path / "a.png")
    read = read_images([tmp_path / "a.png"], channels=channels, image_size=32)
    assert torch.equal(read, torch.full((1, channels, 32, 32), 255, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (50, 20), (7, 90)])
def test_other_sizes_are_resized_as_torchvision_does_with_antialiasing(
    tmp_path: Path, image: Write, size: tuple[int, int]
) -> None:
    pixels = torch.from_numpy(image(tmp_path / "a.png", size)).permute(2, 0, 1)
    read = read_images([tmp_path / "a.png"], channels=3, image_size=32)
    expected = functional.resize(pixels, [32, 32], antialias=True)
    assert (read[0].int() - expected.int()).abs().max() <= 1


def test_it_is_said_how_many_were_resized(tmp_path: Path, image: Write, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"a.png": (32, 32), "b.png": (32, 31), "c.png": (8, 8)}
    [image(tmp_path / name, size) for name, size in sizes.items()]
    with caplog.at_level(logging.WARNING, logger="lightning_lab.data.images"):
        read_images([tmp_path / name for name in sizes], channels=3, image_size=32)
    assert caplog.messages == ["2 of 3 images were resized to 32 x 32."]


def test_nothing_is_said_where_nothing_was_resized(
    tmp_path: Path, image: Write, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING, logger="lightning_lab.data.images"):
        read_images([tmp_path / "a.png"], channels=3, image_size=32)
    assert caplog.messages == []


def test_many_files_come_back_in_their_order(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.png" for n in range(150)]
    [Image.new("L", (2, 2), n).save(path) for n, path in enumerate(files)]
    read = read_images(files, channels=1, image_size=2)
    assert torch.equal(read, torch.arange(150, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))


def test_file_that_is_no_image_is_named(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("a letter, not a picture")
    message = rf"^{re.escape(str(tmp_path / 'bad.png'))} cannot be read as an image: it is no image\. Repair or"
    with pytest.raises(InputError, match=message):
        read_images([tmp_path / "good.png", tmp_path / "bad.png"], channels=3, image_size=32)


@pytest.mark.parametrize("limit", [1023, 600, 100])  # Pillow warns of the first two and refuses the third
@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "webp", "jpg", "bmp", "ppm"])
def test_picture_too_large_to_be_true_is_refused(
    tmp_path: Path, image: Write, monkeypatch: pytest.MonkeyPatch, limit: int, suffix: str
) -> None:
    path = tmp_path / f"bomb.{suffix}"
    image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = f"^{re.escape(str(path))} has 1024 pixels, at most {limit} are read\\. Scale it down or remove it\\.$"
    with pytest.raises(InputError, match=message):
        read_images([path], channels=3, image_size=32)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, channels: int) -> None:
    values = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    (image,) = read_images([tmp_path / "deep.png"], channels=channels, image_size=8)
    expected = torch.from_numpy((values // 257).astype(np.uint8)).expand(channels, 8, 8)
    assert torch.equal(image, expected)


def test_a_palette_with_transparency_is_read(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "palette.png", transparency=b"\x00\x01")
    (read,) = read_images([tmp_path / "palette.png"], channels=3, image_size=8)
    assert read[:, 0, 0].tolist() == [200, 100, 50]


def test_the_camera_held_sideways_is_turned_back(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255  # the upper edge
    exif = Image.Exif()
    exif[274] = 6  # "turn 90 degrees clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=exif)
    (read,) = read_images([tmp_path / "phone.png"], channels=3, image_size=8)
    assert read[0, :, -1].tolist() == [255] * 8
    assert read[0, :, 0].tolist() == [0] * 8


def test_what_has_but_the_name_of_an_image_is_left_out(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "folder.png" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    assert list_images(tmp_path) == [tmp_path / "folder.png" / "a.png"]


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    [(tmp_path / name).touch() for name in (".DS_Store", "Thumbs.db", "._b.png")]
    for name in (".ipynb_checkpoints/a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert list_images(tmp_path) == [tmp_path / "b.png"]
