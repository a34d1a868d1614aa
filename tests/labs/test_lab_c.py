"""Lab C's claim C6 on the bundled digits: a high momentum makes a run diverge, and a bound on the gradient cures it."""

from __future__ import annotations

from pathlib import Path

from support import Lab, reason_of_divergence

from lightning_lab.runs.directory import RunDirectory

#: Batches of four, as in the lab; at its rate of 0.001 nothing diverges, with this one the momentum decides.
LAB = (
    "fit", "--config=digits/lenet5", "--data.augment=null", "--data.batch_size=4", "--lr_schedule=null",
    "--model.optimizer.lr=0.1", "--model.optimizer.weight_decay=0", "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu", "--run.experiment=c", "--trainer.logger=false", "--progress=null",
)  # fmt: skip


def run_of(name: str) -> RunDirectory:
    return RunDirectory(Path("logs/c") / name)


def test_a_high_momentum_diverges_and_clipping_cures_it(lab: Lab) -> None:
    answer = lab(*LAB, "--model.optimizer.momentum=0.99", "--run.name=unclipped")
    assert reason_of_divergence(answer, run_of("unclipped")).endswith(
        "Lower the learning rate (--model.optimizer.lr, now 0.1), or bound the gradient with "
        "--gradient_clipping.max_norm 1."
    )
    for bound in (1, 0.01):
        clipped = f"--gradient_clipping.max_norm={bound}"
        answer = lab(*LAB, "--model.optimizer.momentum=0.99", clipped, f"--run.name=clipped_{bound}")
        assert answer.code == 0, answer.err
    finite, learnt = (run_of(f"clipped_{bound}").read_metrics()[-1] for bound in (1, 0.01))
    assert finite["val/acc"] < 0.2  # as in the lab: finite, no more
    assert learnt["val/acc"] > 0.5


def test_without_momentum_the_same_rate_learns(lab: Lab) -> None:
    answer = lab(*LAB, "--model.optimizer.momentum=0", "--run.name=none")
    assert answer.code == 0, answer.err
    assert run_of("none").read_metrics()[-1]["val/acc"] > 0.5
