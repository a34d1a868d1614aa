"""Study files: what they say, and that all that is wrong in one is told at once."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from study_files import GOOD, study_of, write_study

from lightning_lab import shipped
from lightning_lab.runs.errors import InputError
from lightning_lab.studies.design import Budget, Claim, cells_of, read_study
from lightning_lab.studies.settings import SECTIONS

DROPOUT, RATE = "model.net.dropout", "model.optimizer.lr"
CLAIM = {"id": "C1", "text": "worse", "arm": 0.5, "expect": "worse"}
ARMS: dict[str, Any] = {"without": ("factors",), "arms": {"plain": {}, "half": {DROPOUT: 0.5}}, "reference": "plain"}
FULL: dict[str, Any] = {
    "design": "full",
    "factors": {DROPOUT: [0.0, 0.5], RATE: [0.1, 0.01]},
    "reference": {DROPOUT: 0.0, RATE: 0.1},
}


def faults_of(folder: Path, *, without: tuple[str, ...] = (), **changes: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        study_of(folder, without=without, **changes)
    return str(error.value).splitlines()


# --- what a file says ---


def test_a_factor_makes_an_arm_of_each_level(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert [arm.name for arm in study.arms] == ["dropout=0", "dropout=0.2", "dropout=0.5"]
    assert [arm.overrides for arm in study.arms] == [{DROPOUT: 0.0}, {DROPOUT: 0.2}, {DROPOUT: 0.5}]
    assert {arm.bases for arm in study.arms} == {("digits/lenet5",)}
    assert (study.reference, study.design, study.seeds) == ("dropout=0", "one-at-a-time", (0, 1, 2))
    assert (study.budget, study.margin, study.claims) == (Budget("epochs", 2), None, ())


def test_factors_vary_one_at_a_time_around_the_reference(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        factors={DROPOUT: [0.0, 0.5], RATE: [0.1, 0.01]},
        reference={DROPOUT: 0.0, RATE: 0.1, "trainer.precision": "64-true"},
    )
    common = {"trainer.precision": "64-true"}
    assert {arm.name: arm.overrides for arm in study.arms} == {
        "reference": {DROPOUT: 0.0, RATE: 0.1, **common},
        "dropout=0.5": {DROPOUT: 0.5, RATE: 0.1, **common},
        "lr=0.01": {DROPOUT: 0.0, RATE: 0.01, **common},
    }


def test_a_factor_that_the_reference_leaves_open_stands_as_in_the_base(tmp_path: Path) -> None:
    study = study_of(tmp_path, reference={}, factors={DROPOUT: [0.2]})
    assert {arm.name: arm.overrides for arm in study.arms} == {"reference": {}, "dropout=0.2": {DROPOUT: 0.2}}


def test_a_full_design_has_every_combination_but_the_excluded(tmp_path: Path) -> None:
    study = study_of(tmp_path, **FULL, exclude=[{DROPOUT: 0.5, RATE: 0.1}])
    assert [arm.name for arm in study.arms] == ["dropout=0,lr=0.1", "dropout=0,lr=0.01", "dropout=0.5,lr=0.01"]
    assert study.arms[2].overrides == {DROPOUT: 0.5, RATE: 0.01}
    assert study.reference == "dropout=0,lr=0.1"


def test_an_arm_of_a_full_design_knows_its_levels_as_written(tmp_path: Path) -> None:
    factors: dict[str, list[Any]] = {
        "base": ["digits/lenet5", "digits/mlp"],
        "model.net": ["MLP", {"class_path": "MLP", "init_args": {"hidden": [20]}}],
    }
    reference = {key: levels[0] for key, levels in factors.items()}
    study = study_of(tmp_path, without=("base",), design="full", factors=factors, reference=reference)
    points = [[arm.point["base"], arm.point["model.net"]] for arm in study.arms]
    assert points == [list(point) for point in product(*factors.values())]


def test_short_names_that_fit_two_factors_are_written_in_full(tmp_path: Path) -> None:
    factors = {"model.net.dropout": [0.2], "data.dropout": [0.2]}
    study = study_of(tmp_path, reference={}, factors=factors)
    assert [arm.name for arm in study.arms] == ["reference", "model.net.dropout=0.2", "data.dropout=0.2"]


def test_arms_have_overrides_and_bases_of_their_own(tmp_path: Path) -> None:
    arms = {"plain": None, "mlp": {"base": ["digits/mlp", "trainer/cpu"], "model": {"net": {"dropout": 0.5}}}}
    study = study_of(tmp_path, without=("factors",), arms=arms, reference="plain")
    assert [(arm.name, arm.overrides, arm.bases) for arm in study.arms] == [
        ("plain", {}, ("digits/lenet5",)),
        ("mlp", {DROPOUT: 0.5}, ("digits/mlp", "trainer/cpu")),
    ]
    assert (study.reference, study.design, study.factors) == ("plain", "arms", {})


def test_an_arms_name_is_taken_as_it_is_written(tmp_path: Path) -> None:
    arms = {"007": {}, "a=1.0": {DROPOUT: 0.5}, 2.0: {DROPOUT: 0.2}}
    claims = [{**CLAIM, "arm": "a=1.0"}, {**CLAIM, "id": "C2", "arm": 2}]
    study = study_of(tmp_path, without=("factors",), arms=arms, reference="007", claims=claims)
    assert [arm.name for arm in study.arms] == ["007", "a=1.0", "2"]
    assert [(claim.arm, claim.against) for claim in study.claims] == [("a=1.0", "007"), ("2", "007")]


def test_a_reference_of_overrides_is_an_arm_more(tmp_path: Path) -> None:
    study = study_of(tmp_path, without=("factors",), arms={"half": {DROPOUT: 0.5}}, reference={DROPOUT: 0.0})
    assert [arm.name for arm in study.arms] == ["reference", "half"]
    assert study.reference == "reference"


def test_the_base_can_be_a_factor(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        without=("base",),
        factors={"base": ["digits/lenet5", "digits/mlp"], DROPOUT: [0.0, 0.5]},
        reference={"base": "digits/lenet5", DROPOUT: 0.0},
        design="full",
    )
    assert [(arm.bases, arm.overrides[DROPOUT]) for arm in study.arms] == [
        (("digits/lenet5",), 0.0),
        (("digits/lenet5",), 0.5),
        (("digits/mlp",), 0.0),
        (("digits/mlp",), 0.5),
    ]


def test_a_class_with_its_arguments_is_a_level(tmp_path: Path) -> None:
    wide = {"class_path": "LeNet5", "init_args": {"channels": [16, 36]}}
    study = study_of(
        tmp_path, factors={"model.net": [wide, "MLP"]}, reference={"model": {"net": wide}, "data.batch_size": 8}
    )
    assert [arm.overrides for arm in study.arms] == [
        {"data.batch_size": 8, "model.net": "LeNet5", "model.net.channels": [16, 36]},
        {"data.batch_size": 8, "model.net": "MLP"},
    ]


def test_single_arms_can_set_more(tmp_path: Path) -> None:
    study = study_of(tmp_path, overrides={0.5: {RATE: 0.01}})
    assert study.arms[2].overrides == {DROPOUT: 0.5, RATE: 0.01}
    assert study.arms[1].overrides == {DROPOUT: 0.2}


def test_a_configuration_of_the_users_own_is_known_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("trainer: {precision: 64-true}\n")
    assert study_of(tmp_path, base=["digits/mlp", "mine.yaml"]).arms[0].bases == (
        "digits/mlp",
        str(tmp_path / "mine.yaml"),
    )


@pytest.mark.parametrize(
    "name", [0.5, "0.5", "0.50", "dropout=0.5", "model.net.dropout=0.5", "model.net.dropout = 5e-1"]
)
def test_a_claim_names_an_arm_by_level_short_or_full_name(name: Any, tmp_path: Path) -> None:
    study = study_of(tmp_path, claims=[{**CLAIM, "arm": name}], margin=0.01)
    assert study.claims == (Claim("C1", "worse", "dropout=0.5", "dropout=0", "worse", "val/acc", 0.01),)


def test_the_studys_margin_is_for_its_metric_alone(tmp_path: Path) -> None:
    of_another = {**CLAIM, "id": "C2", "metric": "val/loss - train/loss"}
    own = {**of_another, "id": "C3", "margin": 0.2}
    study = study_of(tmp_path, claims=[CLAIM, of_another, own], margin=0.01)
    assert [claim.margin for claim in study.claims] == [0.01, None, 0.2]
    of_another["expect"] = "equivalent"
    assert "  claims[0].margin: missing. `equivalent` needs" in faults_of(tmp_path, claims=[of_another], margin=0.01)[1]


def test_a_level_with_a_comma_is_a_name_too(tmp_path: Path) -> None:
    factors = {"model.net.hidden": [[128], [128, 64]], DROPOUT: [0.0, 0.5]}
    study = study_of(
        tmp_path,
        design="full",
        factors=factors,
        reference={"model.net.hidden": [128], DROPOUT: 0.0},
        claims=[{**CLAIM, "arm": "hidden=[128, 64],dropout=0.50", "against": "reference", "metric": "val/loss"}],
    )
    assert study.claims[0].arm == "hidden=[128,64],dropout=0.5"
    assert (study.claims[0].against, study.claims[0].metric) == ("hidden=[128],dropout=0", "val/loss")


def test_words_and_exponents_mean_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: n\nbase: digits/lenet5\nreference: off\narms:\n  off: {}\n  on: {model.optimizer.lr: 1e-3}\n"
        "seeds: [7]\nmetric: val/loss\ngoal: min\nsteps: 10\n"
    )
    study = read_study(path)
    assert [arm.name for arm in study.arms] == ["off", "on"]
    assert study.arms[1].overrides == {RATE: 0.001}


def test_a_short_budget_makes_a_study_of_its_own(tmp_path: Path) -> None:
    path = write_study(
        tmp_path,
        short={"samples": 300, "seeds": [4]},
        base=["digits/mlp"],
        factors={"data.batch_size": [8, 16]},
        reference={"data.batch_size": 8},
    )
    study, short = read_study(path), read_study(path, short=True)
    assert (study.name, study.budget, study.seeds, study.short) == ("drop", Budget("epochs", 2), (0, 1, 2), False)
    assert (short.name, short.budget, short.seeds, short.short) == ("drop_short", Budget("samples", 300), (4,), True)
    assert {cell.directory.path.parent.name for cell in cells_of(short, tmp_path)} == {"drop_short"}
    path = write_study(tmp_path, short={"epochs": 1})
    assert read_study(path, short=True).seeds == (0, 1, 2)


def test_without_a_short_budget_there_is_no_short_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"short: missing\. The file has no short budget\. Write for example `short: "):
        read_study(write_study(tmp_path), short=True)


def test_seeds_are_the_outer_loop(tmp_path: Path) -> None:
    cells = cells_of(study_of(tmp_path, seeds=[4, 2]), tmp_path)
    assert [cell.seed for cell in cells] == [4, 4, 4, 2, 2, 2]
    assert [cell.arm for cell in cells[:3]] == ["dropout=0", "dropout=0.2", "dropout=0.5"]


@pytest.mark.parametrize("name", shipped.study_names())
def test_shipped_studies_are_sound(name: str, tmp_path: Path) -> None:
    path = shipped.find_study(name)
    lines = path.read_text().splitlines()
    study = read_study(path)
    assert study.name == name.replace("/", "_")
    assert lines[0].startswith("# ")
    short = " --short" if "\nshort:" in path.read_text() else ""
    assert lines[1] == f"# lightning-lab study run {name}{short}"
    if short:
        assert read_study(path, short=True).name == f"{study.name}_short"


def test_an_arm_can_set_what_the_parser_knows_and_no_more() -> None:
    from lightning_lab.cli import SLOTS

    own = {"channels_last", "checkpoint", "compile", "data", "model", "trainer"}
    assert set(SECTIONS) == own | set(SLOTS)


# --- what is wrong ---


def test_six_faults_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "six.yaml"
    path.write_text(
        """name: six
base: digits/lenet
reference: {model.net.dropout: 0.1}
factors: {model.net.dropout: [0.0, 0.2]}
seeds: [0, 1, 1]
metric: test/acc
goal: max
epochs: 3
steps: 100
claims:
  - {id: C1, text: worse, arm: 0.7, expect: worse}
"""
    )
    with pytest.raises(InputError) as error:
        read_study(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path} has 6 faults:"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        "seeds[2]",
        "steps",
        "metric",
        "base",
        "reference.model.net.dropout",
        "claims[0].arm",
    ]
    assert "Did you mean 'digits/lenet5'?" in lines[4]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sedes": 3}, "sedes: Unknown key 'sedes'. Did you mean 'seeds'?"),
        ({"without": ("name",)}, "name: missing."),
        ({"name": "a/b"}, "name: must be a plain folder name, got 'a/b'."),
        ({"without": ("base",)}, "base: missing."),
        ({"base": []}, "base: must name a configuration at least, got []."),
        ({"base": [3]}, "base[0]: must be the name or file of a configuration, got 3."),
        ({"base": ["digits/mlp", "none.yaml"]}, "base[1]: There is no configuration file none.yaml."),
        ({"without": ("seeds",)}, "seeds: missing. Give how many"),
        ({"seeds": 0}, "seeds: must be a number, at least 1, or a list of seeds, got 0."),
        ({"seeds": True}, "seeds: must be a number, at least 1, or a list of seeds, got True."),
        ({"seeds": []}, "seeds: must be a number, at least 1, or a list of seeds, got []."),
        ({"seeds": [1, -1]}, "seeds[1]: must be a whole number from 0 to 4294967295, got -1."),
        ({"seeds": [1, 1]}, "seeds[1]: the seed 1 stands there twice: it would be the same run."),
        ({"without": ("metric",)}, "metric: missing."),
        ({"metric": "test/acc"}, "metric: test/acc must be a validation metric: the test set is opened by select and"),
        ({"metric": "acc"}, "metric: must be a validation metric such as val/acc or val/loss, got 'acc'."),
        ({"without": ("goal",)}, "goal: missing. Write one of max, min."),
        ({"goal": "maximum"}, "goal: Unknown goal 'maximum'."),
        ({"without": ("epochs",)}, "epochs: missing. Give every arm the same budget, by one of epochs, steps, samples"),
        ({"seconds": 9}, "seconds: there are 2 budgets: epochs, seconds. Leave one."),
        ({"epochs": 1.5}, "epochs: must be a whole number, at least 1, got 1.5."),
        ({"without": ("epochs",), "samples": 100}, "samples: needs the batch size, and neither the base nor the arm"),
        ({"margin": 0}, "margin: must be a difference in the metric above 0, for example 0.01, got 0."),
        ({"margin": "wide"}, "margin: must be a difference in the metric above 0, for example 0.01, got 'wide'."),
        # factors
        ({"without": ("factors",)}, "arms: give `arms` (name -> overrides) or `factors` (key -> levels), got neither."),
        ({"arms": {"a": {}}}, "arms: give `arms` (name -> overrides) or `factors` (key -> levels), got both."),
        ({"factors": [1]}, "factors: must be a mapping of keys to lists of levels, got [1]."),
        ({"factors": {DROPOUT: []}}, "factors.model.net.dropout: must be a list of levels such as [0.1, 0.3], got []."),
        ({"factors": {DROPOUT: 0.5}}, "factors.model.net.dropout: must be a list of levels"),
        (
            {"factors": {DROPOUT: [0, 0.5, 0.0]}},
            "factors.model.net.dropout[2]: the level 0 stands there twice. Leave one.",
        ),
        ({"factors": {DROPOUT: [0.2]}}, "reference.model.net.dropout: 0 is not among the levels: 0.2. Add it."),
        ({"design": "fractional"}, "design: Unknown design 'fractional'."),
        ({"reference": "plain"}, "reference: must be a mapping of keys to values such as"),
        ({"exclude": [{DROPOUT: 0.2}]}, "exclude: goes with `design: full`"),
        ({"overrides": [1]}, "overrides: must be a mapping of arms to what they set beside their levels, got [1]."),
        ({"overrides": {0.3: {RATE: 1}}}, "overrides.0.3: Unknown arm '0.3'."),
        ({"overrides": {0.5: {DROPOUT: 1}}}, "overrides.0.5.model.net.dropout: is a factor"),
        (
            {"factors": {RATE: [0.03, 0.1]}, "reference": {}},
            "factors.model.optimizer.lr[0]: lr=0.03 sets nothing but what reference does, so they are the same runs.",
        ),
        # full designs
        ({**FULL, "reference": {RATE: 0.1}}, "reference: must give a level of every factor in a full design; model."),
        ({**FULL, "exclude": []}, "exclude: must be a list such as"),
        ({**FULL, "exclude": [3]}, "exclude[0]: must be a mapping of factors to levels, got 3."),
        ({**FULL, "exclude": [{"model.net.drop": 0}]}, "exclude[0].model.net.drop: Unknown factor 'model.net.drop'."),
        ({**FULL, "exclude": [{DROPOUT: 0.4}]}, "exclude[0].model.net.dropout: Unknown level '0.4'."),
        ({**FULL, "exclude": [{DROPOUT: 0}]}, "exclude: leaves out the reference, which the others are compared with."),
        # arms
        ({**ARMS, "arms": {}}, "arms: must be a mapping of names to overrides, with one at least, got {}."),
        ({**ARMS, "arms": {"plain": 3}}, "arms.plain: must be a mapping of keys to values"),
        ({**ARMS, "reference": "plane"}, "reference: Unknown arm 'plane'. Did you mean 'plain'?"),
        ({**ARMS, "without": ("factors", "reference")}, "reference: missing. Name the arm that the others"),
        ({**ARMS, "arms": {"plain": {}, "b": {}}}, "arms.b: b sets nothing but what plain does"),
        ({**ARMS, "arms": {"plain": {}, 1: {DROPOUT: 1}, "1": {DROPOUT: 2}}}, "arms.1: there are two arms 1."),
        ({**ARMS, "arms": {"plain": {}, "b": {"base": "digit/mlp"}}}, "arms.b.base: Unknown configuration 'digit/mlp'"),
        ({**ARMS, "overrides": {}}, "overrides: goes with `factors`"),
        ({**ARMS, "arms": {"reference": {}}, "reference": {}}, "reference: `arms` has an arm of that name."),
        # keys
        ({"reference": {"run.name": "x"}}, "reference.run.name: `run.name` is not an arm's to set: the study chooses"),
        ({"reference": {"seed_everything": 1}}, "reference.seed_everything: `seed_everything` is not an arm's to set"),
        ({"reference": {"trainer.max_epochs": 1}}, "reference.trainer.max_epochs: `trainer.max_epochs` is not"),
        ({"reference": {"then": "test"}}, "reference.then: `then` is not an arm's to set: the test set is opened by"),
        ({"reference": {"ckpt_path": "x"}}, "reference.ckpt_path: `ckpt_path` is not an arm's to set: every cell"),
        ({"factors": {"trainer.max_steps": [1]}}, "factors.trainer.max_steps: `trainer.max_steps` is not an arm's"),
        ({"factors": {"trainer": [{"max_steps": 1}]}}, "factors.trainer.max_steps: `trainer.max_steps` is not an"),
        ({"reference": {"modle.net": 1}}, "reference.modle.net: Unknown key 'modle.net'. Did you mean 'model'?"),
        ({"reference": {"--model.net": 1}}, "reference.--model.net: `--model.net` is no key as on the command line"),
        ({"reference": {"model.init_args.net": 1}}, "reference.model.init_args.net: init_args and class_path are left"),
        ({"reference": {DROPOUT: 0, "model": {"net": {"dropout": 1}}}}, "reference.model.net.dropout: is set twice."),
        ({"metric": "val/loss", "goal": "max"}, "goal: max would choose the worst: val/loss improves the other way."),
        ({"metric": "val/r2", "goal": "min"}, "goal: min would choose the worst: val/r2 improves the other way."),
        ({"short": 3}, "short: must be a mapping, got 3. Write for example `short: {epochs: 2, seeds: 3}`."),
        ({"short": {"epocs": 3, "epochs": 1}}, "short.epocs: Unknown key 'epocs'. Did you mean 'epochs'?"),
        ({"short": {"seeds": 3}}, "short.epochs: missing. Give every arm the same budget"),
        ({"short": {"epochs": 1, "seeds": 0}}, "short.seeds: must be a number, at least 1"),
        # claims
        ({"claims": {}}, "claims: must be a list of claims, each with id, text, arm, against, expect, got {}."),
        ({"claims": ["x"]}, "claims[0]: must be a mapping with id, text, arm, against, expect, got 'x'."),
        ({"claims": [{**CLAIM, "txt": 1}]}, "claims[0].txt: Unknown key 'txt'. Did you mean 'text'?"),
        ({"claims": [{**CLAIM, "id": None}]}, "claims[0].id: must be a text, got None."),
        ({"claims": [CLAIM, CLAIM]}, "claims[1].id: there are two claims C1."),
        ({"claims": [{**CLAIM, "arm": None}]}, "claims[0].arm: missing."),
        ({"claims": [{**CLAIM, "arm": "dropout=0.6"}]}, "claims[0].arm: Unknown arm 'dropout=0.6'. Did you mean 'drop"),
        ({"claims": [{**CLAIM, "against": 0.6}]}, "claims[0].against: Unknown arm '0.6'."),
        ({"claims": [{**CLAIM, "expect": "diverges", "margin": 1}]}, "claims[0].margin: `diverges` counts runs"),
        ({"claims": [{**CLAIM, "expect": "falls"}]}, "claims[0].metric: `falls` needs a difference, such as val/loss@"),
        ({"claims": [{**CLAIM, "expect": "rises", "against": 0.5}]}, "claims[0].against: `rises` is about one arm."),
        ({"claims": [{**CLAIM, "arm": 0.0}]}, "claims[0].against: the claim compares dropout=0 with itself."),
        ({"claims": [{**CLAIM, "expect": "bettr"}]}, "claims[0].expect: Unknown expect 'bettr'. Did you mean 'better'"),
        ({"claims": [{**CLAIM, "metric": "test/acc"}]}, "claims[0].metric: test/acc must be a validation metric"),
        ({"claims": [{**CLAIM, "metric": "val/acc@x"}]}, "claims[0].metric: must be a validation or training metric"),
        ({"claims": [{**CLAIM, "expect": "equivalent"}]}, "claims[0].margin: missing. `equivalent` needs"),
        ({"claims": [{**CLAIM, "margin": -1}]}, "claims[0].margin: must be a difference in the metric above 0"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_path(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    lines = faults_of(tmp_path, **changes)
    assert [line for line in lines[1:] if line.startswith(f"  {fault}")] != [], "\n".join(lines)


def test_a_level_that_fits_several_arms_is_ambiguous(tmp_path: Path) -> None:
    factors = {DROPOUT: [0.1], RATE: [0.1]}
    assert faults_of(tmp_path, reference={}, factors=factors, claims=[{**CLAIM, "arm": 0.1}])[1:] == [
        "  claims[0].arm: '0.1' fits several arms: dropout=0.1, lr=0.1. Write the name of one."
    ]


def test_a_fault_in_the_arms_is_not_told_again_at_the_claims(tmp_path: Path) -> None:
    assert len(faults_of(tmp_path, factors=[], claims=[CLAIM])) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("goal: max\ngoal: min\n", "goal: stands there twice, the second time in line 2. Leave one."),
        ("arms:\n  a: {}\n  a: {}\n", "arms.a: stands there twice, the second time in line 3. Leave one."),
        ("claims:\n- {id: A, id: B}\n", "claims[0].id: stands there twice, the second time in line 2. Leave one."),
    ],
)
def test_a_key_that_stands_there_twice_is_a_fault(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_study(path)
    assert f"  {fault}" in str(error.value).splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "holds a list; a configuration is a mapping"),
        ("a: [\n", "is not valid YAML"),
        ("? {a: 1}\n: 2\n", "line 1 is not valid YAML: found unhashable key."),
    ],
)
def test_what_is_no_study_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_study(path)


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("")
    with pytest.raises(InputError, match="has 7 faults:"):
        read_study(path)


def test_the_good_study_is_good(tmp_path: Path) -> None:
    assert read_study(write_study(tmp_path)).name == GOOD["name"]
