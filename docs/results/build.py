"""The pages of the labs' results: from the logs of the studies to CSV, from CSV and labs.yaml to Markdown.

    python docs/results/build.py --run.logs logs     # collect what is there, then write the pages
    python docs/results/build.py                     # write the pages from the CSV alone

Numbers and verdicts come from the CSV, which `lightning-lab study report` computes in the same way; labs.yaml has the
words: what each row of the labs is, and why its verdict is what it is. A test holds the pages to both.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from lightning_lab import shipped
from lightning_lab.runs.files import write_text
from lightning_lab.studies import vault
from lightning_lab.studies.cells import read_result
from lightning_lab.studies.design import Study, cells_of, read_study
from lightning_lab.studies.estimate import estimate
from lightning_lab.studies.report.formats import Format, plural, seeds_text
from lightning_lab.studies.report.origin import environment_facts
from lightning_lab.studies.report.results import Comparison, compare
from lightning_lab.studies.report.tables import arms_csv, cells_csv, csv_text

HERE = Path(__file__).resolve().parent
#: Entries of environment.json that say what a result depends on.
CONDITIONS = ("commit", "dirty", "python", "versions.torch", "versions.lightning", "hardware.processor",
              "hardware.cores", "hardware.bf16_units", "hardware.gpus")  # fmt: skip
VERDICTS = ("confirmed", "refuted", "open")

Row = dict[str, str]


def collect(name: str, logs: Path) -> bool:
    """Turn one study's runs into CSV.

    Args:
        name: For example ``lab_a/width``.
        logs: Where runs are.

    Returns:
        Whether all of them are done, in full or at the budget of `--short`: half a study is no result.
    """
    comparison = _complete(name, logs)
    if comparison is None:
        return False
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "arms.csv", arms_csv(comparison))
    write_text(folder / "cells.csv", cells_csv(comparison).replace(f"{logs.as_posix()}/", "logs/"))
    write_text(folder / "claims.csv", _claims_csv(comparison))
    write_text(folder / "conditions.csv", _conditions_csv(name, comparison))
    readings = vault.read_ledger(logs / "studies" / comparison.study.name)
    if readings:
        write_text(folder / "tested.csv", _tested_csv(readings))
    return True


def _complete(name: str, logs: Path) -> Comparison | None:
    file = shipped.find_study(name)
    for short in [False, True] if "short" in yaml.safe_load(file.read_text()) else [False]:
        study = read_study(file, short=short)
        results = [read_result(cell) for cell in cells_of(study, logs)]
        if all(result.done for result in results):
            return compare(study, results)
    return None


def _claims_csv(comparison: Comparison) -> str:
    heading = [
        "id",
        "status",
        "arm",
        "against",
        "expect",
        "metric",
        "margin",
        "n",
        "difference",
        "low",
        "high",
        "words",
    ]
    rows = []
    for claim, verdict in comparison.claims:
        d = verdict.difference
        compared = [claim.id, verdict.status, claim.arm, claim.against, claim.expect, claim.metric, claim.margin]
        rows.append([*compared, d.n, d.mean, d.low, d.high, verdict.words])
    return csv_text(heading, rows)


def _conditions_csv(name: str, comparison: Comparison) -> str:
    study = comparison.study
    done = [result for result in comparison.results if result.done]
    rows: list[list[Any]] = [
        ["command", f"lightning-lab study run {name}{' --short' if study.short else ''}"],
        ["budget", f"{study.budget.amount:g} {study.budget.unit}"],
        ["seeds", seeds_text(study.seeds)],
        ["cells", f"{len(done)} of {len(comparison.results)}"],
        ["compared by", f"{study.metric} after the last epoch ({study.goal})"],
    ]
    for fact in environment_facts(comparison.results):
        if fact.key in CONDITIONS:
            rows.append([fact.key, "; ".join(value for value, _ in fact.values)])
    return csv_text(["entry", "value"], rows)


def _tested_csv(readings: list[dict[str, Any]]) -> str:
    metrics = sorted({name for reading in readings for name in reading["result"]})
    rows = [
        [reading["arm"], reading["seed"], reading["reason"], *(reading["result"].get(name) for name in metrics)]
        for reading in readings
    ]
    return csv_text(["arm", "seed", "reason", *metrics], rows)


def render() -> dict[Path, str]:
    """Write the pages, as text by file."""
    labs = yaml.safe_load((HERE / "labs.yaml").read_text())
    pages = {HERE / f"{lab['page']}.md": _page(lab) for lab in labs}
    return pages | {HERE / "README.md": _index(labs)}


def _page(lab: dict[str, Any]) -> str:
    lines = [f"# Lab {lab['lab']}. {lab['title']}", "", lab["introduction"].strip(), ""]
    told: set[str] = set()  # a study of several rows stands at the first
    for row in lab["rows"]:
        lines += [f"## {row['row']}. {row['title']}", ""]
        if "study" in row and row["study"] not in told:
            told.add(row["study"])
            lines += _study(row["study"])
        elif "command" in row:
            lines += [f"`{row['command']}`", ""]
        lines += _claims(row)
        if "text" in row:
            lines += [row["text"].strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _study(name: str) -> list[str]:
    file = f"[`{name}`](../../configs/studies/{name}.yaml)"
    arms = _read(name, "arms")
    if not arms:
        return [f"{file}: `{_command(name)}`. Not run yet.", ""]
    known = {row["entry"]: row["value"] for row in _read(name, "conditions")}
    commits = " and ".join(commit[:10] for commit in known.get("commit", "").split("; "))
    study = read_study(shipped.find_study(name))
    margin = "" if study.margin is None else f", margin {study.margin:g}"
    dirty = " with changes" if "true" in known.get("dirty", "") else ""
    lines = [
        f"{file}: `{_command(name)}` at commit {commits}{dirty}; {known['budget']}, {known['seeds']}, "
        f"{known['cells']} cells done; {known['compared by']}{margin}. {known['hardware.cores']} cores of "
        f"{known['hardware.processor']} (bf16 units: {known['hardware.bf16_units']}), torch "
        f"{known['versions.torch']}, lightning {known['versions.lightning']}, Python {known['python']}.",
        "",
        "| arm | n | mean | sd | 95 % interval | against the reference | diverged |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    number = [_number(row, "last_mean") for row in arms], [_number(row, "last_sd") for row in arms]
    write = Format([x for x in number[0] if x is not None], [x for x in number[1] if x is not None])
    for row in arms:
        low, high = _number(row, "last_low"), _number(row, "last_high")
        between = write.interval(low, high) if low is not None and high is not None else "–"
        told = "reference" if row["is_reference"] == "yes" else _escaped(row["words"]) or "–"
        lines.append(
            f"| {_escaped(row['arm'])} | {row['last_n']} | {write(_number(row, 'last_mean'))} | "
            f"{write(_number(row, 'last_sd'))} | {_escaped(between)} | {told} | {row['diverged']} |"
        )
    return [
        *[*lines, "", *_settings(study)],
        *([_tested(name), ""] if _read(name, "tested") else []),
        *[f"[All cells]({name}/cells.csv), [arms]({name}/arms.csv), [claims]({name}/claims.csv).", ""],
    ]


def _settings(study: Study) -> list[str]:
    """What each arm sets, but for what all of them do."""
    arms = {arm.name: arm.overrides for arm in study.arms}
    common = set.intersection(*({*map(str, overrides.items())} for overrides in arms.values()))
    lines = ["<details><summary>What each arm sets</summary>", ""]
    for name, overrides in arms.items():
        own = [f"{key}: {value}" for key, value in overrides.items() if str((key, value)) not in common]
        lines.append(f"* {_escaped(name)}: " + (_escaped(", ".join(own)) or "nothing"))
    if common:
        all_set = [f"{key}: {value}" for key, value in next(iter(arms.values())).items() if str((key, value)) in common]
        lines.append(f"* all of them: {_escaped(', '.join(all_set))}")
    return [*lines, "", "</details>", ""]


def _tested(name: str) -> str:
    """What the test set said of the arm that was chosen on validation data."""
    readings = _read(name, "tested")
    metric = next(metric for metric in ("test/acc", "test/loss") if metric in readings[0])
    values = [float(reading[metric]) for reading in readings]
    found = estimate(values)
    write = Format([found.mean, *values], [found.sd])
    between = f"{write(min(values))} to {write(max(values))}"
    return (
        f"Tested: {_escaped(readings[0]['arm'])}, chosen on validation. {metric} {write(found.mean)}, sd "
        f"{write(found.sd)}, 95 % interval of the mean over seeds {write.interval(found.low, found.high)}, {between}; "
        f"{plural(len(readings), 'reading')} of the test set."
    )


def _claims(row: dict[str, Any]) -> list[str]:
    lines = ["| claim | the lab reports | what was compared | verdict | why |", "|---|---|---|---|---|"]
    for claim in row.get("claims", []):
        verdict, compared = _verdict(row, claim)
        texts = [claim["id"], claim["reported"], compared, verdict, claim.get("why", "–")]
        lines.append(f"| {' | '.join(_escaped(str(text)) for text in texts)} |")
    return [*lines, ""] if row.get("claims") else []


def _verdict(row: dict[str, Any], claim: dict[str, Any]) -> tuple[str, str]:
    """The verdict in bold and what was compared."""
    found = {one["id"]: one for one in _read(row["study"], "claims")}.get(claim["id"])
    if found is None:
        return "not run", "–"
    against = f" against {found['against']}" if found["against"] else ""
    what = f"{found['arm']}{against}, {found['metric']}, expected {found['expect']}"
    return f"**{found['status']}**: {found['words'].partition(': ')[2]}", what


def _index(labs: list[dict[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    in_short: Counter[str] = Counter()
    table = ["| row | what | file | command | verdict |", "|---|---|---|---|---|"]
    for lab in labs:
        for row in lab["rows"]:
            verdicts = []
            for claim in row.get("claims", []):
                if claim.get("added"):
                    continue
                word = next((v for v in VERDICTS if f"**{v}**" in _verdict(row, claim)[0]), "not run")
                short = _command(row["study"]).endswith(" --short")
                (in_short if short else counts)[word] += 1
                verdicts.append(f"{claim['id']} {word}{' (short)' if short else ''}")
            file = row.get("file") or f"configs/studies/{row['study']}.yaml"
            command = row.get("command") or _command(row["study"])
            link = f"[{row['row']}]({lab['page']}.md)"
            tested = _tested(row["study"]).partition(", sd")[0] if _read(row.get("study", ""), "tested") else "not run"
            said = "; ".join(verdicts) or row.get("status", tested)
            table.append(f"| {link} | {_escaped(row['title'])} | [{file}](../../{file}) | `{command}` | {said} |")
    missing = counts.pop("not run", 0)
    total = sum(counts.values()) + sum(in_short.values()) + missing
    said = f"{sum(counts.values())} judged at the lab's own budget, {_counted(counts)}"
    if in_short:
        said += (
            f"; {sum(in_short.values())} at a short one, a thirtieth of it, which says how nets begin to learn and not "
            f"how they end, {_counted(in_short)}"
        )
    said += f"; {missing} not run." if missing else "."
    return (
        "\n".join(
            [
                "# What the labs' claims are worth",
                "",
                f"Of {plural(total, 'claim')} in four labs, student write-ups whose conclusions rest on one run each: "
                f"{said}",
                "",
                "* A claim is judged by the rules of `lightning_lab/studies/claims.py`: a two-sided paired t test at "
                "5 %, equivalence within the margin that the study file states, exact tests of counts where runs "
                "diverge. Confirmed: there is a difference that way, of whatever size. Refuted: there is one the other "
                "way, or it is shown to lie within the margin. Open: neither is shown.",
                "* Claims are not adjusted for one another: of forty, two may be wrong by chance. Verdicts on arms are "
                "adjusted for the arms of their study (Holm); intervals are not, so that one can leave out zero where "
                "the verdict is not distinguishable. Intervals of means of skewed losses are too narrow.",
                "* All values are of validation data unless they are called test, and nothing was chosen on test data. "
                "train/loss is the mean over an epoch's steps, with dropout and augmentation on, so that gaps to it "
                "shrink with both.",
                "* A claim that is no lab's, added here, says so and is not counted.",
                "* Lab A reads `digits.mat`, lab C CIFAR-10, from the folder that `$LIGHTNING_LAB_DATA` names. Labs B "
                "and D need no data.",
                "",
                *table,
                "",
                "`python docs/results/build.py` makes the pages; the numbers behind them stand beside them as CSV.",
            ]
        )
        + "\n"
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])


def _command(name: str) -> str:
    """What was run; where nothing was yet, the study in full."""
    known = {row["entry"]: row["value"] for row in _read(name, "conditions")}
    return known.get("command", f"lightning-lab study run {name}")


def _read(name: str, what: str) -> list[Row]:
    path = HERE / name / f"{what}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _number(row: Row, key: str) -> float | None:
    return float(row[key]) if row[key] else None


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")


def studies() -> list[str]:
    """The studies that labs.yaml names."""
    labs = yaml.safe_load((HERE / "labs.yaml").read_text())
    return list(dict.fromkeys(row["study"] for lab in labs for row in lab["rows"] if "study" in row))


def main() -> None:
    """Collect and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run.logs", dest="logs", nargs="*", default=[], metavar="DIR", help="folders with runs")
    for logs in parser.parse_args().logs:
        for name in studies():
            if collect(name, Path(logs)):
                print(f"collected {name} from {logs}")
    for path, text in render().items():
        write_text(path, text)
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
