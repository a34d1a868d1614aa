"""The tables of statistics: claims, arms, differences to the reference with the forest plot, effects of factors."""

from __future__ import annotations

from lightning_lab.studies.report.blocks import Block, Column, Table, Text, marked
from lightning_lab.studies.report.forest import forest
from lightning_lab.studies.report.formats import NOTHING, Format, effect_size, p_value
from lightning_lab.studies.report.results import ArmResult, Comparison
from lightning_lab.studies.report.summary import typographic
from lightning_lab.studies.statistics import Estimate


def format_of(comparison: Comparison) -> Format:
    """Choose the decimals of the study's metric."""
    known = [one for arm in comparison.arms for one in (arm.last, arm.selected) if one is not None]
    return Format([one.mean for one in known], [one.sd for one in known])


def claims_blocks(comparison: Comparison) -> list[Block]:
    """Make the table of claims; nothing if there is none."""
    if not comparison.claims:
        return []
    columns = [Column("claim"), Column("statement"), Column("verdict", "verdict"), Column("why")]
    rows = []
    for claim, verdict in comparison.claims:
        words = typographic(verdict.words.removeprefix(f"{verdict.status}: "))
        rows.append([claim.id, claim.text, marked(verdict.status), words])
    note = "Each claim is judged on its own; p values are not adjusted for other claims."
    return [Table("Claims", columns, rows, note, stacks=True)]


def arms_blocks(comparison: Comparison, write: Format) -> list[Block]:
    """Make the table of arms."""
    columns = [Column("arm"), Column("n", "number")]
    columns += [
        Column(title, "number", when)
        for when in ("last epoch", "best epoch")
        for title in ("mean", "sd", "95 % interval")
    ]
    columns += [Column("optimism", "number"), Column("runs", "number"), Column("diverged", "number")]
    rows = []
    for arm in comparison.arms:
        name = f"{arm.name} (reference)" if arm.name == comparison.study.reference else arm.name
        estimates = [*_estimate(arm.last, write), *_estimate(arm.selected, write), write.signed(arm.optimism)]
        counts = [sum(arm.counts.values()), arm.counts.get("diverged", 0)]
        rows.append([name, str(arm.last.n if arm.last else 0), *estimates, *map(str, counts)])
    note = (
        "n: runs in the means, without those that diverged, failed or are not done. Best epoch: each run's own, chosen "
        "on the validation data, hence too good. Optimism: mean of the best epochs minus mean of the last ones."
    )
    return [Table(f"{comparison.study.metric} of each arm", columns, rows, note)]


def _estimate(estimate: Estimate | None, write: Format) -> list[str]:
    if estimate is None:
        return [NOTHING] * 3
    return [write(estimate.mean), write(estimate.sd), write.interval(estimate.low, estimate.high)]


def difference_blocks(comparison: Comparison, write: Format) -> list[Block]:
    """Make the table of differences to the reference, and its forest plot."""
    arms = [arm for arm in comparison.arms if arm.name != comparison.study.reference]
    if not arms:
        return [Text("There is no other arm.")]
    columns = [Column("arm"), Column("n", "number"), Column("difference", "number"), Column("95 % interval", "number")]
    columns += [Column("effect", "number"), Column("p (Holm)", "number"), Column("verdict", "verdict")]
    columns += [Column("seeds needed", "number")]
    rows = [_difference(arm, write) for arm in arms]
    paired = {arm.difference.paired for arm in arms if arm.difference} or {True}
    effect = {True: "Cohen's d_z (paired)", False: "Hedges' g (unpaired)"}
    effects = " or ".join(effect[one] for one in sorted(paired, reverse=True))
    note = (
        "n: pairs of runs with the same seed, or the arm's runs where there are no pairs. Effect: "
        f"{effects}, corrected for small samples. Seeds needed: of each arm, to show the observed difference with a "
        "power of 80 %."
    )
    blocks: list[Block] = [Table(f"Each arm minus {comparison.study.reference}", columns, rows, note)]
    band = " The band is the margin within which a difference does not matter." if comparison.study.margin else ""
    caption = (
        f"Differences in {comparison.study.metric} to {comparison.study.reference} with 95 % intervals (not adjusted). "
        f"Filled points have a verdict, hollow ones cannot be told from no difference.{band}"
    )
    drawing = forest(comparison, write, caption)
    return blocks if drawing is None else [*blocks, drawing]


def _difference(arm: ArmResult, write: Format) -> list[str]:
    d = arm.difference
    if d is None:
        return [arm.name, "0", *[NOTHING] * 6]
    seeds = str(d.seeds_needed) if d.seeds_needed is not None else NOTHING
    return [
        arm.name, str(d.n), write.signed(d.mean), write.interval(d.low, d.high, signed=True), effect_size(d.effect),
        p_value(d.p_holm), marked(d.verdict), seeds,
    ]  # fmt: skip


def effect_blocks(comparison: Comparison) -> list[Block]:
    """Make the tables of main effects and interactions of a full design."""
    if comparison.effects_fault:
        return [Text(comparison.effects_fault)]
    effects = comparison.effects
    write = Format([], [(effect.high - effect.low) / 4 for effect in effects])
    columns = [Column("level"), Column("against"), Column("n", "number"), Column("effect", "number")]
    columns += [Column("95 % interval", "number"), Column("p (Holm)", "number")]
    tables: list[Block] = []
    for count, caption in ((1, "Main effects"), (2, "Interactions")):
        rows = [
            [" × ".join(f"{f}={level}" for f, level in zip(e.factors, e.levels, strict=True)),
             " × ".join(map(str, e.against)), str(e.n), write.signed(e.mean),
             write.interval(e.low, e.high, signed=True), p_value(e.p_holm)]
            for e in effects if len(e.factors) == count
        ]  # fmt: skip
        if rows:
            note = "Averaged over the levels of the other factors." if count == 1 else "A difference of differences."
            tables.append(Table(caption, columns, rows, note))
    return tables
