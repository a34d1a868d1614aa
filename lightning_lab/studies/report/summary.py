"""The summary of a report: what was compared, what can be concluded, and what cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lightning_lab.studies.claims import fisher
from lightning_lab.studies.report.blocks import Block, Counts, Items, Text, marked
from lightning_lab.studies.report.formats import listing, plural, seeds_text
from lightning_lab.studies.report.results import ArmResult, Comparison
from lightning_lab.studies.table import MEASURED

#: The significance level that all verdicts are made with.
_ALPHA = 0.05
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
    """Give negative numbers a minus sign instead of a hyphen, and keep ``p = 0.03`` in one line.

    Example:
        >>> typographic("worse: -0.8 (95 % -1.1 to -0.5), wd=1e-4")
        'worse: −0.8 (95 % −1.1 to −0.5), wd=1e-4'
    """
    signed = re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", words)
    return re.sub(r"\b([np]) ([=<]) (?=\d)", "\\1\N{NO-BREAK SPACE}\\2\N{NO-BREAK SPACE}", signed)


def _lead(comparison: Comparison) -> str:
    study = comparison.study
    counted = sum(map(len, comparison.values.values()))
    if not counted:
        done = sum(result.done for result in comparison.results)
        if not done:
            return f"Nothing can be concluded yet: none of the {plural(len(comparison.results), 'run')} is done."
        return f"Nothing can be concluded: no run has a value of {study.metric} to compare."
    verdicts: Counter[str] = Counter(arm.difference.verdict for arm in comparison.arms if arm.difference)
    lost = [arm.name for arm in comparison.arms if _all_diverged(arm)]
    if not verdicts and not lost:
        return f"Nothing can be compared with {study.reference} yet."
    parts = [f"Nothing can be compared with {study.reference}"] if comparison.reference.last is None else []
    parts += [
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
    if lost:
        parts.append(f"{'every' if parts else 'Every'} run of {listing(lost, 3)} diverged")
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
    effects = [
        f"{'Main effect' if len(effect.factors) == 1 else 'Interaction'} of {typographic(effect.words)}"
        for effect in comparison.effects
        if effect.p_holm <= _ALPHA
    ]
    diverged = [words for arm in comparison.arms if (words := _divergence(arm, comparison.reference, shown=True))]
    return [*_capped([f"{arm.name}: {_told(arm)}" for arm in arms]), *_capped(diverged), *_capped(effects)]


def _all_diverged(arm: ArmResult) -> bool:
    return 0 < arm.counts.get("diverged", 0) == sum(arm.counts.values())


def _divergence(arm: ArmResult, reference: ArmResult, *, shown: bool) -> str:
    """Word that all runs of an arm diverged; nothing if they did not, or if it is not as certain as asked for."""
    if arm is reference or not _all_diverged(arm):
        return ""
    counts = [
        (one.counts.get("diverged", 0), sum(one.counts.get(status, 0) for status in MEASURED))
        for one in (arm, reference)
    ]
    (lost, well), (lost_there, well_there) = counts
    p = fisher(lost, well, lost_there, well_there)
    words = (
        f"{arm.name}: diverged in {lost} of {lost + well} runs, the reference in {lost_there} of "
        f"{lost_there + well_there}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} (Fisher's exact test, not adjusted)"
    )
    return typographic(words) if (p <= _ALPHA) == shown else ""


def _told(arm: ArmResult) -> str:
    assert arm.difference is not None
    verdict, _, numbers = typographic(arm.difference.words).partition(": ")
    return f"{marked(verdict) if verdict in ('better', 'worse') else verdict}: {numbers}"


def _not_concluded(comparison: Comparison) -> list[str]:
    arms = [arm for arm in comparison.arms if arm.difference and arm.difference.verdict == "not distinguishable"]
    lines = _capped([f"{arm.name}: {_told(arm)}" for arm in arms])
    lines += _capped(
        [words for arm in comparison.arms if (words := _divergence(arm, comparison.reference, shown=False))]
    )
    empty = [arm.name for arm in comparison.arms if arm.last is None and not _all_diverged(arm)]
    if empty:
        lines.append(f"Nothing is known of {listing(empty)}: no run to compare.")
    alone = [arm.name for arm in comparison.arms if arm.last is not None and arm.last.n == 1]
    if alone:
        lines.append(
            f"One seed says nothing about the spread: {listing(alone)} {'has' if len(alone) == 1 else 'have'} no more."
        )
    counts = Counter(result.status for result in comparison.results)
    if counts["diverged"]:
        where = [f"all of {arm.name}" for arm in comparison.arms if _all_diverged(arm)]
        where += [
            f"{result.cell.arm} with seed {result.cell.seed}"
            for result in comparison.results
            if result.status == "diverged" and f"all of {result.cell.arm}" not in where
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
    return lines if more <= 1 else [*lines[:_MOST_TOLD], f"{more} more: see the tables below."]
