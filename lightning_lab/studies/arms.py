"""The arms of a study file while it is read: what they set, and the names that they go by. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lightning_lab.runs.errors import unknown
from lightning_lab.studies.cells import Arm
from lightning_lab.studies.reading import Faults
from lightning_lab.studies.settings import read_bases, read_settings
from lightning_lab.studies.values import level_text

#: Every study's reference goes by this name too, unless an arm is called so.
REFERENCE = "reference"
#: Between two levels of a name; a comma within a level, as in hidden=[128,64], has no key behind it.
_NEXT_KEY = re.compile(r",(?=\s*[A-Za-z_][\w.]*=)")


@dataclass
class Draft:
    """An arm while the study file is read.

    Args:
        name: As in the tables.
        settings: What it sets, dotted; ``base`` among them if it has one of its own.
        path: Where it stands in the study file.
        names: What else it is called: full and short names, a level alone.
        point: Its level of each factor, as written, in a full design.
    """

    name: str
    settings: dict[str, Any]
    path: str
    names: set[str] = field(default_factory=set)
    point: dict[str, Any] = field(default_factory=dict)

    def build(self, bases: tuple[str, ...], faults: Faults) -> Arm:
        """Make the arm.

        Args:
            bases: The study's configurations, for an arm without its own.
            faults: Where what is wrong is noted.
        """
        if "base" in self.settings:
            bases = read_bases(self.settings["base"], f"{self.path}.base", faults)
        overrides = {key: value for key, value in self.settings.items() if key != "base"}
        return Arm(self.name, overrides, bases, self.point)


def find_arm(name: Any, path: str, drafts: list[Draft], faults: Faults) -> Draft | None:
    """Find the arm that the user means.

    Args:
        name: Its name, the short or full name of its level, or the level.
        path: Where that stands in the study file.
        drafts: All arms.
        faults: Where it is noted if there is none, or if there are several.
    """
    wanted = str(name) if any(draft.name == name for draft in drafts) else _one_spelling(name)
    exact = [draft for draft in drafts if draft.name == wanted]
    matches = exact or [draft for draft in drafts if wanted in draft.names]
    if len(matches) > 1:
        names = _listed(matches)
        faults.add(path, f"{wanted!r} fits several arms: {names}. Write the name of one.")
    elif not matches and drafts:  # without any arm that is the fault to mend
        faults.add(path, unknown("arm", wanted, [draft.name for draft in drafts]))
    return matches[0] if len(matches) == 1 else None


def read_arms(arms: Any, reference: Any, faults: Faults) -> tuple[list[Draft], Draft | None]:
    """Read ``arms``: name -> overrides.

    Args:
        arms: What stands there.
        reference: The name of one of them, or the overrides of one more.
        faults: Where what is wrong is noted.

    Returns:
        The arms, the reference among them, and the reference.
    """
    if not isinstance(arms, dict) or not arms:
        faults.add("arms", f"must be a mapping of names to overrides, with one at least, got {arms!r}.")
        return [], None
    names = [name if isinstance(name, str) else level_text(name) for name in arms]
    drafts = [Draft(name, {}, f"arms.{name}") for name in names]
    for draft, settings in zip(drafts, arms.values(), strict=True):
        draft.settings = read_settings(settings, draft.path, faults)
    if isinstance(reference, dict):
        if REFERENCE in {draft.name for draft in drafts}:
            faults.add("reference", "`arms` has an arm of that name. Write `reference: reference`, or rename it.")
        drafts.insert(0, Draft(REFERENCE, read_settings(reference, "reference", faults), "reference"))
        return drafts, drafts[0]
    if reference is None:
        faults.add("reference", f"missing. Name the arm that the others are compared with: {_listed(drafts)}.")
        return drafts, None
    found = find_arm(reference, "reference", drafts, faults)
    if found is not None:
        found.names.add(REFERENCE)
    return drafts, found


def _one_spelling(name: Any) -> str:
    if not isinstance(name, str) or "=" not in name:
        return level_text(name)
    pairs = (part.partition("=") for part in _NEXT_KEY.split(name))
    return ",".join(f"{key.strip()}={level_text(level.strip())}" for key, _, level in pairs)


def _listed(drafts: list[Draft]) -> str:
    return ", ".join(draft.name for draft in drafts)
