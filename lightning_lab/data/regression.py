"""One-dimensional functions to be learnt from samples, as in lab B."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_lab.data.batching import batching, check_batch_size
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.data.split import carve, check_val_frac
from lightning_lab.runs.errors import InputError, check_choice
from lightning_lab.runs.seeds import stream_seed

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log2_cos": lambda x: torch.log2(x) + torch.cos(torch.pi * x / 2),  # the lab sheet's
    "sine": torch.sin,
    "runge": lambda x: 1 / (1 + 25 * x**2),
    "absolute": torch.abs,
    "step": lambda x: (x > 0).to(x.dtype),
}
#: Of numbers whose squares, which the loss adds up, are finite in float32.
_LARGEST = 1e15


class Regression(LightningDataModule):
    """Samples (x, f(x) + noise) with x uniform on [low, high].

    Args:
        function: Which f: ``log2_cos`` is log2(x) + cos(pi x / 2), ``runge`` 1 / (1 + 25 x^2), ``step`` 1 above 0.
        low: Left end of the range; above 0 for ``log2_cos``.
        high: Right end of the range, above `low`.
        num_samples: Samples in all, 10 to 10 000 000.
        test_frac: Share of the samples set aside for the test, in (0, 1).
        val_frac: Share of the rest kept for validation, in (0, 1).
        noise: Standard deviation of normal noise added to training and validation targets, at least 0. Test targets
            have none: the test measures how well f itself was learnt.
        standardise: Give the net (x - mean) / std with the mean and std of the uniform distribution; false gives x.
        batch_size: Examples in a global batch, over all processes.
        data_seed: Decides which samples are drawn; the same for every run unless changed.
        split_seed: Fixes the split; None takes it from the run's seed.
        seed: The run's seed. The command line sets it from ``--seed_everything``.

    Shape:
        - Batches: x (B, 1), y (B, 1).

    Raises:
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        *,
        function: Literal["log2_cos", "sine", "runge", "absolute", "step"] = "log2_cos",
        low: float = 1.0,
        high: float = 16.0,
        num_samples: int = 5000,
        test_frac: float = 0.2,
        val_frac: float = 0.2,
        noise: float = 0.0,
        standardise: bool = True,
        batch_size: int = 32,
        data_seed: int = 0,
        split_seed: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_val_frac(val_frac)
        if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(noise)):
            raise ValueError(f"`low`, `high` and `noise` must be finite, got {low}, {high} and {noise}.")
        check_choice("function", function, FUNCTIONS)
        if not low < high:
            raise ValueError(f"`high` must be above `low`, got `low` {low} and `high` {high}.")
        if function == "log2_cos" and low <= 0:
            raise ValueError(f"`low` must be above 0 for the function log2_cos, got {low}.")
        if max(abs(low), abs(high), noise) > _LARGEST:
            raise ValueError(
                f"`low`, `high` and `noise` must be at most {_LARGEST:g} in size, got {low}, {high} and {noise}."
            )
        if torch.tensor(low) == torch.tensor(high):
            raise ValueError(f"`low` {low} and `high` {high} are the same number in float32. Choose a wider range.")
        if not 10 <= num_samples <= 10_000_000:
            raise ValueError(f"`num_samples` must be 10 to 10 000 000, got {num_samples}.")
        if not 0 < test_frac < 1:
            raise ValueError(f"`test_frac` must be above 0 and below 1, got {test_frac}.")
        if noise < 0:
            raise ValueError(f"`noise` must be at least 0, got {noise}.")
        self.function = function
        self.low = low
        self.high = high
        self.num_test = min(max(round(num_samples * test_frac), 1), num_samples - 4)
        self.num_train = num_samples - self.num_test
        if self.num_test < 2:  # R2 compares with the spread, which one value does not have
            raise ValueError(f"`test_frac` {test_frac} of {num_samples} samples leaves fewer than two to test on.")
        if round(self.num_train * val_frac) < 2:
            raise ValueError(f"`val_frac` {val_frac} of {self.num_train} samples leaves fewer than two to validate on.")
        self.val_frac = val_frac
        self.noise = noise
        self.standardise = standardise
        self.batch_size = batch_size
        self.data_seed = data_seed
        self.split_seed = split_seed
        self.seed = seed
        self.input_shape = (1,)
        self.split_fingerprint: str | None = None
        self._parts: dict[str, Examples] = {}

    def setup(self, stage: str) -> None:
        """Draw what the stage needs; the test samples for ``"test"`` alone."""
        if stage in ("fit", "validate") and "train" not in self._parts:
            examples = self._sample(self.num_train, part=0, noise=self.noise)
            split = carve(examples, val_frac=self.val_frac, split_seed=self.split_seed, seed=self.seed)
            self.split_fingerprint = split.fingerprint
            self._parts |= {"train": split.train, "val": split.val}
        elif stage == "test":
            self._parts["test"] = self._sample(self.num_test, part=1, noise=0.0)
        elif stage == "predict":
            grid = torch.linspace(self.low, self.high, 1001).unsqueeze(1)
            self._parts["predict"] = Examples(grid, self._finite(self.evaluate(grid)))

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the training part."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """The validation part, in order."""
        return self._loader("val")

    def test_dataloader(self) -> TensorLoader:
        """The test part, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> TensorLoader:
        """An even grid of 1001 points over the range."""
        return self._loader("predict")

    @property
    def normalisation(self) -> dict[str, Any]:
        """How x becomes what the net reads, for whoever feeds an exported net."""
        if not self.standardise:
            return {"kind": "none"}
        # A uniform distribution on [a, b] has mean (a + b) / 2 and variance (b - a)^2 / 12.
        return {"kind": "standardised", "mean": [(self.low + self.high) / 2], "std": [(self.high - self.low) / 12**0.5]}

    @property
    def predict_inputs(self) -> Tensor:
        """The x of the grid that predict evaluates. Shape (1001, 1)."""
        return self._parts["predict"].x

    def evaluate(self, x: Tensor) -> Tensor:
        """Compute f(x) without noise."""
        return FUNCTIONS[self.function](x)

    def _loader(self, part: str, *, shuffle: bool = False) -> TensorLoader:
        return TensorLoader(
            self._parts[part],
            prepare=self._prepare if self.standardise else None,
            **batching(self, self._parts[part].x, train=shuffle),
        )

    def _prepare(self, x: Tensor) -> Tensor:
        # A uniform distribution on [a, b] has mean (a + b) / 2 and variance (b - a)^2 / 12.
        return (x - (self.low + self.high) / 2) / ((self.high - self.low) / 12**0.5)

    def _sample(self, size: int, *, part: int, noise: float) -> Examples:
        generator = torch.Generator().manual_seed(stream_seed(self.data_seed, "split", part))
        # In float64, so that the targets are exact to float32.
        x = self.low + (self.high - self.low) * torch.rand(size, 1, generator=generator, dtype=torch.float64)
        y = self.evaluate(x) + noise * torch.randn(size, 1, generator=generator, dtype=torch.float64)
        return Examples(x.float(), self._finite(y.float()))

    def _finite(self, y: Tensor) -> Tensor:
        if not y.isfinite().all():
            raise InputError(
                f"{self.function} is not finite everywhere from `low` {self.low} to `high` {self.high}. Choose a range "
                "in which it is."
            )
        return y
