"""Image files to one uint8 tensor: listing class folders, decoding, resizing, with errors that name the file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lightning_lab.data.cache import Decoded, cached_pixels
from lightning_lab.data.loader import Examples
from lightning_lab.runs.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_THREADS = 2  # decoding leaves Python's lock; more than two gave nothing on small images

log = logging.getLogger(__name__)


def class_folders(folder: Path) -> list[str]:
    """List the classes of an image tree: the names of its folders, sorted.

    Args:
        folder: For example ``root/train``.

    Returns:
        The class names. At least two.

    Raises:
        InputError: If the folder is missing, or has fewer than two class folders.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Expected an image tree: {folder}/<class>/<image>.")
    names = _folders(folder)
    if len(names) < 2:
        raise InputError(f"{folder} has {len(names)} class folders; at least two are needed: {folder}/<class>/<image>.")
    return names


def check_same_classes(train: Path, test: Path) -> None:
    """Compare the class folders of both parts, by name only: nothing in `test` is opened.

    Raises:
        InputError: If a class is in one part and not in the other.
    """
    if not test.is_dir():
        raise InputError(f"There is no folder {test}. It needs the class folders of {train}.")
    known, found = set(class_folders(train)), set(_folders(test))
    if known != found:
        missing = ", ".join(sorted(known - found)) or "none"
        extra = ", ".join(sorted(found - known)) or "none"
        raise InputError(
            f"The classes of {test} are not those of {train}: missing: {missing}; not in train: {extra}. "
            "Both need the same class folders."
        )


def read_tree(folder: Path, classes: Sequence[str], *, channels: int, image_size: int) -> Examples:
    """Read ``folder/<class>/<image>``; decoded by the first command, taken from the cache by later ones.

    Args:
        folder: For example ``root/train``.
        classes: The class names; the position of a name is its label.
        channels: 3 for colour, 1 for grey.
        image_size: Height and width; other sizes are resized, and it is said how many.

    Returns:
        Images (N, channels, image_size, image_size) uint8 and labels (N,) int64, ordered by class and file name.

    Raises:
        InputError: If a class has no image, or a file cannot be read as one.
    """
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        own = list_images(folder / name)
        if not own:
            raise InputError(f"{folder / name} has no image in it (looked for {', '.join(sorted(SUFFIXES))}).")
        files += own
        labels += [label] * len(own)
    decoded = cached_pixels(
        folder,
        files,
        channels=channels,
        image_size=image_size,
        decode=lambda: _decode_all(files, channels, image_size),
    )
    _say_resized(decoded, image_size)
    return Examples(decoded.pixels, torch.tensor(labels))


def read_predict_folder(folder: str | None, *, channels: int, image_size: int) -> tuple[list[Path], Examples]:
    """Read the images of the verb predict.

    Args:
        folder: As the user gave it.
        channels: 3 for colour, 1 for grey.
        image_size: Height and width.

    Returns:
        The files, sorted by path, and their pixels with -1 for the unknown label.

    Raises:
        InputError: If no folder was given, it is missing, or holds no image.
    """
    if folder is None:
        raise InputError("predict needs a folder of images: --data.predict_folder FOLDER.")
    files = list_images(Path(folder))
    if not files:
        raise InputError(f"{folder} has no image in it (looked for {', '.join(sorted(SUFFIXES))}).")
    pixels = read_images(files, channels=channels, image_size=image_size)
    return files, Examples(pixels, torch.full((len(files),), -1))


def list_images(folder: Path) -> list[Path]:
    """List the image files below `folder`, sorted by path; hidden ones are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder." if folder.exists() else f"There is no folder {folder}.")
    return sorted(path for path in _visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file())


def read_images(files: Iterable[Path], *, channels: int, image_size: int) -> Tensor:
    """Decode image files.

    Args:
        files: The files.
        channels: 3 for colour, 1 for grey.
        image_size: Height and width; other sizes are resized (bilinear), and it is said how many.

    Returns:
        Pixels. Shape (N, channels, image_size, image_size), uint8.

    Raises:
        InputError: If a file cannot be read as an image.
    """
    decoded = _decode_all(list(files), channels, image_size)
    _say_resized(decoded, image_size)
    return decoded.pixels


def _decode_all(files: Sequence[Path], channels: int, image_size: int) -> Decoded:
    resized = 0
    pixels = np.empty((len(files), image_size, image_size, channels), dtype=np.uint8)
    with ThreadPoolExecutor(_THREADS) as pool:
        decoded = pool.map(lambda path: _decode(path, channels, image_size), files, chunksize=64)
        for number, (image, was_resized) in enumerate(decoded):
            pixels[number] = image
            resized += was_resized
    return Decoded(torch.from_numpy(pixels).permute(0, 3, 1, 2), resized)  # (N, C, H, W), channels-last in memory


def _say_resized(decoded: Decoded, image_size: int) -> None:
    if decoded.resized:
        total = len(decoded.pixels)
        log.warning("%d of %d images were resized to %d x %d.", decoded.resized, total, image_size, image_size)


def _upright_bytes(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)  # a camera held sideways notes it instead of turning the pixels
    if upright.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them to white, not scale them
        return Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        return upright.convert("RGBA")
    return upright


def _visible(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # rglob also walks hidden folders, and is slower
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


# Caches hold what this and _upright_bytes make of a file: with a change of either, raise _FORMAT in cache.py.
def _decode(path: Path, channels: int, image_size: int) -> tuple[np.ndarray, bool]:
    try:
        with Image.open(path) as file:
            image = _upright_bytes(file).convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's own message for a file of another kind repeats the path and nothing more.
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} cannot be read as an image: {reason}. Repair or remove it.") from error
    odd = image.size != (image_size, image_size)
    if odd:
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels), odd
