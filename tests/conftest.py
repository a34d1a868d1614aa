from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import Answer, Lab

from lightning_lab.__main__ import main

# Everything here is tiny: a second thread gains nothing, and waits for its turn on a machine that others use too.
torch.set_num_threads(1)


_caches = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _no_test_writes_to_the_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # for fixtures that serve several tests
        patch.setenv("LIGHTNING_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "caches" / "shared"))
        yield


@pytest.fixture(autouse=True)
def _every_test_has_its_own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "caches" / str(next(_caches))))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lab:
    """Run commands in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Answer:
        capfd.readouterr()
        with warnings.catch_warnings():  # a command sets filters for a process of its own
            code = main(list(args))
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def image_tree(tmp_path: Path) -> Path:
    """An image tree of two classes, dark and bright, eight images each in train and two in test."""
    root = tmp_path / "tree"
    for part, count in (("train", 8), ("test", 2)):
        for label, grey in (("dark", 40), ("bright", 200)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20 + i, 16), (grey + i, grey, grey - i)).save(folder / f"{i}.png")
    return root
