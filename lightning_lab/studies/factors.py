"""From ``factors`` of a study file to its arms: one at a time around the reference, or all combinations."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

from lightning_lab.runs.errors import unknown
from lightning_lab.studies.arms import REFERENCE, Draft, find_arm
from lightning_lab.studies.reading import Faults
from lightning_lab.studies.settings import dotted, is_settable, read_settings
from lightning_lab.studies.values import canonical, level_text


def read_factors(value: Any, faults: Faults) -> dict[str, list[Any]]:
    """Read ``factors``: key -> levels. What is wrong is left out."""
    if not isinstance(value, dict) or not value:
        faults.add("factors", f"must be a mapping of keys to lists of levels, got {value!r}.")
        return {}
    factors: dict[str, list[Any]] = {}
    for name, levels in value.items():
        key, path = str(name), f"factors.{name}"
        if key != "base" and not is_settable(key, path, faults):
            continue
        if not isinstance(levels, list) or not levels:
            faults.add(path, f"must be a list of levels such as [0.1, 0.3], got {levels!r}.")
            continue
        factors[key] = []
        for i, level in enumerate(levels):
            if canonical(level) in map(canonical, factors[key]):
                faults.add(f"{path}[{i}]", f"the level {level_text(level)} stands there twice. Leave one.")
            else:
                factors[key].append(level)
                read_settings({key: level}, "factors", faults)  # a class with arguments has keys of its own
    return factors


def read_center(value: Any, factors: dict[str, list[Any]], faults: Faults) -> dict[str, Any]:
    """Read ``reference`` of a study of factors: what it leaves open is as in the base.

    Returns:
        Its settings, dotted.
    """
    reference = read_settings(value, "reference", faults)
    for key, levels in factors.items():
        if key in reference and levels and not any(_stands_at(reference, key, level) for level in levels):
            known = ", ".join(map(level_text, levels))
            faults.add(f"reference.{key}", f"{level_text(reference[key])} is not among the levels: {known}. Add it.")
    return reference


def read_exclude(value: Any, factors: dict[str, list[Any]], faults: Faults) -> list[dict[str, Any]]:
    """Read ``exclude``: combinations that are left out, each by the levels of some factors."""
    if not isinstance(value, list) or not value:
        faults.add(
            "exclude", f"must be a list such as [{{model.net.dropout: 0.5, data.batch_size: 8}}], got {value!r}."
        )
        return []
    rules = []
    for i, rule in enumerate(value):
        path = f"exclude[{i}]"
        if not isinstance(rule, dict) or not rule:
            faults.add(path, f"must be a mapping of factors to levels, got {rule!r}.")
            continue
        for key, level in rule.items():
            if key not in factors:
                faults.add(f"{path}.{key}", unknown("factor", str(key), factors))
            elif canonical(level) not in map(canonical, factors[key]):
                faults.add(f"{path}.{key}", unknown("level", level_text(level), map(level_text, factors[key])))
        rules.append({key: level for key, level in rule.items() if key in factors})
    return [rule for rule in rules if rule]


def read_overrides(value: Any, drafts: list[Draft], factors: dict[str, list[Any]], faults: Faults) -> None:
    """Read ``overrides``: what single arms set beside their levels. It is added to them."""
    if value is None:
        return
    if not isinstance(value, dict):
        faults.add("overrides", f"must be a mapping of arms to what they set beside their levels, got {value!r}.")
        return
    for name, content in value.items():
        path = f"overrides.{name}"
        draft = find_arm(name, path, drafts, faults)
        settings = read_settings(content, path, faults)
        for key in settings:
            if key in factors:
                faults.add(f"{path}.{key}", "is a factor: the arm's level says it. Leave it out.")
        if draft is not None:
            draft.settings = dict(sorted({**draft.settings, **settings}.items()))


def one_at_a_time(factors: dict[str, list[Any]], reference: dict[str, Any]) -> list[Draft]:
    """Make the reference and, around it, an arm for each other level of each factor.

    Args:
        factors: The levels by key.
        reference: The settings of the reference; what is no factor holds for every arm.
    """
    short = _short(factors)
    given = {key: level for key, levels in factors.items() for level in levels if _stands_at(reference, key, level)}
    name = _name({short[key]: level for key, level in given.items()}) if len(factors) == len(given) == 1 else REFERENCE
    names = {REFERENCE}.union(*(_names(key, short[key], level) for key, level in given.items()))
    drafts = [Draft(name, reference, "reference", names)]
    for key, levels in factors.items():
        for i, level in enumerate(levels):
            if not _stands_at(reference, key, level):
                names = _names(key, short[key], level)
                settings = _moved(reference, factors, {key: level})
                drafts.append(Draft(_name({short[key]: level}), settings, f"factors.{key}[{i}]", names))
    return drafts


def full_factorial(
    factors: dict[str, list[Any]], reference: dict[str, Any], exclude: list[dict[str, Any]], faults: Faults
) -> list[Draft]:
    """Make an arm for each combination of levels, the reference first.

    Args:
        factors: The levels by key.
        reference: The settings of the reference, a level of every factor among them; what is no factor holds for all.
        exclude: Combinations that are left out, each by the levels of some factors.
        faults: Where it is noted if the reference is none of them.
    """
    short = _short(factors)
    drafts: list[Draft] = []
    for key in factors:
        if key not in reference:
            faults.add("reference", f"must give a level of every factor in a full design; {key} is missing.")
    for levels in product(*factors.values()):
        point = dict(zip(factors, levels, strict=True))
        is_reference = all(_stands_at(reference, key, level) for key, level in point.items())
        if any(all(canonical(point[key]) == canonical(level) for key, level in rule.items()) for rule in exclude):
            if is_reference:
                faults.add("exclude", "leaves out the reference, which the others are compared with.")
            continue
        names = {_name(point)}
        if is_reference:
            names.add(REFERENCE)
        if len(point) == 1:
            names.add(level_text(levels[0]))
        name = _name({short[key]: level for key, level in point.items()})
        draft = Draft(name, _moved(reference, factors, point), "factors", names, point)
        drafts.insert(0 if is_reference else len(drafts), draft)
    return drafts


def _stands_at(settings: dict[str, Any], key: str, level: Any) -> bool:
    return all(name in settings and canonical(settings[name]) == canonical(v) for name, v in _parts(key, level).items())


def _moved(settings: dict[str, Any], factors: dict[str, list[Any]], point: dict[str, Any]) -> dict[str, Any]:
    # The level that is left takes along what it says of a class: VGG's depth is no key of LeNet5.
    left = {
        name
        for key in point
        for level in factors[key]
        if _stands_at(settings, key, level)
        for name in _parts(key, level)
    }
    kept = {name: value for name, value in settings.items() if name not in left}
    for key, level in point.items():
        kept |= _parts(key, level)
    return dict(sorted(kept.items()))


def _parts(key: str, level: Any) -> dict[str, Any]:
    # A class with its arguments is a level too: {class_path: VGG, init_args: {depth: 11}}.
    return {key: level} if key == "base" else dotted({key: level})


def _short(keys: Iterable[str]) -> dict[str, str]:
    keys = list(keys)
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _name(levels: dict[str, Any]) -> str:
    return ",".join(f"{key}={level_text(level)}" for key, level in levels.items())


def _names(key: str, short: str, level: Any) -> set[str]:
    return {_name({key: level}), _name({short: level}), level_text(level)}
