"""Image files to one uint8 tensor, with errors that name the file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_lab.data.cache import Decoded, cached_pixels
from lightning_lab.data.decode import decode_image, one_limit_of_size
from lightning_lab.data.listing import SUFFIXES, check_writable, list_images
from lightning_lab.data.loader import Examples
from lightning_lab.runs.errors import InputError

_THREADS = 2  # decoding leaves Python's lock; more than two gave nothing on small images

log = logging.getLogger(__name__)


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
    for path in files:
        check_writable(path)  # the names go to predictions.csv
    pixels = read_images(files, channels=channels, image_size=image_size)
    return files, Examples(pixels, torch.full((len(files),), -1))


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
    shape = (len(files), image_size, image_size, channels)
    try:
        pixels = np.empty(shape, dtype=np.uint8)
    except (MemoryError, ValueError) as error:
        size = f"{image_size} x {image_size}"
        raise InputError(
            f"{len(files)} images of {size} need {np.prod(shape, dtype=float) / 1e9:.0f} GB of memory, more than there "
            "is. Choose a smaller `image_size`."
        ) from error
    with one_limit_of_size(), ThreadPoolExecutor(_THREADS) as pool:
        decoded = pool.map(lambda path: decode_image(path, channels, image_size), files, chunksize=64)
        for number, (image, was_resized) in enumerate(decoded):
            pixels[number] = image
            resized += was_resized
    return Decoded(torch.from_numpy(pixels).permute(0, 3, 1, 2), resized)  # (N, C, H, W), channels-last in memory


def _say_resized(decoded: Decoded, image_size: int) -> None:
    if decoded.resized:
        total = len(decoded.pixels)
        log.warning("%d of %d images were resized to %d x %d.", decoded.resized, total, image_size, image_size)
