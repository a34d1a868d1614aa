"""The main job in one process: fit, continue, test, validate, predict, and what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from support import QUICK, Lab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_lab.__main__ import main
from lightning_lab.runs.lock import RunLock

RUN = Path("logs/mlp/one")
FIT = ("fit", "--config=digits/mlp", *QUICK, "--run.name=one", "--lr_schedule=null")


def summary(run: Path = RUN) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def rows(run: Path = RUN) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def test_a_fit_leaves_the_record(lab: Lab) -> None:
    answer = lab(*FIT)
    assert answer.code == 0, answer.err
    assert {path.name for path in RUN.iterdir()} >= {
        "config.yaml", "environment.json", "metrics.jsonl", "summary.json", "checkpoints", "train", "val",
    }  # fmt: skip
    assert {path.name for path in (RUN / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    assert summary().keys() >= {"status", "reason", "epochs", "steps", "wall_s", "best", "last"}
    assert (summary()["status"], summary()["epochs"], summary()["steps"]) == ("completed", 2, 8)
    assert [row["epoch"] for row in rows()] == [1, 2]
    assert rows()[0].keys() >= {
        "epoch",
        "step",
        "time_s",
        "train/loss",
        "train/acc",
        "val/loss",
        "val/acc",
        "lr",
        "grad_norm",
    }
    environment = json.loads((RUN / "environment.json").read_text())
    assert environment.keys() >= {"commit", "dirty", "versions", "hardware", "command"}
    assert environment["hardware"]["threads"] == torch.get_num_threads()
    assert yaml.safe_load((RUN / "config.yaml").read_text())["seed_everything"] == 0


def test_tensorboard_shows_what_metrics_jsonl_says(lab: Lab) -> None:
    lab(*FIT)
    assert scalars(RUN / "train", "loss") == pytest.approx([row["train/loss"] for row in rows()], rel=1e-6)
    assert scalars(RUN / "val", "loss") == pytest.approx([row["val/loss"] for row in rows()], rel=1e-6)
    assert scalars(RUN, "lr") == pytest.approx([0.05, 0.05])
    assert scalars(RUN, "grad_norm") == pytest.approx([row["grad_norm"] for row in rows()], rel=1e-6)


def test_the_hparams_row_has_the_final_metric_and_no_placeholder(lab: Lab) -> None:
    lab(*FIT)
    events = EventAccumulator(str(RUN))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "hp_metric" not in tags
    assert [event.value for event in events.Scalars("best/val/loss")] == pytest.approx([summary()["best"]["value"]])
    assert events.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_the_same_command_twice_says_it_is_finished(lab: Lab) -> None:
    lab(*FIT)
    before = (RUN / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    answer = lab(*FIT)
    assert answer.code == 0
    assert answer.out.startswith("logs/mlp/one is finished (completed); nothing to do.")
    assert (RUN / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_directory_is_refused_with_a_diff(lab: Lab) -> None:
    lab(*FIT)
    answer = lab(*FIT, "--model.net.dropout=0.25")
    assert answer.code == 2
    assert "model.net.dropout  0 -> 0.25" in answer.err
    assert "--run.overwrite true" in answer.err


def test_how_a_run_is_shown_does_not_change_it(lab: Lab) -> None:
    lab(*FIT)
    assert lab(*FIT, "--progress.style=lines").code == 0


def test_overwrite_starts_over(lab: Lab) -> None:
    lab(*FIT)
    answer = lab(*FIT, "--model.net.dropout=0.25", "--run.overwrite=true")
    assert answer.code == 0
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    assert config["model"]["init_args"]["net"]["init_args"]["dropout"] == 0.25


def test_then_test_and_test_give_the_same_number(lab: Lab) -> None:
    assert lab(*FIT, "--then=test").code == 0
    first = summary()["test"]
    assert lab("test", f"--config={RUN}/config.yaml", "--ckpt_path=best").code == 0
    assert summary()["test"] == first
    assert first.keys() == {"test/loss", "test/acc", "test/top5"}
    assert summary()["status"] == "completed"
    assert sorted(path.name for path in RUN.glob("*.png")) == ["confusion_matrix.png", "misclassified.png"]
    events = EventAccumulator(str(RUN / "test"))
    events.Reload()
    assert events.Tags()["images"] == ["confusion_matrix", "misclassified"]


def test_a_finished_run_is_tested_by_the_same_command(lab: Lab) -> None:
    lab(*FIT)
    answer = lab(*FIT, "--then=test")
    assert answer.code == 0
    assert "test/acc" in answer.out
    assert "test" in summary()


def test_validate_repeats_the_best_epoch(lab: Lab) -> None:
    lab(*FIT)
    files = set(RUN.rglob("*"))
    answer = lab("validate", f"--config={RUN}/config.yaml")
    assert answer.code == 0
    assert f"{summary()['best']['value']:.6g}" in answer.out
    assert set(RUN.rglob("*")) == files


def test_predict_writes_class_and_probabilities(lab: Lab, tmp_path: Path) -> None:
    lab(*FIT)
    folder = tmp_path / "images" / "deeper"
    folder.mkdir(parents=True)
    for name, grey in (("b.png", 10), ("a.jpg", 250)):
        Image.new("L", (16, 16), grey).save(folder / name)
    answer = lab("predict", f"--config={RUN}/config.yaml", "--data.predict_folder=images")
    assert answer.code == 0, answer.err
    with (RUN / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == ["images/deeper/a.jpg", "images/deeper/b.png"]
    probabilities = [[float(row[str(digit)]) for digit in range(10)] for row in table]
    assert [sum(p) for p in probabilities] == pytest.approx([1, 1], abs=1e-5)
    assert [row["class"] for row in table] == [str(p.index(max(p))) for p in probabilities]
    assert [float(row["probability"]) for row in table] == [max(p) for p in probabilities]


def test_predict_of_a_function_writes_its_curve(lab: Lab) -> None:
    lab("fit", "--config=regression/mlp", *QUICK, "--run.name=one", "--lr_schedule=null")
    assert lab("predict", "--config=logs/mlp/one/config.yaml").code == 0
    with (RUN / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 1001
    assert [float(table[0][key]) for key in ("x", "y")] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_predict_without_a_folder_says_what_it_needs(lab: Lab) -> None:
    lab(*FIT)
    answer = lab("predict", f"--config={RUN}/config.yaml")
    assert (answer.code, answer.err) == (2, "error: predict needs a folder of images: --data.predict_folder FOLDER.\n")


def test_divergence_ends_with_code_4_and_the_remedy(lab: Lab) -> None:
    answer = lab(*FIT, "--model.optimizer.lr=1e12")
    assert answer.code == 4
    assert answer.err.startswith("Training diverged: the loss of step ")
    assert "--gradient_clipping.max_norm" in answer.err
    assert summary()["status"] == "diverged"


def test_early_stopping_is_a_success(lab: Lab) -> None:
    answer = lab(
        *FIT, "--trainer.max_epochs=9", "--early_stopping.patience=1", "--early_stopping.min_delta=100",
        "--lr_schedule=null",
    )  # fmt: skip
    assert answer.code == 0
    assert (summary()["status"], summary()["epochs"]) == ("stopped_early", 2)


def test_continuing_an_interrupted_run_gives_the_uninterrupted_one(lab: Lab) -> None:
    dropout = "--model.net.dropout=0.3"
    lab(*FIT, dropout)
    whole = rows(), torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    other = "--run.name=two"
    lab(*FIT, dropout, other, "--trainer.max_epochs=1", "--run.overwrite=true")
    two = RUN.with_name("two")
    # What a kill between the epochs would have left: the first epoch's files and the longer configuration.
    (two / "config.yaml").write_text((RUN / "config.yaml").read_text())
    (two / "summary.json").write_text(
        json.dumps({**summary(two), "status": "running", "pid": -1, "host": platform.node()})
    )
    answer = lab(*FIT, dropout, other)
    assert "Continuing logs/mlp/two from its last checkpoint." in answer.out
    resumed = rows(two), torch.load(two / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    without_time = [[{k: v for k, v in row.items() if k != "time_s"} for row in part[0]] for part in (whole, resumed)]
    assert without_time[0] == without_time[1]
    assert all(torch.equal(whole[1][name], resumed[1][name]) for name in whole[1])


def test_a_run_under_way_is_not_touched(lab: Lab) -> None:
    lab(*FIT)
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    lock = RunLock(RUN)
    lock.acquire()
    owner = f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC).date()}"
    for command in ((*FIT,), (*FIT, "--run.overwrite=true"), ("test", f"--config={RUN}/config.yaml")):
        answer = lab(*command)
        assert answer.code == 2
        assert answer.err.startswith("error: The run ")
        assert f"{RUN} is under way: {owner}" in answer.err
        assert answer.err.rstrip().endswith("Wait for it, stop it, or choose another --run.name.")
    lock.release()
    after = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    assert after.items() >= before.items()
    assert lab("test", f"--config={RUN}/config.yaml").code == 0


def test_test_data_are_not_opened_by_fit(lab: Lab, image_tree: Path) -> None:
    for path in (image_tree / "test").rglob("*.png"):
        path.write_bytes(b"not an image")
    command = (
        "fit", "--data=ImageFolder", "--data.root=tree", "--model.net.num_classes=2", "--model.net.in_channels=3",
        "--model.net.image_size=32", "--data.image_size=32", *QUICK, "--lr_schedule=null", "--run.name=one",
    )  # fmt: skip
    assert lab(*command).code == 0
    answer = lab(*command, "--then=test")
    assert answer.code == 2
    assert "cannot be read as an image" in answer.err


def test_runs_lists_shows_and_compares(lab: Lab) -> None:
    lab(*FIT)
    lab(*FIT, "--run.name=two", "--model.net.dropout=0.25")
    listed = lab("runs").out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["mlp/one", "completed", "2"], ["mlp/two", "completed", "2"]]
    shown = lab("runs", "show", "one").out
    assert "status   completed" in shown
    assert "lightning-lab fit --config logs/mlp/one/config.yaml" in shown
    compared = lab("runs", "diff", "mlp/one", "mlp/two").out
    assert "model.net.dropout  0 -> 0.25" in compared
    assert "last.val/loss" in compared


def test_print_config_is_a_configuration(lab: Lab, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lab("fit", "--config=digits/mlp", "--print_config")
    assert stop.value.code == 0
    config = yaml.safe_load(capfd.readouterr().out)
    assert config["model"]["init_args"]["net"]["init_args"]["hidden"] == [128, 64]


def test_help_teaches_with_examples(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        lab("fit", "--help")
    assert stop.value.code == 0
    out = capfd.readouterr().out
    assert "lightning-lab fit --model.optimizer Adam --model.optimizer.lr 0.001" in out
    assert "`--lr_schedule null` switches it off" in " ".join(out.split())


def test_a_finished_run_without_checkpoints_is_not_overwritten(lab: Lab) -> None:
    lab(*FIT, "--checkpoint=null")
    assert "is finished" in lab(*FIT, "--checkpoint=null").out
    assert lab(*FIT, "--checkpoint=null", "--seed_everything=5").code == 2


def test_another_runs_checkpoint_gives_its_weights_and_nothing_else(lab: Lab) -> None:
    lab(*FIT)
    answer = lab(
        *FIT, "--run.name=two", "--ckpt_path=logs/mlp/one/checkpoints/last.ckpt", "--model.optimizer.lr=1e-9",
        "--then=test",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    started_from = rows()[-1]["val/loss"]
    two = rows(RUN.with_name("two"))
    assert [row["epoch"] for row in two] == [1, 2]
    assert two[0]["val/loss"] == pytest.approx(started_from, abs=1e-5)


def test_only_the_best_checkpoints_test_is_recorded(lab: Lab) -> None:
    lab(*FIT)
    assert "test/acc" in lab("test", f"--config={RUN}/config.yaml", "--ckpt_path=last").out
    assert "test" not in summary()


def test_nothing_validated_nothing_best_the_last_is_tested(lab: Lab) -> None:
    answer = lab(*FIT, "--trainer.limit_val_batches=0", "--checkpoint.monitor=train/loss", "--then=test")
    assert answer.code == 0, answer.err
    (RUN / "checkpoints" / "best.ckpt").unlink()
    answer = lab(*FIT, "--trainer.limit_val_batches=0", "--checkpoint.monitor=train/loss", "--then=test")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("reason", ["--checkpoint=null", "--trainer.fast_dev_run=true"])
def test_then_test_without_a_checkpoint_is_refused_at_once(reason: str, lab: Lab) -> None:
    answer = lab(*FIT, reason, "--then=test")
    assert (answer.code, answer.out) == (2, "")
    assert "`then` test needs a checkpoint" in answer.err


def test_a_changed_data_set_is_noticed(lab: Lab, image_tree: Path) -> None:
    command = (
        "fit", "--data=ImageFolder", "--data.root=tree", "--model.net.num_classes=2", "--model.net.in_channels=3",
        "--model.net.image_size=32", "--data.image_size=32", *QUICK, "--lr_schedule=null", "--run.name=one",
    )  # fmt: skip
    lab(*command)
    Image.new("RGB", (20, 20)).save(image_tree / "train" / "dark" / "new.png")
    answer = lab("validate", "--config=logs/lenet5/one/config.yaml")
    assert answer.code == 2
    assert "was trained on the split" in answer.err


def test_small_losses_are_shown(lab: Lab, tmp_path: Path) -> None:
    answer = lab(*FIT)
    best = summary()["best"]["value"]
    assert f"val/loss {best:.4g}" in answer.out


def test_classes_of_the_current_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Tiny(torch.nn.Sequential):\n"
        "    num_classes = 10\n"
        "    def __init__(self, *, width: int = 8):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(784, width), torch.nn.Linear(width, 10))\n"
    )
    command = [
        Path(sys.executable).with_name("lightning-lab"),
        "fit",
        "--model.net",
        "mine.Tiny",
        "--lr_schedule",
        "null",
    ]
    done = subprocess.run([*command, *QUICK], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Tiny (6,370 parameters)" in done.stdout


def test_no_model_is_told_as_such(lab: Lab) -> None:
    answer = lab("fit", "--config=trainer/cpu")
    assert (
        answer.err == "error: No configuration names a model. Put one in front, for example --config digits/lenet5.\n"
    )


def test_plateau_by_its_short_name(lab: Lab) -> None:
    plateau = (
        "--lr_schedule.scheduler=ReduceLROnPlateau",
        "--lr_schedule.scheduler.patience=0",
        "--lr_schedule.scheduler.threshold=100",
    )
    command = ("fit", "--config=digits/mlp", *QUICK, "--trainer.max_epochs=4", *plateau)
    assert lab(*command).code == 0
    answer = lab(*command, "--lr_schedule.monitor=val/los")
    assert "`lr_schedule.monitor`: Unknown validation metric 'val/los'. Did you mean 'val/loss'?" in answer.err
    answer = lab(*command, "--lr_schedule.interval=step", "--run.name=by-step")
    assert "`interval` step does not go with ReduceLROnPlateau" in answer.err


def test_a_module_that_logs_other_names_is_told_the_key(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_module.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningModule\n"
        "class Own(LightningModule):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.net = torch.nn.Linear(256, 10)\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return torch.nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])\n"
        "    def validation_step(self, batch, batch_idx):\n"
        "        self.log('val_loss', self.training_step(batch, batch_idx), batch_size=len(batch[1]))\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.SGD(self.parameters(), lr=0.01)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = ("fit", "--model=own_module.Own", "--data.image_size=16", *QUICK, "--lr_schedule=null")
    answer = lab(*command)
    assert answer.code == 2
    assert "`checkpoint.monitor`: Unknown metric 'val/loss'. Did you mean 'val_loss'?" in answer.err
    answer = lab(*command, "--checkpoint.monitor=val_loss")
    assert answer.code == 0, answer.err
    assert "val_loss" in answer.out


def test_a_task_without_an_optimiser_of_its_own_trains_and_goes_on(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "model: {class_path: lightning_lab.tasks.Classification, init_args: {net: lightning_lab.nets.MLP}}\n"
        "data: lightning_lab.data.Digits\n"
    )
    own = ("fit", "--config=own.yaml", "--run.name=one", "--lr_schedule=null", "--trainer.limit_train_batches=3")
    assert lab(*own, "--trainer.max_epochs=1").code == 0
    config = tmp_path / "logs" / "own" / "one" / "config.yaml"
    assert "default_optimizer" in config.read_text()
    answer = lab("validate", f"--config={config}")
    assert answer.code == 0, answer.err


def test_another_optimiser_gets_nothing_of_the_default_one(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "model:\n  class_path: lightning_lab.tasks.Classification\n  init_args:\n    net: lightning_lab.nets.MLP\n"
        "    optimizer: {class_path: torch.optim.RMSprop}\n"
        "data: lightning_lab.data.Digits\n"
    )
    answer = lab(
        "fit", "--config=own.yaml", "--run.name=one", "--lr_schedule=null", "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=3",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    config = yaml.safe_load((tmp_path / "logs" / "own" / "one" / "config.yaml").read_text())
    settings = config["model"]["init_args"]["optimizer"]["init_args"]
    assert (settings["lr"], settings["momentum"]) == (0.01, 0)  # torch's own for RMSprop


@pytest.mark.parametrize(("version", "newer"), [("99.0.1", True), ("0.0.1", False), ("nonsense", False)])
def test_a_configuration_of_a_newer_version_says_so(lab: Lab, version: str, newer: bool) -> None:
    lab(*FIT)
    (RUN / "config.yaml").write_text((RUN / "config.yaml").read_text() + "unheard_of: 1\n")
    environment = {**json.loads((RUN / "environment.json").read_text()), "lightning_lab": version}
    (RUN / "environment.json").write_text(json.dumps(environment))
    answer = lab("fit", f"--config={RUN}/config.yaml")
    assert answer.code == 2
    assert answer.err.startswith("error: Unknown key 'unheard_of'.")
    assert ("was written by lightning_lab 99.0.1, and this is" in answer.err) is newer


@pytest.mark.parametrize(
    ("setting", "recorded"),
    [("--data.split_seed=5", False), ("--trainer.limit_test_batches=2", False), ("--data.batch_size=7", True)],
)
def test_a_test_of_something_else_is_not_entered_as_the_runs(
    lab: Lab, setting: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(*FIT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = main(["test", f"--config={RUN}/config.yaml", setting])
    assert answer == 0
    assert ("test" in summary()) is recorded
    words = f"it is not that of the run ({setting[2:].partition('=')[0]})."
    assert any(words in str(warning.message) for warning in told) is not recorded


def test_time_that_is_over_is_the_reason(lab: Lab) -> None:
    assert lab(*FIT, "--trainer.max_epochs=4000", "--trainer.max_time=00:00:00:01").code == 0
    assert (summary()["status"], summary()["reason"]) == ("completed", "trainer.max_time is over")
    assert 0 < summary()["epochs"] < 4000


def test_weights_to_start_with_are_refused_where_a_run_goes_on(lab: Lab) -> None:
    lab(*FIT)
    answer = lab(*FIT, f"--ckpt_path={RUN}/checkpoints/best.ckpt")
    assert answer.code == 2
    assert answer.err.startswith(
        "error: `ckpt_path` has no effect: the run logs/mlp/one goes on from its own checkpoint."
    )
