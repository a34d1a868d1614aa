"""Crop and flip against one image at a time in NumPy, the distribution of all draws, and how augmentations combine."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_lab.data import Augment
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.runs.seeds import stream_seed

NUMPY_PADDING = {"zeros": "constant", "reflect": "reflect"}


#: Each augmentation by itself, in the order in which they are made; shift, rotate and resize are one step.
STEPS: dict[str, dict[str, Any]] = {
    "window": {"crop": 2, "flip": "random"},
    "affine": {"shift": 1.5, "rotate": 30.0, "resize": 0.3},
    "brightness": {"brightness": 0.4},
    "grey": {"grey": 0.5},
    "noise": {"noise": 0.1},
    "cutout": {"cutout": 3},
}
OFF: dict[str, Any] = {"crop": 0, "flip": "none"}
EVERYTHING = {key: value for step in STEPS.values() for key, value in step.items()}
#: What each draws: the number in its seed, and its columns.
STREAMS = {
    "shift": (1, 2),
    "rotate": (2, 1),
    "resize": (3, 1),
    "brightness": (4, 1),
    "grey": (5, 1),
    "noise": (6, 2),
    "cutout": (7, 2),
}


def pictures(size: int, *, height: int = 9, width: int = 7, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, channels, height, width), dtype=torch.uint8, generator=generator)


def applied(x: Tensor, *, seed: int = 0, epoch: int = 0, **settings: Any) -> Tensor:
    augment = Augment(**settings)
    return augment(x, augment.draw(len(x), seed=seed, epoch=epoch), epoch)


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
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_batch_is_bit_equal_to_one_image_at_a_time(
    crop: int, padding: Any, flip: Any, epoch: int, channels: int
) -> None:
    augment = Augment(crop=crop, padding=padding, flip=flip)
    x = pictures(40, channels=channels)
    draws = augment.draw(40, seed=3, epoch=epoch)
    expected = [reference(image, row, augment, epoch) for image, row in zip(x.numpy(), draws.tolist(), strict=True)]
    out = augment(x, draws, epoch)
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(out.numpy(), np.stack(expected))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_how_the_images_lie_in_memory_does_not_matter(memory_format: torch.memory_format) -> None:
    x = pictures(20).contiguous(memory_format=memory_format)
    out = applied(x, **EVERYTHING)
    assert torch.equal(out, applied(pictures(20), **EVERYTHING))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("step", STEPS)
def test_the_batch_given_is_left_as_it_is(step: str) -> None:
    # Channels-last, as the loader has them: then no step before has copied the images.
    x = pictures(20).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    out = applied(x, **OFF | STEPS[step])
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
    augment = Augment(crop=4, flip="alternating")
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


def test_each_is_off_until_it_is_set() -> None:
    augment, x = Augment(), pictures(20)
    assert torch.equal(augment(x, augment.draw(20, seed=0, epoch=0), 0), x)


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


# --- together ---


def test_steps_are_made_in_their_order_with_the_draws_that_each_has_alone() -> None:
    expected = pictures(40)
    for settings in STEPS.values():
        expected = applied(expected, seed=5, epoch=2, **OFF | settings)
    assert torch.equal(applied(pictures(40), seed=5, epoch=2, **EVERYTHING), expected)


@pytest.mark.parametrize("step", [*STEPS, "everything"])
@pytest.mark.parametrize("rows", [[3, 7], [7, 3, 0], [5], list(range(19))])
def test_an_example_does_not_depend_on_its_batch(step: str, rows: list[int]) -> None:
    augment = Augment(**(EVERYTHING if step == "everything" else OFF | STEPS[step]))
    x, draws = pictures(20), augment.draw(20, seed=0, epoch=1)
    assert torch.equal(augment(x[rows], draws[rows], 1), augment(x, draws, 1)[rows])


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {"batch_size": 20, "shuffle": True}])
def test_an_example_does_not_depend_on_the_loaders_batches(settings: dict[str, Any]) -> None:
    loader = TensorLoader(Examples(pictures(20), torch.arange(20)), augment=Augment(**EVERYTHING), **settings)
    batches = list(loader)
    place = torch.cat([batch.indices for batch in batches]).argsort()
    assert torch.equal(torch.cat([batch.x for batch in batches])[place], applied(pictures(20), **EVERYTHING))


# --- draws ---


@pytest.mark.parametrize("name", STREAMS)
def test_columns_are_what_they_always_were(name: str) -> None:
    # Recorded runs were drawn from these: they must never change.
    number, count = STREAMS[name]
    alone = Augment(**{name: EVERYTHING[name]}).draw(50, seed=4, epoch=3)
    generator = torch.Generator().manual_seed(stream_seed(4, "augment", 3, number))
    own = torch.rand(50, count, generator=generator)
    if name == "rotate":
        angle = np.deg2rad((2 * own.double().numpy() - 1) * EVERYTHING["rotate"])
        own = torch.from_numpy(np.hstack([np.cos(angle), np.sin(angle)])).float()
    torch.testing.assert_close(alone[:, 3:], own, rtol=0, atol=1e-7 if name == "rotate" else 0)


@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
def test_row_column_and_side_are_what_they_always_were(flip: Any) -> None:
    draws = Augment(**EVERYTHING | {"flip": flip}).draw(50, seed=4, epoch=3)
    window = torch.Generator().manual_seed(stream_seed(4, "augment", 3))
    side = torch.Generator().manual_seed(stream_seed(4, "augment")) if flip == "alternating" else window
    expected = torch.cat([torch.rand(50, 2, generator=window), torch.rand(50, 1, generator=side)], dim=1)
    assert torch.equal(draws[:, :3], expected)


@pytest.mark.parametrize("name", STREAMS)
def test_switching_one_on_leaves_the_draws_of_the_others(name: str) -> None:
    without = Augment(**EVERYTHING | {name: 0}).draw(50, seed=0, epoch=0)
    everything = Augment(**EVERYTHING).draw(50, seed=0, epoch=0)
    kept = [column for column in everything.unbind(1) if (column == without.T).all(1).any()]
    assert len(kept) == without.shape[1] == everything.shape[1] - (2 if name == "rotate" else STREAMS[name][1])


@pytest.mark.parametrize("name", [*STREAMS, "window"])
def test_draws_are_uniform(name: str) -> None:
    augment = Augment(**OFF if name == "window" else {name: EVERYTHING[name]})
    drawn = augment.draw(4000, seed=0, epoch=0)[:, 3 * (name != "window") :].double()
    if name == "rotate":
        angle = torch.atan2(drawn[:, 1:], drawn[:, :1]).rad2deg()
        drawn = (angle / EVERYTHING["rotate"] + 1) / 2
    assert min(stats.kstest(column, "uniform").pvalue for column in drawn.T.numpy()) > 0.01


def test_columns_of_all_draws_are_uncorrelated() -> None:
    drawn = Augment(**EVERYTHING | {"rotate": 0}).draw(4000, seed=0, epoch=0).numpy()
    off_diagonal = np.corrcoef(drawn, rowvar=False) - np.eye(drawn.shape[1])
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(4000)


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": -1}, "`crop` must be 0 (off) or more pixels, got -1."),
        ({"shift": -0.5}, "`shift` must be 0 (off) or more pixels, got -0.5."),
        ({"shift": float("inf")}, "`shift` must be 0 (off) or more pixels, got inf."),
        ({"rotate": -1.0}, "`rotate` must be in [0, 180] degrees, got -1.0."),
        ({"rotate": 181.0}, "`rotate` must be in [0, 180] degrees, got 181.0."),
        ({"resize": -0.1}, "`resize` must be in [0, 1), got -0.1."),
        ({"resize": 1.0}, "`resize` must be in [0, 1), got 1.0."),
        ({"brightness": -0.1}, "`brightness` must be in [0, 1], got -0.1."),
        ({"brightness": 1.1}, "`brightness` must be in [0, 1], got 1.1."),
        ({"grey": -0.1}, "`grey` must be a probability in [0, 1], got -0.1."),
        ({"grey": 1.1}, "`grey` must be a probability in [0, 1], got 1.1."),
        ({"noise": -0.1}, "`noise` must be in [0, 1], a fraction of 255, got -0.1."),
        ({"noise": 12.75}, "`noise` must be in [0, 1], a fraction of 255, got 12.75."),
        ({"noise": float("nan")}, "`noise` must be in [0, 1], a fraction of 255, got nan."),
        ({"cutout": -1}, "`cutout` must be 0 (off) or more pixels, got -1."),
    ],
)
def test_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Augment(**settings)


@pytest.mark.parametrize("settings", [{"rotate": 180}, {"brightness": 1}, {"grey": 1}, {"noise": 1}, {"resize": 0.99}])
def test_the_ends_of_the_ranges_are_allowed(settings: dict[str, Any]) -> None:
    assert applied(pictures(4), **settings).shape == (4, 3, 9, 7)


def test_a_reflection_wider_than_the_image_is_refused() -> None:
    augment = Augment(crop=8, padding="reflect")
    with pytest.raises(ValueError, match="`crop` 8 can leave nothing of an image of 8 x 8: it must be below 8"):
        augment(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), augment.draw(1, 0, 0), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 7}, "`crop` 7 can leave nothing of an image of 9 x 7: it must be below 7."),
        ({"shift": 7.5}, "`shift` 7.5 can leave nothing of an image of 9 x 7: it must be below 7."),
        ({"cutout": 18}, "`cutout` 18 can leave nothing of an image of 9 x 7: it must be below 18."),
    ],
)
def test_what_can_leave_nothing_of_an_image_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        applied(pictures(4), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": "horizontal"}, "`flip`: Unknown word 'horizontal'."),
        ({"padding": "mirror"}, "`padding`: Unknown word 'mirror'."),
    ],
)
def test_other_words_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Augment(**settings)
