"""The split into training and validation examples: stratified, disjoint, and a pure function of its seed.

Written by hand rather than taken from scikit-learn because the fingerprint of a split stands in the record of a run
and must not move when a library changes how it draws. NumPy's PCG64 stream is fixed; the test compares the class
counts with scikit-learn's.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_lab.data.loader import Examples
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.seeds import stream_seed


class Split(NamedTuple):
    """Training and validation examples, and the name of the division."""

    train: Examples
    val: Examples
    fingerprint: str


def carve(examples: Examples, *, val_frac: float, split_seed: int | None, seed: int) -> Split:
    """Carve the validation examples from a training set.

    Args:
        examples: The training set.
        val_frac: The share that goes to validation, in (0, 1).
        split_seed: Fixes the split; None takes it from the run's seed.
        seed: The run's seed.
    """
    labels = examples.y if examples.y.dtype == torch.int64 else torch.zeros(len(examples))
    seed_used = stream_seed(seed, "split") if split_seed is None else split_seed
    train, val = stratified_split(labels, val_frac=val_frac, seed=seed_used)
    return Split(examples.subset(train), examples.subset(val), fingerprint(train, val))


def check_val_frac(val_frac: float) -> None:
    """Refuse a validation share that leaves nothing to train or to validate on.

    Raises:
        InputError: If it is not in (0, 1).
    """
    if not 0 < val_frac < 1:
        raise InputError(f"`val_frac` must be above 0 and below 1, got {val_frac}. 0.2 is usual.")


def stratified_split(labels: Tensor, *, val_frac: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide examples so that each class gives the same share to validation.

    Args:
        labels: The class of each example; all equal for data without classes. Shape (N,).
        val_frac: The share that goes to validation, in (0, 1). Rounded within each class, at least one example on
            each side.
        seed: Decides who goes where.

    Returns:
        The indices for training and for validation, each ascending. Shapes (N - V,) and (V,).

    Raises:
        InputError: If `val_frac` is out of range or a class has fewer than two examples.
    """
    check_val_frac(val_frac)
    if seed < 0:
        raise InputError(f"`split_seed` must be 0 or more, got {seed}.")
    values = labels.numpy()
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = []
    for label in np.unique(values):
        members = np.flatnonzero(values == label)
        if len(members) < 2:
            raise InputError(f"Class {label} has {len(members)} example; two are needed to split it. Add more.")
        size = min(max(round(len(members) * val_frac), 1), len(members) - 1)
        chosen.append(generator.permutation(members)[:size])
    val = np.sort(np.concatenate(chosen))
    train = np.setdiff1d(np.arange(len(values)), val, assume_unique=True)
    return torch.from_numpy(train), torch.from_numpy(val)


def fingerprint(train: Tensor, val: Tensor) -> str:
    """Name a split: two runs with the same fingerprint trained and validated on the same examples.

    Args:
        train: Indices for training. Shape (T,).
        val: Indices for validation. Shape (V,).

    Returns:
        Twelve hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in (train, val):
        digest.update(len(part).to_bytes(8, "little") + part.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:12]
