"""Every shipped configuration is parsed, built and trained for a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import Lab

from lightning_lab import shipped
from lightning_lab.data.cifar10 import CLASS_NAMES
from lightning_lab.runs.errors import InputError

TRAINING = [
    "cifar10/googlenet",
    "cifar10/lenet5",
    "cifar10/nin",
    "cifar10/resnet",
    "cifar10/speedrun",
    "cifar10/vgg",
    "digits/conv",
    "digits/lenet5",
    "digits/mlp",
    "regression/mlp",
]
LAB_A = (
    *("augmentation", "best_conv", "best_mlp", "bias", "convolution", "decay", "depth", "dropout", "early_stopping"),
    *("initialisation", "last_layer", "loss", "momentum", "norm_penalty", "normalisation", "width"),
)
LAB_C = ("best_classic", "best_wide", "lenet", "momentum", "regularisers", "vgg13", "vgg16", "vgg19")
STUDIES = [
    "digits_dropout",
    *(f"lab_a/{name}" for name in LAB_A),
    *("lab_b/best", "lab_b/clipping", "lab_b/table"),
    *(f"lab_c/{name}" for name in LAB_C),
    "lab_d/optimisers",
]
RECIPES = {"recipes/lab_a": "digits/mlp", "recipes/lab_b": "regression/mlp"}
MACHINES = ["trainer/cpu", "trainer/ddp", "trainer/ddp_cpu2", "trainer/gpu"]


def cifar10_tree(root: Path) -> Path:
    pixels = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CLASS_NAMES:
            (root / part / name).mkdir(parents=True)
            for i in range(4):
                image = pixels.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / part / name / f"{i}.png")
    return root


def test_these_are_all() -> None:
    assert shipped.names() == sorted([*TRAINING, *MACHINES, *RECIPES])
    assert shipped.study_names() == STUDIES  # read in tests/studies/test_design.py
    assert len(list(shipped.FOLDER.rglob("*.yaml"))) == len([*TRAINING, *MACHINES, *RECIPES, *STUDIES])


@pytest.mark.parametrize("name", TRAINING)
def test_trains_a_step(name: str, lab: Lab, tmp_path: Path) -> None:
    data = [f"--data.root={cifar10_tree(tmp_path / 'cifar')}"] if name.startswith("cifar10") else []
    answer = lab(
        "fit", f"--config={name}", "--config=trainer/cpu", *data, "--data.batch_size=8", "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--lr_schedule=null", "--run.name=one",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "completed: 1 epochs" in answer.out


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_laid_over_another(name: str, lab: Lab) -> None:
    with pytest.raises(SystemExit) as stop:
        lab(
            "fit",
            f"--config={RECIPES[name]}",
            f"--config={name}",
            "--data.path=null" if "lab_a" in name else "--data.noise=0",
            "--print_config",
        )
    assert stop.value.code == 0


@pytest.mark.parametrize("name", MACHINES)
def test_machine_configurations_are_laid_over_another(name: str, lab: Lab) -> None:
    # --print_config stops before a trainer is built, so that the absence of a GPU here does not matter.
    with pytest.raises(SystemExit) as stop:
        lab("fit", "--config=digits/lenet5", f"--config={name}", "--print_config")
    assert stop.value.code == 0


@pytest.mark.parametrize("name", [*TRAINING, *MACHINES, *RECIPES])
def test_begins_with_what_it_is(name: str) -> None:
    lines = (shipped.FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith(".") or ":" in lines[0]
    if name in TRAINING:
        assert lines[1].startswith(f"# lightning-lab fit --config {name}")
        assert lines[2].startswith("# ")


def test_every_row_of_the_configs_readme_is_a_file() -> None:
    readme = (shipped.FOLDER / "README.md").read_text()
    assert [name for name in [*TRAINING, *MACHINES, *RECIPES, *STUDIES] if f"`{name}`" not in readme] == []


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "digits" / "lenet5"
    own.parent.mkdir()
    own.write_text("trainer: {max_epochs: 1}\n")
    assert shipped.find("digits/lenet5") == Path("digits/lenet5")
    assert shipped.find("digits/mlp") == shipped.FOLDER / "digits" / "mlp.yaml"


def test_a_study_is_no_configuration_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = shipped.FOLDER / "studies" / "digits_dropout.yaml"
    names = ("digits_dropout", "studies/digits_dropout", "configs/studies/digits_dropout.yaml", str(file))
    assert {shipped.find_study(name) for name in names} == {file}
    own = Path("digits_dropout")
    own.write_text("name: mine\n")
    assert shipped.find_study("digits_dropout") == own
    with pytest.raises(InputError, match="holds a study, which `lightning-lab study run studies/digits_dropout` runs"):
        shipped.find("studies/digits_dropout")
