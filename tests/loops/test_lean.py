"""The lean loop against Lightning's own: the same weights, counters and hooks, and who needs more gets Lightning's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from lightning_lab.data.loader import Examples, TensorLoader
from lightning_lab.loops.lean import LeanEpochLoop, is_plain, use_lean_loop
from lightning_lab.nets import MLP
from lightning_lab.tasks import Classification


class Net(LightningModule):
    """Two dense layers; logs by the step and by the epoch if asked to."""

    def __init__(self, optimizer: Callable[[Any], Optimizer], *, logs: bool = False, gives: str = "loss") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.build, self.logs, self.gives = optimizer, logs, gives
        self.seen: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.seen.append(loss.item())
        if self.logs:
            self.log("by_step", loss, on_step=True, on_epoch=False, batch_size=len(batch[1]))
            self.log("by_epoch", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        if self.gives == "sometimes nothing" and batch_idx in (0, 3):
            return None
        given = {"mapping": {"loss": loss, "extra": batch_idx}, "no loss": {"extra": batch_idx}, "number": 0.5}
        return given.get(self.gives, loss)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]), batch_size=len(batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = self.build(self.parameters())
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Diary(Callback):
    """Notes every hook of a step with the counters as it finds them."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def note(self, name: str, trainer: Trainer, module: LightningModule, *more: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        counters = (trainer.global_step, loop.batch_idx, loop.batch_progress.state_dict())
        optim = loop.automatic_optimization.optim_progress.state_dict()
        self.lines.append((name, counters, optim, module._current_fx_name, metrics, *more))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.note("batch start", trainer, pl_module, batch_idx)

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.note("zero", trainer, pl_module, any(p.grad is not None for p in pl_module.parameters()))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        self.note("backward", trainer, pl_module, loss.item())

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self.note("after", trainer, pl_module, float(pl_module.layers[0].weight.grad.sum()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.note("step", trainer, pl_module, optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        plain = {key: float(value) for key, value in outputs.items()}
        self.note("batch end", trainer, pl_module, plain, batch_idx)


def loader(count: int = 23) -> TensorLoader:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    return TensorLoader(Examples(x, y), batch_size=5, shuffle=True)


def build(tmp_path: Path, *callbacks: Callback, lean: bool, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 3,
        "default_root_dir": tmp_path,
    }
    trainer = Trainer(callbacks=list(callbacks), **defaults | settings)
    if lean:
        use_lean_loop(trainer)
    return trainer


@pytest.fixture
def advances(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each step took."""
    taken: list[str] = []
    theirs = _TrainingEpochLoop.advance
    ours = LeanEpochLoop.advance
    monkeypatch.setattr(_TrainingEpochLoop, "advance", lambda *a: (taken.append("Lightning"), theirs(*a))[1])
    monkeypatch.setattr(LeanEpochLoop, "advance", lambda *a: (taken.append("step"), ours(*a))[1])
    return taken


def sgd(parameters: Any) -> Optimizer:
    return SGD(parameters, lr=0.5, momentum=0.9)


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16-mixed"}, {"val_check_interval": 2}, {"max_steps": 10}])
@pytest.mark.parametrize("gives", ["loss", "mapping", "sometimes nothing"])
@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("optimizer", [sgd, Adam])
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_run_is_the_same_to_the_last_bit(
    tmp_path: Path, advances: list[str], optimizer: Any, logs: bool, gives: str, settings: Any
) -> None:
    found = {}
    for lean in (False, True):
        diary, net = Diary(), Net(optimizer, logs=logs, gives=gives)
        trainer = build(tmp_path, diary, lean=lean, **settings)
        trainer.fit(net, loader(), loader(10))
        states = (net.seen, diary.lines, {k: float(v) for k, v in trainer.callback_metrics.items()})
        loops = trainer.fit_loop.state_dict()
        for ours in ("between_steps", "validation_due"):
            loops["epoch_loop.state_dict"].pop(ours, None)
        found[lean] = (*states, loops, [p.tolist() for p in net.parameters()])
    assert found[True] == found[False]
    # The first run is Lightning's alone; in the second, no step is.
    assert advances.count("step") == advances.count("Lightning") > 0
    assert advances == sorted(advances)


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"max_steps": 7}, [5, 7]),  # an epoch has 5 steps
        ({"max_steps": 10}, [5, 10]),
        ({"max_steps": 3, "max_epochs": -1}, [3]),
        ({"max_steps": 7, "check_val_every_n_epoch": 3}, [7]),
        ({"max_steps": 2, "max_epochs": -1, "accumulate_grad_batches": 2}, [2]),
        ({"max_steps": 7, "limit_val_batches": 0}, []),
        ({"max_epochs": 2}, [5, 10]),
    ],
)
def test_the_last_step_of_a_budget_is_validated_once(tmp_path: Path, settings: Any, validated: list[int]) -> None:
    steps: list[int] = []

    class Validations(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            steps.append(trainer.global_step)

    nets = {}
    for lean in (False, True):
        steps.clear()
        nets[lean] = Net(sgd)
        build(tmp_path, Validations(), lean=lean, **settings).fit(nets[lean], loader(), loader(10))
    assert steps == validated
    assert nets[True].seen == nets[False].seen


def test_a_step_without_a_loss_is_warned_of_once(tmp_path: Path) -> None:
    said = {}
    for lean in (False, True):
        Closure.warning_cache.clear()  # or it would be quiet about what an earlier run was told
        with pytest.warns(UserWarning, match="`training_step` returned `None`") as warned:
            build(tmp_path, lean=lean).fit(Net(sgd, gives="sometimes nothing"), loader(), loader(10))
        said[lean] = [text for one in warned if "returned" in (text := str(one.message))]
    assert said[True] == said[False]
    assert len(said[True]) == 1


@pytest.mark.parametrize(
    ("gives", "message"), [("no loss", "the 'loss' key needs to be present"), ("number", "must return a Tensor")]
)
def test_what_is_no_loss_is_refused_as_lightning_does(
    tmp_path: Path, advances: list[str], gives: str, message: str
) -> None:
    said, diaries = {}, {}
    for lean in (False, True):
        diary = Diary()
        with pytest.raises(MisconfigurationException, match=message) as error:
            build(tmp_path, diary, lean=lean).fit(Net(sgd, gives=gives), loader(), loader(10))
        said[lean], diaries[lean] = str(error.value), diary.lines
    assert said[True] == said[False]
    assert diaries[True] == diaries[False]
    assert advances == ["Lightning", "step"]


class Overrides(Net):
    def on_after_backward(self) -> None:
        self.seen.append(-1.0)


class Own(SGD):
    pass


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (Overrides(sgd), {}),
        (Net(lambda p: torch.optim.LBFGS(p)), {}),
        (Net(lambda p: Own(p, lr=0.1)), {}),
        (Net(sgd), {"accumulate_grad_batches": 2}),
        (Net(sgd), {"gradient_clip_val": 0.1}),
        (Net(sgd), {"profiler": SimpleProfiler()}),
        (Net(sgd), {"precision": "64-true"}),
    ],
    ids=["hook", "LBFGS", "own optimiser", "accumulation", "clipping", "profiler", "double"],
)
def test_who_needs_more_gets_lightnings_way(
    tmp_path: Path, advances: list[str], module: LightningModule, settings: Any
) -> None:
    examples = loader()
    if settings.get("precision") == "64-true":
        examples.examples = Examples(examples.examples.x.double(), examples.examples.y)
    build(tmp_path, lean=True, max_epochs=1, **settings).fit(module, examples, examples)
    assert advances == ["step", "Lightning"] * 5


def test_the_projects_own_tasks_take_the_short_way(tmp_path: Path, advances: list[str]) -> None:
    net = MLP(in_features=4, hidden=(8,), out_features=3)
    trainer = build(tmp_path, lean=True, max_epochs=2)
    trainer.fit(Classification(net), loader(), loader(10))
    assert advances == ["step"] * 10
    assert is_plain(trainer)


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_run_stopped_on_one_way_continues_on_the_other(tmp_path: Path, stop: int) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "here.ckpt")

    whole = Net(sgd)
    build(tmp_path, Stops(), lean=True).fit(whole, loader(), loader(10))
    for lean in (True, False):
        resumed = Net(sgd)
        build(tmp_path, lean=lean).fit(
            resumed, loader(), loader(10), ckpt_path=tmp_path / "here.ckpt", weights_only=True
        )
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_hook_that_was_put_on_one_object_is_called_too(tmp_path: Path) -> None:
    found = {}
    for lean in (True, False):
        steps: list[int] = []
        one = Callback()
        one.on_train_batch_end = lambda trainer, *_, steps=steps: steps.append(trainer.global_step)  # type: ignore[method-assign]
        build(tmp_path, one, lean=lean, max_epochs=1).fit(Net(lambda p: SGD(p, lr=0.1)), loader(), loader(7))
        found[lean] = steps
    assert found[True] == found[False] == [1, 2, 3, 4, 5]
