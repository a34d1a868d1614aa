"""Crop and flip against one image at a time in NumPy, and the distribution of their draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_lab.data import Augment

NUMPY_PADDING = {"zeros": "constant", "reflect": "reflect"}


def pictures(size: int, *, height: int = 9, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, 3, height, width), dtype=torch.uint8, generator=generator)


def reference(image: np.ndarray, draws: list[float], augment: Augment, epoch: int) -> np.ndarray:
    """Pad, cut and mirror one image (C, H, W), each a step of its own."""
    row, column = (int(draw * (2 * augment.crop + 1)) for draw in draws[:2])
    margin = (augment.crop, augment.crop)
    padded = np.pad(image, ((0, 0), margin, margin), mode=NUMPY_PADDING[augment.padding])  # type: ignore[call-overload]
    cut = padded[:, row : row + image.shape[1], column : column + image.shape[2]]
    mirrored = {
        "none": False,
        "random": draws[2] < 0.5,
        "alternating": (draws[2] < 0.5) == (epoch % 2 == 0),
    }[augment.flip]
    return cut[:, :, ::-1] if mirrored else cut


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("crop", [0, 1, 4])
def test_batch_is_bit_equal_to_one_image_at_a_time(crop: int, padding: Any, flip: Any, epoch: int) -> None:
    augment = Augment(crop=crop, padding=padding, flip=flip)
    x = pictures(40)
    draws = augment.draw(40, seed=3, epoch=epoch)
    expected = [reference(image, row, augment, epoch) for image, row in zip(x.numpy(), draws.tolist(), strict=True)]
    out = augment(x, draws, epoch)
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(out.numpy(), np.stack(expected))


def test_the_batch_given_is_left_as_it_is() -> None:
    x = pictures(20)
    before = x.clone()
    augment = Augment(crop=2)
    out = augment(x, augment.draw(20, seed=0, epoch=0), 0)
    assert torch.equal(x, before)
    assert not torch.equal(out, before)


def test_nothing_asked_for_changes_nothing() -> None:
    augment = Augment(crop=0, flip="none")
    x = pictures(20)
    assert torch.equal(augment(x, augment.draw(20, seed=0, epoch=0), 0), x)


@pytest.mark.parametrize("epoch", [0, 1, 6])
def test_two_epochs_of_alternating_show_both_sides_of_every_image(epoch: int) -> None:
    augment = Augment(crop=0, flip="alternating")
    x = pictures(40)
    one, two = (augment(x, augment.draw(40, seed=0, epoch=e), e) for e in (epoch, epoch + 1))
    assert torch.equal(one.flip(3), two)
    as_it_is = (one == x).flatten(1).all(1)
    assert 0 < as_it_is.sum() < 40


def test_alternating_still_cuts_another_window_in_each_epoch() -> None:
    augment = Augment(flip="alternating")
    one, two = (augment.draw(40, seed=0, epoch=epoch) for epoch in (0, 1))
    assert torch.equal(one[:, 2], two[:, 2])
    assert not torch.equal(one[:, :2], two[:, :2])


def test_examples_of_a_batch_have_draws_of_their_own() -> None:
    augment = Augment(crop=4)
    out = augment(pictures(1).repeat(64, 1, 1, 1), augment.draw(64, seed=0, epoch=0), 0)
    # 64 draws among 9 * 9 * 2 = 162 outcomes give 53 different ones on average.
    assert len(torch.unique(out, dim=0)) > 40


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_draws_depend_on_seed_and_epoch_and_on_nothing_else(flip: Any) -> None:
    augment = Augment(flip=flip)
    torch.manual_seed(1)
    first = augment.draw(50, seed=1, epoch=2)
    torch.manual_seed(2)
    assert torch.equal(augment.draw(50, seed=1, epoch=2), first)
    assert not torch.equal(augment.draw(50, seed=1, epoch=3), first)
    assert not torch.equal(augment.draw(50, seed=2, epoch=2)[:, 2], first[:, 2])


def test_every_window_is_equally_likely() -> None:
    # Pixel (4, 4) of a window is pixel (row, column) of an image whose pixels hold their own place.
    place = torch.stack(torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")).to(torch.uint8)
    augment = Augment(crop=4, flip="none")
    out = augment(place.expand(8100, 2, 9, 9), augment.draw(8100, seed=0, epoch=0), 0)
    row, column = out[:, 0, 4, 4].long(), out[:, 1, 4, 4].long()
    counts = torch.bincount(row * 9 + column, minlength=81)
    assert counts.numel() == 81
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_half_of_the_images_are_mirrored(flip: Any) -> None:
    augment = Augment(crop=0, flip=flip)
    x = torch.tensor([0, 1], dtype=torch.uint8).expand(4000, 1, 1, 2)
    mirrored = int(augment(x, augment.draw(4000, seed=0, epoch=0), 0)[:, 0, 0, 0].sum())
    assert stats.binomtest(mirrored, 4000).pvalue > 0.01


def test_negative_crop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`crop` must be 0 \(off\) or more pixels, got -1\.$"):
        Augment(crop=-1)


def test_a_reflection_wider_than_the_image_is_refused() -> None:
    augment = Augment(crop=8, padding="reflect")
    with pytest.raises(ValueError, match="`crop` 8 with `padding` reflect must be smaller than the image, 8 x 8"):
        augment(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), augment.draw(1, 0, 0), 0)
