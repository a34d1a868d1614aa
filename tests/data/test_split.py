"""The split against scikit-learn's class counts, and its fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from lightning_lab.data.loader import Examples
from lightning_lab.data.split import carve, check_val_frac, fingerprint, stratified_split
from lightning_lab.runs.errors import InputError

EVEN = torch.arange(200) % 10
UNEVEN = torch.repeat_interleave(torch.arange(5), torch.tensor([90, 7, 31, 12, 55]))[
    torch.randperm(195, generator=torch.Generator().manual_seed(0))
]


@pytest.mark.parametrize("val_frac", [0.1, 0.2, 0.33, 0.5, 0.9])
@pytest.mark.parametrize("labels", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_class_counts_are_scikit_learns(labels: Tensor, val_frac: float) -> None:
    _, val = stratified_split(labels, val_frac=val_frac, seed=0)
    _, expected = train_test_split(np.arange(len(labels)), test_size=val_frac, stratify=labels, random_state=0)
    difference = torch.bincount(labels[val]) - torch.bincount(labels[torch.from_numpy(expected)])
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("val_frac", [0.01, 0.2, 0.99])
@pytest.mark.parametrize("labels", [EVEN, UNEVEN, torch.zeros(11)], ids=["even", "uneven", "no classes"])
def test_parts_are_disjoint_complete_and_ascending(labels: Tensor, val_frac: float) -> None:
    train, val = stratified_split(labels, val_frac=val_frac, seed=0)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(len(labels)))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(val, val.sort().values)


@pytest.mark.parametrize(("val_frac", "expected"), [(0.01, [1, 1]), (0.5, [1, 2]), (0.99, [1, 2])])
def test_every_class_stands_on_both_sides(val_frac: float, expected: list[int]) -> None:
    labels = torch.tensor([0, 1, 1, 1, 0])
    train, val = stratified_split(labels, val_frac=val_frac, seed=0)
    assert torch.bincount(labels[val]).tolist() == expected
    assert torch.bincount(labels[train]).min() >= 1


def test_split_is_a_function_of_its_seed() -> None:
    np.random.seed(1)  # the global stream must not matter
    one = fingerprint(*stratified_split(EVEN, val_frac=0.2, seed=5))
    np.random.seed(2)
    assert fingerprint(*stratified_split(EVEN, val_frac=0.2, seed=5)) == one
    assert len({fingerprint(*stratified_split(EVEN, val_frac=0.2, seed=seed)) for seed in range(5)}) == 5


def test_fingerprint_is_what_it_always_was() -> None:
    # These stand in users' records of runs, which are compared on resume: they must never change.
    train, val = stratified_split(torch.arange(20) % 4, val_frac=0.25, seed=0)
    assert val.tolist() == [2, 8, 15, 17]
    assert fingerprint(train, val) == "14f45f5145d1"


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ([3, 4], [0, 1, 2]),  # exchanged
        ([0, 1, 2, 3], [4]),  # another boundary, the same sequence
        ([0, 1], [2, 3, 4]),
        ([0, 1, 4], [2, 3]),  # other members
    ],
)
def test_other_splits_have_other_fingerprints(train: list[int], val: list[int]) -> None:
    known = fingerprint(torch.tensor([0, 1, 2]), torch.tensor([3, 4]))
    assert len(known) == 12
    assert fingerprint(torch.tensor(train), torch.tensor(val)) != known


def numbered(size: int, targets: Tensor) -> Examples:
    return Examples(torch.arange(size).unsqueeze(1), targets)


def test_carve_takes_the_split_of_its_seed() -> None:
    train, val = stratified_split(EVEN, val_frac=0.2, seed=5)
    split = carve(numbered(200, EVEN), val_frac=0.2, split_seed=5, seed=0)
    assert torch.equal(split.train.x.flatten(), train)
    assert torch.equal(split.train.y, EVEN[train])
    assert torch.equal(split.val.x.flatten(), val)
    assert torch.equal(split.val.y, EVEN[val])
    assert split.fingerprint == fingerprint(train, val)


def test_split_seed_fixes_the_split_and_none_takes_it_from_the_run() -> None:
    fixed = {carve(numbered(200, EVEN), val_frac=0.2, split_seed=5, seed=seed).fingerprint for seed in range(4)}
    free = {carve(numbered(200, EVEN), val_frac=0.2, split_seed=None, seed=seed).fingerprint for seed in range(4)}
    assert len(fixed) == 1
    assert len(free) == 4


def test_values_are_split_without_classes() -> None:
    split = carve(numbered(50, torch.linspace(0, 1, 50).unsqueeze(1)), val_frac=0.2, split_seed=0, seed=0)
    assert (len(split.train), len(split.val)) == (40, 10)


@pytest.mark.parametrize("val_frac", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_share_that_leaves_one_side_empty_is_refused(val_frac: float) -> None:
    message = rf"^`val_frac` must be above 0 and below 1, got {val_frac}\. 0\.2 is usual\.$"
    with pytest.raises(InputError, match=message):
        check_val_frac(val_frac)
    with pytest.raises(InputError, match=message):
        stratified_split(EVEN, val_frac=val_frac, seed=0)


def test_class_with_one_example_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Class 7 has 1 example; two are needed to split it\. Add more\.$"):
        stratified_split(torch.tensor([0, 0, 7, 3, 3]), val_frac=0.2, seed=0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="`split_seed` must be 0 or more, got -1"):
        stratified_split(torch.zeros(10), val_frac=0.2, seed=-1)
