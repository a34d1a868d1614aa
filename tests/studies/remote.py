"""What tests run on Dask's workers, which import it by this name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from distributed import Reschedule, Status, Worker, get_worker

from lightning_lab.studies.worker import hand_back, is_leaving


def lose_worker() -> None:
    """Take the worker down."""
    os.kill(os.getpid(), signal.SIGKILL)


async def leave(dask_worker: Worker) -> None:
    """Do what a worker does at the end of its lifetime."""
    await dask_worker.close_gracefully()


def cell(study: str) -> str:
    """Last for ever on the worker that the file `hold` names, until it leaves; then hand back. Elsewhere say where."""
    here, hold = str(get_worker().address), Path(study) / "hold"
    until = time.monotonic() + 60
    while not is_leaving() and hold.exists() and hold.read_text() == here and time.monotonic() < until:
        time.sleep(0.05)
    hand_back(study)
    return here


def is_handed_back(study: str) -> list[bool]:
    """Say whether a cell would be handed back, before and while the worker is leaving."""
    answers = []
    for status in (Status.running, Status.closing_gracefully):
        get_worker().status = status
        try:
            hand_back(study)
            answers.append(False)
        except Reschedule:
            answers.append(True)
    get_worker().status = Status.running
    return answers
