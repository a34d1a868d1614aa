"""The argument parser of the verbs that need no torch. Free of torch."""

from __future__ import annotations

import argparse
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
