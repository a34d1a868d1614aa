"""Bad data through the real command: one sentence, exit code 2, and no run left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support import QUICK, Lab

from lightning_lab.data.cache import cache_folder

FOLDER = (
    *("fit", *QUICK, "--lr_schedule=null", "--run.name=a", "--data=ImageFolder", "--data.root=tree"),
    *("--data.image_size=32", "--model.net.in_channels=3", "--model.net.image_size=32", "--model.net.num_classes=2"),
)


PICTURE = "tree/train/dark/1.png"


def empty(picture: Path, root: Path) -> None:
    picture.write_bytes(b"")


def cut(picture: Path, root: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:60])


def flipped(picture: Path, root: Path) -> None:
    content = bytearray(picture.read_bytes())
    content[content.find(b"IDAT") + 8] ^= 1
    picture.write_bytes(content)


def bomb(picture: Path, root: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(picture)  # 90 million pixels in 11 kB


def dangling(picture: Path, root: Path) -> None:
    picture.unlink()
    picture.symlink_to("gone")


def no_image(picture: Path, root: Path) -> None:
    [path.unlink() for path in picture.parent.iterdir()]


def class_twice(picture: Path, root: Path) -> None:
    (root / "train" / "Dark").mkdir()


def class_in_train_alone(picture: Path, root: Path) -> None:
    (root / "train" / "dim").mkdir()


def third_class(picture: Path, root: Path) -> None:
    [shutil.copytree(root / part / "dark", root / part / "dim") for part in ("train", "test")]


def loop(picture: Path, root: Path) -> None:
    (root / "train" / "loop").symlink_to("..")


def no_tree(picture: Path, root: Path) -> None:
    shutil.rmtree(root)


def test_tree_is_fine_as_it_comes(lab: Lab, image_tree: Path) -> None:
    assert lab(*FOLDER).code == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, f"{PICTURE} cannot be read as an image: it is no image. Repair or remove it."),
        (cut, f"{PICTURE} cannot be read as an image: "),
        (flipped, f"{PICTURE} cannot be read as an image: broken PNG file (bad header checksum in b'IDAT')."),
        (bomb, f"{PICTURE} has 90000000 pixels, at most 89478485 are read. Scale it down or remove it."),
        (dangling, f"{PICTURE} is a link to gone, which is not there. Repair or remove it."),
        (no_image, "tree/train/dark has no image in it (looked for .bmp, "),
        (class_twice, "tree/train has two folders of one class, 'Dark' and 'dark'. Put them together."),
        (class_in_train_alone, "The classes of tree/test are not those of tree/train: missing: dim; not in train:"),
        (third_class, "The data have 3 classes and the net gives 2. Set it with --model.net.num_classes 3."),
        (loop, "tree/train/bright and tree/train/loop are links to one place, or one holds the other"),
        (no_tree, "There is no folder tree/train. Expected an image tree: tree/train/<class>/<image>."),
    ],
)  # fmt: skip
def test_a_spoilt_tree(spoil: Callable[[Path, Path], None], message: str, lab: Lab, image_tree: Path) -> None:
    spoil(Path(PICTURE), image_tree)
    answer = lab(*FOLDER)
    assert answer.code == 2
    (error,) = [line for line in answer.err.splitlines() if not line.startswith("Decoding ")]
    assert error.startswith("error: ")
    assert message in error
    assert answer.out == ""
    assert [*Path("logs").glob("*/*")] == []
    assert [*(cache_folder() / "images").glob(".*")] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit --data.path digits.mat", "digits.mat is not the labs' digits.mat, or is damaged (it ends in the"),
        ("fit --config regression/mlp --data.high 1e308", "`low`, `high` and `noise` must be at most 1e+15 in"),
        ("fit --config regression/mlp --data.low 0", "`low` must be above 0 for the function log2_cos, got 0.0."),
        ("fit --config regression/mlp --data.num_samples 9", "`num_samples` must be 10 to 10 000 000, got 9."),
        ("fit --data.image_size 20", "LeNet5 was built for images of 1 x 28 x 28"),
        ("fit --data ImageFolder --data.root tree --model.net.num_classes 2", "got 3 x 28 x 28."),
        ("fit --config cifar10/lenet5 --data.root tree", "tree/train is not CIFAR-10: its class folders are bright"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(
    command: str, message: str, lab: Lab, image_tree: Path, mat: Callable[..., Path]
) -> None:
    path = mat(image_tree.parent / "digits.mat")
    path.write_bytes(path.read_bytes()[:9000])
    answer = lab(*command.split())
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("error: ")
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert [*Path("logs").glob("*/*")] == []


def test_a_folder_that_vanishes_when_it_was_read_does_no_harm(
    lab: Lab, image_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_lab.data import ImageFolder

    assert lab(*FOLDER).code == 0
    real = ImageFolder.train_dataloader

    def gone(module: ImageFolder) -> object:
        shutil.rmtree(image_tree)
        shutil.rmtree(cache_folder())
        return real(module)

    monkeypatch.setattr(ImageFolder, "train_dataloader", gone)
    answer = lab(*FOLDER, "--run.name=b")
    assert answer.code == 0, answer.err
    assert not image_tree.exists()
    losses = [
        [line.split('"time_s"')[0] for line in Path(f"logs/lenet5/{name}/metrics.jsonl").read_text().splitlines()]
        for name in "ab"
    ]
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    assert (
        lab(*FOLDER, "--run.name=c").err
        == "error: There is no folder tree/train. Expected an image tree: tree/train/<class>/<image>.\n"
    )


def test_predict_names_the_file_that_is_no_image(lab: Lab, image_tree: Path) -> None:
    assert lab(*FOLDER).code == 0
    (image_tree / "test" / "dark" / "0.png").write_bytes(b"")
    answer = lab("predict", "--config=logs/lenet5/a/config.yaml", "--data.predict_folder=tree/test")
    assert answer.code == 2
    assert (
        answer.err == "error: tree/test/dark/0.png cannot be read as an image: it is no image. Repair or remove it.\n"
    )
    assert not Path("logs/lenet5/a/predictions.csv").exists()
