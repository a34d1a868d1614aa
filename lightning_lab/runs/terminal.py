"""Words for whoever watches a run, which goes on when nobody does any more. Free of torch."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line.

    Where the reader is gone (``fit | tee log``, and Ctrl-C ends both), this and all later lines go nowhere: a run does
    not fail for want of a reader.

    Args:
        text: The line.
        stream: Where to; None is the standard output.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python fails at it once more when it ends
        os.close(nowhere)
