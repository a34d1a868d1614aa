"""What is printed, read back from the standard output."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer

from lightning_lab.callbacks.early_stopping import EarlyStopping
from lightning_lab.callbacks.gradient_clipping import GradientClipping
from lightning_lab.callbacks.progress import Progress
from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.tasks import Classification

Build = Callable[..., Trainer]
Loaders = Callable[..., TensorLoader]


class Data(LightningDataModule):
    """One batch of features."""

    def train_dataloader(self) -> TensorLoader:
        return TensorLoader(Examples(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)), batch_size=2)


@pytest.mark.parametrize("style", ["lines", "auto", "bar"])
def test_the_first_line_says_what_is_trained_on_what(
    trainer: Build, small_net: Any, capsys: pytest.CaptureFixture[str], style: Any
) -> None:
    # 4 x 500 weights and 500 biases, then 500 x 3 and 3.
    module = Classification(small_net(hidden=500))
    trainer(Progress(style=style), enable_progress_bar=True).fit(module, datamodule=Data())
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "SmallNet (4,003 parameters) on Data, cpu, 32-true, 4 steps an epoch"


def test_without_a_data_module_the_first_line_leaves_it_out(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # 4 x 8 weights and 8 biases, then 8 x 3 and 3.
    trainer(Progress(style="lines"), enable_progress_bar=True).fit(Classification(small_net()), classes())
    assert capsys.readouterr().out.splitlines()[0] == "SmallNet (67 parameters), cpu, 32-true, 6 steps an epoch"


@pytest.mark.parametrize("style", ["lines", "auto"])  # the tests' output is no terminal
def test_one_line_an_epoch_with_the_metrics_of_that_epoch(
    trainer: Build, classes: Loaders, small_net: Any, watch: Any, capsys: pytest.CaptureFixture[str], style: Any
) -> None:
    built = trainer(Progress(style=style), GradientClipping(), watch, max_epochs=3, enable_progress_bar=True)
    built.fit(Classification(small_net()), classes(), classes(9))
    _, *lines = capsys.readouterr().out.splitlines()
    columns = ("train/loss", "val/loss", "train/acc", "val/acc")  # and not grad_norm
    assert len(lines) == 3
    assert [re.sub(r"  \d+\.\d s(  left \d+\.\d s)?$", "", line) for line in lines] == [
        f"epoch {n}/3  " + "  ".join(f"{name} {metrics[name]:.4g}" for name in columns)
        for n, metrics in enumerate(watch.metrics, start=1)
    ]
    assert watch.metrics[0]["train/loss"] != watch.metrics[1]["train/loss"]


def test_the_line_ends_with_the_time_and_what_is_left(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    built = trainer(Progress(style="lines"), max_epochs=2, enable_progress_bar=True)
    built.fit(Classification(small_net()), classes())
    _, *lines = capsys.readouterr().out.splitlines()
    assert [bool(re.search(r"  \d+\.\d s  left \d+\.\d s$", line)) for line in lines] == [True, True]
    assert lines[1].endswith("left 0.0 s")


def test_a_run_that_stops_early_has_a_line_for_each_epoch_it_trained(
    trainer: Build, scripted: Any, classes: Loaders, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [Progress(style="lines"), EarlyStopping(patience=1)]
    trainer(*callbacks, max_epochs=9, enable_progress_bar=True).fit(scripted([3.0, 2.0, 4.0]), classes(), classes(4))
    _, *lines = capsys.readouterr().out.splitlines()
    starts = ["epoch 1/9  val/loss 3  ", "epoch 2/9  val/loss 2  ", "epoch 3/9  val/loss 4  "]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_disabled_it_prints_nothing_and_enabled_again_it_does(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(style="lines")
    built = trainer(progress, max_epochs=2, enable_progress_bar=True)
    progress.disable()
    built.fit(Classification(small_net()), classes())
    silent = capsys.readouterr().out
    progress.enable()
    built.fit_loop.max_epochs = 3
    built.fit(Classification(small_net()), classes())
    assert (silent, capsys.readouterr().out.count("epoch 3/3")) == ("", 1)


def test_a_bar_draws_by_time_and_not_by_step(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    built = trainer(Progress(style="bar", refresh_s=60.0), max_epochs=2, enable_progress_bar=True)
    built.fit(Classification(small_net()), classes(200, batch_size=2), classes(9))
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 20 < 200
    assert len(re.findall(r"epoch \d/2  train/loss", out)) == 2


def test_a_bar_shows_how_far_the_epoch_is(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    built = trainer(Progress(style="bar", refresh_s=1e-9), enable_progress_bar=True)
    built.fit(Classification(small_net()), classes(22, batch_size=4))
    out = capsys.readouterr().out
    assert "epoch 1/1" in out
    assert [f"{n}/6" in out for n in (1, 3, 5)] == [True] * 3
    assert re.search(r"loss \d\.\d{4}", out)


def test_the_test_has_a_bar_of_its_own(
    trainer: Build, classes: Loaders, small_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    built = trainer(Progress(style="bar", refresh_s=1e-9), enable_progress_bar=True)
    built.test(Classification(small_net()), classes(22, batch_size=4), verbose=False)
    out = capsys.readouterr().out
    assert "test:" in out
    assert "5/6" in out


def test_an_interrupted_epoch_has_no_line(
    trainer: Build, classes: Loaders, small_net: Any, raise_at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [Progress(style="lines"), raise_at(ValueError("wrong"), 8)]
    with pytest.raises(ValueError, match=r"^wrong$"):
        trainer(*callbacks, max_epochs=3, enable_progress_bar=True).fit(Classification(small_net()), classes())
    assert [line[:9] for line in capsys.readouterr().out.splitlines()[1:]] == ["epoch 1/3"]


@pytest.mark.parametrize("refresh_s", [0.0, -1.0, float("nan")])
def test_a_refresh_time_of_zero_or_less_is_refused(refresh_s: float) -> None:
    with pytest.raises(ValueError, match=f"`refresh_s` must be above 0 seconds, got {refresh_s}."):
        Progress(refresh_s=refresh_s)
