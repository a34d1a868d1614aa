from __future__ import annotations

import os

import pytest
from lightning.pytorch import Trainer

from lightning_lab.runs.inherited import own_environment


def test_a_place_in_another_job_is_not_inherited() -> None:
    kept = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "1", "ROLES": "x"}
    foreign = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "head"}
    assert own_environment(kept | foreign) == kept


def test_lightning_takes_it_for_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(RuntimeError, match="`--ntasks=2` in your SLURM bash script"):
        Trainer(**settings)
    for name in os.environ.keys() - own_environment(os.environ).keys():
        monkeypatch.delenv(name)
    assert Trainer(**settings).world_size == 1
