"""Digits: the bundled set against scikit-learn's arrays, the labs' file, and the formulas of normalisation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_lab.data import Augment, Digits
from lightning_lab.data import digits as digits_file
from lightning_lab.data.split import stratified_split
from lightning_lab.runs.errors import InputError

Mat = Callable[..., Path]


def ready(*stages: str, **settings: Any) -> Digits:
    module = Digits(**settings)
    [module.setup(stage) for stage in stages]
    return module


def rows(x: Tensor) -> set[bytes]:
    return {image.tobytes() for image in x.numpy()}


def everything(module: Digits, part: str) -> Tensor:
    return torch.cat([batch.x for batch in getattr(module, f"{part}_dataloader")()])


# --- the bundled digits ---


@pytest.mark.parametrize("part", ["train", "test"])
def test_parts_are_scikit_learns_digits_enlarged_as_pillow_does(part: str) -> None:
    pixels, labels = load_digits(return_X_y=True)
    indices = dict(
        zip(("train", "test"), stratified_split(torch.from_numpy(labels), val_frac=0.2, seed=0), strict=True)
    )
    small = np.round(pixels[indices[part]].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    expected = np.stack([Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR) for image in small])
    own = digits_file._bundled(part)  # type: ignore[arg-type]
    assert own.x.shape == (len(expected), 1, 16, 16)
    assert np.abs(own.x[:, 0].numpy().astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(own.y.numpy(), labels[indices[part]])


def test_parts_together_are_all_the_digits() -> None:
    module = ready("fit", "test")
    y = torch.cat([module._parts[name].y for name in ("train", "val", "test")])
    np.testing.assert_array_equal(torch.bincount(y).numpy(), np.bincount(load_digits().target))
    assert module.class_names == tuple("0123456789")


def test_constants_are_those_of_the_training_pixels() -> None:
    module = ready("fit")
    pixels = torch.cat([module._parts["train"].x, module._parts["val"].x]).double() / 255
    assert (round(pixels.mean().item(), 4),) == digits_file.BUNDLED_MEAN
    assert (round(pixels.std().item(), 4),) == digits_file.BUNDLED_STD


def test_the_test_part_is_a_fifth_of_each_class_and_disjoint() -> None:
    module = ready("fit", "test")
    test = module._parts["test"]
    counts = np.bincount(load_digits().target)
    assert torch.bincount(test.y).tolist() == [round(count * 0.2) for count in counts]
    seen = rows(module._parts["train"].x) | rows(module._parts["val"].x)
    assert not rows(test.x) & seen
    assert not rows(module._parts["train"].x) & rows(module._parts["val"].x)


@pytest.mark.parametrize("settings", [{"seed": 5}, {"split_seed": 7}, {"val_frac": 0.5}, {"batch_size": 3}])
def test_the_test_part_is_the_same_for_every_run(settings: dict[str, Any]) -> None:
    one, other = ready("test")._parts["test"], ready("test", **settings)._parts["test"]
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)


@pytest.mark.parametrize(
    ("stage", "opened"), [("fit", {"train", "val"}), ("validate", {"train", "val"}), ("test", {"test"})]
)
def test_a_stage_opens_its_own_parts_alone(mat: Mat, tmp_path: Path, stage: str, opened: set[str]) -> None:
    assert set(ready(stage)._parts) == opened
    assert set(ready(stage, path=str(mat(tmp_path / "digits.mat")))._parts) == opened


def test_setting_up_again_keeps_what_is_there() -> None:
    module = ready("fit")
    part = module._parts["train"]
    module.setup("validate")
    assert module._parts["train"] is part


# --- the labs' file ---


def test_images_of_the_file_are_turned_upright(mat: Mat, tmp_path: Path) -> None:
    pattern = np.arange(256, dtype=np.uint8).reshape(16, 16)  # row r, column c holds 16 r + c
    path = mat(tmp_path / "digits.mat", Xtest=np.tile(pattern.flatten(order="F"), (10, 1)))
    test = ready("test", path=str(path))._parts["test"]
    assert test.x.shape == (10, 1, 16, 16)
    np.testing.assert_array_equal(test.x[3, 0].numpy(), pattern)


def test_labels_of_the_file_start_at_zero(mat: Mat, tmp_path: Path) -> None:
    module = ready("fit", "test", path=str(mat(tmp_path / "digits.mat")))
    sizes = {name: len(part) for name, part in module._parts.items()}
    assert sizes == {"train": 40, "val": 20, "test": 10}
    assert module._parts["test"].y.tolist() == list(range(10))
    assert module._parts["train"].y.dtype == torch.int64


def test_parts_of_the_file_are_the_files_whatever_the_seeds(mat: Mat, tmp_path: Path) -> None:
    path = str(mat(tmp_path / "digits.mat"))
    one = ready("fit", path=path)
    other = ready("fit", path=path, seed=3, split_seed=4, val_frac=0.5)
    assert one.split_fingerprint == other.split_fingerprint
    assert torch.equal(one._parts["train"].x, other._parts["train"].x)


def test_constants_of_the_file_are_those_of_its_training_pixels(real_mat: Path) -> None:
    pixels = ready("fit", path=str(real_mat))._parts["train"].x.double() / 255
    assert pixels.shape == (5000, 1, 16, 16)
    assert (round(pixels.mean().item(), 4),) == digits_file.MAT_MEAN
    assert (round(pixels.std().item(), 4),) == digits_file.MAT_STD


def test_digits_of_the_file_are_upright_and_rightly_named(real_mat: Path) -> None:
    # Nearest class mean, learnt on the bundled digits. The writing is another, so it is right in a third of the cases
    # only; but in fewer for images on their side or mirrored, and in 5 % with names that are one off.
    bundled, labs = ready("fit"), ready("fit", path=str(real_mat))
    x, y = bundled._parts["train"].x.flatten(1).float(), bundled._parts["train"].y
    means = torch.stack([x[y == digit].mean(0) for digit in range(10)])
    digits = torch.tensor([int(name) for name in labs.class_names])[labs._parts["train"].y]

    def right(images: Tensor) -> float:
        return (torch.cdist(images.flatten(1).float(), means).argmin(1) == digits).float().mean().item()

    own = labs._parts["train"].x
    assert right(own) > 0.3
    assert right(own) > 1.3 * max(right(own.transpose(2, 3)), right(own.flip(2)), right(own.flip(3)))


def test_file_puts_the_zeros_last(mat: Mat, tmp_path: Path) -> None:
    module = ready("test", path=str(mat(tmp_path / "digits.mat")))
    assert "".join(module.class_names[label] for label in module._parts["test"].y) == "1234567890"


# --- batches ---


def by_formula(x: np.ndarray, how: str, mean: float, std: float) -> np.ndarray:
    grey = x.astype(np.float64) / 255
    return {
        "dataset": (grey - mean) / std,
        "image": (grey - grey.mean()) / max(grey.std(ddof=1), 1e-6),
        "centre": grey - grey.mean(),
        "none": grey,
    }[how]


@pytest.mark.parametrize("how", ["dataset", "image", "centre", "none"])
def test_normalisation_image_by_image(how: Any) -> None:
    module = ready("test", normalise=how)
    pixels = module._parts["test"].x.numpy()
    expected = [by_formula(image, how, digits_file.BUNDLED_MEAN[0], digits_file.BUNDLED_STD[0]) for image in pixels]
    out = everything(module, "test")
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), np.stack(expected), rtol=0, atol=5e-6)


def test_the_file_has_constants_of_its_own(mat: Mat, tmp_path: Path) -> None:
    module = ready("test", path=str(mat(tmp_path / "digits.mat")))
    pixels = module._parts["test"].x.numpy()
    expected = by_formula(pixels, "dataset", digits_file.MAT_MEAN[0], digits_file.MAT_STD[0])
    np.testing.assert_allclose(everything(module, "test").numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["image", "centre"])
def test_an_empty_image_becomes_zero_and_not_nan(mat: Mat, tmp_path: Path, how: Any) -> None:
    path = mat(tmp_path / "digits.mat", Xtest=np.zeros((10, 256), dtype=np.uint8))
    assert torch.equal(everything(ready("test", path=str(path), normalise=how), "test"), torch.zeros(10, 1, 16, 16))


@pytest.mark.parametrize("image_size", [16, 20, 32])
def test_images_have_the_size_asked_for(image_size: int) -> None:
    module = ready("fit", image_size=image_size, normalise="none")
    assert module.input_shape == (1, image_size, image_size)
    assert next(iter(module.train_dataloader())).x.shape == (32, 1, image_size, image_size)
    # Resizing keeps the grey of an image as a whole.
    own = everything(module, "val").mean((1, 2, 3))
    torch.testing.assert_close(own, module._parts["val"].x.float().mean((1, 2, 3)) / 255, rtol=0, atol=0.01)


def test_only_training_images_are_augmented() -> None:
    plain, augmented = (ready("fit", augment=augment, split_seed=0) for augment in (None, Augment(crop=2)))
    assert torch.equal(everything(plain, "val"), everything(augmented, "val"))
    assert not torch.equal(everything(plain, "train"), everything(augmented, "train"))


def test_predict_reads_its_folder_in_grey(image: Callable[..., np.ndarray], tmp_path: Path) -> None:
    image(tmp_path / "b.png", (16, 16), "RGB")
    image(tmp_path / "a.png", (40, 30), "L")
    module = ready("predict", predict_folder=str(tmp_path), image_size=20)
    assert module.predict_files == [tmp_path / "a.png", tmp_path / "b.png"]
    assert everything(module, "predict").shape == (2, 1, 20, 20)


def test_predict_without_a_folder_is_refused_for_digits() -> None:
    with pytest.raises(InputError, match="predict needs a folder of images"):
        ready("predict")


# --- refusals ---


@pytest.mark.parametrize("image_size", [15, 33])
def test_image_size_out_of_range_is_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=rf"^`image_size` must be 16 to 32 pixels, got {image_size}\.$"):
        Digits(image_size=image_size)


def test_batch_size_zero_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="`batch_size` must be at least 1, got 0"):
        Digits(batch_size=0)


def test_val_frac_one_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"`val_frac` must be above 0 and below 1, got 1\.0"):
        Digits(val_frac=1.0)


def test_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    where = re.escape(str(tmp_path / "digits.mat"))
    message = rf"^There is no file {where}\. Give digits\.mat, or leave `path` out for bundled digits\.$"
    with pytest.raises(InputError, match=message):
        Digits(str(tmp_path / "digits.mat"))


def test_a_relative_path_is_looked_for_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "mine.mat").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("LIGHTNING_LAB_DATA", raising=False)
    with pytest.raises(InputError, match=r"no file mine\.mat, neither here nor in \$LIGHTNING_LAB_DATA\. Give"):
        Digits("mine.mat")
    monkeypatch.setenv("LIGHTNING_LAB_DATA", str(tmp_path))
    assert Digits("mine.mat").path == tmp_path / "mine.mat"
    (tmp_path / "here" / "mine.mat").write_bytes(b"")
    assert Digits("mine.mat").path == Path("mine.mat")  # what is here wins


def test_file_that_is_no_matlab_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits.mat").write_text("one, two, three\n" * 40)
    message = (
        r"digits\.mat is not the labs' digits\.mat, or is damaged \(no MATLAB .*\): expected MATLAB arrays X, y, Xvalid"
    )
    with pytest.raises(InputError, match=message):
        ready("fit", path=str(tmp_path / "digits.mat"))


def test_file_cut_short_in_an_array_is_refused(mat: Mat, tmp_path: Path) -> None:
    path = mat(tmp_path / "digits.mat")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"is not the labs' digits\.mat, or is damaged \(.*\): expected MATLAB arrays"):
        ready("fit", path=str(path))


@pytest.mark.parametrize(("stage", "name"), [("fit", "X"), ("fit", "yvalid"), ("test", "Xtest")])
def test_file_without_an_array_is_refused(mat: Mat, tmp_path: Path, stage: str, name: str) -> None:
    path = mat(tmp_path / "digits.mat", **{name: None})
    with pytest.raises(InputError, match=rf"or is damaged \(no array {name}\): expected MATLAB arrays"):
        ready(stage, path=str(path))


@pytest.mark.parametrize(
    ("size", "change"),
    [(0, None), (5, None), (100, None), (None, 128)],
    ids=["empty", "five bytes", "a piece of the header", "flipped bytes"],
)
def test_a_damaged_file_is_refused(mat: Mat, tmp_path: Path, size: int | None, change: int | None) -> None:
    path = mat(tmp_path / "digits.mat")
    content = bytearray(path.read_bytes()[:size])
    if change is not None:
        content[change : change + 64] = bytes(255 - byte for byte in content[change : change + 64])
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the labs' digits"):
        ready("fit", path=str(path))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"X": np.zeros((40, 400), np.uint8)}, "`X` is (40, 400) of uint8 and `y` (40, 1) of uint8"),
        ({"X": np.zeros((40, 16, 16), np.uint8)}, "`X` is (40, 16, 16) of uint8 and `y` (40, 1) of uint8"),
        ({"X": np.zeros((40, 256)) + 0.5}, "`X` is (40, 256) of float64 and `y` (40, 1) of uint8"),
        ({"X": np.zeros((40, 256)) + 300}, "`X` is (40, 256) of float64 and `y` (40, 1) of uint8"),
        ({"X": np.zeros((0, 256)), "y": np.zeros((0, 1))}, "`X` is (0, 256) of float64 and `y` (0, 1) of float64"),
        ({"y": np.ones((39, 1), np.uint8)}, "`X` is (40, 256) of uint8 and `y` (39, 1) of uint8"),
        ({"y": np.arange(40).reshape(-1, 1) % 10}, "`X` is (40, 256) of uint8 and `y` (40, 1) of int64"),
        ({"y": np.arange(40).reshape(-1, 1) % 11 + 1}, "`X` is (40, 256) of uint8 and `y` (40, 1) of int64"),
        ({"y": np.full((40, 1), np.nan)}, "`X` is (40, 256) of uint8 and `y` (40, 1) of float64"),
        ({"y": np.full((40, 1), 1.5)}, "`X` is (40, 256) of uint8 and `y` (40, 1) of float64"),
        ({"y": np.zeros((40, 1), np.int8)}, "`X` is (40, 256) of uint8 and `y` (40, 1) of int8"),
        ({"X": np.full((40, 256), np.inf)}, "`X` is (40, 256) of float64 and `y` (40, 1) of uint8"),
        ({"X": np.full((40, 256), -1.0)}, "`X` is (40, 256) of float64 and `y` (40, 1) of uint8"),
    ],
)
def test_arrays_of_another_form_are_refused(
    mat: Mat, tmp_path: Path, changes: dict[str, np.ndarray], found: str
) -> None:
    path = mat(tmp_path / "digits.mat", **changes)
    expected = "expected (N, 256) whole grey values from 0 to 255 and N labels from 1 to 10."
    with pytest.raises(InputError, match=re.escape(f"digits.mat: {found}; {expected}")):
        ready("fit", path=str(path))
