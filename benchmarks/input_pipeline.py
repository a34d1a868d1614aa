"""Training images a second: crop 4, flip, normalise, batches of 128.

Theirs is the ordinary way: torchvision's transforms on one image at a time, a DataLoader with two workers. Both read
the same random bytes of CIFAR-10's shape.

    python benchmarks/input_pipeline.py
"""

from __future__ import annotations

import time
from functools import partial

import ordinary
import torch
from measure import HEADER, paired, print_conditions, row

from lightning_lab.data import Augment
from lightning_lab.data.cifar10 import MEAN, STD
from lightning_lab.data.loader import Examples, TensorLoader, normalise

IMAGES, BATCH = 10_000, 128


def main() -> None:
    print_conditions()
    pixels = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    examples = Examples(pixels, torch.zeros(IMAGES, dtype=torch.long))
    prepare = partial(normalise, mean=MEAN, std=STD)
    ours = TensorLoader(
        examples, batch_size=BATCH, shuffle=True, augment=Augment(crop=4, flip="random"), prepare=prepare
    )
    theirs = ordinary.loader(examples, batch_size=BATCH, train=True)

    def images_per_s(loader: TensorLoader | ordinary.Loader) -> float:
        started = time.perf_counter()
        seen = sum(len(batch[0]) for batch in loader)
        return seen / (time.perf_counter() - started)

    results = paired(lambda: images_per_s(ours), lambda: images_per_s(theirs))
    print(HEADER)
    print(row("input pipeline, crop 4 + flip + normalise", "images/s", results, larger_is_better=True))


if __name__ == "__main__":
    main()
