"""A user's own images: ``root/train/<class>/*`` and ``root/test/<class>/*``."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from lightning_lab.data.augment import Augment
from lightning_lab.data.batching import batching, check_batch_size
from lightning_lab.data.images import read_predict_folder, read_tree
from lightning_lab.data.listing import check_same_classes, class_folders
from lightning_lab.data.loader import Examples, TensorLoader, normalise
from lightning_lab.data.split import carve, check_val_frac

#: Per-channel mean and standard deviation of ImageNet's training pixels in [0, 1], the usual constants for photographs.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolder(LightningDataModule):
    """Images of any size, sorted into one folder a class.

    The whole set is held in memory as bytes: N x channels x image_size x image_size.

    Args:
        root: The folder that holds ``train/<class>/*`` and, for the verb test, ``test/<class>/*``.
        image_size: Height and width that every image is resized to, 1 to 4096.
        channels: 3 for colour, 1 for grey.
        batch_size: Examples in a global batch, over all processes.
        val_frac: Share of the training images kept for validation, in (0, 1), the same in every class.
        split_seed: Fixes the split; None takes it from the run's seed.
        augment: Random changes to training images; null for none.
        mean: Subtracted from each channel of pixels in [0, 1]; one number a channel. Default: ImageNet's.
        std: What each channel is divided by. Default: ImageNet's.
        predict_folder: Images for the verb predict.
        seed: The run's seed. The command line sets it from ``--seed_everything``.

    Raises:
        InputError: If the folder is missing or empty, a class is missing in one part, or an image cannot be read.

    Shape:
        - Batches: x (B, channels, image_size, image_size), y (B,).
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int = 32,
        channels: int = 3,
        batch_size: int = 64,
        val_frac: float = 0.2,
        split_seed: int | None = None,
        augment: Augment | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        predict_folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_val_frac(val_frac)
        if channels not in (1, 3):
            raise ValueError(f"`channels` must be 3 (colour) or 1 (grey), got {channels}.")
        if not 1 <= image_size <= 4096:
            raise ValueError(f"`image_size` must be 1 to 4096 pixels, got {image_size}.")
        self.root = Path(root)
        self.batch_size = batch_size
        self.val_frac = val_frac
        self.split_seed = split_seed
        self.augment = augment
        self.predict_folder = predict_folder
        self.seed = seed
        self.input_shape = (channels, image_size, image_size)
        grey = (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
        self.mean = mean if mean is not None else IMAGENET_MEAN if channels == 3 else grey[0]
        self.std = std if std is not None else IMAGENET_STD if channels == 3 else grey[1]
        numbers = all(map(math.isfinite, (*self.mean, *self.std))) and all(one > 0 for one in self.std)
        if not len(self.mean) == len(self.std) == channels or not numbers:
            raise ValueError(
                f"`mean` and `std` need {channels} numbers each, `std` above 0, got {self.mean} and {self.std}."
            )
        self.class_names = tuple(class_folders(self.root / "train"))
        if (self.root / "test").is_dir():
            check_same_classes(self.root / "train", self.root / "test")
        self.num_classes = len(self.class_names)
        self.split_fingerprint: str | None = None
        self.predict_files: list[Path] = []
        self._parts: dict[str, Examples] = {}

    def setup(self, stage: str) -> None:
        """Read what the stage needs; the test part for ``"test"`` alone."""
        form = {"channels": self.input_shape[0], "image_size": self.input_shape[1]}
        if stage in ("fit", "validate") and "train" not in self._parts:
            examples = read_tree(self.root / "train", self.class_names, **form)
            split = carve(examples, val_frac=self.val_frac, split_seed=self.split_seed, seed=self.seed)
            self.split_fingerprint = split.fingerprint
            self._parts |= {"train": split.train, "val": split.val}
        elif stage == "test":
            check_same_classes(self.root / "train", self.root / "test")
            self._parts["test"] = read_tree(self.root / "test", self.class_names, **form)
        elif stage == "predict":
            self.predict_files, self._parts["predict"] = read_predict_folder(self.predict_folder, **form)

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
        return {"kind": "dataset", "mean": list(self.mean), "std": list(self.std)}

    def _loader(self, part: str, *, shuffle: bool = False) -> TensorLoader:
        return TensorLoader(
            self._parts[part],
            augment=self.augment if shuffle else None,
            prepare=partial(normalise, mean=self.mean, std=self.std),
            **batching(self, self._parts[part].x, train=shuffle),
        )
