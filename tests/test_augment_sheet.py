"""The verb augment: its pixels against the data and against the loader's batches."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import Lab
from torch import Tensor

from lightning_lab import verbs
from lightning_lab.augment_sheet import OFF, Column, active, choose, columns, draw, enlarge, training_loader
from lightning_lab.cli import LabCLI
from lightning_lab.data.augment import Augment
from lightning_lab.data.loader import TensorLoader

EVERYTHING = [
    f"--data.augment.{setting}"
    for setting in ("crop=2", "flip=random", "shift=2", "rotate=20", "resize=0.2", "brightness=0.3", "grey=0.5",
                    "noise=0.1", "cutout=4")
]  # fmt: skip
TREE = ["--data=ImageFolder", "--data.root=tree", "--model.net.num_classes=2", "--data.image_size=32",
        "--model.net.image_size=32"]  # fmt: skip


def parts(*args: str) -> LabCLI:
    return verbs.build("fit", list(args))


def batches(loader: TensorLoader, epoch: int) -> Tensor:
    """All images of an epoch as the loader gives them, in the data set's order."""
    loader.set_epoch(epoch)
    x = torch.empty(len(loader.examples), *loader.examples.x.shape[1:])
    for batch in loader:
        x[batch.indices] = batch.x
    return x


def denormalised(x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    pixels = (x * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)) * 255
    assert (pixels - pixels.round()).abs().max() < 0.01
    return pixels.round().to(torch.uint8)


GREY, COLOUR = ([0.3055], [0.3187]), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(("channels", "normalisation"), [(1, GREY), (3, COLOUR)], ids=["grey", "colour"])
@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
def test_all_together_is_what_the_loader_gives(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image_tree: Path,
    channels: int,
    normalisation: tuple[list[float], list[float]],
    flip: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ["--config=digits/mlp"] if channels == 1 else [*TREE, "--model.net.in_channels=3"]
    loader = training_loader(parts(*source, *EVERYTHING, f"--data.augment.flip={flip}", "--seed_everything=3"))
    chosen = choose(loader.examples.y, 7)
    made = columns(loader, chosen)
    assert torch.equal(made[0].images, loader.examples.x[chosen])
    assert [column.title for column in made[-3:]] == [f"all together\nepoch {epoch}" for epoch in (1, 2, 3)]
    for epoch, column in enumerate(made[-3:]):
        given = denormalised(batches(loader, epoch)[chosen], *normalisation)
        assert torch.equal(column.images, given)


def test_each_alone_has_the_draws_that_it_has_among_the_others() -> None:
    loader = training_loader(parts("--config=digits/mlp", *EVERYTHING))
    chosen = choose(loader.examples.y, 5)
    made = {column.title.partition("\n")[0]: column.images for column in columns(loader, chosen)}
    assert list(made) == ["original", *OFF, "all together"]
    for name in ("rotate", "noise", "cutout"):
        settings = [f"--data.augment.{other}={OFF[other]}" for other in OFF if other != name]
        own = [setting for setting in EVERYTHING if setting.startswith(f"--data.augment.{name}=")]
        alone = training_loader(parts("--config=digits/mlp", *settings, *own))
        assert torch.equal(made[name], denormalised(batches(alone, 0)[chosen], *GREY))
    changed = {name for name, images in made.items() if not torch.equal(images, made["original"])}
    assert changed == {*OFF, "all together"} - {"grey"}  # which grey images are already


def test_the_table_has_every_augmentation() -> None:
    assert {*OFF, "padding"} == set(inspect.signature(Augment).parameters)
    assert active(Augment()) == active(Augment(**OFF)) == []  # type: ignore[arg-type]
    assert active(Augment(noise=0.1, rotate=3)) == ["rotate", "noise"]


def test_the_first_of_each_class_then_the_second() -> None:
    y = torch.tensor([2, 2, 0, 1, 0, 2, 4])
    assert choose(y, 4).tolist() == [2, 3, 0, 6]
    assert choose(y, 99).tolist() == [2, 3, 0, 6, 4, 1, 5]


def places(sheet: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Find where a picture stands on the sheet, to the last bit."""
    first = cell[0].tobytes()
    found = []
    for top in range(len(sheet) - len(cell) + 1):
        line, at = sheet[top].tobytes(), -1
        while (at := line.find(first, at + 1)) >= 0:
            left = at // 3
            if at % 3 == 0 and (sheet[top : top + len(cell), left : left + cell.shape[1]] == cell).all():
                found.append((top, left))
    return found


@pytest.mark.parametrize("colour", [False, True])
def test_the_picture_has_every_pixel(lab: Lab, image_tree: Path, colour: bool) -> None:
    source = [*TREE, "--model.net.in_channels=3"] if colour else ["--config=digits/mlp"]
    command = [*source, *EVERYTHING, "--data.augment.grey=0"]
    answer = lab("augment", *command, "--rows=3", "--output=sheet.png")
    assert answer.code == 0, answer.err
    assert answer.out.endswith("picture: sheet.png\n")
    with Image.open("sheet.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    loader = training_loader(parts(*command))
    made = columns(loader, choose(loader.examples.y, 3))
    tops, lefts = set(), []
    for column in made:
        for i, picture in enumerate(column.images):
            cell = picture.permute(1, 2, 0).expand(-1, -1, 3).numpy()
            factor = enlarge(picture).shape[0] // len(cell)
            spot = places(sheet, cell.repeat(factor, 0).repeat(factor, 1))
            assert spot, (column.title, i)
            if column is made[0]:
                tops.add(spot[0][0])
        lefts.append(spot[0][1])
    assert len(tops) == 3
    assert len(made) == 1 + 8 + 3
    assert (sheet[0] == 255).all()


def test_the_words_around_the_images() -> None:
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    made = [Column("original", images), Column("rotate\nup to 15", images)]
    figure = draw(made, ["$x^2$", "a name of a class that is far too long"], title="Digits, seed 0")
    words = [text.get_text() for text in figure.texts]
    assert words == ["Digits, seed 0", "original", "rotate\nup to 15", "$x^2$", "a name of a class that is f..."]
    assert not any(text.get_parse_math() for text in figure.texts)
    figure.canvas.draw()
    outline = figure.bbox
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 >= 0 and box.x1 <= outline.x1 and box.y0 >= 0 and box.y1 <= outline.y1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_values_stand_above_the_columns() -> None:
    loader = training_loader(parts("--config=digits/mlp", *EVERYTHING, "--data.augment.padding=reflect"))
    titles = [column.title for column in columns(loader, torch.tensor([0]))]
    assert titles[1:10] == [
        "crop\n2 px, reflect", "flip\nrandom", "shift\nup to 2 px", "rotate\nup to 20\N{DEGREE SIGN}",
        "resize\nby up to 0.2", "brightness\nby up to 0.3", "grey\nprobability 0.5", "noise\nstd 0.1",
        "cutout\n4 x 4 px",
    ]  # fmt: skip


@pytest.mark.parametrize(("edge", "shown"), [(1, 112), (16, 112), (28, 112), (32, 96), (100, 100), (500, 224)])
def test_images_are_shown_at_a_size_that_can_be_seen(edge: int, shown: int) -> None:
    image = torch.randint(0, 256, (3, edge, edge), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = enlarge(image)
    assert large.shape == (shown, shown, 3)
    if shown % edge == 0:
        factor = shown // edge
        assert (large[::factor, ::factor] == image.permute(1, 2, 0).numpy()).all()
        assert (large[factor - 1 :: factor, factor - 1 :: factor] == image.permute(1, 2, 0).numpy()).all()


def test_only_training_data_are_opened_and_only_the_picture_is_left(lab: Lab, image_tree: Path, tmp_path: Path) -> None:
    for path in (image_tree / "test").rglob("*.png"):
        path.write_bytes(b"not an image")
    before = set(tmp_path.rglob("*"))
    answer = lab("augment", *TREE, "--model.net.in_channels=3", "--data.augment.cutout=8", "--run.experiment=mine")
    assert answer.code == 0, answer.err
    assert {p.relative_to(tmp_path).as_posix() for p in set(tmp_path.rglob("*")) - before if p.is_file()} == {
        "logs/augment/mine.png"
    }


def test_sizes_of_a_schedule_are_mentioned(lab: Lab, tmp_path: Path) -> None:
    from test_configs import cifar10_tree

    root = f"--data.root={cifar10_tree(tmp_path / 'cifar')}"
    answer = lab("augment", "--config=cifar10/speedrun", root, "--data.val_frac=0.5")
    assert answer.code == 0, answer.err
    assert "Full size is shown; `train_sizes` reduces the images behind it: [24, 24, 24, 24, 32].\n" in answer.out


OWN = """import torch
from lightning.pytorch import LightningDataModule
from lightning_lab.data.augment import Augment
from lightning_lab.data.loader import Examples, TensorLoader
class Own(LightningDataModule):
    def __init__(self, channels: int = 5, known: bool = True, seed: int = 0):
        super().__init__()
        self.augment, self.known = Augment(crop=1), known
        self.examples = Examples(torch.zeros(4, channels, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    def train_dataloader(self):
        return TensorLoader(self.examples, batch_size=2, augment=self.augment if self.known else None)
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--config digits/mlp", "No augmentation is on. Set one, in the configuration or here, for example: --data.augment.rotate 15. All"),
        ("--config digits/mlp --data.augment.crop 0", "No augmentation is on."),
        ("--config regression/mlp", "Regression has no `augment`: there are no images to change."),
        ("--data own_images.Own", "Only images of 1 or 3 channels can be shown, got 5 x 8 x 8."),
        ("--data own_images.Own --data.known false", "Own augments in a loader of its own, which is not known here."),
        ("--data.augment.crop 30 --data.augment.padding reflect", "`crop` 30 can leave nothing of an image of 28 x 28: it must be below 28."),
        ("--data.augment.rotte 3", "Unknown key 'data.augment.rotte'. Did you mean 'data.augment.rotate'?"),
        ("--data.augment.rotate 181", "`rotate` must be in [0, 180] degrees, got 181"),
        ("--config cifar10/lenet5 --data.root nowhere", "CIFAR-10 is not there"),
        ("--rows 0", "argument --rows: must be a whole number of at least 1, got 0. See lightning-lab augment --help."),
        ("--rows 101", "argument --rows: must be at most 100, got 101. See lightning-lab augment --help."),
        ("--output sheet.jpg", "argument --output: must end in .png, got sheet.jpg."),
    ],
)  # fmt: skip
def test_bad_input(command: str, message: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_images.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    answer = lab("augment", *command.split())
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert not (tmp_path / "logs").exists()


def test_what_the_message_recommends_works(lab: Lab) -> None:
    words = lab("augment", "--config=digits/mlp").err.partition("for example: ")[2].partition(". All")[0].split()
    assert lab("augment", "--config=digits/mlp", *words).code == 0
