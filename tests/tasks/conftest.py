"""A silent trainer on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer


@pytest.fixture(autouse=True)
def lightning_may_warn() -> Iterator[None]:
    """Let pass what Lightning says of the machine and of how these tests call it; every other warning is an error."""
    with warnings.catch_warnings():
        # lightning, on a machine with an accelerator or many cores: these tests want one process on the CPU.
        warnings.filterwarnings("ignore", message=r".*available but not used")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # lightning, where a test needs no validation.
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
        yield


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def build(*callbacks: Callback, **settings: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
            "max_epochs": 1,
        }
        return Trainer(callbacks=list(callbacks), **defaults | settings)

    return build
