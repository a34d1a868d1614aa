"""A user's own images: any size, grey or colour, and folders that are not as they should be."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_lab.data import ImageFolder
from lightning_lab.data.folder import IMAGENET_MEAN, IMAGENET_STD
from lightning_lab.runs.errors import InputError

Tree = Callable[..., Path]
Write = Callable[..., np.ndarray]


def ready(root: Path, *stages: str, **settings: Any) -> ImageFolder:
    module = ImageFolder(str(root), **settings)
    [module.setup(stage) for stage in stages]
    return module


def test_classes_and_sizes_come_from_the_folders(tree: Tree, tmp_path: Path) -> None:
    module = ready(tree(tmp_path, ("bee", "ant", "cow"), train=5), "fit", "test", val_frac=0.2)
    assert module.class_names == ("ant", "bee", "cow")
    assert module.num_classes == 3
    assert module.input_shape == (3, 32, 32)
    assert torch.bincount(module._parts["train"].y).tolist() == [4, 4, 4]
    assert torch.bincount(module._parts["val"].y).tolist() == [1, 1, 1]
    assert module._parts["test"].y.tolist() == [0, 0, 1, 1, 2, 2]


def test_images_of_any_size_are_resized_and_it_is_said(
    tree: Tree, image: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path, ("ant", "bee"), train=3, size=(24, 24))
    image(tmp_path / "train" / "ant" / "wide.png", (90, 20))
    image(tmp_path / "train" / "bee" / "small.png", (3, 5))
    with caplog.at_level(logging.WARNING, logger="lightning_lab.data.images"):
        module = ready(tmp_path, "fit", image_size=24)
    assert caplog.messages[1:] == ["2 of 8 images were resized to 24 x 24."]  # behind "Decoding 8 images"
    assert next(iter(module.train_dataloader())).x.shape == (6, 3, 24, 24)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_colour_files_give_the_channels_asked_for(
    image: Write, tmp_path: Path, mode: str, channels: int
) -> None:
    names = ["ant/1.png", "ant/2.png", "bee/1.png", "bee/2.png"]
    [image(tmp_path / "train" / name, mode=mode) for name in names]
    module = ready(tmp_path, "fit", channels=channels)
    batch = next(iter(module.train_dataloader()))
    assert module.input_shape == (channels, 32, 32)
    assert batch.x.shape == (2, channels, 32, 32)
    assert batch.x.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, IMAGENET_MEAN, IMAGENET_STD),
        ({"channels": 1}, (0.449,), (0.226,)),
        ({"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
    ],
)
def test_batches_are_normalised_with_the_numbers_given(
    tree: Tree, tmp_path: Path, settings: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    module = ready(tree(tmp_path, ("ant", "bee")), "test", **settings)
    (batch,) = module.test_dataloader()
    shift, scale = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
    expected = (module._parts["test"].x.double() / 255 - shift) / scale
    torch.testing.assert_close(batch.x.double(), expected, rtol=0, atol=1e-6)


def test_fit_reads_no_test_image(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee"))
    (tmp_path / "test" / "bee" / "0.png").write_text("no image")
    assert set(ready(tmp_path, "fit")._parts) == {"train", "val"}


def test_test_part_can_be_missing_until_it_is_asked_for(tree: Tree, tmp_path: Path) -> None:
    module = ready(tree(tmp_path, ("ant", "bee"), test=0), "fit")
    with pytest.raises(InputError, match=r"^There is no folder .*test\. It needs the class folders of .*train\.$"):
        module.setup("test")


def test_class_missing_in_test_is_named_at_once(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee", "cow"))
    (tmp_path / "test" / "bee").rename(tmp_path / "bee")
    with pytest.raises(InputError, match=r"missing: bee; not in train: none\. Both need the same class folders\.$"):
        ImageFolder(str(tmp_path))


def test_class_that_loses_its_folder_after_the_start_is_named(tree: Tree, tmp_path: Path) -> None:
    module = ImageFolder(str(tree(tmp_path, ("ant", "bee", "cow"))))
    (tmp_path / "test" / "bee").rename(tmp_path / "bee")
    with pytest.raises(InputError, match="missing: bee; not in train: none"):
        module.setup("test")


def test_file_that_is_no_image_is_named_by_fit(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee"))
    (tmp_path / "train" / "bee" / "letter.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"train/bee/letter\.jpg cannot be read as an image: it is no image\. Repair"):
        ready(tmp_path, "fit")


def test_empty_class_folder_is_refused(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee"), test=0)
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(InputError, match=r"train/cow has no image in it \(looked for \.bmp, "):
        ready(tmp_path, "fit")


def test_class_with_one_image_cannot_be_split(tree: Tree, image: Write, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee"), test=0)
    image(tmp_path / "train" / "cow" / "1.png")
    with pytest.raises(InputError, match=r"^Class 2 has 1 example; two are needed to split it"):
        ready(tmp_path, "fit")


def test_one_class_is_refused(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant",))
    with pytest.raises(InputError, match="train has 1 class folders; at least two are needed"):
        ImageFolder(str(tmp_path))


def test_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^There is no folder .*absent/train\. Expected an image tree"):
        ImageFolder(str(tmp_path / "absent"))


# --- predict ---


def test_predict_takes_the_images_by_name_and_no_label(tree: Tree, image: Write, tmp_path: Path) -> None:
    tree(tmp_path / "data", ("ant", "bee"))
    [image(tmp_path / "new" / name) for name in ("b.png", "a.png", "deeper/c.png")]
    module = ready(tmp_path / "data", "predict", predict_folder=str(tmp_path / "new"))
    assert [str(path.relative_to(tmp_path / "new")) for path in module.predict_files] == [
        "a.png",
        "b.png",
        "deeper/c.png",
    ]
    (batch,) = module.predict_dataloader()
    assert batch.x.shape == (3, 3, 32, 32)
    assert batch.y.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("folder", "message"),
    [("empty", r"empty has no image in it \(looked for"), ("absent", r"^There is no folder .*absent\.$")],
)
def test_predict_folder_without_images_is_refused(tree: Tree, tmp_path: Path, folder: str, message: str) -> None:
    tree(tmp_path / "data", ("ant", "bee"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        ready(tmp_path / "data", "predict", predict_folder=str(tmp_path / folder))


def test_predict_needs_its_folder(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="predict needs a folder of images"):
        ready(tree(tmp_path, ("ant", "bee")), "predict")


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2}, "`channels` must be 3 (colour) or 1 (grey), got 2."),
        ({"image_size": 0}, "`image_size` must be 1 to 4096 pixels, got 0."),
        ({"image_size": 4097}, "`image_size` must be 1 to 4096 pixels, got 4097."),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0."),
        ({"val_frac": 1.0}, "`val_frac` must be above 0 and below 1, got 1.0."),
        ({"mean": (0.5,)}, "`mean` and `std` need 3 numbers each, `std` above 0, got (0.5,) and"),
        ({"std": (0.5, 0.5)}, "`mean` and `std` need 3 numbers each, `std` above 0, got (0.485, 0.456, 0.406) and"),
        ({"std": (0.5, 0.0, 0.5)}, "`std` above 0, got (0.485, 0.456, 0.406) and (0.5, 0.0, 0.5)."),
    ],
)
def test_impossible_settings_of_a_folder_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageFolder("absent", **settings)
