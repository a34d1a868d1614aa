"""Ridge regression from moments against scikit-learn, and against least squares of the augmented matrix by scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import Ridge

from lightning_lab.callbacks.ridge import Moments, ridge_solution


def rows(count: int = 60, inputs: int = 7, outputs: int = 3, offset: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(count)
    x = generator.normal(size=(count, inputs)) + offset
    y = np.tanh(x[:, :outputs] - offset) + 0.1 * generator.normal(size=(count, outputs)) + 1
    return torch.from_numpy(x), torch.from_numpy(y)


def in_parts(x: torch.Tensor, y: torch.Tensor, *sizes: int) -> Moments:
    parts = [Moments.of(a, b) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total.with_more(part)
    return total


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [1e-6, 0.1, 10.0])
@pytest.mark.parametrize("sizes", [(60,), (25, 25, 10), (0, 60), (59, 0, 1, 0)])
def test_against_scikit_learn(bias: bool, ridge: float, sizes: tuple[int, ...]) -> None:
    x, y = rows()
    centred = x - x.mean(0) if bias else x
    alpha = ridge * float((centred**2).sum()) / 7  # of the trace of X'X
    oracle = Ridge(alpha=alpha, fit_intercept=bias, solver="svd").fit(x, y)
    weight, offset = ridge_solution(in_parts(x, y, *sizes), 7, ridge, bias=bias)
    assert weight.numpy() == pytest.approx(oracle.coef_, rel=1e-9, abs=1e-12)
    assert offset.numpy() == pytest.approx(np.broadcast_to(oracle.intercept_, 3), rel=1e-9, abs=1e-12)


def test_against_least_squares_of_the_augmented_matrix() -> None:
    x, y = rows()
    alpha = 0.05 * float((x**2).sum()) / 7
    augmented = np.vstack([x.numpy(), np.sqrt(alpha) * np.eye(7)])
    oracle = scipy.linalg.lstsq(augmented, np.vstack([y.numpy(), np.zeros((7, 3))]))[0]
    weight, _ = ridge_solution(in_parts(x, y, 31, 29), 7, 0.05, bias=False)
    assert weight.numpy() == pytest.approx(oracle.T, rel=1e-9)


def test_a_large_mean_costs_no_digits() -> None:
    x, y = rows(offset=0.0)
    far = x.float().double() + 2.0**20  # exact
    weights = [ridge_solution(in_parts(one, y, 20, 40), 7, 1e-10, bias=True)[0] for one in (x.float().double(), far)]
    assert weights[1].numpy() == pytest.approx(weights[0].numpy(), rel=1e-7)


def test_dead_and_doubled_inputs_have_a_small_solution() -> None:
    x, y = rows()
    x = torch.cat([x, x[:, :1], torch.zeros(60, 2, dtype=x.dtype)], dim=1)
    weight, offset = ridge_solution(in_parts(x, y, 60), 10, 1e-8, bias=True)
    plain, _ = ridge_solution(in_parts(x[:, :7], y, 60), 7, 1e-8, bias=True)
    assert (weight[:, 8:] == 0).all()
    assert weight[:, 7].numpy() == pytest.approx(weight[:, 0].numpy(), rel=1e-6)  # shared alike
    assert (weight[:, 0] + weight[:, 7]).numpy() == pytest.approx(plain[:, 0].numpy(), rel=1e-5)
    assert offset.isfinite().all()


def test_inputs_that_are_all_the_same_leave_the_mean() -> None:
    _, y = rows()
    weight, offset = ridge_solution(in_parts(torch.full((60, 4), 2.0), y, 60), 4, 1e-4, bias=True)
    assert (weight == 0).all()
    assert offset.numpy() == pytest.approx(y.mean(0).numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_several_at_once_are_each_its_own(bias: bool) -> None:
    both = [rows(60), rows(60, offset=-1.0)]
    x, y = (torch.stack(list(one)) for one in zip(*both, strict=True))
    total = Moments.of(x[:, :20], y[:, :20]).with_more(Moments.of(x[:, 20:], y[:, 20:]))
    weights, offsets = ridge_solution(total, 7, 1e-3, bias=bias)
    for index, (one, other) in enumerate(both):
        weight, offset = ridge_solution(in_parts(one, other, 20, 40), 7, 1e-3, bias=bias)
        assert weights[index].numpy() == pytest.approx(weight.numpy(), rel=1e-12)
        assert offsets[index].numpy() == pytest.approx(offset.numpy(), rel=1e-12)
