"""The report of a study: every view says the same, nothing leaks into the markup, no state of a study is too little."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_support import CLAIMS, make_results, make_study
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_lab.studies.report import write_report
from lightning_lab.studies.report.curves import band_of, line_of, smooth
from lightning_lab.studies.report.formats import Format, effect_size, p_value
from lightning_lab.studies.report.html import _name
from lightning_lab.studies.report.markdown import _plain


class Reader(HTMLParser):
    """Collect the rows of tables by caption, headings left out, and check that every element is closed."""

    VOID = {"meta", "link", "input", "br", "wbr"}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._cell: list[str] | None = None
        self._caption: list[str] | None = None
        self._is_row = False
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag == "caption":
            self._caption = []
        elif tag == "tr":
            self.tables[self.caption].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag
        if tag == "caption":
            assert self._caption is not None
            self.caption = "".join(self._caption)
            self.tables[self.caption] = []
            self._caption = None
        elif tag in ("td", "th"):
            assert self._cell is not None
            self.tables[self.caption][-1].append("".join(self._cell))
            self._cell = None
            self._is_row |= tag == "td"
        elif tag == "tr":
            if not self._is_row:
                self.tables[self.caption].pop()
            self._is_row = False

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in ("script", "style"):
            return
        self.words.append(data)
        for open_ in (self._cell, self._caption):
            if open_ is not None:
                open_.append(data)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _headings(markdown: str) -> set[str]:
    lines = markdown.splitlines()
    return {above for above, line in pairwise(lines) if line.startswith("| ---")}


def number(text: str) -> float:
    return float(text) if text else math.nan


@pytest.fixture
def page(tmp_path: Path) -> Path:
    study = make_study(tmp_path / "s", claims=CLAIMS)
    statuses = {("dropout=0.2", 3): "failed", ("dropout=0.5", 2): "diverged"}
    return write_report(study, make_results(study, tmp_path / "s", statuses), tmp_path / "s")


def test_the_numbers_of_page_markdown_and_csv_agree(page: Path) -> None:
    html, markdown = Reader(page.read_text()), page.with_name("report.md").read_text()
    rows = [row for table in html.tables.values() for row in table]
    assert [f"| {' | '.join(map(_plain, row))} |" for row in rows] == [
        line for line in markdown.splitlines() if re.match(r"\| (?!---)", line) and line not in _headings(markdown)
    ]
    arms = {row["arm"]: row for row in read_csv(page.with_name("arms.csv"))}
    for name, *cells in html.tables["val/acc of each arm"]:
        arm = arms[name.removesuffix(" (reference)")]
        write = Format([], [])
        write.places = 4
        expected = [arm["last_n"]]
        for when in ("last", "selected"):
            mean, sd, low, high = (number(arm[f"{when}_{part}"]) for part in ("mean", "sd", "low", "high"))
            expected += [write(mean), write(sd), write.interval(low, high)]
        assert cells == [*expected, write.signed(number(arm["optimism"])), arm["cells"], arm["diverged"]]
    for name, *cells in html.tables["Each arm minus dropout=0"]:
        arm = arms[name]
        interval = write.interval(number(arm["difference_low"]), number(arm["difference_high"]), signed=True)
        assert cells[:5] == [
            arm["difference_n"], write.signed(number(arm["difference"])), interval,
            effect_size(number(arm["effect"])), p_value(number(arm["p_holm"])),
        ]  # fmt: skip
        assert cells[5].split(maxsplit=1)[1] == arm["verdict"]


def test_the_statistics_are_those_of_the_cells(page: Path) -> None:
    cells = read_csv(page.with_name("report.csv"))
    arms = {row["arm"]: row for row in read_csv(page.with_name("arms.csv"))}
    for arm, row in arms.items():
        own = [cell for cell in cells if cell["arm"] == arm and cell["in_statistics"] == "yes"]
        for when in ("last", "selected"):
            values = [float(cell[f"val/acc ({when})"]) for cell in own]
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            found = [number(row[f"{when}_{part}"]) for part in ("mean", "sd", "low", "high")]
            assert found == pytest.approx([np.mean(values), np.std(values, ddof=1), low, high])
            assert row[f"{when}_n"] == str(len(values))
    assert [arms[arm]["last_n"] for arm in arms] == ["5", "4", "4"]
    assert float(arms["dropout=0.2"]["optimism"]) >= 0


def test_a_row_of_csv_for_each_cell(page: Path) -> None:
    cells = read_csv(page.with_name("report.csv"))
    assert len(cells) == 15
    run = Path(cells[0]["directory"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["val/acc"])
    assert cells[0]["selected_epoch"] == str(best["epoch"])
    assert float(cells[0]["train/loss (selected)"]) == best["train/loss"]
    assert float(cells[0]["train/loss (last)"]) == rows[-1]["train/loss"]
    diverged = next(cell for cell in cells if cell["status"] == "diverged")
    assert diverged["val/acc (last)"] == ""
    assert diverged["in_statistics"] == "no"


def test_the_page_tells_what_went_wrong(page: Path) -> None:
    text = " ".join(" ".join(Reader(page.read_text()).words).split())
    assert "1 diverged run is in no mean (dropout=0.5 with seed 2)" in text
    assert "1 run without a result" in text
    assert "The test set has not been opened." in text
    assert "DataLoader worker (pid 4711)" in text
    assert 'File "<b>&", line 1' in text
    assert "epoch 3: 100 %" in text  # the last state of the progress bar
    assert "epoch 3: 95 %" not in text
    assert "\x1b" not in text


def test_claims_come_with_their_verdicts(page: Path) -> None:
    rows = Reader(page.read_text()).tables["Claims"]
    verdicts = {row[0]: row[2] for row in rows}
    assert verdicts == {"A9": "✗ refuted", "A10": "✓ confirmed", "A11": "✓ confirmed", "A12": "✗ refuted"}


def test_the_page_asks_for_nothing_outside_of_it(page: Path) -> None:
    text = page.read_text()
    reader = Reader(text)
    links = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    named = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(named)
    used = [name for _, attributes in reader.tags for name in (attributes.get("aria-labelledby") or "").split()]
    assert set(used) <= named


NAMES = ["<script>alert(1)</script>", 'a & b "q" | `x`', "größe=日本語 \N{COMBINING ACUTE ACCENT}", "../../etc", "a&b"]


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", name="<img src=x onerror=alert(2)>", arms=NAMES, seeds=3)
    page = write_report(study, make_results(study, tmp_path / "s"), tmp_path / "s")
    text = page.read_text()
    reader = Reader(text)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in reader.tags]
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert [row[0] for row in reader.tables["val/acc of each arm"]] == [f"{NAMES[0]} (reference)", *NAMES[1:]]
    assert [row["arm"] for row in read_csv(page.with_name("arms.csv"))] == NAMES
    rows = re.findall(r"^\| .*", page.with_name("report.md").read_text(), re.MULTILINE)
    assert "\\<script\\>" in "".join(rows)
    folders = sorted(path.name for path in (tmp_path / "s" / "report_tensorboard").iterdir())
    assert len(folders) == len(NAMES)  # two names that differ in what a folder cannot hold


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    page = write_report(study, make_results(study, tmp_path / "s"), tmp_path / "s")
    rows = Reader(page.read_text()).tables["val/acc of each arm"]
    assert {(row[1], row[3], row[4]) for row in rows} == {("1", "–", "–")}
    assert "One seed says nothing about the spread" in page.read_text()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("missing", "Nothing can be concluded yet: none of the 15 runs is done."),
        ("running", "Nothing can be concluded yet: none of the 15 runs is done."),
        ("diverged", "Nothing can be concluded: no run has a value of val/acc to compare."),
        ("failed", "Nothing can be concluded yet: none of the 15 runs is done."),
    ],
)
def test_without_a_value_the_report_says_so(tmp_path: Path, status: str, words: str) -> None:
    study = make_study(tmp_path / "s", claims=CLAIMS)
    statuses = {(arm.name, seed): status for arm in study.arms for seed in study.seeds}
    page = write_report(study, make_results(study, tmp_path / "s", statuses), tmp_path / "s")
    assert words in page.read_text()
    assert words in page.with_name("report.md").read_text()
    assert len(read_csv(page.with_name("report.csv"))) == 15


def test_a_reference_without_a_run_leaves_the_others_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", claims=CLAIMS)
    statuses = {("dropout=0", seed): "missing" for seed in study.seeds}
    page = write_report(study, make_results(study, tmp_path / "s", statuses), tmp_path / "s")
    assert "Nothing can be compared with dropout=0 yet." in page.read_text()
    assert "Taken from the study file, for no run has begun" in page.read_text()


def text_of(page: Path) -> str:
    return " ".join(" ".join(Reader(page.read_text()).words).split())


def test_an_arm_all_of_whose_runs_diverged_is_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=4)
    results = make_results(study, tmp_path / "s", {("dropout=0.5", seed): "diverged" for seed in study.seeds})
    for result in results:
        if result.status == "diverged":
            result.rows.clear()  # in the first epoch
    text = text_of(write_report(study, results, tmp_path / "s"))
    assert " the reference; every run of dropout=0.5 diverged." in text
    concluded = text[text.index("What can be concluded") : text.index("What cannot be concluded")]
    p = stats.fisher_exact([[4, 0], [0, 4]]).pvalue
    assert f"dropout=0.5: diverged in 4 of 4 runs, the reference in 0 of 4, p = {p:.3f} (Fisher's exact" in concluded
    assert "4 diverged runs are in no mean (all of dropout=0.5)" in text
    assert "Nothing is known of" not in text
    assert "dropout=0.5 no epoch was completed in 4 runs" in text


def test_two_runs_that_diverged_prove_nothing(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=2)
    results = make_results(study, tmp_path / "s", {("dropout=0.5", seed): "diverged" for seed in study.seeds})
    text = text_of(write_report(study, results, tmp_path / "s"))
    cannot = text[text.index("What cannot be concluded") :]
    assert "dropout=0.5: diverged in 2 of 2 runs, the reference in 0 of 2, p = 0.333 (Fisher" in cannot


def test_a_reference_that_diverged_is_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=3)
    results = make_results(study, tmp_path / "s", {("dropout=0", seed): "diverged" for seed in study.seeds})
    text = text_of(write_report(study, results, tmp_path / "s"))
    assert "Nothing can be compared with dropout=0; every run of dropout=0 diverged." in text


def test_effects_of_factors_are_against_the_levels_of_the_reference(tmp_path: Path) -> None:
    arms = [f"a={a},b={b}" for a in (1, 2, 3) for b in ("x", "y")]
    drawn = make_study(tmp_path / "s", arms=arms, seeds=5)
    made = tuple(
        replace(arm, point={"model.net.a": int(arm.name[2]), "model.net.b": arm.name[-1]}) for arm in drawn.arms
    )
    factors = {"model.net.a": [1, 2, 3], "model.net.b": ["x", "y"]}
    study = replace(drawn, arms=made, factors=factors, design="full", reference="a=2,b=y")
    # The level 3 of a costs 0.1; b makes no difference.
    results = make_results(study, tmp_path / "s", effects=[0.0, 0.0, 0.0, 0.0, -0.1, -0.1])
    page = write_report(study, results, tmp_path / "s")
    reader = Reader(page.read_text())
    effects = {(row[0], row[1]): row for row in reader.tables["Main effects"]}
    assert list(effects) == [("model.net.a=1", "2"), ("model.net.a=3", "2"), ("model.net.b=x", "y")]
    assert number(effects["model.net.a=3", "2"][3].replace("−", "-")) == pytest.approx(-0.1, abs=0.01)
    assert [row[:2] for row in reader.tables["Interactions"]] == [
        ["model.net.a=1 × model.net.b=x", "2 × y"],
        ["model.net.a=3 × model.net.b=x", "2 × y"],
    ]
    text = text_of(page)
    concluded = text[text.index("What can be concluded") : text.index("What cannot be concluded")]
    assert "Main effect of model.net.a 3 against 2: −0.0997 (95 %" in concluded
    assert "effect of model.net.a 1 " not in concluded
    assert "of model.net.b" not in concluded


def test_the_command_is_one_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    results = make_results(study, tmp_path / "s")
    for own in ("/somewhere/lightning_lab/__main__.py", "/somewhere/bin/lightning-lab"):
        monkeypatch.setattr(sys, "argv", [own, "study", "report", "my study.yaml"])
        rows = dict(
            Reader(write_report(study, results, tmp_path / "s").read_text()).tables["Where this report comes from"]
        )
        assert rows["command"] == "lightning-lab study report 'my study.yaml'"


def test_long_names_break_between_words_and_not_within_numbers() -> None:
    assert _name("net.dropout=0.2,lr=0.05 (reference)") == "net.<wbr>dropout=0.2,<wbr>lr=0.05 (reference)"
    assert _name("versions.torch_vision <b>,a") == "versions.<wbr>torch_<wbr>vision &lt;b&gt;,<wbr>a"


def test_the_metric_may_be_missing_or_null_and_lengths_may_differ(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", metric="val/loss", goal="min", margin=None)
    results = make_results(study, tmp_path / "s")
    for index, result in enumerate(results):
        del result.rows[15 - index % 4 :]
        result.rows[1]["val/loss"] = None
        result.rows[2].pop("val/loss")
    results[0].rows[-1]["val/loss"] = None
    page = write_report(study, results, tmp_path / "s")
    arms = {row["arm"]: row for row in read_csv(page.with_name("arms.csv"))}
    assert arms["dropout=0"]["last_n"] == "4"
    assert float(arms["dropout=0.2"]["optimism"]) <= 0


def test_settings_and_environments_are_compared(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    results = make_results(study, tmp_path / "s")
    other = results[4].cell.directory.environment
    environment = json.loads(other.read_text())
    environment["versions"]["torch"] = "2.12.0"
    environment["hardware"]["host"] = "node-02"
    other.write_text(json.dumps(environment))
    tables = Reader(write_report(study, results, tmp_path / "s").read_text())
    assert tables.tables["What each arm changes"] == [
        ["dropout=0.2", "model.net.dropout", "0.0", "0.2"],
        ["dropout=0.5", "model.net.dropout", "0.0", "0.4"],
    ]
    facts = dict(tables.tables["What the runs ran on and from"])
    assert facts["versions.torch"] == "⚠ 2.11.0 (14 runs); 2.12.0 (1 run)"
    assert facts["hardware.host"] == "node-01 (14 runs); node-02 (1 run)"
    assert "The runs differ in versions.torch: a difference" in " ".join(tables.words)


def test_the_readings_of_the_test_set_are_counted(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    folder = tmp_path / "s"
    entry: dict[str, Any] = {"arm": "dropout=0", "event": "read", "when": "2026-11-22T04:00:00+00:00"}
    lines = [{**entry, "seed": seed, "result": {"test/acc": 0.95 + 0.01 * seed}} for seed in range(3)]
    lines.append({**entry, "seed": 0, "result": {"test/acc": 0.1}, "reason": "curious"})
    lines.append({**entry, "event": "failed", "seed": 1})
    (folder / "test_ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = Reader(write_report(study, make_results(study, folder), folder).read_text())
    text = " ".join(reader.words)
    assert "The test set was read 4 times: 3 runs, 1 reading more than one for each." in text
    assert reader.tables["Test results of dropout=0"][0] == ["test/acc", "3", "0.960", "0.010", "[0.935, 0.985]"]
    assert len(reader.tables["Every reading of the test set"]) == 4
    assert "curious" in text


def test_tensorboard_gets_mean_and_ends_of_the_interval(page: Path) -> None:
    folder = page.with_name("report_tensorboard")
    assert sorted(path.name for path in folder.iterdir()) == ["dropout-0", "dropout-0.2", "dropout-0.5"]
    found = {}
    for run in ("mean", "ci_low", "ci_high"):
        events = EventAccumulator(str(folder / "dropout-0" / run)).Reload()
        assert events.Tags()["scalars"] == ["val/acc", "train/loss", "val/loss"]
        found[run] = {event.step: event.value for event in events.Scalars("val/acc")}
    cells = [cell for cell in read_csv(page.with_name("report.csv")) if cell["arm"] == "dropout=0"]
    values = [float(cell["val/acc (last)"]) for cell in cells]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert [found[run][15] for run in found] == pytest.approx([np.mean(values), low, high], rel=1e-6)


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=2)
    write_report(study, make_results(study, tmp_path / "s"), tmp_path / "s")
    fewer = make_study(tmp_path / "s", arms=["dropout=0", "dropout=0.9"], seeds=2)
    write_report(fewer, make_results(fewer, tmp_path / "s"), tmp_path / "s")
    folders = sorted(path.name for path in (tmp_path / "s" / "report_tensorboard").iterdir())
    assert folders == ["dropout-0", "dropout-0.9"]
    assert len(list((tmp_path / "s" / "report_tensorboard" / "dropout-0" / "mean").iterdir())) == 1


def test_many_arms_make_a_page_below_two_megabytes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", arms=[f"width={16 * i}" for i in range(1, 31)], seeds=20, epochs=300)
    rows = make_results(make_study(tmp_path / "s", arms=["width=16"], seeds=1, epochs=300), tmp_path / "s")[0].rows
    results = make_results(study, tmp_path / "s", {(arm.name, s): "missing" for arm in study.arms for s in study.seeds})
    random = np.random.default_rng(0)
    for result in results:  # made in memory, for 600 folders take longer than what is tested
        shift = float(0.01 * random.standard_normal())
        result.rows.extend({**row, "val/acc": row["val/acc"] + shift * random.random()} for row in rows)
        object.__setattr__(result, "status", "completed")
    page = write_report(study, results, tmp_path / "s")
    assert page.stat().st_size < 2_000_000


def test_the_band_is_the_t_interval_of_each_epoch() -> None:
    lines = [[(1, 0.5), (2, 0.7), (3, 0.8)], [(1, 0.6), (2, 0.9)], [(1, 0.4)]]
    band = band_of(lines)
    low, high = stats.t.interval(0.95, 2, 0.5, stats.sem([0.5, 0.6, 0.4]))
    assert band.epochs.tolist() == [1, 2, 3]
    assert band.mean == pytest.approx([0.5, 0.8, 0.8])
    assert [band.low[0], band.high[0]] == pytest.approx([low, high])
    assert math.isnan(band.low[2])


def test_curves_leave_out_what_is_not_finite() -> None:
    rows = [
        {"epoch": 1, "a": 1.0},
        {"epoch": 2, "a": None},
        {"epoch": 3, "a": math.nan},
        {"epoch": 4},
        {"epoch": 5, "a": 2},
    ]
    assert line_of(rows, "a") == [(1, 1.0), (5, 2.0)]
    assert smooth([(1, 3.0), (2, 3.0)]) == [(1, pytest.approx(3.0)), (2, pytest.approx(3.0))]


def test_a_damaged_environment_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    results = make_results(study, tmp_path / "s")
    results[0].cell.directory.environment.write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json is damaged .* Delete it, or the run"):
        write_report(study, results, tmp_path / "s")


def test_the_report_needs_neither_torch_nor_dask() -> None:
    heavy = "{'torch', 'lightning', 'dask', 'distributed', 'tensorflow', 'torchvision'} & set(sys.modules)"
    code = f"import sys; import lightning_lab.studies.report.main; sys.exit(repr({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
