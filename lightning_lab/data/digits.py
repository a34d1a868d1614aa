"""Handwritten digits: the set that comes with scikit-learn (no download), or the labs' file ``digits.mat``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_lab.data.augment import Augment
from lightning_lab.data.batching import batching, check_batch_size
from lightning_lab.data.images import read_predict_folder
from lightning_lab.data.loader import Examples, TensorLoader, normalise
from lightning_lab.data.matfile import read_arrays
from lightning_lab.data.split import carve, check_val_frac, fingerprint, stratified_split
from lightning_lab.runs.errors import InputError, check_choice

#: Mean and standard deviation over all pixels of the training part at 16 x 16, in [0, 1].
BUNDLED_MEAN, BUNDLED_STD = (0.3055,), (0.3187,)
MAT_MEAN, MAT_STD = (0.2478,), (0.3659,)
# scikit-learn's set has no test part of its own: this seed sets a fifth of each class aside, for every run alike.
_TEST_SEED, _TEST_FRAC = 0, 0.2


class Digits(LightningDataModule):
    """Grey images of the digits 0 to 9.

    Without `path`: scikit-learn's 1797 digits of 8 x 8, enlarged to 16 x 16; a fixed fifth of each class is the test
    part. With `path`: the labs' 16 x 16 digits, 5000 to train, 5000 to validate and 1000 to test, as the file says; its
    labels 1 to 10 become the classes 0 to 9, named 1 to 9 and 0 after the digits they show.

    Args:
        path: ``digits.mat``, here or in $LIGHTNING_LAB_DATA; null for the bundled digits.
        image_size: Height and width, 16 to 32; other than 16 is resized (bilinear).
        batch_size: Examples in a global batch, over all processes.
        val_frac: Share of the training part kept for validation, in (0, 1). Without effect with `path`.
        split_seed: Fixes the split; None takes it from the run's seed. Without effect with `path`.
        augment: Random changes to training images; null for none.
        normalise: ``dataset`` subtracts one mean and divides by one spread; ``image`` does so with each image's own;
            ``centre`` subtracts each image's mean and does not divide (what the lab's code did, against its text);
            ``none`` leaves grey values in [0, 1].
        predict_folder: Images for the verb predict, made grey and resized.
        seed: The run's seed. The command line sets it from ``--seed_everything``.

    Shape:
        - Batches: x (B, 1, image_size, image_size), y (B,).

    Raises:
        InputError: If the file is missing or is not the labs' file.

    Reference:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        image_size: int = 16,
        batch_size: int = 32,
        val_frac: float = 0.2,
        split_seed: int | None = None,
        augment: Augment | None = None,
        normalise: Literal["dataset", "image", "centre", "none"] = "dataset",
        predict_folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_val_frac(val_frac)
        check_choice("normalise", normalise, ("dataset", "image", "centre", "none"))
        if not 16 <= image_size <= 32:
            raise ValueError(f"`image_size` must be 16 to 32 pixels, got {image_size}.")
        self.path = None if path is None else _found(Path(path).expanduser())
        self.batch_size = batch_size
        self.val_frac = val_frac
        self.split_seed = split_seed
        self.augment = augment
        self.normalise = normalise
        self.predict_folder = predict_folder
        self.seed = seed
        self.input_shape = (1, image_size, image_size)
        self.num_classes = 10
        # MATLAB counts from 1 and puts the zeros last: the file's label 1 is the digit 1, its 10 the digit 0.
        self.class_names = tuple("0123456789" if self.path is None else "1234567890")
        self.split_fingerprint: str | None = None
        self.predict_files: list[Path] = []
        self._parts: dict[str, Examples] = {}

    def setup(self, stage: str) -> None:
        """Read what the stage needs; the test part for ``"test"`` alone."""
        if stage in ("fit", "validate") and "train" not in self._parts:
            if self.path is not None:
                train, val = self._read_mat("X", "y"), self._read_mat("Xvalid", "yvalid")
                everyone = torch.arange(len(train) + len(val))
                name = fingerprint(everyone[: len(train)], everyone[len(train) :])
                self._parts |= {"train": train, "val": val}
            else:
                split = carve(_bundled("train"), val_frac=self.val_frac, split_seed=self.split_seed, seed=self.seed)
                name = split.fingerprint
                self._parts |= {"train": split.train, "val": split.val}
            self.split_fingerprint = name
        elif stage == "test":
            self._parts["test"] = _bundled("test") if self.path is None else self._read_mat("Xtest", "ytest")
        elif stage == "predict":
            read = read_predict_folder(self.predict_folder, channels=1, image_size=16)
            self.predict_files, self._parts["predict"] = read

    def train_dataloader(self) -> TensorLoader:
        """Shuffled and augmented batches of the training part."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """The validation part, in order."""
        return self._loader("val")

    def test_dataloader(self) -> TensorLoader:
        """The test part, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> TensorLoader:
        """The images of `predict_folder`, in the order of their names."""
        return self._loader("predict")

    @property
    def normalisation(self) -> dict[str, Any]:
        """How a pixel in [0, 1] becomes what the net reads, for whoever feeds an exported net."""
        if self.normalise != "dataset":
            return {"kind": self.normalise}
        mean, std = (BUNDLED_MEAN, BUNDLED_STD) if self.path is None else (MAT_MEAN, MAT_STD)
        return {"kind": "dataset", "mean": list(mean), "std": list(std)}

    def _loader(self, part: str, *, shuffle: bool = False) -> TensorLoader:
        examples = self._parts[part]
        if self.input_shape[1] != 16:
            examples = Examples(_resize(examples.x, self.input_shape[1]), examples.y)
        return TensorLoader(
            examples,
            augment=self.augment if shuffle else None,
            prepare=self._prepare,
            **batching(self, examples.x, train=shuffle),
        )

    def _prepare(self, x: Tensor) -> Tensor:
        if self.normalise == "dataset":
            if self.path is None:
                return normalise(x, mean=BUNDLED_MEAN, std=BUNDLED_STD)
            return normalise(x, mean=MAT_MEAN, std=MAT_STD)
        x = normalise(x, mean=(0.0,), std=(1.0,))
        if self.normalise == "none":
            return x
        std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        # An empty image has no spread; it stays zero instead of becoming NaN.
        return (x - mean) / std.clamp_min(1e-6) if self.normalise == "image" else x - mean

    def _read_mat(self, images: str, labels: str) -> Examples:
        assert self.path is not None
        try:
            content = read_arrays(self.path, (images, labels))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path} is not the labs' digits.mat, or is damaged ({error}): expected MATLAB arrays X, y, "
                "Xvalid, yvalid, Xtest, ytest. Get the file anew."
            ) from error
        x, y = content[images], content[labels]
        right_shape = x.ndim == 2 and x.shape[1] == 256 and 0 < len(x) == y.size
        if not (right_shape and _whole(x, 0, 255) and _whole(y, 1, 10)):
            raise InputError(
                f"{self.path}: `{images}` is {x.shape} of {x.dtype} and `{labels}` {y.shape} of {y.dtype}; expected "
                "(N, 256) whole grey values from 0 to 255 and N labels from 1 to 10."
            )
        # MATLAB stores images column by column: swap the axes back.
        pixels = torch.from_numpy(x.astype(np.uint8)).view(-1, 1, 16, 16).transpose(2, 3).contiguous()
        return Examples(pixels, torch.from_numpy(y.reshape(-1).astype(np.int64)) - 1)


def _found(path: Path) -> Path:
    # Joined to an absolute path, the folder drops out.
    places = [Path(folder).expanduser() / path for folder in (".", os.environ.get("LIGHTNING_LAB_DATA")) if folder]
    for place in places:
        if place.is_file():
            return place
    where = "" if path.is_absolute() else ", neither here nor in $LIGHTNING_LAB_DATA"
    raise InputError(f"There is no file {path}{where}. Give digits.mat, or leave `path` out for bundled digits.")


def _bundled(part: Literal["train", "test"]) -> Examples:
    from sklearn.datasets import load_digits  # slow to import, and not needed for digits.mat

    pixels, labels = load_digits(return_X_y=True)
    y = torch.from_numpy(labels).long()
    small = torch.from_numpy(np.round(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)  # grey is 0 to 16
    train, test = stratified_split(y, val_frac=_TEST_FRAC, seed=_TEST_SEED)
    return Examples(_resize(small, 16), y).subset(train if part == "train" else test)


def _whole(values: np.ndarray, low: int, high: int) -> bool:
    if values.dtype.kind not in "iuf":
        return False
    # NaN fails the comparisons, and so is refused too.
    return bool(((values >= low) & (values <= high) & (values == np.floor(values))).all())


def _resize(x: Tensor, size: int) -> Tensor:
    enlarged = F.interpolate(x.float(), size=(size, size), mode="bilinear", antialias=True)
    return enlarged.round_().clamp_(0, 255).to(torch.uint8)
