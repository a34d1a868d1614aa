"""How checkpoints reach the disk: whole or not at all, and back without running anything from the file."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lightning_lab.runs.directory import previous
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_bytes

#: What a digest begins with, and where it stands: in the comment that a ZIP archive (torch's format) may end with. So
#: digest and content are one file, and torch reads it as ever.
_DIGEST = b"sha256:"


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Write through a temporary file in the same folder; read tensors and plain values only.

    Lightning's own stages in the system's temporary folder and moves from there, which is not atomic across file
    systems, and does not force the bytes to disk.

    Args:
        put: Takes a path and the content that is to stand there: at once, or beside the training.
    """

    def __init__(self, put: Callable[[Path, bytes], None] = write_bytes) -> None:
        super().__init__()
        self.put = put

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            TypeError: If `storage_options` are given: there is no remote storage here.
        """
        if storage_options is not None:
            raise TypeError(f"`storage_options` is not supported, got {storage_options!r}.")
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into memory, because the next step changes the weights
        self.put(Path(path), with_digest(content.getvalue()))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; `weights_only` is always on."""
        return read_checkpoint(Path(path), map_location=map_location)


def with_digest(archive: bytes) -> bytes:
    """Put the digest of a ZIP archive into its comment.

    Args:
        archive: What :func:`torch.save` wrote: it ends with the length of an empty comment.
    """
    comment = _DIGEST + hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def check_digest(content: bytes) -> None:
    """Compare a checkpoint with its digest; one that Lightning wrote has none, but a checksum for each tensor.

    Raises:
        ValueError: If it was changed since it was written.
        zipfile.BadZipFile: If it is no archive at all, for example because its end is missing.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        comment = archive.comment
        # torch does not look at the checksums that its own files carry.
        damaged = archive.testzip() if not comment else None
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    if comment and with_digest(content[: -len(comment) - 2] + bytes(2)) != content:
        raise ValueError("its digest is wrong")


def newest_sound(path: Path) -> Path:
    """Find the checkpoint to use: `path`, or, with a warning, the generation before it where that one is damaged.

    Raises:
        InputError: If neither can be read.
    """
    try:
        read_checkpoint(path)
    except InputError as error:
        older = previous(path)
        if not older.is_file():
            raise
        read_checkpoint(older)
        warnings.warn(f"{error} The one before it is used: {older}.", stacklevel=2)
        return older
    return path


def set_aside_damaged(path: Path) -> None:
    """Give a damaged checkpoint another name: it must not become the previous generation."""
    if path.exists():
        try:
            read_checkpoint(path)
        except InputError:
            path.replace(path.with_name(f"{path.name}.damaged"))


def read_checkpoint(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this project or of Lightning, tensors and plain values only.

    Raises:
        InputError: If the file is missing, damaged, holds anything else, or is no checkpoint.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        data = path.read_bytes()
        check_digest(data)
        content = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except (PermissionError, MemoryError):  # that says nothing about the file
        raise
    except Exception as error:  # torch raises a dozen types here, depending on which byte is bad
        # torch's own words are long, and recommend to load it all the same.
        reason = error if isinstance(error, ValueError | zipfile.BadZipFile) else type(error).__name__
        raise InputError(
            f"The checkpoint {path} cannot be read: it is damaged, no checkpoint, or holds more than tensors and plain "
            f"values ({reason})."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint: it has no `state_dict`.")
    return content


def check_fits(checkpoint: dict[str, Any], weights: dict[str, torch.Tensor], path: Path) -> None:
    """Compare a checkpoint with the net that is to take it, name by name and shape by shape.

    Args:
        checkpoint: What :func:`read_checkpoint` gave.
        weights: The `state_dict` of the model.
        path: For the message.

    Raises:
        InputError: If they differ.
    """
    saved = checkpoint["state_dict"]
    missing, extra = sorted(weights.keys() - saved.keys()), sorted(saved.keys() - weights.keys())
    shapes = [
        f"{name} is {tuple(saved[name].shape)} there and {tuple(weights[name].shape)} here"
        for name in weights.keys() & saved.keys()
        if saved[name].shape != weights[name].shape
    ]
    if missing or extra or shapes:
        facts = sorted(shapes)[:2]
        facts += [f"{len(missing)} tensors are missing there ({missing[0]})"] if missing else []
        facts += [f"{len(extra)} tensors are not known here ({extra[0]})"] if extra else []
        raise InputError(
            f"The checkpoint {path} is of another net: {'; '.join(facts)}. "
            "Give the configuration it was trained with: --config RUN/config.yaml."
        )
