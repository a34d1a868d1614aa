"""CIFAR-10 (Krizhevsky 2009): 60 000 colour images of 32 x 32 in ten classes, 10 000 of them for the test."""

from __future__ import annotations

import os
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from lightning.pytorch import LightningDataModule
from torchvision.datasets import CIFAR10 as OfficialCIFAR10  # noqa: N811 - the class and the data set share a name
from torchvision.datasets.utils import check_integrity

from lightning_lab.data.augment import Augment
from lightning_lab.data.batching import batching, check_batch_size
from lightning_lab.data.images import read_predict_folder, read_tree
from lightning_lab.data.listing import check_same_classes, class_folders
from lightning_lab.data.loader import Examples, TensorLoader, normalise
from lightning_lab.data.split import carve, check_val_frac
from lightning_lab.runs.errors import InputError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Per channel over the 50 000 official training images, in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class CIFAR10(LightningDataModule):
    """CIFAR-10 from the official files or from an image tree.

    Args:
        root: The folder with ``cifar-10-batches-py`` or its archive in it, or with an image tree ``train/<class>/*``
            and ``test/<class>/*``. Default: $LIGHTNING_LAB_DATA, else ``data``.
        download: Fetch the official archive (170 MB) if it is not there. Its checksum is verified before use.
        url: Where to fetch it from; default the official address. A mirror must have the same bytes.
        batch_size: Examples in a global batch, over all processes.
        val_frac: Share of the 50 000 training images kept for validation, in (0, 1), the same in every class.
        split_seed: Fixes the split; None takes it from the run's seed.
        augment: Random changes to training images; null for none.
        train_sizes: Height and width of the training images in each epoch, 8 to 32, the last number for all epochs that
            follow; null is 32 throughout. Smaller images early save time, if the net takes them: SpeedNet does.
        predict_folder: Images for the verb predict, resized to 32 x 32.
        seed: The run's seed. The command line sets it from ``--seed_everything``.

    Shape:
        - Batches: x (B, 3, 32, 32), y (B,).

    Raises:
        InputError: If the files are missing, incomplete or damaged.

    Reference:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        download: bool = False,
        url: str | None = None,
        batch_size: int = 128,
        val_frac: float = 0.2,
        split_seed: int | None = None,
        augment: Augment | None = None,
        train_sizes: list[int] | None = None,
        predict_folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_val_frac(val_frac)
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must begin with http:// or https://, got {url}. For local files give `root`.")
        if train_sizes is not None and not (train_sizes and all(8 <= size <= 32 for size in train_sizes)):
            raise ValueError(f"`train_sizes` must be one or more numbers from 8 to 32, got {train_sizes}.")
        self.root = Path(root or os.environ.get("LIGHTNING_LAB_DATA") or "data").expanduser()
        self.download = download
        self.url = url
        self.batch_size = batch_size
        self.val_frac = val_frac
        self.split_seed = split_seed
        self.augment = augment
        self.train_sizes = train_sizes
        self.predict_folder = predict_folder
        self.seed = seed
        self.input_shape = (3, 32, 32)
        self.num_classes = 10
        self.class_names = CLASS_NAMES
        self.split_fingerprint: str | None = None
        self.predict_files: list[Path] = []
        self._parts: dict[str, Examples] = {}

    def prepare_data(self) -> None:
        """Download if asked to, and check that what is there is complete. One process does it, the others wait."""
        if (self.root / "train").is_dir():
            if (self.root / "test").is_dir():
                check_same_classes(self.root / "train", self.root / "test")
            return
        if self.download:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.root / ".cifar-10.lock").acquire()
            except (OSError, NotImplementedError) as error:  # the second: a file system without locks
                raise InputError(
                    f"CIFAR-10 cannot be downloaded to {self.root} ({error}). Give a folder that can be written with "
                    "--data.root."
                ) from error
            with lock:
                self._official(train=True, download=True)

    def setup(self, stage: str) -> None:
        """Read what the stage needs; the test part for ``"test"`` alone."""
        if stage in ("fit", "validate") and "train" not in self._parts:
            split = carve(self._read("train"), val_frac=self.val_frac, split_seed=self.split_seed, seed=self.seed)
            self.split_fingerprint = split.fingerprint
            self._parts |= {"train": split.train, "val": split.val}
        elif stage == "test":
            self._parts["test"] = self._read("test")
        elif stage == "predict":
            read = read_predict_folder(self.predict_folder, channels=3, image_size=32)
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
        return {"kind": "dataset", "mean": list(MEAN), "std": list(STD)}

    def _loader(self, part: str, *, shuffle: bool = False) -> TensorLoader:
        return TensorLoader(
            self._parts[part],
            augment=self.augment if shuffle else None,
            prepare=partial(normalise, mean=MEAN, std=STD),
            image_sizes=(self.train_sizes or ()) if shuffle else (),
            **batching(self, self._parts[part].x, train=shuffle),
        )

    def _read(self, part: str) -> Examples:
        if not (self.root / "train").is_dir():
            official = self._official(train=part == "train", download=False)
            pixels = torch.from_numpy(np.asarray(official.data)).permute(0, 3, 1, 2)  # (N, 3, 32, 32)
            return Examples(pixels, torch.tensor(official.targets))
        found = tuple(class_folders(self.root / part))
        if found != CLASS_NAMES:
            raise InputError(
                f"{self.root / part} is not CIFAR-10: its class folders are {', '.join(found)}; expected "
                f"{', '.join(CLASS_NAMES)}. For images of your own use --data ImageFolder."
            )
        return read_tree(self.root / part, CLASS_NAMES, channels=3, image_size=32)

    def _official(self, *, train: bool, download: bool) -> OfficialCIFAR10:
        # torchvision unpacks the archive and unpickles the batches only after their checksums match, a mirror's too;
        # that order must stay. So nobody can slip in a path that leads out of the folder, a link, or a label above 9.
        source = type("CIFAR10", (OfficialCIFAR10,), {"url": self.url}) if self.url else OfficialCIFAR10
        try:
            return source(self.root, train=train, download=download)
        except (RuntimeError, OSError, EOFError, HTTPException, TarError) as error:
            archive = self.root / OfficialCIFAR10.filename
            if download and archive.is_file() and not check_integrity(archive, OfficialCIFAR10.tgz_md5):
                archive.unlink()  # half of it is of no use, and may be what fills the disk
            what = "could not be downloaded" if download else "is not there, or is incomplete or damaged"
            raise InputError(
                f"CIFAR-10 {what} in {self.root} ({error}). Give its folder with --data.root (official files or an "
                "image tree train/<class>/*, test/<class>/*), or fetch it with --data.download true."
            ) from error
