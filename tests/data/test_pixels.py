"""Brightness, grey and cutout against one image at a time in NumPy and Pillow; noise against its distribution too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from lightning_lab.data import Augment
from lightning_lab.runs.seeds import stream_seed


def pictures(size: int, *, height: int = 9, width: int = 7, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (size, channels, height, width), dtype=torch.uint8, generator=generator)


def drawn(size: int, number: int, columns: int) -> np.ndarray:
    """Numbers in [0, 1) of one augmentation's own stream, for seed 3 and epoch 2."""
    generator = torch.Generator().manual_seed(stream_seed(3, "augment", 2, number))
    return torch.rand(size, columns, generator=generator).numpy()


def applied(x: Tensor, *, seed: int = 3, epoch: int = 2, **settings: Any) -> Tensor:
    augment = Augment(crop=0, flip="none", **settings)
    return augment(x, augment.draw(len(x), seed=seed, epoch=epoch), epoch)


def brighter(image: np.ndarray, draw: np.float32, limit: float) -> np.ndarray:
    factor = np.float32(1) + (np.float32(2) * draw - np.float32(1)) * np.float32(limit)
    return np.clip(np.rint(image.astype(np.float32) * factor), 0, 255)


def greyed(image: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))] * 3)


def with_a_hole(image: np.ndarray, down: float, right: float, edge: int) -> np.ndarray:
    """Black where a pixel's middle is within half an edge of the centre: a pixel's middle or, if even, its corner."""
    height, width = image.shape[1:]
    whole, offset = (math.floor, 0.5) if edge % 2 else (lambda place: math.floor(place + 0.5), 0.0)
    centre = whole(down * height) + offset, whole(right * width) + offset
    out = image.copy()
    for row in range(height):
        for column in range(width):
            if max(abs(row + 0.5 - centre[0]), abs(column + 0.5 - centre[1])) < edge / 2:
                out[:, row, column] = 0
    return out


def mixed(word: np.ndarray) -> np.ndarray:
    """Wellons' lowbias32, in unsigned numbers."""
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B)
    return word ^ (word >> np.uint32(16))


def noisy(image: np.ndarray, draw: np.ndarray, std: float) -> np.ndarray:
    channels, height, width = image.shape
    first, second = (np.array([value], dtype=np.uint32) for value in (draw * np.float32(1 << 24)).astype(int))
    positions = mixed(np.arange(-(-image.size // 2), dtype=np.uint32))
    words = mixed(positions ^ mixed(mixed(first) ^ second))
    halves = np.concatenate([words & np.uint32(0xFFFF), words >> np.uint32(16)])[: image.size]
    noise = stats.norm.ppf((halves + 0.5) / 65536, scale=255 * std).reshape(height, width, channels)
    return np.clip(np.rint(image + noise.transpose(2, 0, 1)), 0, 255)


# --- brightness ---


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("limit", [0.25, 1.0])
def test_brightness_is_bit_equal_to_one_image_at_a_time(limit: float, channels: int) -> None:
    x = pictures(40, channels=channels)
    expected = [brighter(image, draw, limit) for image, (draw,) in zip(x.numpy(), drawn(40, 4, 1), strict=True)]
    np.testing.assert_array_equal(applied(x, brightness=limit).numpy(), np.stack(expected))


def test_brightness_clips_at_white() -> None:
    out = applied(torch.full((200, 3, 2, 2), 200, dtype=torch.uint8), brightness=0.5)
    assert int(out.max()) == 255
    assert 100 <= int(out.min()) < 105


# --- grey ---


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_grey_is_bit_equal_to_pillow(probability: float) -> None:
    x = pictures(40)
    chosen = drawn(40, 5, 1)[:, 0] < probability
    expected = [greyed(image) if grey else image for image, grey in zip(x.numpy(), chosen, strict=True)]
    np.testing.assert_array_equal(applied(x, grey=probability).numpy(), np.stack(expected))


def test_luma_is_pillows_at_the_ends_of_the_range_and_in_between() -> None:
    levels = torch.arange(0, 256, 15, dtype=torch.uint8)  # 0, 15, ... 255
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 18, 324)
    expected = np.asarray(Image.fromarray(x[0].permute(1, 2, 0).numpy()).convert("L"))
    np.testing.assert_array_equal(applied(x, grey=1.0)[0, 0].numpy(), expected)


def test_as_many_turn_grey_as_asked_for() -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(4000, 3, 1, 1)
    grey = int((applied(red, grey=0.2)[:, 1] > 0).sum())
    assert stats.binomtest(grey, 4000, p=0.2).pvalue > 0.01


def test_an_image_of_one_channel_is_grey_already() -> None:
    x = pictures(10, channels=1)
    assert torch.equal(applied(x, grey=1.0), x)


def test_grey_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`grey` needs images of 1 or 3 channels, got 4\.$"):
        applied(pictures(2, channels=4), grey=0.5)


# --- cutout ---


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("edge", [1, 2, 5, 8, 17])
def test_cutout_is_bit_equal_to_one_image_at_a_time(edge: int, channels: int) -> None:
    x = pictures(60, channels=channels)
    centres = drawn(60, 7, 2).tolist()
    expected = [with_a_hole(image, *centre, edge) for image, centre in zip(x.numpy(), centres, strict=True)]
    np.testing.assert_array_equal(applied(x, cutout=edge).numpy(), np.stack(expected))


def test_every_pixel_is_equally_likely_the_centre() -> None:
    out = applied(torch.ones(6300, 1, 9, 7, dtype=torch.uint8), cutout=1)
    black = (out == 0).flatten(1)
    assert (black.sum(1) == 1).all()
    assert stats.chisquare(black.sum(0).numpy()).pvalue > 0.01


@pytest.mark.parametrize("edge", [3, 4])
def test_cutout_favours_no_side(edge: int) -> None:
    black = (applied(torch.ones(4000, 1, 9, 9, dtype=torch.uint8), cutout=edge) == 0).float()
    position = torch.arange(9.0) - 4
    down, right = (black * position.view(-1, 1)).sum((1, 2, 3)), (black * position).sum((1, 2, 3))
    assert stats.ttest_1samp(down.numpy(), 0).pvalue > 0.01
    assert stats.ttest_1samp(right.numpy(), 0).pvalue > 0.01


# --- noise ---


@pytest.mark.parametrize(("height", "width", "channels"), [(9, 7, 3), (5, 5, 1), (4, 6, 3)])
@pytest.mark.parametrize("std", [0.02, 0.3])
def test_noise_is_bit_equal_to_one_image_at_a_time(std: float, height: int, width: int, channels: int) -> None:
    x = pictures(20, height=height, width=width, channels=channels)
    expected = [noisy(image, draw, std) for image, draw in zip(x.numpy(), drawn(20, 6, 2), strict=True)]
    np.testing.assert_array_equal(applied(x, noise=std).numpy(), np.stack(expected))


@pytest.fixture(scope="module")
def grey_noise() -> np.ndarray:
    """What noise of 12.75 grey levels does to even grey: seeds and epochs (4), examples, channels, rows, columns."""
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    runs = [applied(grey, seed=seed, epoch=epoch, noise=0.05) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return torch.stack(runs).numpy().astype(float) - 128


def test_noise_has_the_mean_and_the_spread_asked_for(grey_noise: np.ndarray) -> None:
    # 491 520 values: standard errors 0.018 of the mean and 0.013 of the spread. Rounding adds 1/12 to the variance.
    assert abs(grey_noise.mean()) < 4 * 12.75 / math.sqrt(grey_noise.size)
    assert abs(grey_noise.std() - math.sqrt(12.75**2 + 1 / 12)) < 4 * 12.75 / math.sqrt(2 * grey_noise.size)


@pytest.mark.parametrize("run", range(4))
def test_noise_is_normal_at_every_grey_level(grey_noise: np.ndarray, run: int) -> None:
    levels = np.arange(-45, 46)
    counts = np.bincount(grey_noise[run].clip(-45, 45).astype(int).ravel() + 45, minlength=91)
    edges = np.concatenate([[-np.inf], levels[:-1] + 0.5, [np.inf]])
    expected = np.diff(stats.norm.cdf(edges, scale=12.75)) * grey_noise[run].size
    assert stats.chisquare(counts, expected).pvalue > 0.01


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", range(5), ids=["run", "example", "channel", "row", "column"])
@pytest.mark.parametrize("step", [1, 2])
def test_noise_is_uncorrelated_along(grey_noise: np.ndarray, axis: int, step: int, power: int) -> None:
    values = grey_noise**power  # squares too: their spread must not go together either
    one, other = np.take(values, range(step, values.shape[axis]), axis), np.roll(values, step, axis)
    other = np.take(other, range(step, values.shape[axis]), axis)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)


@pytest.mark.parametrize("power", [1, 2])
def test_two_halves_of_a_word_are_uncorrelated(grey_noise: np.ndarray, power: int) -> None:
    values = grey_noise.transpose(0, 1, 3, 4, 2).reshape(160, 2, -1) ** power  # channels last, as they are counted
    assert abs(np.corrcoef(values[:, 0].ravel(), values[:, 1].ravel())[0, 1]) < 4 / math.sqrt(values.size / 2)


def test_no_two_examples_have_equal_noise() -> None:
    out = applied(torch.full((2000, 1, 4, 4), 128, dtype=torch.uint8), noise=0.2)
    assert len(torch.unique(out, dim=0)) == 2000


@pytest.mark.parametrize("grey", [0, 255])
def test_noise_is_clipped_and_does_not_wrap_around(grey: int) -> None:
    out = applied(torch.full((20, 3, 8, 8), grey, dtype=torch.uint8), noise=0.05)
    assert int((out.int() - grey).abs().max()) < 60  # 4.3 standard deviations are 55
    assert 0.4 < float((out == grey).float().mean()) < 0.6
