"""The errors whose meaning the command line knows, and the wording they share. Free of torch."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from pathlib import Path

#: More names than this are not read but skipped, with the close match among them.
_MOST_NAMES = 24


class InputError(ValueError):
    """What the user gave (a file, a folder, a key, a value) cannot be used. Ends the command with exit code 2."""


class NotWrittenError(OSError):
    """A file could not be written. Ends the command with exit code 2.

    Args:
        path: The file by the name it was to get, not that of the temporary one.
        error: What the system said.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), str(path))


class Stopped(BaseException):
    """A signal ended the run; what it had done is saved. Ends the command with exit code 128 + the signal's number.

    Like Python's KeyboardInterrupt no Exception: nobody is to take it for a mistake.

    Args:
        number: Which signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"Stopped by {number.name}.")
        self.number = number


class LostProcessError(RuntimeError):
    """Another process of the run ended before it should. Ends the command with exit code 1."""


class DivergedError(RuntimeError):
    """Training produced a number that is not finite. Ends the command with exit code 4."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the message for a name that does not exist: the close match first, then the known ones.

    Args:
        kind: What the name should have been, for example ``"net"``.
        name: The name as the user wrote it.
        known: The names that exist.

    Returns:
        One sentence.

    Example:
        >>> unknown("net", "LeNet", ["LeNet5", "MLP", "VGG"])
        "Unknown net 'LeNet'. Did you mean 'LeNet5'? Known: LeNet5, MLP, VGG."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if len(names) > _MOST_NAMES:
        return f"Unknown {kind} {name!r}.{hint} --help lists all {len(names)}."
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


def check_choice(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is not in a closed set, which the command line does by itself.

    Args:
        argument: Name of the constructor's argument.
        value: What it was given.
        known: The words that it takes.

    Raises:
        ValueError: If the word is not among them.
    """
    if value not in known:
        raise ValueError(f"`{argument}`: {unknown('word', str(value), known)}")
