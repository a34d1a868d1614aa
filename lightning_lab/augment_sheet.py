"""The verb ``augment``: a sheet of training images before and after each augmentation, with the draws of a run.

The images are shown as bytes, before they are normalised, each pixel as a square of whole screen pixels: nothing on the
sheet is interpolated but what the augmentations themselves do.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lightning_lab.cli import LabCLI
from lightning_lab.data.augment import Augment
from lightning_lab.data.loader import TensorLoader
from lightning_lab.endings import end
from lightning_lab.messages import quieten
from lightning_lab.runs.arguments import Parser, picture_file, positive
from lightning_lab.runs.errors import InputError
from lightning_lab.runs.files import write_whole
from lightning_lab.verbs import build

#: Each augmentation with the value that is off, in the order in which they are made; `padding` belongs to `crop`.
OFF = {
    "crop": 0, "flip": "none", "shift": 0.0, "rotate": 0.0, "resize": 0.0, "brightness": 0.0, "grey": 0.0,
    "noise": 0.0, "cutout": 0,
}  # fmt: skip
#: How a value is worded above its column.
_WORDS = {
    "crop": "{} px, {padding}", "flip": "{}", "shift": "up to {:g} px", "rotate": "up to {:g}\N{DEGREE SIGN}",
    "resize": "by up to {:g}", "brightness": "by up to {:g}", "grey": "probability {:g}", "noise": "std {:g}",
    "cutout": "{} x {} px",
}  # fmt: skip
#: Epochs whose draws are shown, all augmentations together.
_EPOCHS = 3
#: More make a picture that no viewer shows as a whole.
_MOST_ROWS = 100
#: Edge of a shown image in screen pixels: at least about so large, if the image is not, and at most.
_SMALL, _LARGE = 112, 224
#: Screen pixels an inch, and those between images, above them and of a letter left of them, of which there are so many.
_DPI, _GAP, _TOP, _LETTER, _LETTERS = 100, 14, 74, 9, 30


class Column(NamedTuple):
    """One column of the sheet.

    Args:
        title: What is done to the images.
        images: uint8. Shape (rows, C, H, W).
    """

    title: str
    images: Tensor


def main(args: list[str]) -> int:
    """Draw the sheet.

    Args:
        args: What follows ``augment`` on the command line: its own options and what would follow ``fit``.

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="lightning-lab augment",
        usage="lightning-lab augment [--output FILE] [--rows N] [what follows fit]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", type=picture_file, metavar="FILE", help="the picture (default: logs/augment/<configuration>.png)"
    )
    parser.add_argument("--rows", type=positive, default=6, metavar="N", help="how many images (default: 6)")
    options, arguments = parser.parse_known_args(args)
    if options.rows > _MOST_ROWS:
        parser.error(f"argument --rows: must be at most {_MOST_ROWS}, got {options.rows}")
    quieten()
    try:
        cli = build("fit", arguments)
        loader = training_loader(cli)
        chosen = choose(loader.examples.y, options.rows)
        names = getattr(cli.datamodule, "class_names", None)
        labels = [names[y] if names else str(y) for y in loader.examples.y[chosen].tolist()]
        experiment = cli.run_directory.path.parent
        picture = options.output or experiment.parent / "augment" / f"{experiment.name}.png"
        title = f"{type(cli.datamodule).__name__}, seed {loader.seed}; each alone with its draws of epoch 1"
        sheet = draw(columns(loader, chosen), labels, title=title)
        write_whole(picture, lambda file: sheet.savefig(file, format="png", dpi=_DPI))
        if loader.image_sizes:
            print(f"Full size is shown; `train_sizes` reduces the images behind it: {list(loader.image_sizes)}.")
        print(f"picture: {picture}")
    except BaseException as error:
        return end(error, None)
    return 0


def training_loader(cli: LabCLI) -> TensorLoader:
    """Read the training data, and nothing of the test data, and check that something is done to them.

    Args:
        cli: The command line of ``fit``, parsed.

    Raises:
        InputError: If the data cannot be read, have no images, or are not augmented.
    """
    data = cli.datamodule
    if not hasattr(data, "augment"):
        raise InputError(f"{type(data).__name__} has no `augment`: there are no images to change.")
    if not isinstance(data.augment, Augment) or not active(data.augment):
        raise InputError(
            "No augmentation is on. Set one, in the configuration or here, for example: --data.augment.rotate 15. All "
            f"of them: lightning-lab fit --data.help {type(data).__name__}"
        )
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    if not isinstance(loader, TensorLoader) or loader.augment is None:
        raise InputError(f"{type(data).__name__} augments in a loader of its own, which is not known here.")
    shape = tuple(loader.examples.x.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"Only images of 1 or 3 channels can be shown, got {' x '.join(map(str, shape))}.")
    return loader


def active(augment: Augment) -> list[str]:
    """Name the augmentations that are on, in the order in which they are made."""
    return [name for name, off in OFF.items() if getattr(augment, name) != off]


def choose(y: Tensor, rows: int) -> Tensor:
    """Choose examples: the first of each class, then the second of each, and so on.

    Args:
        y: The classes. Shape (N,).
        rows: How many are wanted.

    Returns:
        Indices. Shape (rows,), or (N,) if there are fewer.
    """
    order = torch.argsort(y, stable=True)
    counts = torch.bincount(y[order])
    firsts = counts.cumsum(0) - counts  # where each class begins
    place = torch.arange(len(y)) - firsts[y[order]]  # how many of its class stand before it
    return order[torch.argsort(place, stable=True)][:rows]


def columns(loader: TensorLoader, chosen: Tensor) -> list[Column]:
    """Make the images of the sheet, as the loader does, up to normalisation.

    Args:
        loader: Of the training data; with augmentation.
        chosen: Which examples. Shape (rows,).

    Returns:
        The images as they are; each augmentation that is on alone, with its draws of epoch 0; all of them together,
        with the draws of the first epochs.
    """
    augment = loader.augment
    assert augment is not None
    size, x = len(loader.examples), loader.examples.x[chosen]

    def make(augment: Augment, epoch: int) -> Tensor:
        draws = augment.draw(size, loader.seed, epoch).to(x.device)
        return augment(x, draws[chosen], epoch)

    made = [Column("original", x)]
    for name in active(augment):
        value = getattr(augment, name)
        alone = Augment(**{**OFF, name: value}, padding=augment.padding)
        words = _WORDS[name].format(value, value, padding=augment.padding)
        made.append(Column(f"{name}\n{words}", make(alone, 0)))
    return made + [Column(f"all together\nepoch {epoch + 1}", make(augment, epoch)) for epoch in range(_EPOCHS)]


def draw(made: list[Column], labels: list[str], *, title: str) -> Figure:
    """Put the columns beside each other.

    Args:
        made: The columns, all with the same number of images.
        labels: What stands left of each row.
        title: What stands above.
    """
    cells = [[enlarge(image) for image in column.images] for column in made]
    height, width = cells[0][0].shape[:2]
    right, below = width + _GAP, height + _GAP
    labels = [label if len(label) <= _LETTERS else f"{label[: _LETTERS - 3]}..." for label in labels]
    margin = _LETTER * max(map(len, labels)) + 2 * _GAP
    total = max(margin + right * len(made), 480), _TOP + below * len(labels)  # the title takes its room
    figure = Figure(figsize=(total[0] / _DPI, total[1] / _DPI), dpi=_DPI, facecolor="white")

    def write(x: float, y: float, text: str, **form: Any) -> None:  # from the top left corner
        figure.text(x / total[0], 1 - y / total[1], text, parse_math=False, **form)  # a class may be called $x$

    write(_GAP, _GAP, title, ha="left", va="top", fontsize=10)
    for i, column in enumerate(made):
        left = margin + right * i
        write(left + width / 2, _TOP - 5, column.title, ha="center", va="bottom", fontsize=8)
        for j, cell in enumerate(cells[i]):
            figure.figimage(cell, left, total[1] - _TOP - below * j - height, origin="upper")
    for j, label in enumerate(labels):
        write(margin - _GAP / 2, _TOP + below * j + height / 2, label, ha="right", va="center", fontsize=9)
    return figure


def enlarge(image: Tensor) -> np.ndarray:
    """Bring an image to a size that can be seen: every pixel a square, or a very large image reduced.

    Args:
        image: uint8. Shape (C, H, W), C 1 or 3.

    Returns:
        uint8 colours. Shape (H', W', 3).
    """
    pixels = image.permute(1, 2, 0).expand(-1, -1, 3).cpu().numpy()
    edge = max(pixels.shape[:2])
    if edge > _LARGE:
        reduced = Image.fromarray(np.ascontiguousarray(pixels))
        reduced.thumbnail((_LARGE, _LARGE), Image.Resampling.BOX)
        return np.asarray(reduced)
    factor = max(1, _SMALL // edge)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


_DESCRIPTION = """Show training images before and after each augmentation, as one picture.

A row is an image; the columns are the image as it is, each configured augmentation alone, and all of them together in
the first three epochs. The draws are those of a run with the same seed: what stands under "all together" is what the
net is given, before it is normalised. Only training data are read. Any key of `fit` can follow, so an augmentation can
be tried before it is configured.

examples:
  lightning-lab augment                                                     digits/lenet5: crop
  lightning-lab augment --config cifar10/speedrun --data.root DIR
  lightning-lab augment --config digits/mlp --data.augment.rotate 15
  lightning-lab augment --data.augment.shift 2 --data.augment.resize 0.2 --data.augment.noise 0.1
  lightning-lab augment --data.augment.cutout 8 --rows 10 --seed_everything 1 --output sheet.png
  lightning-lab augment --config RUN/config.yaml                            of a run that was made"""
