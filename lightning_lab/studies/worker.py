"""What a Dask worker is asked: whether it can take part in a study, and whether it is leaving. Free of torch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning_lab.runs.lock import is_locked
from lightning_lab.runs.vault import STUDY

#: A worker that cannot take part hands a cell back after this while, in which the client finds out and sends it away.
_HAND_BACK_S = 2.0


def shortcomings(study: str, folder: str) -> list[str]:
    """Say what keeps this machine from running a study's cells.

    Args:
        study: The study's folder, whose lock is held on the client's machine.
        folder: The folder that the cells' relative paths are meant from.

    Returns:
        What follows "the worker"; nothing if it can take part.
    """
    same = "it must be under the same path on all machines"
    if not (Path(study) / STUDY).exists():
        return [f"does not see the study's folder {study}: {same}"]
    if not Path(folder).is_dir():
        return [f"does not see the folder {folder} that the command was started in: {same}"]
    if not os.access(study, os.W_OK | os.X_OK):
        return [f"may not write into {study}: start it as the user who runs the study"]
    if not is_locked(Path(study)):
        return [
            f"does not see that {study} is locked: mount the file system so that locks hold between machines "
            "(NFS 4, or Lustre with `flock`)"
        ]
    return []


def is_leaving() -> bool:
    """Tell whether the Dask worker that this is called on is on its way out; False outside Dask."""
    from distributed import Status

    worker = _worker()
    return worker is not None and worker.status not in (Status.running, Status.paused)


def hand_back(study: str) -> None:
    """Give the cell to another worker where this one is leaving or does not see the study's folder.

    Args:
        study: The study's folder. It would be made on a machine where nobody looks for it.

    Raises:
        distributed.Reschedule: If another worker is to take it.
    """
    from distributed import Reschedule

    worker = _worker()
    if worker is not None and not worker.address.startswith("inproc://") and not Path(study).is_dir():
        time.sleep(_HAND_BACK_S)
        raise Reschedule
    if is_leaving():
        raise Reschedule


def _worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # not called by Dask
        return None
