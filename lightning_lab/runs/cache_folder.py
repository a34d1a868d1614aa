"""Where decoded images are kept. Free of torch, so that ``doctor --brief`` can tell it at once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Say where decoded images are kept.

    Returns:
        $LIGHTNING_LAB_CACHE, else ``$XDG_CACHE_HOME/lightning_lab``, else ``~/.cache/lightning_lab``.

    Raises:
        RuntimeError: If the last is meant and the user has no home.
    """
    if own := os.environ.get("LIGHTNING_LAB_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning_lab"
