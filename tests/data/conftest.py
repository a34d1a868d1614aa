"""Small image trees, small digits.mat files, and the real data where somebody has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def noise_image(path: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB", seed: int = 0) -> np.ndarray:
    """Write a picture of random pixels, (width, height) in size, and return its pixels."""
    generator = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_tree(
    root: Path, classes: Sequence[str], *, train: int = 4, test: int = 2, size: tuple[int, int] = (32, 32)
) -> Path:
    """Write root/train/<class>/n.png and root/test/<class>/n.png, every picture different."""
    wanted = [("train", name, n) for name in classes for n in range(train)]
    wanted += [("test", name, n) for name in classes for n in range(test)]
    for seed, (part, name, n) in enumerate(wanted):
        noise_image(root / part / name / f"{n}.png", size, seed=seed)
    return root


def write_mat(path: Path, **changes: Any) -> Path:
    """Write a small file in the format of the labs' digits.mat; changes replace arrays, None leaves one out."""
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {}
    for part, count in (("", 40), ("valid", 20), ("test", 10)):
        content["X" + part] = generator.integers(0, 256, (count, 256), dtype=np.uint8)
        content["y" + part] = (np.arange(count, dtype=np.uint8) % 10 + 1).reshape(-1, 1)
    savemat(path, {name: value for name, value in (content | changes).items() if value is not None})
    return path


@pytest.fixture
def image() -> Callable[..., np.ndarray]:
    return noise_image


@pytest.fixture
def tree() -> Callable[..., Path]:
    return write_tree


@pytest.fixture
def mat() -> Callable[..., Path]:
    return write_mat


@pytest.fixture
def real_data() -> Path:
    """Give the folder with the real data, or skip."""
    folder = os.environ.get("LIGHTNING_LAB_DATA")
    if not folder:
        pytest.skip("LIGHTNING_LAB_DATA, the folder with the real data, is not set")
    return Path(folder)


@pytest.fixture
def real_mat(real_data: Path) -> Path:
    if not (real_data / "digits.mat").is_file():
        pytest.skip("there is no digits.mat in LIGHTNING_LAB_DATA")
    return real_data / "digits.mat"
