"""The argument parser of the verbs that have options of their own. Free of torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from lightning_lab.runs.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is told in one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what the command line turns into exit code 2.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message}. See {self.prog} --help.")


def positive(text: str) -> int:
    """Read an option's value that is a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is anything else.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def picture_file(text: str) -> Path:
    """Read an option's value that names a picture to write.

    Raises:
        argparse.ArgumentTypeError: If the name does not end in .png.
    """
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must end in .png, got {text}")
    return Path(text)
