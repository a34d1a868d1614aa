"""The cache of decoded images: equal to decoding, made anew for whatever changed, and never in the way."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, features
from support import Lab

from lightning_lab.data import cache, images
from lightning_lab.data.images import read_images, read_predict_folder, read_tree
from lightning_lab.data.listing import class_folders, list_images
from lightning_lab.data.loader import Examples
from lightning_lab.runs.cache_folder import cache_folder
from lightning_lab.runs.errors import InputError

CLASSES = ("ant", "bee")


@pytest.fixture
def root(tmp_path: Path, image: Callable[..., np.ndarray]) -> Path:
    """Five pictures; the third is not of 8 x 8."""
    for seed, name in enumerate(("ant/0", "ant/1", "ant/2", "bee/0", "bee/1")):
        image(tmp_path / "tree" / f"{name}.bmp", (9, 7) if seed == 2 else (8, 8), seed=seed)
    return tmp_path / "tree"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded, in any order."""
    files: list[Path] = []
    real = images.decode_image

    def counted(path: Path, *form: Any) -> Any:
        files.append(path)
        return real(path, *form)

    monkeypatch.setattr(images, "decode_image", counted)
    return files


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said since the last call, apart from the number of resized images."""
    caplog.set_level(logging.INFO, logger="lightning_lab")

    def take() -> list[str]:
        messages = [message for message in caplog.messages if "were resized" not in message]
        caplog.clear()
        return messages

    return take


def read(root: Path, *, channels: int = 3, image_size: int = 8) -> Examples:
    return read_tree(root, CLASSES, channels=channels, image_size=image_size)


def fresh(root: Path, *, channels: int = 3, image_size: int = 8) -> torch.Tensor:
    return read_images(list_images(root), channels=channels, image_size=image_size)


def entries() -> list[Path]:
    return sorted((cache_folder() / "images").glob("*.pixels"))


# --- what is read back ---


@pytest.mark.parametrize(("channels", "image_size"), [(3, 8), (1, 8), (3, 5), (1, 1)])
def test_cached_pixels_are_the_decoded_ones(root: Path, decoded: list[Path], channels: int, image_size: int) -> None:
    form = {"channels": channels, "image_size": image_size}
    expected = fresh(root, **form)
    decoded.clear()
    first = read(root, **form)
    assert len(decoded) == 5
    second = read(root, **form)
    assert len(decoded) == 5, "the second read decoded"
    assert torch.equal(first.x, expected)
    assert torch.equal(second.x, expected)
    assert (second.x.dtype, second.x.shape, second.x.stride()) == (expected.dtype, expected.shape, expected.stride())
    assert first.y.tolist() == second.y.tolist() == [0, 0, 0, 1, 1]


def test_an_entry_is_plain_bytes(root: Path) -> None:
    pixels = read(root).x
    (entry,) = entries()
    content = entry.read_bytes()
    assert content[64:] == pixels.permute(0, 2, 3, 1).numpy().tobytes()


def test_writing_into_the_pixels_does_not_reach_the_file(root: Path, decoded: list[Path]) -> None:
    expected = read(root).x
    read(root).x.zero_()
    assert torch.equal(read(root).x, expected)
    assert len(decoded) == 5


def test_it_is_said_each_time_how_many_were_resized(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(root)
    caplog.clear()
    read(root)
    assert caplog.messages == ["1 of 5 images were resized to 8 x 8."]


def test_decoding_is_said_once(root: Path, said: Callable[[], list[str]]) -> None:
    read(root)
    assert said() == [f"Decoding 5 images of {root} once; kept in {cache_folder() / 'images'}."]
    read(root)
    assert said() == []


def test_the_images_of_predict_are_not_kept(root: Path, said: Callable[[], list[str]]) -> None:
    read_predict_folder(str(root), channels=3, image_size=8)
    assert entries() == []
    assert said() == []


# --- what makes another entry ---


def change_a_byte(root: Path) -> None:
    path = root / "ant" / "1.bmp"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # size, inode and time tell nothing


def swap_two(root: Path) -> None:
    first, second = root / "ant" / "0.bmp", root / "ant" / "1.bmp"
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)


@pytest.mark.parametrize(
    "change",
    [
        change_a_byte,
        swap_two,
        lambda root: shutil.copy(root / "ant" / "0.bmp", root / "bee" / "2.bmp"),
        lambda root: (root / "bee" / "1.bmp").unlink(),
        lambda root: (root / "ant" / "2.bmp").rename(root / "ant" / "9.bmp"),  # the order stays
        lambda root: (root / "ant" / "0.bmp").rename(root / "ant" / "9.bmp"),
        lambda root: (root / "ant" / "2.bmp").rename(root / "bee" / "2.bmp"),
    ],
    ids=["byte", "swapped", "added", "removed", "renamed", "reordered", "moved"],
)
def test_changed_images_are_decoded_anew(root: Path, decoded: list[Path], change: Callable[[Path], object]) -> None:
    read(root)
    change(root)
    decoded.clear()
    examples = read(root)
    assert sorted(decoded) == list_images(root)
    assert torch.equal(examples.x, fresh(root))
    assert len(entries()) == 2


def test_a_name_and_its_content_do_not_run_together(tmp_path: Path) -> None:
    def key(name: str, content: bytes) -> str | None:
        (tmp_path / name).write_bytes(content)
        return cache._key(tmp_path, [tmp_path / name], 3, 8)

    assert key("a", b"bc") != key("ab", b"c")


@pytest.mark.parametrize("form", [{"image_size": 4}, {"channels": 1}])
def test_another_form_is_another_entry(root: Path, decoded: list[Path], form: dict[str, int]) -> None:
    read(root)
    assert torch.equal(read(root, **form).x, fresh(root, **form))
    decoded.clear()
    assert torch.equal(read(root).x, fresh(root))
    assert len(decoded) == 5  # of `fresh`: both entries stand
    assert len(entries()) == 2


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(PIL, "__version__", "0.1"), (cache, "_FORMAT", 0), (features, "version", lambda name: f"{name} of tomorrow")],
    ids=["Pillow", "format", "codecs"],
)
def test_another_decoder_is_another_entry(
    root: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object
) -> None:
    read(root)
    monkeypatch.setattr(owner, name, value)
    read(root)
    assert len(decoded) == 10


def test_the_same_images_elsewhere_share_the_entry(root: Path, tmp_path: Path, decoded: list[Path]) -> None:
    expected = read(root).x
    shutil.copytree(root, tmp_path / "copy")
    assert torch.equal(read(tmp_path / "copy").x, expected)
    assert len(decoded) == 5


# --- damage ---


def flip(at: int) -> Callable[[bytes], bytes]:
    def flipped(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[at] ^= 1
        return bytes(changed)

    return flipped


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: bytes(len(content)),
        flip(0),
        flip(16),
        flip(30),
        flip(64),
        flip(-1),
    ],
    ids=["empty", "head", "short", "long", "zeros", "mark", "resized", "digest", "first", "last"],
)
def test_a_damaged_entry_is_made_anew(
    root: Path, decoded: list[Path], said: Callable[[], list[str]], damage: Callable[[bytes], bytes]
) -> None:
    expected = read(root).x.clone()
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    decoded.clear()
    said()
    assert torch.equal(read(root).x, expected)
    assert len(decoded) == 5
    assert said()[0] == f"The cache file {entry} is damaged; it is made anew."
    assert entry.read_bytes() == whole


def test_images_that_change_while_they_are_read_are_not_kept(
    root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images._decode_all

    def interfered(*args: Any) -> Any:
        change_a_byte(root)
        return real(*args)

    monkeypatch.setattr(images, "_decode_all", interfered)
    read(root)
    assert said()[1] == f"The images of {root} changed while they were read; their pixels are not kept."
    assert entries() == []


@pytest.mark.timeout(60)
def test_an_image_that_cannot_be_decoded_is_named_each_time(root: Path, said: Callable[[], list[str]]) -> None:
    (root / "bee" / "1.bmp").write_text("no image")
    message = r"bee/1\.bmp cannot be read as an image: it is no image"
    with pytest.raises(InputError, match=message) as first:  # holds the frames, so that no lock is collected
        read(root)
    with pytest.raises(InputError, match=message):
        read(root)
    assert first.tb is not None
    decoding = f"Decoding 5 images of {root} once; kept in {cache_folder() / 'images'}."
    assert said() == [decoding, decoding]  # and no waiting for the first
    assert entries() == []


def test_an_image_that_cannot_be_opened_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "list_images", lambda folder: [folder / "gone.bmp"])
    with pytest.raises(InputError, match=r"ant/gone\.bmp cannot be read as an image: No such file"):
        read(root)


def test_images_that_cannot_be_hashed_have_no_entry(root: Path) -> None:
    decoded = cache.Decoded(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0)
    given = cache.cached_pixels(root, [root / "gone.bmp"], channels=3, image_size=8, decode=lambda: decoded)
    assert given is decoded
    assert entries() == []


# --- where it cannot be written ---


def below_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTNING_LAB_CACHE", str(tmp_path / "file" / "cache"))
    return "Not a directory"


def full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    return "No space left on device"


def read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    def refused(*args: object, **options: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refused)
    return "Read-only file system"


def no_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    # What filelock itself raises where the file system has no locks (3.16 and 3.20 do, from flock's ENOSYS; 4.2 takes
    # a lock file's existence instead).
    def refused(*args: object, **options: object) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(cache.FileLock, "acquire", refused)
    return "no flock here"


def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    def refused(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LIGHTNING_LAB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", refused)
    return "Could not determine home directory"


@pytest.mark.parametrize("obstacle", [below_a_file, full_disk, read_only, no_locks, no_home])
def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    root: Path,
    tmp_path: Path,
    said: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    obstacle: Callable[[pytest.MonkeyPatch, Path], str],
) -> None:
    expected = fresh(root)
    reason = obstacle(monkeypatch, tmp_path)
    where = "~/.cache/lightning_lab" if obstacle is no_home else str(cache_folder())
    assert torch.equal(read(root).x, expected)
    (message,) = [message for message in said() if not message.startswith("Decoding ")]
    assert message.startswith(f"Decoded images cannot be kept in {where} (")
    assert reason in message
    assert message.endswith("Set LIGHTNING_LAB_CACHE to a folder that can be written.")


def test_a_full_disk_is_left_as_it_was(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, tmp_path)
    read(root)
    assert [path.suffix for path in (cache_folder() / "images").iterdir()] == [".lock"]


def test_a_disk_that_is_really_full_is_left_as_it_was(
    root: Path, tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        monkeypatch.setenv("LIGHTNING_LAB_CACHE", str(disk))
        expected = fresh(root, image_size=100)  # 150 kB
        assert torch.equal(read(root, image_size=100).x, expected)
        (message,) = [message for message in said() if not message.startswith("Decoding ")]
        assert message.startswith(f"Decoded images cannot be kept in {disk} ([Errno 28] No space left on device")
        assert [path.suffix for path in (disk / "images").iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_entry_in_a_folder_to_read_only_serves(
    root: Path, decoded: list[Path], said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    read(root)
    said()
    read_only(monkeypatch, tmp_path)
    no_locks(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "utime", refused)
    read(root)
    assert len(decoded) == 5
    assert said() == []


# --- where it is, and what goes ---


def test_doctor_counts_the_megabytes(lab: Lab, root: Path) -> None:
    read(root, image_size=500)
    assert f"  decoded images: 4 MB in {cache_folder()} (" in lab("doctor", "--brief").out  # 5 * 500 * 500 * 3


def test_doctor_says_that_a_user_without_a_home_has_none(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_home(monkeypatch, tmp_path)
    answer = lab("doctor", "--brief")
    assert answer.code == 0, answer.err
    assert "  decoded images: not kept: there is no home directory ($LIGHTNING_LAB_CACHE names a folder)" in answer.out


def test_an_entry_that_nobody_reads_goes_and_one_that_is_read_stays(root: Path) -> None:
    read(root, image_size=1)
    (unread,) = entries()
    read(root, image_size=2)
    (used,) = {*entries()} - {unread}
    old = time.time() - 31 * 24 * 3600
    os.utime(unread, (old, old))
    os.utime(used, (old, old))
    lock = used.with_suffix(".lock")
    os.utime(lock, (old, old))
    read(root, image_size=2)
    read(root, image_size=3)
    assert used in entries()
    assert lock.exists()
    assert unread not in entries()
    assert len(entries()) == 2


# --- several processes ---

TOGETHER = """
import hashlib, logging, sys, time
from pathlib import Path
from lightning_lab.data import cache, images

root, marks = Path(sys.argv[1]), Path(sys.argv[2])
decode = images._decode_all

class Waits(logging.Handler):
    def emit(self, record):
        if "waiting" in record.getMessage():
            (marks / "waits").touch()

def slow(*args):
    with (marks / "decoded").open("a") as file:
        file.write("once ")
    deadline = time.monotonic() + 60
    while not (marks / "waits").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return decode(*args)

cache.log.addHandler(Waits())
images._decode_all = slow
pixels = images.read_tree(root, ("ant", "bee"), channels=3, image_size=8).x
print(hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest())
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_lab.data import images

os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing has its name
images.read_tree(Path(sys.argv[1]), ("ant", "bee"), channels=3, image_size=8)
"""


def start(script: str, *args: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_runs_at_once_decode_once(root: Path, tmp_path: Path) -> None:
    both = [start(TOGETHER, root, tmp_path) for _ in range(2)]
    answers = [run.communicate(timeout=120) for run in both]
    assert [run.returncode for run in both] == [0, 0], answers
    assert (tmp_path / "decoded").read_text() == "once "
    assert (tmp_path / "waits").exists(), "the second did not say that it waits"
    expected = hashlib.sha256(fresh(root).contiguous().numpy().tobytes()).hexdigest()
    assert [out.strip() for out, _ in answers] == [expected, expected]
    assert len(entries()) == 1


def test_what_a_killed_writer_leaves_is_not_read_and_cleaned_up(root: Path, decoded: list[Path]) -> None:
    run = start(KILLED, root)
    run.communicate(timeout=120)
    assert run.returncode == -signal.SIGKILL
    (left,) = (cache_folder() / "images").glob(".*.tmp")
    assert left.stat().st_size == 64 + 5 * 8 * 8 * 3
    assert entries() == []
    assert torch.equal(read(root).x, fresh(root))
    assert len(decoded) == 10  # five of them by `fresh`
    assert not left.exists()
    assert len(entries()) == 1


# --- real data ---


def test_real_images_come_back_as_they_were_decoded(real_data: Path) -> None:
    if not (real_data / "test").is_dir():
        pytest.skip("there is no image tree in LIGHTNING_LAB_DATA")
    names = class_folders(real_data / "test")
    form = {"channels": 3, "image_size": 32}
    expected = read_tree(real_data / "test", names, **form)
    (entry,) = entries()
    assert torch.equal(read_tree(real_data / "test", names, **form).x, expected.x)
    assert entry.stat().st_size == 64 + expected.x.numel()
    with Image.open(list_images(real_data / "test" / names[0])[0]) as file:
        np.testing.assert_array_equal(expected.x[0].permute(1, 2, 0).numpy(), np.asarray(file.convert("RGB")))
