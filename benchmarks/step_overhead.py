"""Time of a training step of `fit`, with its logging, checkpoints and bar, against a bare loop over the same batches.

The bare loop has the same net, loader, loss and optimiser and nothing else; so the ratio is what Lightning and the
record of a run cost.

    python benchmarks/step_overhead.py
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from measure import HEADER, paired, print_conditions, row

from lightning_lab.__main__ import main as lightning_lab
from lightning_lab.data import Digits
from lightning_lab.nets import MLP, LeNet5

EPOCHS = 4
CASES = {
    "LeNet-5 16/36, 28 x 28, batch 128": (
        "digits/lenet5",
        128,
        lambda: LeNet5(image_size=28, channels=(16, 36), activation="gelu"),
        28,
    ),
    "MLP 256-128-10, batch 64": ("digits/mlp", 64, lambda: MLP(hidden=(128,)), 16),
}


def fit(config: str, batch_size: int, extra: list[str]) -> float:
    with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        code = lightning_lab(
            ["fit", f"--config={config}", f"--run.logs={logs}", "--run.name=one", f"--data.batch_size={batch_size}",
             f"--trainer.max_epochs={EPOCHS}", "--trainer.limit_val_batches=0", "--checkpoint.monitor=train/loss",
             "--progress.style=bar", "--lr_schedule=null", "--data.augment=null", "--trainer.accelerator=cpu", *extra]
        )  # fmt: skip
        assert code == 0
        file = next(Path(logs).glob("*/one/metrics.jsonl"))
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    # The first epoch warms up; the others are taken whole, with what happens at their ends.
    return (rows[-1]["time_s"] - rows[0]["time_s"]) / (rows[-1]["step"] - rows[0]["step"])


def bare(net: torch.nn.Module, image_size: int, batch_size: int) -> float:
    data = Digits(image_size=image_size, batch_size=batch_size)
    data.setup("fit")
    loader = data.train_dataloader()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    started, steps = 0.0, 0
    for epoch in range(EPOCHS):
        if epoch == 1:
            started = time.perf_counter()
        loader.set_epoch(epoch)
        for batch in loader:
            loss = F.cross_entropy(net(batch.x), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += epoch > 0
    return (time.perf_counter() - started) / steps


def main() -> None:
    print_conditions()
    print(HEADER)
    for name, (config, batch_size, make, size) in CASES.items():
        extra = ["--model.net.hidden=[128]"] if "mlp" in config else []
        results = paired(
            lambda c=config, b=batch_size, e=extra: 1000 * fit(c, b, e),
            lambda m=make, s=size, b=batch_size: 1000 * bare(m(), s, b),
        )
        print(row(f"step, {name}", "ms", results, larger_is_better=False))


if __name__ == "__main__":
    main()
