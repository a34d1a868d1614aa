"""The loader: its order, its division among ranks, resuming in mid-epoch, and normalisation against torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional

from lightning_lab.data.augment import Augment
from lightning_lab.data.loader import Batch, Examples, TensorLoader, _constants, normalise
from lightning_lab.data.pixels import _quantiles
from lightning_lab.runs.errors import InputError


def examples(size: int) -> Examples:
    pixels = torch.randint(0, 256, (size, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))
    return Examples(pixels, torch.arange(size) % 7)


def loader(size: int = 19, *, batch_size: int = 6, epoch: int = 0, **settings: Any) -> TensorLoader:
    result = TensorLoader(
        examples(size), batch_size=batch_size, **{"shuffle": True, "augment": Augment(crop=2)} | settings
    )
    result.set_epoch(epoch)
    return result


def order(of: TensorLoader) -> list[int]:
    return list(chain.from_iterable(batch.indices.tolist() for batch in of))


def same(one: Batch, other: Batch) -> bool:
    tensors = all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    return tensors and one[3:] == other[3:]


def counted(batches: tuple[Batch, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Join what counts of one batch on all ranks: indices ascending, with their inputs and targets."""
    indices = torch.cat([batch.indices[: batch.num_real] for batch in batches])
    x = torch.cat([batch.x[: batch.num_real] for batch in batches])
    y = torch.cat([batch.y[: batch.num_real] for batch in batches])
    ascending = indices.argsort()
    return indices[ascending], x[ascending], y[ascending]


# --- order ---


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_is_a_permutation(epoch: int) -> None:
    assert sorted(order(loader(epoch=epoch))) == list(range(19))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(order(loader(epoch=epoch, seed=seed))) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    used = loader(epoch=0)
    first = order(used)
    used.set_epoch(3)
    assert order(used) == order(loader(epoch=3)) != first


@pytest.mark.parametrize("batch_size", [1, 4, 19, 100])
def test_order_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    assert order(loader(batch_size=batch_size, epoch=2)) == order(loader(epoch=2))


def test_order_does_not_depend_on_the_augmentation() -> None:
    assert order(loader(epoch=2, augment=None)) == order(loader(epoch=2))


@pytest.mark.parametrize("epoch", [0, 1])
def test_without_shuffling_the_order_is_the_data_sets(epoch: int) -> None:
    assert order(loader(epoch=epoch, shuffle=False)) == list(range(19))


def test_lightning_sets_the_epoch_through_the_sampler() -> None:
    # Lightning's `_set_sampler_epoch` looks at `loader.sampler` and `loader.batch_sampler`, as a DataLoader has both.
    made = loader()
    made.sampler.set_epoch(5)
    assert made.batch_sampler is None
    assert order(made) == order(loader(epoch=5))


def test_batches_hold_the_examples_their_indices_name() -> None:
    (batch,) = loader(batch_size=19, augment=None)
    source = examples(19)
    assert torch.equal(batch.x, source.x[batch.indices])
    assert torch.equal(batch.y, source.y[batch.indices])


def test_prepare_comes_after_the_augmentation() -> None:
    prepare = partial(normalise, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    raw, prepared = list(loader(epoch=1)), list(loader(epoch=1, prepare=prepare))
    assert [batch.x.dtype for batch in raw] == [torch.uint8] * 4
    assert all(torch.equal(prepare(a.x), b.x) for a, b in zip(raw, prepared, strict=True))


def test_images_are_made_channels_last_once_and_not_copied_if_they_are() -> None:
    given = examples(9)
    made = loader(9, augment=None)
    assert given.x.is_contiguous()
    assert made.examples.x.is_contiguous(memory_format=torch.channels_last)
    again = TensorLoader(made.examples, batch_size=3)
    assert again.examples.x.data_ptr() == made.examples.x.data_ptr()
    assert all(batch.x.is_contiguous(memory_format=torch.channels_last) for batch in again)


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    """No constant from another test, and none left to one: theirs may be fake."""
    _constants.cache_clear()
    _quantiles.cache_clear()
    yield
    _constants.cache_clear()
    _quantiles.cache_clear()


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch is built without CUDA")
@pytest.mark.usefixtures("nothing_kept")
def test_everything_is_made_on_the_loaders_device() -> None:
    # Fake tensors know shapes and devices and hold no numbers: a tensor of another device among them is an error.
    pixels = {"brightness": 0.1, "grey": 0.1, "noise": 0.1, "cutout": 2}
    everything = Augment(crop=2, padding="reflect", shift=1, rotate=9, resize=0.1, **pixels)  # type: ignore[arg-type]
    with FakeTensorMode():
        x, y = torch.empty(19, 3, 6, 5, dtype=torch.uint8), torch.empty(19, dtype=torch.long)
        prepare = partial(normalise, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        made = TensorLoader(
            Examples(x, y), batch_size=6, shuffle=True, augment=everything, prepare=prepare, device="cuda"
        )
        batches = list(made)
    assert [batch.x.shape for batch in batches] == [(6, 3, 6, 5)] * 3 + [(1, 3, 6, 5)]
    assert {tensor.device.type for batch in batches for tensor in batch[:3]} == {"cuda"}


@pytest.mark.parametrize(
    ("size", "batch_size", "expected"), [(18, 6, 3), (19, 6, 4), (23, 6, 4), (24, 6, 4), (5, 6, 1), (6, 1, 6)]
)
def test_len_is_the_number_of_batches(size: int, batch_size: int, expected: int) -> None:
    made = loader(size, batch_size=batch_size)
    assert len(made) == len(list(made)) == expected


def test_subset_keeps_the_order_asked_for() -> None:
    picked = examples(9).subset(torch.tensor([5, 0, 3]))
    assert len(picked) == 3
    assert picked.y.tolist() == [5, 0, 3]
    assert torch.equal(picked.x[0], examples(9).x[5])


# --- ranks: sizes whose last global batch has 6, 1, 2 and 5 examples ---


@pytest.mark.parametrize("size", [18, 19, 20, 23])
@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_together_read_what_one_process_reads(size: int, world_size: int) -> None:
    whole = list(loader(size, epoch=1))
    ranks = [list(loader(size, epoch=1, rank=rank, world_size=world_size)) for rank in range(world_size)]
    joined = [counted(batches) for batches in zip(*ranks, strict=True)]
    expected = [counted((batch,)) for batch in whole]
    assert len(joined) == len(expected)
    assert all(
        torch.equal(a, b) for a, b in zip(chain.from_iterable(joined), chain.from_iterable(expected), strict=True)
    )
    assert sorted(chain.from_iterable(indices.tolist() for indices, _, _ in joined)) == list(range(size))


@pytest.mark.parametrize("size", [18, 19, 20, 23])
@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_mean_over_ranks_of_weighted_means_is_the_mean_over_the_batch(size: int, world_size: int) -> None:
    loss = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ranks = [list(loader(size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    over_ranks = [
        sum(batch.weight * loss[batch.indices].mean() for batch in batches) / world_size
        for batches in zip(*ranks, strict=True)
    ]
    torch.testing.assert_close(
        torch.stack([torch.as_tensor(value) for value in over_ranks]),
        torch.stack([loss[batch.indices].mean() for batch in loader(size)]),
    )


def test_a_rank_without_an_example_takes_part_and_does_not_count() -> None:
    last = [list(loader(19, rank=rank, world_size=3))[-1] for rank in range(3)]
    assert [len(batch.x) for batch in last] == [1, 1, 1]
    assert [batch.num_real for batch in last] == [1, 0, 0]
    assert [batch.weight for batch in last] == [3.0, 0.0, 0.0]


def test_weights_are_one_where_the_division_is_even() -> None:
    assert [batch.weight for batch in loader(23)] == [1.0] * 4
    assert [batch.weight for batch in loader(18, rank=1, world_size=3)] == [1.0] * 3


# --- resuming ---


@pytest.mark.parametrize("handed_out", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_resumed_epoch_yields_exactly_the_remaining_batches(handed_out: int, flip: Any) -> None:
    made = loader(epoch=1, augment=Augment(crop=2, flip=flip))
    batches = iter(made)
    before = [next(batches) for _ in range(handed_out)]
    state = made.state_dict()
    rest = list(batches)

    resumed = loader(augment=Augment(crop=2, flip=flip))
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    again = list(resumed)
    assert len(before) + len(again) == len(made)
    assert all(same(a, b) for a, b in zip(rest, again, strict=True))


def test_only_the_first_epoch_after_resuming_is_cut_short() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 3})
    assert [len(list(resumed)), len(list(resumed))] == [1, 4]


def test_a_state_of_another_epoch_cuts_nothing() -> None:
    resumed = loader(epoch=1)
    resumed.load_state_dict({"epoch": 0, "batches": 3})
    assert len(list(resumed)) == 4


def test_a_state_that_was_just_loaded_is_given_back() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batches": 2})
    assert resumed.state_dict() == {"epoch": 1, "batches": 2}


def test_an_epoch_broken_off_leaves_nothing_to_the_next() -> None:
    made = loader()
    next(iter(made))
    made.set_epoch(1)
    assert made.state_dict() == {"epoch": 1, "batches": 0}


def test_state_counts_the_batches_of_the_whole_epoch_after_resuming() -> None:
    resumed = loader(epoch=2)
    resumed.load_state_dict({"epoch": 2, "batches": 1})
    next(iter(resumed))
    assert resumed.state_dict() == {"epoch": 2, "batches": 2}


def test_state_after_the_last_batch_starts_the_next_epoch_at_its_beginning() -> None:
    made = loader()
    batches = iter(made)
    states = [made.state_dict() for _ in range(len(made)) if next(batches)]
    resumed = loader(epoch=1)
    resumed.load_state_dict(states[-1])
    assert order(resumed) == order(loader(epoch=1))


def test_a_finished_epoch_has_no_batches_behind_it() -> None:
    made = loader(epoch=4)
    list(made)
    assert made.state_dict() == {"epoch": 4, "batches": 0}


# --- refusals ---


def test_empty_data_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"^The data set is empty: there is no example to load\.$"):
        loader(0)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_one_is_refused(batch_size: int) -> None:
    with pytest.raises(InputError, match=rf"^`batch_size` must be at least 1, got {batch_size}\.$"):
        loader(batch_size=batch_size)


def test_batch_size_that_does_not_divide_is_refused() -> None:
    message = r"^`batch_size` 6 is the global batch and does not divide into 4 processes\. Choose a multiple of 4\.$"
    with pytest.raises(InputError, match=message):
        loader(world_size=4)


# --- normalise ---

COLOUR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
GREY = ((0.3055,), (0.3187,))
ALL_BYTES = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


@pytest.mark.parametrize(("mean", "std"), [COLOUR, GREY, ((0.0,), (1.0,))])
def test_normalise_against_torchvision_in_float64(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    x = ALL_BYTES.repeat(2, len(mean), 1, 1)
    expected = functional.normalize(functional.to_dtype(x, torch.float64, scale=True), list(mean), list(std))
    torch.testing.assert_close(normalise(x, mean=mean, std=std).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [COLOUR, GREY])
@pytest.mark.parametrize("width", [8, 32])
def test_normalise_is_bit_equal_to_one_channel_at_a_time(
    mean: tuple[float, ...], std: tuple[float, ...], width: int
) -> None:
    x = ALL_BYTES.view(1, 1, -1, width).repeat(2, len(mean), 1, 1)
    expected = [
        x[:, n].numpy().astype(np.float32) * np.float32(1 / (255 * s)) - np.float32(m / s)
        for n, (m, s) in enumerate(zip(mean, std, strict=True))
    ]
    np.testing.assert_array_equal(normalise(x, mean=mean, std=std).numpy(), np.stack(expected, axis=1))


def test_constants_made_while_evaluating_serve_training_too() -> None:
    mean, std = (0.11, 0.12, 0.13), (0.21, 0.22, 0.23)  # of this test alone: they are kept
    x = ALL_BYTES.repeat(2, 3, 1, 1)
    with torch.inference_mode():
        normalise(x, mean=mean, std=std)
    weight = torch.ones((), requires_grad=True)
    (weight * normalise(x, mean=mean, std=std)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalise_gives_channels_last_floats_and_leaves_its_input(memory_format: torch.memory_format) -> None:
    x = ALL_BYTES.repeat(2, 3, 1, 1).contiguous(memory_format=memory_format)
    before = x.clone()
    out = normalise(x, mean=COLOUR[0], std=COLOUR[1])
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    assert torch.equal(x, before)


# --- smaller images in the first epochs, and a sample ---


def images_loader(**settings: Any) -> TensorLoader:
    pixels = torch.randint(0, 256, (10, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    examples = Examples(pixels.permute(0, 3, 1, 2), torch.arange(10))
    return TensorLoader(examples, batch_size=4, prepare=lambda x: x.float(), **settings)


@pytest.mark.parametrize(("epoch", "edge"), [(0, 8), (1, 8), (2, 12), (3, 16), (9, 16)])
def test_image_sizes_go_by_the_epoch_and_the_last_stays(epoch: int, edge: int) -> None:
    loader = images_loader(image_sizes=[8, 8, 12, 16])
    loader.set_epoch(epoch)
    assert {batch.x.shape[1:] for batch in loader} == {(3, edge, edge)}


def test_half_the_edge_weighs_the_neighbourhood_as_a_triangle() -> None:
    # Antialiased bilinear reduction by two: weights 1, 3, 3, 1 along each axis, cut off and renormalised at the edge.
    (whole,) = (next(iter(images_loader())).x[0, 0].numpy().astype(np.float64),)
    small = next(iter(images_loader(image_sizes=[8]))).x[0, 0].numpy()
    weights = np.zeros((8, 16))
    for row in range(8):
        for offset, weight in zip(range(2 * row - 1, 2 * row + 3), (1, 3, 3, 1), strict=True):
            if 0 <= offset < 16:
                weights[row, offset] = weight
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(small, weights @ whole @ weights.T, rtol=1e-5)


def test_images_of_full_size_are_left_to_the_last_bit() -> None:
    plain, sized = images_loader(), images_loader(image_sizes=[16])
    assert all(torch.equal(a.x, b.x) for a, b in zip(plain, sized, strict=True))


def test_a_sample_is_prepared_whole_and_always_the_same() -> None:
    loader = images_loader(image_sizes=[8], augment=Augment(crop=4), shuffle=True, seed=3)
    one = loader.sample(6)
    list(loader)
    assert torch.equal(one, loader.sample(6))
    assert torch.equal(one, images_loader(seed=3, world_size=2, rank=1).sample(6))
    assert one.shape == (6, 3, 16, 16)
    assert one.dtype == torch.float32
    rows = {tuple(x.flatten().tolist()) for x in images_loader().examples.x.float()}
    assert len({tuple(x.flatten().tolist()) for x in one} & rows) == 6


def test_a_sample_larger_than_the_data_is_all_of_them() -> None:
    assert len(images_loader().sample(99)) == 10


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_plain_gives_every_example_once_as_it_is(world_size: int) -> None:
    images = torch.randint(0, 256, (19, 1, 8, 8), dtype=torch.uint8)
    data = Examples(images, torch.arange(19))
    settings: dict[str, Any] = {"batch_size": 6, "shuffle": True, "augment": Augment(crop=2), "image_sizes": (4,)}
    own: list[tuple[int, Tensor]] = []
    for rank in range(world_size):
        for batch in TensorLoader(data, **settings, prepare=Tensor.float, rank=rank, world_size=world_size).plain():
            own += list(zip(batch.y.tolist(), batch.x, strict=True))[: batch.num_real]
    assert sorted(number for number, _ in own) == list(range(19))
    assert all(torch.equal(x, images[number].float()) for number, x in own)


def test_plain_leaves_the_epoch_under_way_alone() -> None:
    handed = loader(shuffle=True)
    batches = iter(handed)
    next(batches)
    list(handed.plain())
    assert handed.state_dict() == {"epoch": 0, "batches": 1}
    assert [batch.y.tolist() for batch in batches] == [batch.y.tolist() for batch in loader(shuffle=True)][1:]
