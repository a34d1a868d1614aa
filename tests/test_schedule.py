"""The verb schedule: its rates against those of real runs, and against closed forms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from support import Lab
from torch.optim import Optimizer

from lightning_lab.schedule import Rates, Step, draw

ONE_STEP = ("schedule", "--config=digits/mlp", "--steps_per_epoch=1", "--csv=rates.csv")


class Watch(Callback):
    """Note the rates of every step of a real run."""

    seen: ClassVar[list[list[float]]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.seen.append([float(group["lr"]) for group in optimizer.param_groups])


def read(path: str = "rates.csv") -> tuple[list[str], list[list[float]]]:
    with Path(path).open() as file:
        header, *rows = csv.reader(file)
    return header, [[float(value) for value in row] for row in rows]


def scheduler(name: str, **settings: Any) -> list[str]:
    keys = [f"--lr_schedule.scheduler.{key}={value}" for key, value in settings.items()]
    return [f"--lr_schedule.scheduler={name}", *keys]


BY_STEP = "--lr_schedule.interval=step"
RUNS: dict[str, list[str]] = {
    "step": scheduler("StepLR", step_size=2, gamma=0.5),
    "multi-step": scheduler("MultiStepLR", milestones=[1, 3], gamma=0.1),
    "exponential by step": [*scheduler("ExponentialLR", gamma=0.9), BY_STEP],
    "cosine": scheduler("CosineAnnealingLR", T_max=4),
    "one-cycle": [*scheduler("OneCycleLR", max_lr=0.5, total_steps=20), BY_STEP],
    "linear to the end, by step, after a warm-up": [*scheduler("LinearDecay"), BY_STEP, "--lr_schedule.warmup=6"],
    "linear to the end, by epoch": scheduler("LinearDecay", final_frac=0.1),
    "step after a warm-up": [*scheduler("StepLR", step_size=1, gamma=0.5), "--lr_schedule.warmup=2"],
    "accumulated gradients": [*scheduler("LinearDecay"), BY_STEP, "--trainer.accumulate_grad_batches=3"],
    "accumulated by a plan": [
        *scheduler("ExponentialLR", gamma=0.9), BY_STEP, "--trainer.callbacks+=GradientAccumulationScheduler",
        "--trainer.callbacks.scheduling={0: 1, 2: 2}",
    ],
    "an end within an epoch": [*scheduler("LinearDecay"), BY_STEP, "--trainer.max_steps=13"],
    "no end but the steps": [*scheduler("LinearDecay"), BY_STEP, "--trainer.max_epochs=-1", "--trainer.max_steps=13"],
    "a share of the data": [*scheduler("LinearDecay"), BY_STEP, "--trainer.limit_train_batches=0.2"],
    "three groups": [
        *scheduler("LinearDecay"), BY_STEP, "--model.net=LeNet5", "--model.net.image_size=16",
        "--model.optimizer=lightning_lab.optimizers.Muon",
    ],
    "none": ["--lr_schedule=null"],
}  # fmt: skip


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_the_rates_are_those_of_a_real_run(lab: Lab, settings: list[str]) -> None:
    own = ["--config=digits/mlp", "--trainer.max_epochs=4", "--trainer.limit_train_batches=5", *settings]
    answer = lab("schedule", *own, "--csv=rates.csv")
    assert answer.code == 0, answer.err
    header, rows = read()
    Watch.seen.clear()
    watch = f"--trainer.callbacks+={__name__}.Watch"
    answer = lab("fit", *own, watch, "--run.name=one", "--trainer.limit_val_batches=2", "--trainer.accelerator=cpu")
    assert answer.code == 0, answer.err
    assert header[:2] == ["epoch", "step"]
    assert [row[2:] for row in rows] == Watch.seen
    assert [row[1] for row in rows] == list(range(1, len(rows) + 1))
    record = [json.loads(line) for line in Path("logs/mlp/one/metrics.jsonl").read_text().splitlines()]
    ends = {row["epoch"]: (row["step"], row["lr"]) for row in record}
    assert {int(row[0]): (row[1], row[2]) for row in rows} == ends  # of each epoch, its last step


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        (scheduler("StepLR", step_size=50, gamma=0.5), lambda epoch: 0.1 * 0.5 ** (epoch // 50)),
        (
            scheduler("MultiStepLR", milestones=[50, 125, 160], gamma=0.5),
            lambda epoch: 0.1 * 0.5 ** sum(epoch >= milestone for milestone in (50, 125, 160)),
        ),
        (scheduler("ExponentialLR", gamma=0.95), lambda epoch: 0.1 * 0.95**epoch),
    ],
    ids=["step", "multi-step", "exponential"],
)
def test_the_three_schedules_of_lab_d(lab: Lab, settings: list[str], rate: Any) -> None:
    assert lab(*ONE_STEP, "--trainer.max_epochs=200", "--model.optimizer.lr=0.1", *settings).code == 0
    header, rows = read()
    assert header == ["epoch", "step", "lr"]
    assert [row[0] for row in rows] == list(range(1, 201))
    assert [row[2] for row in rows] == pytest.approx([rate(epoch) for epoch in range(200)], rel=1e-12)


def rows_of(out: str) -> list[list[str]]:
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["epoch", "step"])
    return [line.split() for line in lines[first + 1 :] if line.split()[0].isdecimal() and "the" not in line.split()]


def test_the_table_has_a_row_for_each_change(lab: Lab) -> None:
    answer = lab(
        "schedule", "--config=digits/mlp", "--steps_per_epoch=36", "--trainer.max_epochs=200",
        "--model.optimizer.lr=0.1", *scheduler("MultiStepLR", milestones=[50, 125, 160], gamma=0.5),
    )  # fmt: skip
    assert answer.out.startswith("SGD, MultiStepLR by epoch: 200 epochs of 36 steps, 7200 steps in all\n")
    assert rows_of(answer.out) == [
        ["1", "1", "0.1"],
        ["51", "1801", "0.05"],
        ["126", "4501", "0.025"],
        ["161", "5761", "0.0125"],
    ]
    assert "picture: logs/schedules/mlp.png" in answer.out


def test_a_long_table_is_thinned_and_keeps_first_highest_and_last(lab: Lab) -> None:
    one_cycle = [*scheduler("OneCycleLR", max_lr=0.5, total_steps=720), BY_STEP]
    answer = lab("schedule", "--config=digits/mlp", "--steps_per_epoch=36", *one_cycle, "--csv=rates.csv")
    shown, (_, every) = rows_of(answer.out), read()
    assert len(shown) <= 20
    highest = max(every, key=lambda row: row[2])
    assert {"1", "720", f"{highest[1]:.0f}"} <= {row[1] for row in shown}
    assert all(float(row[2]) == pytest.approx(every[int(row[1]) - 1][2], rel=1e-5) for row in shown)
    assert f"{len(shown)} of the 720 steps that change the rate; --csv FILE writes every step" in answer.out


def test_a_constant_rate_is_said_to_be_one(lab: Lab) -> None:
    out = lab(*ONE_STEP, "--lr_schedule=null").out
    assert "SGD, no schedule (`lr_schedule` is null): 20 epochs of 1 steps, 20 steps in all\n" in out
    assert "The learning rate is constant.\n" in out
    assert rows_of(out) == [["1", "1", "0.05"]]
    out = lab(*ONE_STEP, "--trainer.max_epochs=5").out
    assert "The learning rate is constant. `lr_schedule` has no effect within this run.\n" in out
    assert "has no effect" not in lab(*ONE_STEP, "--trainer.max_epochs=6").out


def test_what_may_end_the_run_earlier_is_named(lab: Lab) -> None:
    assert "may end" not in lab(*ONE_STEP).out
    out = lab(*ONE_STEP, "--early_stopping.patience=3", "--trainer.max_time=00:01:00:00").out
    assert "`early_stopping` and `trainer.max_time` may end the run earlier.\n" in out


def test_groups_are_told_apart(lab: Lab) -> None:
    answer = lab("schedule", "--config=cifar10/speedrun", "--steps_per_epoch=49", "--csv=rates.csv")
    assert answer.code == 0, answer.err  # CIFAR-10 is not here
    header, rows = read()
    assert header == ["epoch", "step", "lr 1", "lr 2", "lr 3"]
    assert rows[0][2:] == [0.2, 0.83, 53.0]
    assert rows[-1][2:] == pytest.approx([rate / 392 for rate in rows[0][2:]], rel=1e-9)
    assert "lr 2: 1 tensors, 2560 weights\n" in answer.out  # SpeedNet's head


def test_only_the_picture_is_left_behind(lab: Lab, tmp_path: Path) -> None:
    answer = lab("schedule", "--config=digits/mlp")
    assert answer.code == 0, answer.err
    assert "20 epochs of 36 steps" in answer.out  # of the data themselves
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mlp.png"]
    lab(*ONE_STEP[:3], "--run.logs=elsewhere", "--run.experiment=mine")
    assert is_drawn(Path("elsewhere/schedules/mine.png"))
    lab(*ONE_STEP[:3], "--output=deep/down/rate.png")
    assert is_drawn(Path("deep/down/rate.png"))


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and min(image.size) >= 300 and bool(np.asarray(image.convert("L")).std() > 5)


def curve(*rates: float) -> Rates:
    return Rates(("lr",), [Step(i + 1, float(i), (rate,)) for i, rate in enumerate(rates)])


@pytest.mark.parametrize(
    ("rates", "axis"),
    [
        (curve(*[0.95**i for i in range(200)]), "log"),
        (curve(1.0, 0.1, 0.01, 0.001), "log"),
        (curve(*[1 - i / 400 for i in range(400)]), "linear"),  # to 1/400 at its very end
        (curve(0.1, 0.05, 0.025), "linear"),
        (curve(0.0, 0.0), "linear"),
        (curve(0.1), "linear"),
    ],
    ids=["exponential", "steps", "a straight line to zero", "halved", "zero", "one step"],
)
def test_the_axis_is_logarithmic_where_the_rate_spans_decades(rates: Rates, axis: str) -> None:
    assert draw(rates, title="t").axes[0].get_yscale() == axis


@pytest.mark.parametrize(("rate", "axis"), [(0.1, "log"), (0.0, "linear")])
def test_the_axis_can_be_chosen(rate: float, axis: str) -> None:
    assert draw(curve(rate, rate / 2), title="t", scale="log").axes[0].get_yscale() == axis  # no logarithm of zero
    assert draw(curve(1.0, 1e-9), title="t", scale="linear").axes[0].get_yscale() == "linear"


def test_the_picture_is_a_step_plot_over_epochs() -> None:
    steps = [Step(1, 0.0, (0.1,)), Step(1, 0.5, (0.1,)), Step(2, 1.0, (0.05,)), Step(2, 1.5, (0.05,))]
    axes = draw(Rates(("lr",), steps), title="t").axes[0]
    (line,) = axes.get_lines()
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0, 0.5, 1, 1.5, 2]  # to the end of the last step
    assert line.get_ydata().tolist() == [0.1, 0.1, 0.05, 0.05, 0.05]
    assert axes.get_xlim() == (0, 2)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs (of 2 steps)", "learning rate")
    assert axes.get_legend() is None


OWN = """import torch
from lightning.pytorch import LightningModule
class Own(LightningModule):
    def __init__(self, manual: bool = False, scheduled: bool = False):
        super().__init__()
        self.layer = torch.nn.Linear(256, 10)
        self.scheduled = scheduled
        self.automatic_optimization = not manual
    def training_step(self, batch, batch_idx):
        return self.layer(batch[0].flatten(1)).sum()
    def configure_optimizers(self):
        optimizer = torch.optim.SGD([{"params": [self.layer.weight], "name": "weight"}, {"params": [self.layer.bias], "lr": 0.5}], lr=1.0)
        if not self.scheduled:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "frequency": 2}}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (tmp_path / "own_schedule.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return ("schedule", "--model=own_schedule.Own", "--data.image_size=16", "--steps_per_epoch=3", "--csv=rates.csv")


def test_a_module_with_a_schedule_of_its_own(lab: Lab, own: tuple[str, ...]) -> None:
    answer = lab(*own, "--model.scheduled=true", "--lr_schedule=null", "--trainer.max_epochs=5")
    assert answer.code == 0, answer.err
    header, rows = read()
    assert header == ["epoch", "step", "lr of weight", "lr 2"]
    assert [row[2:] for row in rows[::3]] == [[1.0, 0.5], [1.0, 0.5], [0.5, 0.25], [0.5, 0.25], [0.25, 0.125]]
    assert answer.out.startswith("SGD, ExponentialLR: 5 epochs of 3 steps")
    answer = lab(*own, "--model.scheduled=true")
    assert answer.code == 2
    assert "Own brings a schedule of its own and the slot `lr_schedule` is on too" in answer.err


def test_a_module_that_steps_by_itself_is_refused(lab: Lab, own: tuple[str, ...]) -> None:
    answer = lab(*own, "--model.manual=true")
    assert answer.code == 2
    assert "Own steps its optimisers by itself: only a run knows its rates." in answer.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--lr_schedule.scheduler ReduceLROnPlateau", "ReduceLROnPlateau lowers the rate when a metric stops improving: its rates depend on the results"),
        ("--lr_schedule.interval step --lr_schedule.scheduler OneCycleLR --lr_schedule.scheduler.max_lr 0.5 --lr_schedule.scheduler.total_steps 9", "`lr_schedule` fails after step 10 of the run: Tried to step 10 times."),
        ("--trainer.max_epochs 0", "The run has no step: raise --trainer.max_epochs or --trainer.max_steps."),
        ("--trainer.max_epochs -1", "The run has no end: set --trainer.max_epochs or --trainer.max_steps."),
        ("--trainer.limit_train_batches 0", "An epoch has inf batches here. Give it a length: --trainer.limit_train_batches N."),
        ("--lr_schedule.scheduler LinearDecay --lr_schedule.warmup 20", "`warmup` 20 leaves nothing of the run for `LinearDecay`."),
        ("--lr_schedule.warmpu 2", "Unknown key 'lr_schedule.warmpu'. Did you mean 'lr_schedule.warmup'?"),
        ("--output rate.pdf", "argument --output: must end in .png, got rate.pdf. See lightning-lab schedule --help."),
        ("--steps_per_epoch 0", "argument --steps_per_epoch: must be a whole number of at least 1, got 0."),
        ("--steps_per_epoch two", "argument --steps_per_epoch: must be a whole number of at least 1, got two."),
        ("--config cifar10/lenet5 --data.root empty", "Without the data: --steps_per_epoch N."),
        ("--csv empty", "Is a directory: empty could not be written."),
    ],
)  # fmt: skip
def test_bad_input(command: str, message: str, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = lab("schedule", *([] if "--config" in command else ["--config=digits/mlp"]), *command.split())
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err


def test_help_has_the_three_schedules_of_lab_d(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lab("schedule", "--help")
    assert stop.value.code == 0
    out = capfd.readouterr().out
    for name in ("StepLR", "MultiStepLR", "ExponentialLR"):
        assert f"--lr_schedule.scheduler {name}" in out
