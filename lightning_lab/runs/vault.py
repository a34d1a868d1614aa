"""The test set of a study is opened by its vault alone. Free of torch."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_lab.runs.errors import InputError

#: The study's own copy of its file, in the folder of all its runs.
STUDY = "study.yaml"
#: Set for the processes that the vault starts: the folder of the study that they may test.
OPEN_VARIABLE = "LIGHTNING_LAB_VAULT"


def check_may_test(run: Path) -> None:
    """Refuse to test a run of a study, unless its vault does it.

    Raises:
        InputError: If the run belongs to a study whose vault is closed.
    """
    study = run.absolute().parent
    if (study / STUDY).exists() and os.environ.get(OPEN_VARIABLE) != str(study):
        raise InputError(
            f"The run {run} belongs to the study {study.name}, whose test set is opened once: choose an arm with "
            f"`lightning-lab study select`, then use `lightning-lab study test`."
        )
