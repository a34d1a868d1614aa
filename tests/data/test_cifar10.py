"""CIFAR-10 from an image tree and from files in the official layout, and how damaged ones are refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.client import BadStatusLine
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10 as OfficialCIFAR10  # noqa: N811 - the class and the data set share a name

from lightning_lab.data import CIFAR10, Augment
from lightning_lab.data.cifar10 import CLASS_NAMES, MEAN, STD
from lightning_lab.data.images import read_tree
from lightning_lab.data.loader import Examples
from lightning_lab.runs.errors import InputError

Tree = Callable[..., Path]


def ready(root: Path, *stages: str, **settings: Any) -> CIFAR10:
    module = CIFAR10(str(root), **settings)
    module.prepare_data()
    [module.setup(stage) for stage in stages]
    return module


# --- image tree ---


def test_tree_gives_the_official_labels(tree: Tree, tmp_path: Path) -> None:
    module = ready(tree(tmp_path, CLASS_NAMES), "fit", "test", val_frac=0.25)
    assert torch.bincount(module._parts["train"].y).tolist() == [3] * 10
    assert torch.bincount(module._parts["val"].y).tolist() == [1] * 10
    assert module._parts["test"].y.tolist() == [label for label in range(10) for _ in range(2)]
    frog = read_tree(tmp_path / "test", ["frog"], channels=3, image_size=32).x
    assert torch.equal(module._parts["test"].x[12:14], frog)
    assert module.class_names[6] == "frog"


@pytest.mark.parametrize(
    ("stage", "opened"), [("fit", {"train", "val"}), ("validate", {"train", "val"}), ("test", {"test"})]
)
def test_a_stage_reads_its_own_parts_alone(tree: Tree, tmp_path: Path, stage: str, opened: set[str]) -> None:
    assert set(ready(tree(tmp_path, CLASS_NAMES), stage)._parts) == opened


def test_fit_does_not_read_the_test_images(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, CLASS_NAMES)
    (tmp_path / "test" / "frog" / "0.png").write_text("no image")
    assert set(ready(tmp_path, "fit")._parts) == {"train", "val"}


def test_batches_are_normalised_and_only_training_is_augmented(tree: Tree, tmp_path: Path) -> None:
    module = ready(tree(tmp_path, CLASS_NAMES), "fit", batch_size=1000, augment=Augment(crop=4, flip="random"))
    (train,), (val,) = module.train_dataloader(), module.val_dataloader()

    def normalised(examples: Examples) -> torch.Tensor:
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
        return (examples.x.double() / 255 - mean) / std

    torch.testing.assert_close(val.x.double(), normalised(module._parts["val"]), rtol=0, atol=1e-6)
    assert train.x.shape == (30, 3, 32, 32)
    assert train.x.is_contiguous(memory_format=torch.channels_last)
    assert (train.x - normalised(module._parts["train"])[train.indices]).abs().max() > 1


def test_class_missing_in_the_test_part_is_named(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, CLASS_NAMES)
    (tmp_path / "test" / "horse").rename(tmp_path / "horse")
    with pytest.raises(InputError, match=r"The classes of .*test are not those of .*train: missing: horse; not in"):
        ready(tmp_path)


def test_tree_of_other_classes_is_refused(tree: Tree, tmp_path: Path) -> None:
    tree(tmp_path, ("ant", "bee"))
    message = (
        r"train is not CIFAR-10: its class folders are ant, bee; expected airplane, .*, truck\. For images of your"
    )
    with pytest.raises(InputError, match=message):
        ready(tmp_path, "fit")


def test_tree_without_a_test_part_is_refused(tree: Tree, tmp_path: Path) -> None:
    root = tree(tmp_path, CLASS_NAMES, test=0)
    ready(root)  # training needs none
    with pytest.raises(InputError, match=r"There is no folder .*test\."):
        ready(root, "test")


def test_predict_resizes_the_images_of_its_folder(image: Callable[..., np.ndarray], tmp_path: Path) -> None:
    image(tmp_path / "b.png", (32, 32))
    image(tmp_path / "a.png", (50, 40), "L")
    module = CIFAR10(str(tmp_path), predict_folder=str(tmp_path))
    module.setup("predict")
    assert module.predict_files == [tmp_path / "a.png", tmp_path / "b.png"]
    assert next(iter(module.predict_dataloader())).x.shape == (2, 3, 32, 32)


def test_train_sizes_are_for_the_training_alone(tree: Tree, tmp_path: Path) -> None:
    module = ready(tree(tmp_path, CLASS_NAMES), "fit", "test", val_frac=0.25, train_sizes=[12, 32])
    train = module.train_dataloader()
    edges = []
    for epoch in range(3):
        train.set_epoch(epoch)
        edges.append(next(iter(train)).x.shape[-1])
    assert edges == [12, 32, 32]
    assert next(iter(module.val_dataloader())).x.shape[-1] == 32
    assert next(iter(module.test_dataloader())).x.shape[-1] == 32


# --- where it looks ---


def test_root_is_the_variables_else_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_LAB_DATA", str(tmp_path))
    assert CIFAR10().root == tmp_path
    assert CIFAR10("elsewhere").root == Path("elsewhere")
    monkeypatch.delenv("LIGHTNING_LAB_DATA")
    assert CIFAR10().root == Path("data")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_folder_without_the_data_set_is_refused(tmp_path: Path, stage: str) -> None:
    message = (
        r"^CIFAR-10 is not there, or is incomplete or damaged in .*absent \(.*\)\. Give its folder with --data\.root"
    )
    with pytest.raises(InputError, match=message):
        ready(tmp_path / "absent", stage)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"val_frac": 0.0}, "`val_frac` must be above 0"),
        ({"train_sizes": []}, r"`train_sizes` must be one or more numbers from 8 to 32, got \[\]"),
        ({"train_sizes": [32, 7]}, r"from 8 to 32, got \[32, 7\]"),
        ({"train_sizes": [33]}, r"got \[33\]"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIFAR10(**settings)


# --- official files ---


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


OFFICIAL_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_damaged_official_files_are_refused_and_not_unpickled(tmp_path: Path, stage: str) -> None:
    folder, mark = tmp_path / "cifar-10-batches-py", tmp_path / "unpickled"
    folder.mkdir()
    [(folder / name).write_bytes(pickle.dumps(Trap(mark))) for name in OFFICIAL_FILES]
    message = (
        r"^CIFAR-10 is not there, or is incomplete or damaged in .* \(Dataset not found or corrupted\..*--data\.root"
    )
    with pytest.raises(InputError, match=message):
        ready(tmp_path, stage)
    assert not mark.exists()
    pickle.loads((folder / "test_batch").read_bytes())
    assert mark.exists()  # the trap would have worked


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the files of tmp_path on this machine and give the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_damaged_download_is_refused_and_not_unpacked(tmp_path: Path, mirror: str) -> None:
    (tmp_path / "mirror.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(InputError, match=r"^CIFAR-10 could not be downloaded in .* \(File not found or corrupted\.\)"):
        ready(tmp_path / "root", download=True, url=f"{mirror}/mirror.tar.gz")
    assert not (tmp_path / "root" / "cifar-10-batches-py").exists()


def test_mirror_without_the_archive_is_refused(tmp_path: Path, mirror: str) -> None:
    message = r"^CIFAR-10 could not be downloaded in .* \(HTTP Error 404: .*fetch it with --data\.download true"
    with pytest.raises(InputError, match=message):
        ready(tmp_path / "root", download=True, url=f"{mirror}/absent.tar.gz")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Write six files of 20 images in the official layout into mirror.tar.gz and expect their checksums."""
    folder = tmp_path / "made" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    pixels = {name: generator.integers(0, 256, (20, 3072), dtype=np.uint8) for name in OFFICIAL_FILES[:-1]}
    content: dict[str, Any] = {
        name: {"data": data, "labels": [number % 10 for number in range(20)]} for name, data in pixels.items()
    }
    content["batches.meta"] = {"label_names": list(CLASS_NAMES)}
    [(folder / name).write_bytes(pickle.dumps(value)) for name, value in content.items()]
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in OFFICIAL_FILES}
    with tarfile.open(tmp_path / "mirror.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    monkeypatch.setattr(OfficialCIFAR10, "train_list", [[name, md5[name]] for name in OFFICIAL_FILES[:5]])
    monkeypatch.setattr(OfficialCIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(OfficialCIFAR10, "meta", OfficialCIFAR10.meta | {"md5": md5["batches.meta"]})
    whole = hashlib.md5((tmp_path / "mirror.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(OfficialCIFAR10, "tgz_md5", whole)
    return pixels


def test_official_files_are_fetched_and_read(tmp_path: Path, mirror: str, official: dict[str, np.ndarray]) -> None:
    url = f"{mirror}/mirror.tar.gz"
    module = ready(tmp_path / "root", "fit", "test", download=True, url=url)
    # A row of the file is the red plane, then green, then blue, each row by row.
    expected = official["test_batch"].reshape(20, 3, 32, 32)
    np.testing.assert_array_equal(module._parts["test"].x.numpy(), expected)
    assert module._parts["test"].y.tolist() == [number % 10 for number in range(20)]
    assert (len(module._parts["train"]), len(module._parts["val"])) == (80, 20)
    offline = ready(tmp_path / "root", "fit")
    assert torch.equal(offline._parts["train"].x, module._parts["train"].x)


def test_a_download_cut_short_is_refused_and_removed(
    tmp_path: Path, mirror: str, official: dict[str, np.ndarray]
) -> None:
    archive = tmp_path / "mirror.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"could not be downloaded in .* \(File not found or corrupted\.\)"):
        ready(tmp_path / "root", download=True, url=f"{mirror}/mirror.tar.gz")
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".cifar-10.lock"]


@pytest.mark.parametrize("name", OFFICIAL_FILES)
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content[:-1] + b"\x00"])
def test_a_damaged_official_file_is_refused(
    tmp_path: Path, official: dict[str, np.ndarray], name: str, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "made" / "cifar-10-batches-py" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=r"is incomplete or damaged in .*made \(Dataset .*not found or corrupted"):
        ready(tmp_path / "made", "fit")


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("/{outside}/evil", tarfile.REGTYPE, ""),
        ("../evil", tarfile.REGTYPE, ""),
        ("cifar-10-batches-py/../../evil", tarfile.REGTYPE, ""),
        ("evil", tarfile.SYMTYPE, "../../outside"),
        ("evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("evil", tarfile.LNKTYPE, "../made/cifar-10-batches-py/test_batch"),
        ("evil", tarfile.CHRTYPE, ""),
        ("evil", tarfile.FIFOTYPE, ""),
    ],
)
@pytest.mark.parametrize("known", [False, True], ids=["as it comes", "with the right checksum"])
def test_an_archive_that_would_write_elsewhere_is_refused(
    tmp_path: Path,
    mirror: str,
    official: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: bytes,
    target: str,
    known: bool,
) -> None:
    archive = tmp_path / "mirror.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo(name.format(outside=str(tmp_path).lstrip("/")))
        member.type, member.linkname = kind, target
        file.addfile(member)
    if known:  # what no mirror can reach: then tarfile's own filter refuses
        monkeypatch.setattr(OfficialCIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"^CIFAR-10 could not be downloaded in ") as error:
        ready(tmp_path / "root", download=True, url=f"{mirror}/mirror.tar.gz")
    assert ("File not found or corrupted." in str(error.value)) is not known
    # Of an absolute path the filter drops the first slash, so that it stays inside.
    assert not [path for path in tmp_path.rglob("evil") if path.is_symlink() or tmp_path / "root" not in path.parents]


def test_a_mirror_that_speaks_another_language_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def garbled(*_: Any, **__: Any) -> None:
        raise BadStatusLine("SSH-2.0")

    monkeypatch.setattr("urllib.request.urlopen", garbled)
    with pytest.raises(InputError, match=r"^CIFAR-10 could not be downloaded in .* \(SSH-2\.0\)"):
        ready(tmp_path / "root", download=True, url="http://127.0.0.1/a.tar.gz")


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"^CIFAR-10 cannot be downloaded to .*file \(.*\)\. Give a folder that can be"
    ):
        ready(tmp_path / "file", download=True)


# --- constants ---


@pytest.mark.slow
def test_constants_are_those_of_the_training_pixels_of_cifar10(real_data: Path) -> None:
    if not (real_data / "train" / "airplane").is_dir():
        pytest.skip("there is no image tree of CIFAR-10 in LIGHTNING_LAB_DATA")
    pixels = read_tree(real_data / "train", CLASS_NAMES, channels=3, image_size=32).x
    assert len(pixels) == 50_000
    # From the counts of the 256 values; re-encoding as JPEG moves them by less than 0.003.
    counts = torch.stack([torch.bincount(pixels[:, c].flatten(), minlength=256) for c in range(3)]).double()
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * value).sum(1) / counts.sum(1)
    std = ((counts * value**2).sum(1) / counts.sum(1) - mean**2).sqrt()
    torch.testing.assert_close(mean, torch.tensor(MEAN, dtype=torch.float64), rtol=0, atol=0.003)
    torch.testing.assert_close(std, torch.tensor(STD, dtype=torch.float64), rtol=0, atol=0.003)


@pytest.mark.parametrize("url", ["file:///tmp/cifar.tar.gz", "cifar.tar.gz"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="`url` must begin with http:// or https://, got "):
        CIFAR10(url=url)
