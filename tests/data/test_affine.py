"""Shift, rotation and resize against one pixel at a time in float64, and against NumPy where no pixel is blended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_lab.data import Augment
from lightning_lab.data.affine import resample
from lightning_lab.runs.seeds import stream_seed


def pictures(size: int, *, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (size, channels, height, width), dtype=torch.uint8, generator=generator)


def drawn(size: int, number: int, columns: int, limit: float) -> np.ndarray:
    """Numbers in [-limit, limit) of one augmentation's own stream, for seed 3 and epoch 2."""
    generator = torch.Generator().manual_seed(stream_seed(3, "augment", 2, number))
    return (2 * torch.rand(size, columns, generator=generator).double().numpy() - 1) * limit


def reference(image: np.ndarray, right: float, down: float, degrees: float, factor: float) -> np.ndarray:
    """For each pixel of the result: undo the shift, then the turn, then the enlargement, and blend four pixels."""
    height, width = image.shape[1:]
    out = np.zeros(image.shape)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2 - right, row - (height - 1) / 2 - down
            # Rows count downwards, so this turns clockwise: back from where a counter-clockwise turn has led.
            x, y = x * cosine - y * sine, x * sine + y * cosine
            x, y = x / factor + (width - 1) / 2, y / factor + (height - 1) / 2
            left, top = math.floor(x), math.floor(y)
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= i < height and 0 <= j < width:
                    out[:, row, column] += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(9, 7), (6, 10)])
@pytest.mark.parametrize(
    "settings",
    [
        {"shift": 2.5},
        {"rotate": 180.0},
        {"resize": 0.5},
        {"shift": 2.5, "rotate": 40.0},
        {"rotate": 40.0, "resize": 0.5},
        {"shift": 2.5, "rotate": 40.0, "resize": 0.5},
    ],
    ids="+".join,
)
def test_against_one_pixel_at_a_time(settings: dict[str, float], height: int, width: int, channels: int) -> None:
    augment = Augment(crop=0, flip="none", **settings)  # type: ignore[arg-type]
    x = pictures(8, height=height, width=width, channels=channels)
    out = augment(x, augment.draw(8, seed=3, epoch=2), 2)
    shift, angle, change = (
        drawn(8, number, columns, settings.get(name, 0.0))
        for name, number, columns in (("shift", 1, 2), ("rotate", 2, 1), ("resize", 3, 1))
    )
    expected = np.stack(
        [
            reference(image, *shift[n], angle[n, 0], 1 + change[n, 0])  # type: ignore[call-arg]
            for n, image in enumerate(x.numpy())
        ]
    )
    assert out.dtype == torch.uint8
    # Rounded, hence half a grey level; the rest is float32 in the sampling grid, 1e-6 of a pixel times 255 and more.
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=0.51)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_numpys(quarters: int) -> None:
    x = pictures(5, height=8, width=8).permute(0, 2, 3, 1).contiguous()
    turn = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])[[quarters] * 5]
    out = resample(x, shift=None, turn=turn, scale=None)
    np.testing.assert_array_equal(out.numpy(), np.rot90(x.numpy(), quarters, axes=(1, 2)))


@pytest.mark.parametrize("with_a_turn", [False, True])
def test_whole_pixels_move_right_and_down_and_leave_black(with_a_turn: bool) -> None:
    x = pictures(1, height=9, width=7).permute(0, 2, 3, 1).contiguous()
    turn = torch.tensor([[1.0, 0.0]]) if with_a_turn else None
    out = resample(x, shift=torch.tensor([[2.0, -1.0]]), turn=turn, scale=None)
    expected = np.zeros_like(x.numpy())
    expected[:, :-1, 2:] = x.numpy()[:, 1:, :-2]
    np.testing.assert_array_equal(out.numpy(), expected)


def test_enlarging_by_three_repeats_the_centre() -> None:
    x = pictures(1, height=3, width=3).permute(0, 2, 3, 1).contiguous()
    out = resample(x, shift=None, turn=None, scale=torch.tensor([[3.0]]))
    # The result's pixels lie a third of a pixel apart around the middle one.
    middle, left = (x[0, 1, column].double() for column in (1, 0))
    np.testing.assert_array_equal(out[0, 1, 1].numpy(), middle.numpy())
    np.testing.assert_allclose(out[0, 1, 0].numpy(), (2 * middle + left).numpy() / 3, rtol=0, atol=0.51)


@pytest.mark.parametrize("settings", [{"shift": 1.5}, {"rotate": 20.0}, {"resize": 0.3}], ids="+".join)
def test_a_batch_of_one_picture_becomes_many(settings: dict[str, Any]) -> None:
    augment = Augment(crop=0, flip="none", **settings)
    out = augment(pictures(1, height=9, width=9).repeat(64, 1, 1, 1), augment.draw(64, seed=0, epoch=0), 0)
    assert len(torch.unique(out, dim=0)) == 64
