"""Muon against the singular value decomposition and against torch's SGD, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_lab.optimizers import Muon, orthogonalise


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 30), (30, 8), (1, 5)])
def test_orthogonalised_has_the_singular_vectors_of_the_matrix_and_values_near_one(rows: int, columns: int) -> None:
    x = matrix(rows, columns)
    found = orthogonalise(x, steps=5)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    core = u.T @ found @ v.T  # diagonal where the singular vectors are shared
    values = core.diag()
    assert (core - values.diag()).abs().max() < 1e-4
    assert 0.6 < values.min() <= values.max() < 1.3


def test_orthogonalising_agrees_with_torchs_muon() -> None:
    weights, gradient = matrix(6, 20), matrix(6, 20, seed=1)
    theirs = nn.Parameter(weights.clone())
    theirs.grad = gradient.clone()
    torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
    step = weights - theirs.detach()
    step = step / step.norm() * orthogonalise(gradient, steps=5).norm()  # torch scales it by the shape
    # torch iterates in bf16.
    torch.testing.assert_close(step, orthogonalise(gradient, steps=5), atol=0.03, rtol=0)


def test_a_filter_bank_keeps_its_norm_and_moves_by_the_orthogonalised_momentum() -> None:
    weights = nn.Parameter(matrix(4, 18).reshape(4, 2, 3, 3))
    optimizer = Muon([weights], lr=0.1, momentum=0.5, ns_steps=4)
    momentum = torch.zeros(4, 18)
    for seed in (1, 2, 3):
        gradient = matrix(4, 18, seed=seed)
        before = weights.detach().clone()
        weights.grad = gradient.reshape(4, 2, 3, 3)
        optimizer.step()
        momentum = 0.5 * momentum + gradient
        direction = orthogonalise(gradient + 0.5 * momentum, steps=4).reshape(4, 2, 3, 3)
        expected = before * (2 / before.norm()) - 0.1 * direction  # 2 is the root of 4 filters
        torch.testing.assert_close(weights.detach(), expected)


@pytest.mark.parametrize(("shape", "rate"), [((3, 5), "head_lr"), ((5,), "bias_lr")])
def test_other_parameters_move_as_with_nesterov_sgd(shape: tuple[int, ...], rate: str) -> None:
    start = matrix(5, 5)[: shape[0], : shape[-1]].reshape(-1)[: torch.Size(shape).numel()].reshape(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rates: dict[str, Any] = {"head_lr": 9.0, "bias_lr": 9.0, rate: 0.3}
    muon = Muon([ours], other_momentum=0.8, weight_decay=0.03, **rates)
    sgd = torch.optim.SGD([theirs], lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.1)
    for seed in range(4):
        ours.grad = matrix(5, 5, seed).reshape(-1)[: start.numel()].reshape(shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_frozen_parameters_and_those_without_gradient_stay() -> None:
    frozen = nn.Parameter(torch.ones(2, 2, 1, 1), requires_grad=False)
    idle = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([frozen, idle])
    optimizer.step()
    assert torch.equal(frozen, torch.ones(2, 2, 1, 1))
    assert torch.equal(idle, torch.ones(2, 2))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_a_closure_is_called_once_with_gradients_on() -> None:
    weight = nn.Parameter(torch.ones(3))
    calls = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        weight.grad = torch.ones(3)
        return 2.5

    assert Muon([weight], bias_lr=0.5, other_momentum=0.0).step(closure) == 2.5
    assert calls == [True]
    assert torch.equal(weight, torch.full((3,), 0.5))


def test_a_saved_state_goes_on_where_it_was() -> None:
    def run(weight: nn.Parameter, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            weight.grad = matrix(4, 18, seed).reshape(4, 2, 3, 3)
            optimizer.step()

    start = matrix(4, 18).reshape(4, 2, 3, 3)
    whole, part = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    run(whole, Muon([whole]), range(5))
    first = Muon([part])
    run(part, first, range(2))
    second = Muon([part], lr=0.5)
    second.load_state_dict(first.state_dict())
    run(part, second, range(2, 5))
    assert torch.equal(whole, part)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("lr", -0.1, "`lr` must be at least 0, got -0.1."),
        ("head_lr", float("nan"), "`head_lr` must be at least 0, got nan."),
        ("bias_lr", -1.0, "`bias_lr` must be at least 0, got -1.0."),
        ("weight_decay", -1.0, "`weight_decay` must be at least 0, got -1.0."),
        ("momentum", 1.0, "`momentum` must be in [0, 1), got 1.0."),
        ("other_momentum", -0.1, "`other_momentum` must be in [0, 1), got -0.1."),
        ("ns_steps", 0, "`ns_steps` must be at least 1, got 0."),
    ],
)
def test_wrong_arguments_are_refused(argument: str, value: float, message: str) -> None:
    settings: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Muon([nn.Parameter(torch.ones(2))], **settings)
