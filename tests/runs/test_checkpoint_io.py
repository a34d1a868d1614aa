"""Checkpoints on disk: bit-equal round trips, damaged files, files that would run something, a kill while saving."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_lab.runs.checkpoint_io import (
    WholeFileCheckpointIO,
    check_fits,
    newest_sound,
    read_checkpoint,
    set_aside_damaged,
)
from lightning_lab.runs.directory import previous
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.writer import BackgroundWriter


def content(epoch: int = 3) -> dict[str, Any]:
    weights = torch.randn(50, 7, generator=torch.Generator().manual_seed(epoch))
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    return {"epoch": epoch, "state_dict": {"net.weight": weights, "net.bias": special}, "rows": [{"val/loss": 0.1}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint(content(), path)
    return path


def bits(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value.view(torch.int32).tolist() for name, value in checkpoint["state_dict"].items()}


def test_what_was_saved_comes_back_to_the_last_bit(path: Path) -> None:
    back = WholeFileCheckpointIO().load_checkpoint(path)
    assert bits(back) == bits(content())
    assert (back["epoch"], back["rows"]) == (3, [{"val/loss": 0.1}])
    assert [one.name for one in path.parent.iterdir()] == ["last.ckpt"]


def test_saving_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint(content(1), path)
    WholeFileCheckpointIO().save_checkpoint(content(2), str(path))
    assert read_checkpoint(path)["epoch"] == 2


def test_storage_options_are_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"^`storage_options` is not supported, got \{'key': 1\}\.$"):
        WholeFileCheckpointIO().save_checkpoint(content(), path, storage_options={"key": 1})
    assert path.read_bytes() == before


DAMAGED = (
    "The checkpoint {path} cannot be read: it is damaged, no checkpoint, or holds more than tensors and plain values "
    r"\([^\n]+\)."
)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_said_to_be_damaged(path: Path, kept: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=f"^{DAMAGED.format(path=re.escape(str(path)))}$"):
        read_checkpoint(path)


def test_text_is_said_to_be_no_checkpoint(path: Path) -> None:
    path.write_text("seed_everything: 1\n")
    with pytest.raises(InputError, match="it is damaged, no checkpoint"):
        read_checkpoint(path)


class Runs:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def plainly(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))  # torch warns of a newer one


@pytest.mark.parametrize("save", [torch.save, plainly])
@pytest.mark.parametrize("weights_only", [None, False])
def test_nothing_in_the_file_is_run(tmp_path: Path, save: Any, weights_only: bool | None) -> None:
    path, made = tmp_path / "last.ckpt", tmp_path / "made"
    save({"state_dict": {}, "more": Runs(made)}, path)
    with pytest.raises(
        InputError, match=r"holds more than tensors and plain values \((UnpicklingError|File is not a zip file)\)\.$"
    ):
        WholeFileCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    assert not made.exists()


@pytest.mark.parametrize("value", [{"epoch": 1}, {}, [1, 2], torch.zeros(2)])
def test_a_file_without_weights_is_no_checkpoint(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(value, path)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path} is not a checkpoint: it has no `state_dict`.')}$"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["nothing.ckpt", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match=f"^{re.escape(f'There is no checkpoint {path}.')}$"):
        read_checkpoint(path)


# --- a kill while saving ---

# --- does it fit? ---

NET = {"a": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.zeros(())}


@pytest.mark.parametrize(
    ("saved", "facts"),
    [
        ({**NET, "a": torch.zeros(3, 3)}, "a is (3, 3) there and (2, 3) here"),
        (
            {"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1)},  # two are enough
            "a is (1,) there and (2, 3) here; b is (1,) there and (4,) here",
        ),
        ({"c": NET["c"]}, "2 tensors are missing there (a)"),
        ({**NET, "z": NET["a"], "y": NET["a"]}, "2 tensors are not known here (y)"),
        (
            {"a": torch.zeros(2), "b": NET["b"], "d": NET["c"]},
            "a is (2,) there and (2, 3) here; 1 tensors are missing there (c); 1 tensors are not known here (d)",
        ),
    ],
)
def test_what_differs_from_the_net_is_named(saved: dict[str, torch.Tensor], facts: str) -> None:
    message = (
        f"The checkpoint x.ckpt is of another net: {facts}. "
        "Give the configuration it was trained with: --config RUN/config.yaml."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_fits({"state_dict": saved}, NET, Path("x.ckpt"))


def test_the_values_of_the_weights_may_differ() -> None:
    before = {name: value.clone() for name, value in NET.items()}
    check_fits({"state_dict": {name: value + 1 for name, value in NET.items()}}, NET, Path("x.ckpt"))
    assert all(torch.equal(before[name], NET[name]) for name in NET)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_flipped_bit_is_noticed(share: float, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"state_dict": {"w": torch.arange(10_000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read: it is damaged"):
        read_checkpoint(path)


# --- the digest and the generation before ---


def test_every_flipped_bit_is_found(path: Path) -> None:
    whole = path.read_bytes()
    step = 37  # each byte would take a minute; 37 is no divisor of any size in the file
    unnoticed = []
    for position in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        try:
            read_checkpoint(path)
        except InputError:
            continue
        unnoticed.append(position)
    assert unnoticed == []


def test_the_digest_is_the_one_of_sha256sum(path: Path) -> None:
    whole = path.read_bytes()
    size = len(b"sha256:") + 64
    content = whole[: -size - 2] + bytes(2)  # an empty comment
    assert whole[-size:].decode() == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_torch_reads_the_file_as_ever(path: Path) -> None:
    assert bits(torch.load(path, weights_only=True)) == bits(content())


def test_a_checkpoint_without_a_digest_is_read_by_its_checksums(path: Path) -> None:
    torch.save(content(), path)
    assert bits(read_checkpoint(path)) == bits(content())


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_the_one_before_takes_the_place_of_a_damaged_one(path: Path, damage: str) -> None:
    writer = BackgroundWriter()
    WholeFileCheckpointIO(writer.put).save_checkpoint(content(4), path)
    writer.drain()
    assert newest_sound(path) == path
    assert (read_checkpoint(path)["epoch"], read_checkpoint(previous(path))["epoch"]) == (4, 3)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": whole[:-9], "flipped": b"Q" + whole[1:]}[damage])
    with pytest.warns(
        UserWarning, match=rf"^(The checkpoint|There is no checkpoint) {path}.* The one before it is used:"
    ):
        assert newest_sound(path) == previous(path)


def test_where_neither_can_be_read_the_newer_one_is_told(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(InputError, match=f"^The checkpoint {path} cannot be read"):
        newest_sound(path)
    previous(path).write_bytes(b"")
    with pytest.raises(InputError, match=f"^The checkpoint {previous(path)} cannot be read"):
        newest_sound(path)


def test_a_damaged_one_never_becomes_the_one_before(path: Path) -> None:
    previous(path).write_bytes(path.read_bytes())
    path.write_bytes(b"damaged")
    set_aside_damaged(path)
    writer = BackgroundWriter()
    WholeFileCheckpointIO(writer.put).save_checkpoint(content(5), path)
    writer.drain()
    assert (read_checkpoint(path)["epoch"], read_checkpoint(previous(path))["epoch"]) == (5, 3)
    assert path.with_name("last.ckpt.damaged").read_bytes() == b"damaged"
    set_aside_damaged(path.with_name("none.ckpt"))  # nothing to set aside is no mistake
    set_aside_damaged(path)
    assert read_checkpoint(path)["epoch"] == 5  # a sound one stays
