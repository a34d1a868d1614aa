"""Decoded pixels on disk: an image tree is decoded once, later commands map the bytes into memory.

An entry is one file, named by what went into it: a format version, the form (channels, size), Pillow and its codecs,
and the relative path and bytes of every image. Bytes rather than size and time of change, because those can lie (a
copy that keeps times, a restored backup) and reading costs little: 50 000 files of CIFAR-10 take 0.9 s to name, of
which 0.2 s would remain with size and time; two threads gain nothing, Python's lock is the limit. Entries are plain
bytes behind a digest, never pickled; one that does not match is made anew. Not cached: the images of the verb predict.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import features
from torch import Tensor

from lightning_lab.runs.cache_folder import cache_folder
from lightning_lab.runs.files import write_whole

_FORMAT = 2  # of the file and of what decoding makes of an image: a change of either needs the next number
_CODECS = ("jpg", "libjpeg_turbo", "webp", "libtiff")  # those whose pixels may differ from release to release
_HEAD = struct.Struct("<16sQ32s8x")  # mark, number of resized images, digest; 64 bytes keep the pixels aligned
_MARK = b"lightning_lab px"
_UNUSED_S = 30 * 24 * 3600  # an entry that nobody read for so long goes when the next one is written

log = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """Pixels (N, C, H, W) uint8, channels-last in memory, and how many of the images were resized."""

    pixels: Tensor
    resized: int


def cached_pixels(
    folder: Path, files: Sequence[Path], *, channels: int, image_size: int, decode: Callable[[], Decoded]
) -> Decoded:
    """Give the pixels of an image tree, from disk if any run has decoded these very files before.

    Runs that start together decode once: one does, the others wait for it. Where the cache cannot be written, that is
    said and the pixels stay in memory.

    Args:
        folder: The tree; entries hold for it wherever it stands.
        files: Its images, in the order of the pixels.
        channels: As `decode` makes them.
        image_size: As `decode` makes them.
        decode: Decodes `files`; called if there is no entry.

    Returns:
        What `decode` gives or would give, byte for byte. Pixels from disk are mapped copy-on-write, so that nothing a
        run does to them reaches the file.
    """
    key = _key(folder, files, channels, image_size)
    if key is None:
        return decode()
    shape = (len(files), image_size, image_size, channels)
    try:
        path = cache_folder() / "images" / f"{key}.pixels"
        if (kept := _load(path, shape)) is not None:
            return kept
        lock = _lock(path, folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home, or a file system without locks
        _say_not_kept(error)
        return decode()
    try:
        if (kept := _load(path, shape)) is not None:
            return kept  # the run that was waited for has made it
        if path.exists():
            log.warning("The cache file %s is damaged; it is made anew.", path)
        log.warning("Decoding %d images of %s once; kept in %s.", len(files), folder, path.parent)
        decoded = decode()
        if _key(folder, files, channels, image_size) != key:
            log.warning("The images of %s changed while they were read; their pixels are not kept.", folder)
            return decoded
        try:
            _sweep(path)
            _save(path, decoded)
        except OSError as error:
            _say_not_kept(error)
        return decoded
    finally:
        lock.release()


def _key(folder: Path, files: Sequence[Path], channels: int, image_size: int) -> str | None:
    form = (_FORMAT, channels, image_size, PIL.__version__, [features.version(name) for name in _CODECS])
    digest = hashlib.blake2b(repr(form).encode(), digest_size=20)
    try:
        for path in files:
            name, content = os.fsencode(path.relative_to(folder).as_posix()), path.read_bytes()
            digest.update(struct.pack("<QQ", len(name), len(content)) + name)
            digest.update(content)
    except OSError:
        return None  # decoding meets the same file and names it
    return digest.hexdigest()


def _lock(path: Path, folder: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))  # held by the process, so a killed one lets go
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("Another run is decoding the images of %s; waiting for it.", folder)
        lock.acquire()
    return lock


def _load(path: Path, shape: tuple[int, ...]) -> Decoded | None:
    try:
        if path.stat().st_size != _HEAD.size + int(np.prod(shape)):
            return None
        with path.open("rb") as file:
            mark, resized, digest = _HEAD.unpack(file.read(_HEAD.size))
        pixels = np.memmap(path, np.uint8, mode="c", offset=_HEAD.size, shape=shape)
    except (OSError, ValueError):
        return None
    if mark != _MARK or digest != _digest(pixels, resized):
        return None
    with suppress(OSError):  # a folder to read only will do
        os.utime(path)
    return Decoded(torch.from_numpy(pixels).permute(0, 3, 1, 2), resized)


def _save(path: Path, decoded: Decoded) -> None:
    pixels = np.ascontiguousarray(decoded.pixels.permute(0, 2, 3, 1).numpy())  # (N, H, W, C)
    head = _HEAD.pack(_MARK, decoded.resized, _digest(pixels, decoded.resized))

    def write(file: BinaryIO) -> None:
        file.write(head)
        file.write(pixels.data)

    write_whole(path, write)


def _digest(pixels: np.ndarray, resized: int) -> bytes:
    digest = hashlib.blake2b(resized.to_bytes(8, "little"), digest_size=32)
    digest.update(pixels.data)
    return digest.digest()


def _sweep(path: Path) -> None:
    # The caller holds the lock of `path`: temporary files of that name belong to writers that were killed.
    # Lock files stay: they are empty, and one that is held must keep its name.
    for other in path.parent.iterdir():
        left = other.name.startswith(f".{path.name}.")
        with suppress(OSError):  # another run may have been quicker
            if left or (other.suffix != ".lock" and time.time() - other.stat().st_mtime > _UNUSED_S):
                other.unlink()


def _say_not_kept(error: Exception) -> None:
    try:
        where = str(cache_folder())
    except RuntimeError:
        where = "~/.cache/lightning_lab"
    log.warning(
        "Decoded images cannot be kept in %s (%s); every command decodes them anew. "
        "Set LIGHTNING_LAB_CACHE to a folder that can be written.",
        where,
        error,
    )
