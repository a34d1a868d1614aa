"""The claims of a study file: statements about its arms that the study is to judge. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_lab.runs.errors import unknown
from lightning_lab.studies.arms import Draft, find_arm
from lightning_lab.studies.entries import read_choice, read_margin, read_quantity
from lightning_lab.studies.reading import Faults

Expectation = Literal["better", "worse", "equivalent", "different", "diverges", "rises", "falls"]
#: Of one arm, whose metric is compared with zero.
ABOUT_A_CHANGE = ("rises", "falls")
_KEYS = ("id", "text", "arm", "against", "expect", "metric", "margin")


@dataclass(frozen=True)
class Claim:
    """A statement that the study is to judge.

    Args:
        id: Short and unique in the study, for example C12.
        text: The statement in words.
        arm: The name of the arm it is about.
        against: The name of the arm it is compared with; empty if the claim is about a change.
        expect: What the claim says of the arm.
        metric: A `quantity` of a run, for example a validation metric.
        margin: The difference that does not matter.
    """

    id: str
    text: str
    arm: str
    against: str
    expect: Expectation
    metric: str
    margin: float | None


def read_claims(
    value: Any, drafts: list[Draft], reference: Draft | None, *, metric: str, margin: float | None, faults: Faults
) -> tuple[Claim, ...]:
    """Read ``claims``.

    Args:
        value: What stands there; nothing is no claim.
        drafts: The arms of the study.
        reference: What an arm is compared with unless the claim says otherwise.
        metric: The study's metric, a claim's default.
        margin: The study's margin, the default of a claim about the study's metric.
        faults: Where what is wrong is noted.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        faults.add("claims", f"must be a list of claims, each with {', '.join(_KEYS[:5])}, got {value!r}.")
        return ()
    claims: list[Claim] = []
    for i, entry in enumerate(value):
        path = f"claims[{i}]"
        if not isinstance(entry, dict):
            faults.add(path, f"must be a mapping with {', '.join(_KEYS[:5])}, got {entry!r}.")
            continue
        for key in entry:
            if key not in _KEYS:
                faults.add(f"{path}.{key}", unknown("key", str(key), _KEYS))
        for key in ("id", "text"):
            if not isinstance(entry.get(key), str | int) or entry[key] == "":
                faults.add(f"{path}.{key}", f"must be a text, got {entry.get(key)!r}.")
        arm = against = None
        if entry.get("arm") is None:
            faults.add(f"{path}.arm", "missing. Name the arm that the claim is about.")
        else:
            arm = find_arm(entry["arm"], f"{path}.arm", drafts, faults)
        if entry.get("expect") in ABOUT_A_CHANGE:
            if "against" in entry:
                faults.add(f"{path}.against", f"`{entry['expect']}` is about one arm. Take it out.")
        elif entry.get("against") is None:
            against = reference
        else:
            against = find_arm(entry["against"], f"{path}.against", drafts, faults)
        if arm is not None and arm is against:
            faults.add(f"{path}.against", f"the claim compares {arm.name} with itself. Name another arm.")
        own = read_quantity(entry["metric"], f"{path}.metric", faults) if "metric" in entry else metric
        claim = Claim(
            id=str(entry.get("id")),
            text=str(entry.get("text")),
            arm=arm.name if arm else "",
            against=against.name if against else "",
            expect=read_choice(entry.get("expect"), f"{path}.expect", get_args(Expectation), faults),
            metric=own,
            margin=read_margin(entry.get("margin"), f"{path}.margin", faults) or (margin if own == metric else None),
        )
        if entry.get("expect") == "diverges" and "margin" in entry:
            faults.add(f"{path}.margin", "`diverges` counts runs and has no margin. Take it out.")
        if claim.expect in ABOUT_A_CHANGE and " - " not in claim.metric:
            faults.add(
                f"{path}.metric",
                f"`{claim.expect}` needs a difference, such as val/loss@20 - val/loss@10, got {claim.metric}.",
            )
        if entry.get("expect") == "equivalent" and claim.margin is None and "margin" not in entry:
            faults.add(
                f"{path}.margin",
                "missing. `equivalent` needs the difference that does not matter, here or, for the study's metric, as "
                "the study's `margin`.",
            )
        if claim.id in (other.id for other in claims):
            faults.add(f"{path}.id", f"there are two claims {claim.id}. Give each an id of its own.")
        claims.append(claim)
    return tuple(claims)
