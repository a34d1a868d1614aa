"""Lab B's claim B8: the penalty alone makes a run diverge, clipping cures it. With the weight that this takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Lab, reason_of_divergence

from lightning_lab.runs.directory import RunDirectory

#: The lab's net and optimiser on fewer samples.
LAB = (
    "fit", "--config=regression/mlp", "--data.num_samples=300", "--data.batch_size=1", "--trainer.max_epochs=3",
    "--model.net.normalisation=layer", "--model.optimizer=SGD", "--model.optimizer.lr=0.01",
    "--model.optimizer.momentum=0.5", "--lr_schedule=null", "--penalty.parameters=all", "--trainer.accelerator=cpu",
    "--run.experiment=b", "--trainer.logger=false", "--progress=null",
)  # fmt: skip
#: Heavy ball on the penalty alone, w^2 times the weight, is stable while lr * 2 weight < 2 (1 + momentum): below 150.
STABLE, UNSTABLE = 100, 200


def run_of(name: str) -> RunDirectory:
    return RunDirectory(Path("logs/b") / name)


def test_a_large_penalty_diverges_and_clipping_cures_it(lab: Lab) -> None:
    answer = lab(*LAB, f"--penalty.weight={UNSTABLE}", "--run.name=unclipped")
    assert reason_of_divergence(answer, run_of("unclipped")).endswith(
        "'net.layers.0.weight'. Lower the learning rate (--model.optimizer.lr, now 0.01), lower --penalty.weight (now "
        "200), or bound the gradient with --gradient_clipping.max_norm 1."
    )

    answer = lab(*LAB, f"--penalty.weight={UNSTABLE}", "--gradient_clipping.max_norm=1", "--run.name=clipped")
    assert answer.code == 0, answer.err
    rows = run_of("clipped").read_metrics()
    assert len(rows) == 3
    assert rows[-1]["train/penalty"] < rows[0]["train/penalty"] / 10  # it pulls the weights to zero: finite, no more
    assert all(row["clipped_frac"] > 0.9 for row in rows)


@pytest.mark.parametrize("weight", [0.01, STABLE])
def test_below_the_bound_nothing_diverges_without_clipping(lab: Lab, weight: float) -> None:
    """So with the weights that are usual for a penalty (0.01 and so on) the claim does not hold for this net."""
    answer = lab(*LAB, f"--penalty.weight={weight}", "--run.name=one")
    assert answer.code == 0, answer.err
    assert run_of("one").read_metrics()[-1]["train/penalty"] > 0
