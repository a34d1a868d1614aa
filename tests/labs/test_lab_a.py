"""Lab A's formulas in NumPy against the parts of this project that take their place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_lab.callbacks.penalty import add_penalty
from lightning_lab.data import Digits
from lightning_lab.nets import MLP
from lightning_lab.tasks import Classification

RNG = np.random.default_rng(5)
LOGITS, LABELS = RNG.normal(size=(12, 10)) * 3, RNG.integers(0, 10, 12)
ONE_HOT = np.eye(10)[LABELS]


class Given(nn.Module):
    """Gives its parameter as logits, so that the gradient by the logits can be read."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(LOGITS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def loss_and_gradient(**settings: Any) -> tuple[float, np.ndarray]:
    task = Classification(Given(), **settings)
    loss = task.training_step((torch.zeros(12, 1), torch.from_numpy(LABELS)), 0)
    loss.backward()
    return loss.item(), task.net.logits.grad.numpy()  # type: ignore[union-attr]


# --- losses (A7) ---


def test_softmax_and_negative_log_likelihood() -> None:
    """-x_j + log sum exp x, and its gradient softmax(x) - one-hot."""
    loss, gradient = loss_and_gradient()
    each = -LOGITS[np.arange(12), LABELS] + np.log(np.exp(LOGITS).sum(axis=1))
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(each.mean(), rel=1e-12)
    assert gradient == pytest.approx((softmax - ONE_HOT) / 12, rel=1e-9, abs=1e-15)


def test_the_unsquared_distance() -> None:
    """||x - y||_2, and its gradient (x - y) / ||x - y||_2."""
    loss, gradient = loss_and_gradient(loss="norm")
    norms = np.sqrt(((LOGITS - ONE_HOT) ** 2).sum(axis=1, keepdims=True))
    assert loss == pytest.approx(norms.mean(), rel=1e-12)
    assert gradient == pytest.approx((LOGITS - ONE_HOT) / norms / 12, rel=1e-9)


# --- a step of the lab's framework ---


@pytest.mark.parametrize("bias", ["vector", "column"])
def test_forward_backward_and_step_of_two_layers(bias: Any) -> None:
    """`Wx + b` (A8: or [x, 1] [W, b] without b), ReLU, softmax, and a step down the gradient, layer by layer."""
    net = MLP(in_features=6, hidden=(5,), out_features=10, bias=bias).double()
    extended = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    first, second = (
        layer.weight.detach().numpy()
        if layer.bias is None
        else np.column_stack([layer.weight.detach().numpy(), layer.bias.detach().numpy()])
        for layer in extended
    )
    x = RNG.normal(size=(12, 6))
    x1 = np.column_stack([x, np.ones(12)])
    hidden = x1 @ first.T
    h1 = np.column_stack([np.maximum(hidden, 0), np.ones(12)])
    logits = h1 @ second.T
    at_logits = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - ONE_HOT) / 12
    at_hidden = (at_logits @ second)[:, :-1] * (hidden > 0)
    expected = (first - 0.1 * at_hidden.T @ x1, second - 0.1 * at_logits.T @ h1)

    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    Classification(net).training_step((torch.from_numpy(x), torch.from_numpy(LABELS)), 0).backward()
    optimiser.step()
    for layer, weights in zip(extended, expected, strict=True):
        assert layer.weight.detach().numpy() == pytest.approx(weights[:, : layer.weight.shape[1]], rel=1e-9)
        if layer.bias is not None:
            assert layer.bias.detach().numpy() == pytest.approx(weights[:, -1], rel=1e-9)


# --- momentum (A3) ---


def quadratic(w: np.ndarray) -> np.ndarray:
    """The gradient of w' diag(1, 10) w / 2 + cos w."""
    return np.array([1.0, 10.0]) * w - np.sin(w)


def by_torch(lr: float, momentum: float, steps: int) -> np.ndarray:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimiser = torch.optim.SGD([weight], lr=lr, momentum=momentum)
    path = []
    for _ in range(steps):
        weight.grad = torch.from_numpy(quadratic(weight.detach().numpy()))
        optimiser.step()
        path.append(weight.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_labs_heavy_ball_is_torchs_momentum_at_a_higher_rate(momentum: float) -> None:
    """`w -= lr*g; w += m*(w - w_last)`, w_last from the end of the step before last: torch with the rate lr (1 + m)."""
    w = last = np.array([1.0, -2.0])
    path = []
    for _ in range(30):
        moved = w - 0.02 * quadratic(w)
        last, w = w, moved + momentum * (moved - last)
        path.append(w)
    assert by_torch(0.02 * (1 + momentum), momentum, 30) == pytest.approx(np.array(path), rel=1e-9, abs=1e-12)
    if momentum:
        assert by_torch(0.02, momentum, 30) != pytest.approx(np.array(path), rel=1e-3)


def test_measured_from_the_step_itself_it_would_be_no_momentum() -> None:
    """With w_last = w right before `w -= lr*g` it is a higher rate and nothing else."""
    w = np.array([1.0, -2.0])
    for _ in range(10):
        moved = w - 0.02 * quadratic(w)
        w = moved + 0.9 * (moved - w)
    assert by_torch(0.02 * 1.9, 0.0, 10)[-1] == pytest.approx(w, rel=1e-9)


# --- penalty (A5) ---


def test_the_gradient_of_the_norm() -> None:
    """penalty * W / ||W||_F."""
    weights = RNG.normal(size=(7, 4))
    parameter = nn.Parameter(torch.from_numpy(weights.copy()))
    parameter.grad = torch.full((7, 4), 0.25, dtype=torch.float64)
    with torch.no_grad():
        value = add_penalty([parameter], "norm", 0.3)
    norm = np.linalg.norm(weights, "fro")
    assert float(value) == pytest.approx(0.3 * norm, rel=1e-12)
    assert parameter.grad.numpy() == pytest.approx(0.25 + 0.3 * weights / norm, rel=1e-12)


# --- dropout (A9) ---


@pytest.mark.parametrize("keep", [0.8, 0.5])
def test_dropout_is_inverted_and_the_labs_p_keeps(keep: float) -> None:
    """What is kept is divided by the lab's p, which is 1 - dropout; nothing is left to do in evaluation."""
    net = MLP(in_features=3, hidden=(4000,), out_features=4000, dropout=1 - keep, bias="none").double()
    x = torch.from_numpy(RNG.normal(size=(1, 3)))
    with torch.no_grad():
        net.layers[0].weight.abs_()  # type: ignore[operator, union-attr]
        net.layers[-1].weight.copy_(torch.eye(4000))  # type: ignore[operator, union-attr]
        hidden = np.maximum(x.abs().numpy() @ net.layers[0].weight.numpy().T, 0)  # type: ignore[union-attr, operator]
        torch.manual_seed(0)
        trained, evaluated = net.train()(x.abs()).numpy(), net.eval()(x.abs()).numpy()
    kept = trained != 0
    assert trained[kept] == pytest.approx((hidden / keep)[kept], rel=1e-12)
    assert evaluated == pytest.approx(hidden, rel=1e-12)
    assert kept.mean() == pytest.approx(keep, abs=4 * math.sqrt(keep * (1 - keep) / 4000))


# --- preprocessing ---


@pytest.mark.parametrize("normalise", ["centre", "image"])
def test_each_image_by_its_own_mean_and_spread(normalise: Any) -> None:
    """Grey / 255, less the image's mean; then over its std, which the lab's code forgot. Torch's std counts n - 1."""
    data = Digits(normalise=normalise)
    data.setup("fit")
    loader = data.val_dataloader()
    grey = loader.examples.x.numpy().astype(np.float64)[: loader.batch_size] / 255
    expected = grey - grey.mean(axis=(1, 2, 3), keepdims=True)
    if normalise == "image":
        expected = expected / grey.std(axis=(1, 2, 3), keepdims=True, ddof=1)
        assert np.sqrt(256 / 255) * expected.std(axis=(1, 2, 3)) == pytest.approx(1.0)
    assert next(iter(loader)).x.numpy() == pytest.approx(expected, abs=1e-5)


# --- first weights (A13) ---


@pytest.mark.parametrize(
    ("initialisation", "std"),
    [("standard_normal", 1.0), ("xavier", 1 / math.sqrt(300 + 200)), ("kaiming", math.sqrt(2 / 300))],
)
def test_spread_of_the_first_weights(initialisation: Any, std: float) -> None:
    torch.manual_seed(1)
    net = MLP(in_features=300, hidden=(200,), out_features=10, initialisation=initialisation)
    weights = net.layers[0].weight.detach().numpy()  # type: ignore[union-attr, operator]
    # The relative error of a normal sample's std is 1 / sqrt(2 n).
    assert weights.std() == pytest.approx(std, rel=4 / math.sqrt(2 * weights.size))
    assert abs(weights.mean()) < 4 * std / math.sqrt(weights.size)
    assert (net.layers[0].bias == 0).all()  # type: ignore[union-attr]
