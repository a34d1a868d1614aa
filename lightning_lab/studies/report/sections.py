"""The sections of a report in their order, from the one table of results and the files of the runs."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lightning_lab.runs.environment import describe_environment
from lightning_lab.studies.report import origin
from lightning_lab.studies.report.blocks import Block, Column, Curves, Output, Section, Table, Text
from lightning_lab.studies.report.charts import charts_of
from lightning_lab.studies.report.curves import SMOOTHING
from lightning_lab.studies.report.formats import listing, plural
from lightning_lab.studies.report.results import Comparison
from lightning_lab.studies.report.statistics import (
    arms_blocks,
    claims_blocks,
    difference_blocks,
    effect_blocks,
    format_of,
)
from lightning_lab.studies.report.summary import summary
from lightning_lab.studies.report.testing import testing_blocks


@dataclass(frozen=True)
class Report:
    """What a report says.

    Args:
        title: The study's name.
        comparison: The numbers.
        sections: What is shown, in its order.
    """

    title: str
    comparison: Comparison
    sections: Sequence[Section]


def compose(comparison: Comparison, folder: Path, *, command: Sequence[str]) -> Report:
    """Put a report together.

    Args:
        comparison: The study's results.
        folder: The study's folder.
        command: The command line that asked for the report.

    Raises:
        InputError: If a file of a run is damaged.
    """
    study, results = comparison.study, comparison.results
    facts = origin.environment_facts(results)
    warnings = _warnings(facts)
    write = format_of(comparison)
    sections = [
        Section("summary", "Summary", [*summary(comparison, warnings), *claims_blocks(comparison)]),
        Section("arms", "Arms", arms_blocks(comparison, write)),
        Section("differences", "Differences to the reference", difference_blocks(comparison, write)),
    ]
    if study.design == "full":
        sections.append(Section("factors", "Factors", effect_blocks(comparison)))
    sections += [
        Section("curves", "Learning curves", _curves(comparison)),
        Section("configuration", "Configuration", _configuration(comparison)),
        Section("environment", "Environment", [*(Text(words, "warning") for words in warnings), *_environment(facts)]),
    ]
    failed = [
        Output(f"{tail.arm}, seed {tail.seed}: {tail.reason}", tail.text) for tail in origin.tails(results, folder)
    ]
    sections.append(Section("failures", "Failed runs", failed or [Text("No run has failed.")]))
    sections.append(Section("test", "Test set", testing_blocks(folder)))
    sections.append(Section("provenance", "Provenance", [_provenance(comparison, command)]))
    return Report(study.name, comparison, sections)


def _curves(comparison: Comparison) -> list[Block]:
    charts = charts_of(comparison)
    arms = []
    for name, drawings in charts.items():
        counted = len(comparison.values.get(name, {}))
        out = sum(bool(result.rows) for result in comparison.of(name)) - counted
        told = f"mean of {plural(counted, 'run')}" + (f"; {plural(out, 'run')} left out" if out else "")
        if not drawings:
            begun = [result for result in comparison.of(name) if result.status != "missing"]
            told = f"no epoch was completed in {plural(len(begun), 'run')}" if begun else "no run has begun"
        arms.append((name, told, drawings))
    if not any(charts.values()):
        return [Text("There are no curves yet.")]
    caption = (
        "Means over the runs that are in the statistics, with 95 % bands where two runs or more go on; the same scales "
        f"for all arms. Smoothed: exponential moving average of each run with weight {SMOOTHING:g}, corrected for its "
        "start. Single runs drawn with dots are in no mean (diverged, failed, not done). The scale is made for the "
        "epochs after the first fifth."
    )
    return [Curves(arms, caption)]


def _configuration(comparison: Comparison) -> list[Block]:
    changes, planned = origin.config_changes(comparison.study, comparison.results)
    blocks: list[Block] = []
    if changes:
        columns = [Column("arm"), Column("setting", "code"), Column("reference", "code"), Column("this arm", "code")]
        rows = [[change.arm, change.key, change.reference, change.value] for change in changes]
        note = f"Resolved configurations against that of {comparison.study.reference}; seeds and folders left out."
        blocks.append(Table("What each arm changes", columns, rows, note, stacks=True))
    same = (
        {arm.name for arm in comparison.study.arms} - {change.arm for change in changes} - {comparison.study.reference}
    )
    if same:
        verb = "has" if len(same) == 1 else "have"
        blocks.append(Text(f"{listing(sorted(same))} {verb} the configuration of the reference.", "warning"))
    if planned:
        blocks.append(Text(f"Taken from the study file, for no run has begun: {listing(planned)}."))
    return blocks or [Text("There is one arm.")]


def _warnings(facts: Sequence[origin.Fact]) -> list[str]:
    mixed = [fact.key for fact in facts if fact.matters and len(fact.values) > 1]
    words = []
    if mixed:
        words.append(
            f"The runs differ in {listing(mixed)}: a difference between arms may come from there. The values stand "
            "under Environment."
        )
    if any(fact.key == "dirty" and "true" in dict(fact.values) for fact in facts):
        words.append("The code had changes that are in no commit: these runs cannot be repeated from a commit alone.")
    return words


def _environment(facts: Sequence[origin.Fact]) -> list[Block]:
    if not facts:
        return [Text("No run has begun.")]
    rows = []
    for fact in facts:
        several = len(fact.values) > 1
        words = "; ".join(f"{value} ({plural(count, 'run')})" if several else value for value, count in fact.values)
        rows.append([fact.key, f"⚠ {words}" if several and fact.matters else words])
    return [Table("What the runs ran on and from", [Column("entry", "code"), Column("value")], rows)]


def _provenance(comparison: Comparison, command: Sequence[str]) -> Table:
    here = describe_environment()
    file = comparison.study.file
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "the file is gone"
    commit = here["commit"] or "none (an installed version)"
    rows = [
        ["command", shlex.join(command)],
        ["folder", here["folder"]],
        ["study file", str(file)],
        ["SHA-256 of the study file", digest],
        ["written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")],
        ["version", f"lightning-lab {here['lightning_lab']}, Python {here['python']}"],
        ["commit", f"{commit} with changes" if here["dirty"] else commit],
    ]
    return Table("Where this report comes from", [Column("entry"), Column("value", "code")], rows)
