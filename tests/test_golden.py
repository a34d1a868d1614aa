"""Losses of two tiny runs, as they were when each number was first written down.

A change that claims to leave results alone (a faster loader, a leaner loop, another place for a file) must leave these
alone. They are fp32, one thread, fixed seed, and cross everything that touches a number: split, initial weights, order,
augmentation, dropout, clipping, schedule, penalty by weight decay, validation. Who changes a number on purpose says in
the change why, and writes the new ones down. The tolerance is the rounding between processors; a draw more or
less, a batch in another order or a missing step is larger by orders of magnitude.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Lab

FP32 = ("--trainer.precision=32-true", "--channels_last=false", "--model.optimizer.fused=false")
COMMANDS = {
    "lenet5": [
        "--config=digits/lenet5",
        "--model.net.image_size=16",
        "--data.image_size=16",
        "--data.augment.crop=2",
        "--data.augment.flip=random",
        "--lr_schedule.scheduler.step_size=20",
        "--model.optimizer.lr=0.2",
        "--model.net.dropout=0.2",
        "--model.optimizer.weight_decay=0.001",
        "--gradient_clipping.max_norm=0.5",
        "--lr_schedule.interval=step",
        "--lr_schedule.warmup=5",
    ],
    "mlp": ["--config=digits/mlp", "--model.net.dropout=0.1", "--data.batch_size=100", "--lr_schedule=null"],
}
#: (train/loss, val/loss, grad_norm) of each epoch.
GOLDEN = {
    "lenet5": [
        (2.29945969581604, 2.156761884689331, 0.37883076071739197),
        (2.050861120223999, 1.5947296619415283, 1.0208364725112915),
        (1.8110707998275757, 1.4131407737731934, 1.4678525924682617),
    ],
    "mlp": [
        (2.1499979496002197, 1.639440894126892, 0.7296016216278076),
        (0.9560471773147583, 0.5234505534172058, 1.6872901916503906),
        (0.46682727336883545, 0.31846949458122253, 1.9865119457244873),
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_losses_are_what_they_were(name: str, lab: Lab, tmp_path: Path) -> None:
    logs = f"--run.logs={tmp_path}"
    assert lab("fit", *COMMANDS[name], *FP32, logs, "--run.name=golden", "--trainer.max_epochs=3").code == 0
    file = next(tmp_path.glob("*/golden/metrics.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    found = [(row["train/loss"], row["val/loss"], row["grad_norm"]) for row in rows]
    assert found == [pytest.approx(golden, rel=1e-5) for golden in GOLDEN[name]]
