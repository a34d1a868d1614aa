"""Samples of functions against their closed forms, and the moments of a uniform distribution."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_lab.data import Regression
from lightning_lab.data.regression import FUNCTIONS
from lightning_lab.runs.errors import InputError

CLOSED_FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log2_cos": lambda x: np.log(x) / np.log(2) + np.cos(np.pi / 2 * x),
    "sine": np.sin,
    "runge": lambda x: 1 / (1 + 25 * x * x),
    "absolute": lambda x: np.sqrt(x * x),
    "step": lambda x: np.heaviside(x, 0.0),
}
RANGES: dict[str, tuple[float, float]] = {
    "log2_cos": (1.0, 16.0),
    "sine": (-6.0, 6.0),
    "runge": (-1.0, 1.0),
    "absolute": (-2.0, 3.0),
    "step": (-1.0, 2.0),
}


def ready(*stages: str, **settings: Any) -> Regression:
    module = Regression(**{"num_samples": 100} | settings)
    [module.setup(stage) for stage in stages]
    return module


def test_every_function_has_its_closed_form_here() -> None:
    assert set(CLOSED_FORMS) == set(FUNCTIONS)


@pytest.mark.parametrize("part", ["train", "val", "test", "predict"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_targets_are_the_closed_form(function: Any, part: str) -> None:
    low, high = RANGES[function]
    module = ready("fit", "test", "predict", function=function, low=low, high=high)
    examples = module._parts[part]
    assert (examples.x.dtype, examples.y.dtype) == (torch.float32, torch.float32)
    expected = CLOSED_FORMS[function](examples.x.double().numpy())
    np.testing.assert_allclose(examples.y.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(1.0, 16.0), (3.0, 3.5)])
def test_samples_fill_the_range(low: float, high: float) -> None:
    module = ready("fit", low=low, high=high, num_samples=2000)
    x = module._parts["train"].x
    assert x.shape == (1280, 1)
    assert low <= x.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < x.max() <= high


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (64, 16, 20)),
        ({"test_frac": 0.5, "val_frac": 0.1}, (45, 5, 50)),
        ({"num_samples": 10, "test_frac": 0.2}, (6, 2, 2)),
        ({"num_samples": 10, "test_frac": 0.999, "val_frac": 0.5}, (2, 2, 6)),
    ],
)
def test_shares_are_those_asked_for(settings: dict[str, Any], sizes: tuple[int, int, int]) -> None:
    module = ready("fit", "test", **settings)
    assert tuple(len(module._parts[part]) for part in ("train", "val", "test")) == sizes


# --- what the net is given ---


@pytest.mark.parametrize(("low", "high"), [(1.0, 16.0), (100.0, 101.0)])
def test_standardised_inputs_have_zero_mean_and_unit_spread(low: float, high: float) -> None:
    module = ready("fit", low=low, high=high, num_samples=5000, batch_size=5000)
    (batch,) = module.train_dataloader()
    # 3200 samples: the standard errors are 1 / sqrt(3200) = 0.018 and about half of it.
    assert abs(batch.x.mean()) < 0.06
    assert abs(batch.x.std() - 1) < 0.03
    assert batch.x.abs().max() <= 3**0.5 + 1e-4  # the ends of a uniform distribution of unit spread


def test_standardising_is_linear_and_leaves_the_targets() -> None:
    module = ready("predict", low=2.0, high=8.0, batch_size=2000)
    (batch,) = module.predict_dataloader()
    expected = (torch.linspace(2, 8, 1001, dtype=torch.float64) - 5) / (6 / 12**0.5)
    torch.testing.assert_close(batch.x.flatten().double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(batch.y, module._parts["predict"].y)


def test_inputs_can_be_left_as_they_are() -> None:
    module = ready("test", standardise=False, batch_size=100)
    (batch,) = module.test_dataloader()
    assert torch.equal(batch.x, module._parts["test"].x)


def test_predict_reads_an_even_grid_over_the_range() -> None:
    module = ready("predict", low=2.0, high=8.0)
    grid = module.predict_inputs
    assert grid.shape == (1001, 1)
    np.testing.assert_allclose(grid.flatten().numpy(), np.linspace(2, 8, 1001), rtol=0, atol=1e-6)


# --- noise ---


def test_noise_is_normal_with_the_spread_asked_for_and_outside_the_test() -> None:
    clean, noisy = (ready("fit", "test", num_samples=5000, noise=noise) for noise in (0.0, 0.3))
    added = torch.cat([noisy._parts[part].y - clean._parts[part].y for part in ("train", "val")])
    assert abs(added.mean()) < 0.02  # 4000 draws: the standard errors are 0.005 and 0.003
    assert abs(added.std() - 0.3) < 0.02
    assert abs((added.abs() < 0.3).float().mean() - 0.6827) < 0.03
    assert torch.equal(noisy._parts["test"].y, clean._parts["test"].y)


@pytest.mark.parametrize("part", ["train", "val"])
def test_noise_changes_no_sample(part: str) -> None:
    clean, noisy = (ready("fit", noise=noise, split_seed=0) for noise in (0.0, 0.3))
    assert torch.equal(noisy._parts[part].x, clean._parts[part].x)


# --- the test samples ---


def test_test_samples_are_others_than_those_of_training() -> None:
    module = ready("fit", "test", num_samples=1000)
    seen = torch.cat([module._parts["train"].x, module._parts["val"].x])
    assert not torch.isin(module._parts["test"].x, seen).any()
    assert not torch.isin(module._parts["val"].x, module._parts["train"].x).any()


@pytest.mark.parametrize("settings", [{"seed": 3}, {"split_seed": 3}, {"val_frac": 0.5}, {"noise": 0.5}])
def test_test_samples_are_the_same_for_every_run(settings: dict[str, Any]) -> None:
    one, other = ready("test")._parts["test"], ready("test", **settings)._parts["test"]
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_data_seed_draws_other_samples(part: str) -> None:
    one, other = (ready("fit", "test", data_seed=seed, split_seed=0)._parts[part] for seed in (0, 1))
    assert not torch.isin(one.x, other.x).any()


@pytest.mark.parametrize(
    ("stage", "opened"),
    [("fit", {"train", "val"}), ("validate", {"train", "val"}), ("test", {"test"}), ("predict", {"predict"})],
)
def test_a_stage_draws_its_own_parts_alone(stage: str, opened: set[str]) -> None:
    assert set(ready(stage)._parts) == opened


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 2.0, "high": 2.0}, "`high` must be above `low`, got `low` 2.0 and `high` 2.0."),
        ({"low": 3.0, "high": 2.0}, "`high` must be above `low`, got `low` 3.0 and `high` 2.0."),
        ({"low": 0.0}, "`low` must be above 0 for the function log2_cos, got 0.0."),
        ({"low": -1.0}, "`low` must be above 0 for the function log2_cos, got -1.0."),
        ({"num_samples": 9}, "`num_samples` must be 10 to 10 000 000, got 9."),
        ({"num_samples": 10**12}, "`num_samples` must be 10 to 10 000 000, got 1000000000000."),
        ({"high": 1e308}, "`low`, `high` and `noise` must be at most 1e+15 in size, got 1.0, 1e+308 and 0.0."),
        ({"noise": 1e39}, "`low`, `high` and `noise` must be at most 1e+15 in size, got 1.0, 16.0 and 1e+39."),
        (
            {"low": 1e9, "high": 1e9 + 1},
            "`low` 1000000000.0 and `high` 1000000001.0 are the same number in float32. Choose a wider range.",
        ),
        ({"test_frac": 0.0}, "`test_frac` must be above 0 and below 1, got 0.0."),
        ({"test_frac": 1.0}, "`test_frac` must be above 0 and below 1, got 1.0."),
        ({"num_samples": 10, "test_frac": 0.001}, "`test_frac` 0.001 of 10 samples leaves fewer than two to test on."),
        (
            {"function": "cos"},
            "`function`: Unknown word 'cos'. Did you mean 'log2_cos'? Known: absolute, log2_cos, runge, sine, step.",
        ),
        ({"noise": -0.1}, "`noise` must be at least 0, got -0.1."),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Regression(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "`batch_size` must be at least 1, got 0"), ({"val_frac": 0.0}, "`val_frac` must be above 0")],
)
def test_batch_size_and_val_frac_are_checked_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Regression(**settings)


@pytest.mark.parametrize("setting", [{"high": float("inf")}, {"noise": float("nan")}])
def test_what_is_not_finite_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="`low`, `high` and `noise` must be finite"):
        Regression(**setting)


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_a_function_that_is_not_finite_in_the_range_is_refused(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "sine", torch.sqrt)  # not a number below 0
    message = "sine is not finite everywhere from `low` -1.0 to `high` 2.0. Choose a range in which it is."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        ready(stage, function="sine", low=-1.0, high=2.0)


def test_one_sample_is_too_few_to_validate_on() -> None:
    message = "`val_frac` 0.01 of 8 samples leaves fewer than two to validate on."
    with pytest.raises(ValueError, match=re.escape(message)):
        Regression(num_samples=10, val_frac=0.01)
