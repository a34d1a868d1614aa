"""The summary of a report: what was compared, what can be concluded, and what cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lightning_lab.studies.report.blocks import Block, Counts, Items, Text, marked
from lightning_lab.studies.report.formats import listing, plural, seeds_text
from lightning_lab.studies.report.results import ArmResult, Comparison

#: More arms than this are not told one by one: the table has them all.
_MOST_TOLD = 12
_STATUSES = {
    "completed": "completed", "stopped_early": "stopped early", "diverged": "diverged", "failed": "failed",
    "running": "running", "killed": "killed", "interrupted": "interrupted", "missing": "not begun",
}  # fmt: skip


def summary(comparison: Comparison, warnings: Sequence[str]) -> list[Block]:
    """Word the results of a study.

    Args:
        comparison: The study's results.
        warnings: What makes all of it doubtful.
    """
    counts = Counter(result.status for result in comparison.results)
    blocks: list[Block] = [
        Text(_lead(comparison), "lead"),
        *(Text(words, "warning") for words in warnings),
        Text(_compared(comparison)),
        Counts(
            [("runs", str(len(comparison.results)))]
            + [(words, str(counts[status])) for status, words in _STATUSES.items()
               if counts[status] or status in ("completed", "diverged", "failed")]
        ),
    ]  # fmt: skip
    told, open_ = _concluded(comparison), _not_concluded(comparison)
    blocks.append(Items("What can be concluded", told or ["Nothing yet."]))
    blocks.append(Items("What cannot be concluded", open_))
    return blocks


def typographic(words: str) -> str:
    """Give negative numbers a minus sign instead of a hyphen.

    Example:
        >>> typographic("worse: -0.8 (95 % -1.1 to -0.5), wd=1e-4")
        'worse: −0.8 (95 % −1.1 to −0.5), wd=1e-4'
    """
    return re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", words)


def _lead(comparison: Comparison) -> str:
    study = comparison.study
    counted = sum(map(len, comparison.values.values()))
    if not counted:
        done = sum(result.done for result in comparison.results)
        if not done:
            return f"Nothing can be concluded yet: none of the {plural(len(comparison.results), 'run')} is done."
        return f"Nothing can be concluded: no run has a value of {study.metric} to compare."
    verdicts: Counter[str] = Counter(arm.difference.verdict for arm in comparison.arms if arm.difference)
    if not verdicts:
        return f"Nothing can be compared with {study.reference} yet."
    parts = [
        f"{_names(comparison, verdict)} {words} the reference"
        for verdict, words in (("better", "better than"), ("worse", "worse than"), ("equivalent", "equivalent to"))
        if verdicts[verdict]
    ]
    open_ = "not distinguishable"
    if verdicts[open_] and parts:
        parts.append(f"{_names(comparison, open_)} {open_} from it")
    elif verdicts[open_] == 1:
        parts.append(f"{_names(comparison, open_)} {open_} from the reference")
    elif verdicts[open_]:
        parts.append(f"No arm can be told from the reference with {plural(_most(comparison), 'seed')}")
    return f"{'; '.join(parts)}."


def _names(comparison: Comparison, verdict: str) -> str:
    names = [arm.name for arm in comparison.arms if arm.difference and arm.difference.verdict == verdict]
    return f"{listing(names, 3)} {'is' if len(names) == 1 else 'are'}"


def _most(comparison: Comparison) -> int:
    return max(map(len, comparison.values.values()), default=0)


def _compared(comparison: Comparison) -> str:
    study = comparison.study
    larger = "larger is better" if study.goal == "max" else "smaller is better"
    amount = f"{study.budget.amount:g} {study.budget.unit}"
    amount = amount.removesuffix("s") if study.budget.amount == 1 else amount
    others = sum(arm.difference is not None for arm in comparison.arms)
    words = (
        f"Compared {'are' if len(study.arms) != 1 else 'is'} {plural(len(study.arms), 'arm')} on {study.metric} "
        f"({larger}), each trained for {amount} with {seeds_text(study.seeds)}: "
        f"{plural(len(comparison.results), 'run')}. The reference is {study.reference}. "
        "Runs are compared by their last epoch, differences are arm minus reference"
    )
    if any(arm.difference and arm.difference.paired for arm in comparison.arms):
        words += ", paired by seed"
    words += "; intervals are 95 % t intervals"
    if others > 1:
        words += f"; p\N{NO-BREAK SPACE}values are adjusted for {others} arms (Holm)"
    words += f". A difference below {study.margin:g} does not matter." if study.margin is not None else "."
    return words


def _concluded(comparison: Comparison) -> list[str]:
    arms = [
        arm
        for verdict in ("better", "worse", "equivalent")
        for arm in comparison.arms
        if arm.difference and arm.difference.verdict == verdict
    ]
    return _capped([f"{arm.name}: {_told(arm)}" for arm in arms])


def _told(arm: ArmResult) -> str:
    assert arm.difference is not None
    verdict, _, numbers = typographic(arm.difference.words).partition(": ")
    return f"{marked(verdict) if verdict in ('better', 'worse') else verdict}: {numbers}"


def _not_concluded(comparison: Comparison) -> list[str]:
    arms = [arm for arm in comparison.arms if arm.difference and arm.difference.verdict == "not distinguishable"]
    lines = _capped([f"{arm.name}: {_told(arm)}" for arm in arms])
    empty = [arm.name for arm in comparison.arms if arm.last is None]
    if empty:
        lines.append(f"Nothing is known of {listing(empty)}: no run to compare.")
    alone = [arm.name for arm in comparison.arms if arm.last is not None and arm.last.n == 1]
    if alone:
        lines.append(
            f"One seed says nothing about the spread: {listing(alone)} {'has' if len(alone) == 1 else 'have'} no more."
        )
    counts = Counter(result.status for result in comparison.results)
    if counts["diverged"]:
        where = [
            f"{result.cell.arm} with seed {result.cell.seed}"
            for result in comparison.results
            if result.status == "diverged"
        ]
        runs = plural(counts["diverged"], "diverged run is", "diverged runs are")
        lines.append(f"{runs} in no mean ({listing(where)}): these means tell of the runs that went well.")
    undone = sum(not result.done for result in comparison.results)
    if undone:
        lines.append(f"{plural(undone, 'run')} without a result: lightning-lab study run does what is missing.")
    lines.append(
        "All values are of the validation set and of this budget; what the test set says, if it was opened, stands "
        "under Test set."
    )
    return lines


def _capped(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_TOLD
    return lines if more <= 1 else [*lines[:_MOST_TOLD], f"{more} more arms: see the table of differences."]
