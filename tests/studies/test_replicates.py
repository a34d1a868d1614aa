"""Replicates against separate fits, which are the oracle: weights, every metric of every epoch, checkpoints, record.

Products of stacked matrices are added up in another order than single ones. In double precision what is left of that
after three epochs is 1e-14, and so every case is held to 1e-10 there; metrics are sums in single precision all the
same. In single precision training enlarges the 6e-8 of one rounding to some 1e-5 with a smooth activation. With relu
it can be 1e-3: where a unit stands at zero, a rounding decides whether it learns from an example.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support import Lab

from lightning_lab.__main__ import main
from lightning_lab.callbacks.safe_point import SafePoint
from lightning_lab.cli import LabCLI
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError
from lightning_lab.studies.replicates import can_replicate, fit_replicates
from lightning_lab.studies.replicates.replicate import Replicate
from lightning_lab.studies.replicates.training import StackedTraining

SEEDS = (0, 1, 2)
REGRESSION = ("--config=regression/mlp", "--data.num_samples=800", "--data.batch_size=16")
DIGITS = ("--config=digits/mlp", "--trainer.limit_train_batches=12")
COMMON = ("--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--trainer.logger=false", "--progress", "null")
SGD = "--model.optimizer=torch.optim.SGD"
pytestmark = pytest.mark.filterwarnings("ignore:.*had no effect", "ignore:.*has no effect")


class Case(NamedTuple):
    """A configuration, and how much weights and metrics may be apart, relative to the largest."""

    name: str
    arguments: tuple[str, ...]
    weights: float = 1e-10
    metrics: float = 5e-7
    precision: str = "64-true"


CASES = (
    Case("regression, Adam, cosine", REGRESSION),
    Case("digits, momentum", DIGITS),
    Case("regression in single precision", (*REGRESSION, "--model.net.activation=tanh"), 2e-5, 2e-5, "32-true"),
    Case("digits in single precision", (*DIGITS, "--model.net.activation=tanh"), 2e-5, 2e-5, "32-true"),
    Case("regression in single precision with relu", REGRESSION, 5e-3, 5e-3, "32-true"),
    Case("digits in single precision with relu", DIGITS, 5e-3, 5e-3, "32-true"),
    Case(
        "dropout, layer norm, clipped norm, smoothed labels",
        (*DIGITS, "--model.net.dropout=0.3", "--model.net.normalisation=layer", "--gradient_clipping.max_norm=1",
         "--model.label_smoothing=0.1"),
    ),
    Case(
        "augmentation, norm loss, bias as a column, clipped values",
        (*DIGITS, "--data.augment.crop=1", "--data.augment.rotate=10", "--data.augment.noise=0.05",
         "--data.normalise=image", "--model.loss=norm", "--model.net.bias=column",
         "--gradient_clipping.max_value=0.01"),
    ),
    Case(
        "steps end within an epoch, warm-up by step, mean squared error",
        (*DIGITS, "--trainer.max_steps=30", "--lr_schedule.interval=step", "--lr_schedule.warmup=10",
         "--model.loss=mse", "--model.net.bias=none", "--model.net.activation=tanh"),
    ),
    Case(
        "RMSprop, one split for all, no schedule",
        (*REGRESSION, "--model.optimizer=torch.optim.RMSprop", "--model.optimizer.lr=0.003", "--lr_schedule=null",
         "--data.split_seed=7", "--gradient_clipping=null"),
    ),
    Case(
        "the norm as a penalty, ahead of clipping; least squares",
        (*DIGITS, "--penalty.kind=norm", "--penalty.weight=0.3", "--penalty.parameters=all",
         "--gradient_clipping.max_norm=0.5", "--least_squares_head.ridge=0.01", "--model.net.dropout=0.2",
         "--data.augment.crop=1"),
        1e-8, 2e-6,
    ),
    Case(
        "L1, mean squared error, least squares at an end within an epoch, no bias",
        (*DIGITS, "--penalty.kind=l1", "--penalty.weight=0.001", "--model.loss=mse", "--model.net.bias=none",
         "--trainer.max_steps=30", "--least_squares_head.ridge=0.01"),
        1e-8, 2e-6,
    ),
    Case(
        "L2 on some, least squares in regression with the bias as a column",
        (*REGRESSION, "--penalty.weight=0.001", '--penalty.parameters=["*.0.weight", "*.3.*"]',
         "--model.net.bias=column", "--least_squares_head.ridge=0.01"),
        1e-8, 2e-6,
    ),
    Case(
        "division by the variance, clipped norm",
        (*REGRESSION, "--model.net.normalisation=layer_variance", "--gradient_clipping.max_norm=1"),
    ),
    Case("Nesterov, weight decay", (*DIGITS, "--model.optimizer.nesterov=true", "--model.optimizer.weight_decay=0.01")),
    Case("AdamW", (*REGRESSION, "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=0.003")),
    Case("Adagrad", (*REGRESSION, "--model.optimizer=torch.optim.Adagrad", "--model.optimizer.lr=0.01")),
)  # fmt: skip


def command(kind: str, seed: int, *arguments: str) -> list[str]:
    return [*arguments, *COMMON, f"--seed_everything={seed}", "--run.experiment=e", f"--run.name={kind}{seed}"]


def record(kind: str, seed: int) -> RunDirectory:
    return RunDirectory(Path("logs/e") / f"{kind}{seed}")


def checkpoint(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


def assert_close(ours: Any, theirs: Any, tolerance: float, where: str = "") -> None:
    """Compare nested values; numbers within a tolerance, everything else exactly."""
    if where.endswith(("seconds", "time_s", "_path", "dirpath", "best_k_models")):
        return  # of this run alone
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key, value in theirs.items():
            assert_close(ours[key], value, tolerance, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_close(one, other, tolerance, f"{where}.{index}")
    elif isinstance(theirs, torch.Tensor):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), where
        assert ours.isfinite().equal(theirs.isfinite()), where
        if theirs.isfinite().all():
            away = float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0
            assert away <= tolerance * max(1e-3, float(theirs.abs().max() if ours.numel() else 0.0)), (where, away)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=0.1 * tolerance), where  # R2 can be near 0
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_replicate_equals_its_separate_fit(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = (*case.arguments, f"--trainer.precision={case.precision}")
    assert fit_replicates([command("r", seed, *arguments) for seed in SEEDS]) == [0, 0, 0]
    assert [main(["fit", *command("s", seed, *arguments)]) for seed in SEEDS] == [0, 0, 0]
    for seed in SEEDS:
        ours, theirs = record("r", seed), record("s", seed)
        assert ours.read_config() == theirs.read_config()
        assert len(theirs.read_metrics()) == 3
        assert_close(ours.read_metrics(), theirs.read_metrics(), case.metrics)
        assert [list(row) for row in ours.read_metrics()] == [list(row) for row in theirs.read_metrics()]
        summaries = [{**run.read_summary(), "wall_s": 0} for run in (ours, theirs)]
        assert list(summaries[0]) == list(summaries[1])
        assert_close(*summaries, case.metrics)
        for ours_at, theirs_at in ((ours.best, theirs.best), (ours.last, theirs.last)):
            one, other = checkpoint(ours_at), checkpoint(theirs_at)
            assert list(one) == list(other)
            assert_close(one["state_dict"], other["state_dict"], case.weights)
            for part in ("loops", "lr_schedulers", "epoch", "global_step"):
                assert one[part] == other[part], part
            assert_close(one["callbacks"]["RunRecord"]["rows"], other["callbacks"]["RunRecord"]["rows"], case.metrics)
            # The gradient's past is small where the weights are; it is held to a hundred times the tolerance.
            assert_close(one["optimizer_states"], other["optimizer_states"], 100 * case.weights)
        environments = [json.loads(run.environment.read_text()) for run in (ours, theirs)]
        assert environments[0].pop("replicates") == {"count": 3, "index": seed, "seeds": [0, 1, 2]}
        assert list(environments[0]) == list(environments[1])


def test_many_are_trained_in_several_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_lab.studies.replicates.fit.MOST", 2)
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in SEEDS]) == [0, 0, 0]  # two, and one by itself
    noted = [json.loads(record("r", seed).environment.read_text()).get("replicates") for seed in SEEDS]
    assert noted == [{"count": 2, "index": 0, "seeds": [0, 1]}, {"count": 2, "index": 1, "seeds": [0, 1]}, None]


def test_the_other_verbs_read_a_replicate_as_any_run(lab: Lab) -> None:
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in SEEDS]) == [0, 0, 0]
    assert lab("runs").out.count("completed") == 3
    for seed in SEEDS:
        run = record("r", seed)
        best = run.read_summary()["best"]
        answer = lab("validate", "--config", str(run.config), "--progress", "null")
        assert answer.code == 0, answer.err
        (line,) = [line for line in answer.out.splitlines() if "val/loss" in line]
        assert float(line.split()[-1]) == pytest.approx(best["value"], rel=1e-5)
        assert lab("test", "--config", str(run.config), "--progress", "null").code == 0
        assert "test/loss" in run.read_summary()["test"]
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in SEEDS]) == [0, 0, 0]  # finished: nothing to do


def test_a_replicate_can_be_forked_and_trained_on(lab: Lab) -> None:
    digits = (*DIGITS, "--trainer.precision=64-true")
    assert fit_replicates([command("r", seed, *digits) for seed in (0, 1)]) == [0, 0]
    assert lab("fit", *command("s", 0, *digits)).code == 0
    for kind in "rs":
        answer = lab("runs", "fork", f"logs/e/{kind}0", "--run.name", f"{kind}9", "--trainer.max_epochs", "5")
        assert answer.code == 0, answer.err
        assert lab("fit", "--config", str(record(kind, 9).config)).code == 0
    assert [row["epoch"] for row in record("r", 9).read_metrics()] == [1, 2, 3, 4, 5]
    assert_close(record("r", 9).read_metrics(), record("s", 9).read_metrics(), 5e-7)


def test_a_replicate_that_diverges_leaves_the_others_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Beside the same three: how products are divided up, and so their last bits, depends on how many there are.
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in SEEDS]) == [0, 0, 0]
    begin = StackedTraining.run

    def poisoned(self: StackedTraining) -> None:
        epoch = self._epoch

        def later(number: int, batches: int, whole: int) -> None:
            if number == 1:
                with torch.no_grad():
                    self.net.parameters[0][1] = torch.inf
            epoch(number, batches, whole)

        monkeypatch.setattr(self, "_epoch", later)
        begin(self)

    monkeypatch.setattr(StackedTraining, "run", poisoned)
    assert fit_replicates([command("p", seed, *REGRESSION) for seed in SEEDS]) == [0, 4, 0]
    for seed in (0, 2):
        weights = [checkpoint(record(kind, seed).last)["state_dict"] for kind in "rp"]
        assert all(one.equal(weights[1][name]) for name, one in weights[0].items())
        rows = [[{**row, "time_s": 0} for row in record(kind, seed).read_metrics()] for kind in "rp"]
        assert rows[0] == rows[1]
    lost = record("p", 1)
    assert lost.read_summary()["status"] == "diverged"
    assert "the loss of step 33 (epoch 2) is not finite" in lost.read_summary()["reason"]
    assert (len(lost.read_metrics()), checkpoint(lost.last)["epoch"]) == (1, 0)


STOPS = {
    "patience": ("--early_stopping.patience=2", "--early_stopping.monitor=val/mae"),
    "rise": ("--early_stopping.relative_rise=0.2", "--early_stopping.patience=40"),
    "cut short": ("--early_stopping.patience=1", "--trainer.max_steps=100", "--trainer.max_epochs=-1"),
}


@pytest.mark.parametrize("arguments", STOPS.values(), ids=list(STOPS))
def test_each_replicate_stops_early_where_its_separate_fit_does(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = (*REGRESSION, "--trainer.precision=64-true", "--model.optimizer.lr=0.03", "--lr_schedule=null")
    settings = [[*command(kind, seed, *long), "--trainer.max_epochs=30", *arguments] for kind in "rs" for seed in SEEDS]
    assert fit_replicates(settings[:3]) == [0, 0, 0]
    assert [main(["fit", *one]) for one in settings[3:]] == [0, 0, 0]
    ends = set()
    for seed in SEEDS:
        ours, theirs = record("r", seed), record("s", seed)
        summaries = [{**run.read_summary(), "wall_s": 0} for run in (ours, theirs)]
        reasons = [str(one.pop("reason")).split(" = ")[0] for one in summaries]  # numbers behind it
        assert reasons[0] == reasons[1]
        assert_close(*summaries, 1e-6)
        ends.add((summaries[1]["status"], summaries[1]["epochs"]))
        assert_close(ours.read_metrics(), theirs.read_metrics(), 1e-6)
        for ours_at, theirs_at in ((ours.best, theirs.best), (ours.last, theirs.last)):
            one, other = checkpoint(ours_at), checkpoint(theirs_at)
            assert_close(one["state_dict"], other["state_dict"], 1e-9)
            assert (one["epoch"], one["global_step"], one["loops"]) == (
                other["epoch"], other["global_step"], other["loops"],
            )  # fmt: skip
            (state,) = (key for key in other["callbacks"] if "EarlyStopping" in key)
            kept = [{**some["callbacks"][state], "stopping_reason_message": None} for some in (one, other)]
            assert_close(*kept, 1e-6)
    assert any(status == "stopped_early" for status, _ in ends)
    assert len(ends) > 1


def test_a_signal_before_all_are_ready_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin = Replicate.__init__

    def stop(self: Replicate, cli: LabCLI) -> None:
        begin(self, cli)
        if cli.seed == 0:  # the other one is set up after it
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Replicate, "__init__", stop)
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in (0, 1)]) == [143, 143]
    assert [record("r", seed).read_metrics() for seed in (0, 1)] == [[], []]


def test_runs_that_diverge_do_so_as_separate_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wild = (*REGRESSION, SGD, "--model.optimizer.lr=50", "--lr_schedule=null", "--nan_guard.check_every_n_steps=7")
    assert fit_replicates([command("r", seed, *wild) for seed in SEEDS]) == [4, 4, 4]
    for seed in SEEDS:
        assert main(["fit", *command("s", seed, *wild)]) == 4
        ours, theirs = record("r", seed), record("s", seed)
        assert {**ours.read_summary(), "wall_s": 0} == {**theirs.read_summary(), "wall_s": 0}
        assert ours.metrics.exists() == theirs.metrics.exists()
        assert ours.last.exists() == theirs.last.exists()


def test_a_signal_ends_all_and_each_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = SafePoint.stop_if_asked
    calls = iter(range(10_000))

    def stop(self: SafePoint) -> None:
        if next(calls) == 40:  # in the second epoch, of 32 steps
            os.kill(os.getpid(), signal.SIGTERM)
        asked(self)

    with monkeypatch.context() as patch:
        patch.setattr(SafePoint, "stop_if_asked", stop)
        assert fit_replicates([command("r", seed, *REGRESSION) for seed in (0, 1)]) == [143, 143]
    assert [record("r", seed).read_summary()["status"] for seed in (0, 1)] == ["interrupted"] * 2
    assert [len(record("r", seed).read_metrics()) for seed in (0, 1)] == [1, 1]
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in (0, 1)]) == [0, 0]
    for seed in (0, 1):
        assert main(["fit", *command("s", seed, *REGRESSION)]) == 0
        assert_close(record("r", seed).read_metrics(), record("s", seed).read_metrics(), 5e-3)


REFUSED = {
    "the net LeNet5 is no MLP": ("--config=digits/lenet5",),
    "batch norm keeps running means": ("--config=digits/mlp", "--model.net.normalisation=batch"),
    "drop-connect draws a mask of the weights": ("--config=digits/mlp", "--model.net.drop_connect=0.5"),
    "without nan_guard": ("--config=digits/mlp", "--nan_guard=null"),
    "on a plateau each replicate": (
        "--config=digits/mlp", "--lr_schedule.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau",
    ),
    "the optimiser LBFGS looks at more": ("--config=digits/mlp", "--model.optimizer=torch.optim.LBFGS"),
    "the precision bf16-mixed": ("--config=digits/mlp", "--trainer.precision=bf16-mixed"),
    "`trainer.accumulate_grad_batches` 2": ("--config=digits/mlp", "--trainer.accumulate_grad_batches=2"),
    "checkpoints within an epoch": ("--config=digits/mlp", "--checkpoint.every_n_steps=5"),
    "the callback Compile has no stacked form": ("--config=digits/mlp", "--compile=true"),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "arguments"), REFUSED.items(), ids=list(REFUSED))
def test_what_cannot_be_stacked_is_refused_in_words(
    reason: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reason in str(can_replicate(["--trainer.accelerator=cpu", *arguments]))
    assert not list(tmp_path.iterdir())


def test_only_seeds_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Replicates differ in their seed alone.*\n.*batch_size *16 -> 8"):
        fit_replicates([command("r", 0, *REGRESSION), command("r", 1, *REGRESSION, "--data.batch_size=8")])
    with pytest.raises(InputError, match="cannot be trained as replicates: the net LeNet5"):
        fit_replicates([command("r", seed, "--config=digits/lenet5") for seed in (0, 1)])


def test_a_run_that_another_process_has_leaves_the_others_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("logs/e").mkdir(parents=True)
    Path("logs/e/r1").write_text("a file where the run's folder should be")
    assert fit_replicates([command("r", seed, *REGRESSION) for seed in SEEDS]) == [0, 2, 0]
