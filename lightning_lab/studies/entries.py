"""The plain entries of a study file: name, seeds, budget, metric, goal, margin. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from lightning_lab.runs.errors import unknown
from lightning_lab.studies.cells import Budget, Unit
from lightning_lab.studies.quantity import quantity
from lightning_lab.studies.reading import Faults

#: What torch takes as a seed.
_MOST_SEED = 2**32 - 1


def read_name(value: Any, faults: Faults) -> str:
    """Read ``name``, which is also the study's folder."""
    if value is None:
        faults.add("name", "missing. It is what the study's folder is called, for example digits-dropout.")
    elif not isinstance(value, str) or value != Path(value).name or value in ("", ".", ".."):
        faults.add("name", f"must be a plain folder name, got {value!r}. Where studies go is --run.logs.")
    return str(value)


def read_seeds(value: Any, faults: Faults) -> tuple[int, ...]:
    """Read ``seeds``: how many, or which."""
    if value is None:
        faults.add("seeds", "missing. Give how many (5 is 0 to 4) or a list such as [0, 1, 2].")
    elif _is_whole(value) and value >= 1:
        return tuple(range(value))
    elif not isinstance(value, list) or not value:
        faults.add("seeds", f"must be a number, at least 1, or a list of seeds, got {value!r}.")
    else:
        seeds: list[int] = []
        for i, seed in enumerate(value):
            if not _is_whole(seed) or not 0 <= seed <= _MOST_SEED:
                faults.add(f"seeds[{i}]", f"must be a whole number from 0 to {_MOST_SEED}, got {seed!r}.")
            elif seed in seeds:
                faults.add(f"seeds[{i}]", f"the seed {seed} stands there twice: it would be the same run. Leave one.")
            else:
                seeds.append(seed)
        return tuple(seeds)
    return ()


def read_budget(document: dict[str, Any], faults: Faults) -> Budget | None:
    """Read the one of ``epochs``, ``steps``, ``samples`` and ``seconds`` that is there."""
    units: tuple[Unit, ...] = get_args(Unit)
    given = [unit for unit in units if unit in document]
    if not given:
        faults.add("epochs", f"missing. Give every arm the same budget, by one of {', '.join(units)}.")
    elif len(given) > 1:
        faults.add(given[1], f"there are {len(given)} budgets: {', '.join(given)}. Leave one.")
    good = []
    for unit in given:
        amount = document[unit]
        if _is_whole(amount) and amount >= 1:
            good.append(Budget(unit, amount))
        else:
            faults.add(unit, f"must be a whole number, at least 1, got {amount!r}.")
    return good[0] if good else None


def read_short(value: Any, seeds: tuple[int, ...], faults: Faults) -> tuple[Budget | None, tuple[int, ...]]:
    """Read ``short``: a smaller budget, and perhaps fewer seeds, for a machine that the study is too long for.

    Args:
        value: What stands there.
        seeds: The study's, which are the default.
        faults: Where what is wrong is noted.
    """
    if not isinstance(value, dict):
        got = "missing. The file has no short budget" if value is None else f"must be a mapping, got {value!r}"
        faults.add("short", f"{got}. Write for example `short: {{epochs: 2, seeds: 3}}`.")
        return None, seeds
    own = Faults(faults.file)
    for key in value:
        if key not in (*get_args(Unit), "seeds"):
            own.add(str(key), unknown("key", str(key), (*get_args(Unit), "seeds")))
    budget = read_budget(value, own)
    seeds = read_seeds(value["seeds"], own) if "seeds" in value else seeds
    faults.lines += [f"  short.{line.strip()}" for line in own.lines]
    return budget, seeds


def read_metric(value: Any, path: str, faults: Faults) -> str:
    """Read the name of a validation metric."""
    if value is None:
        faults.add(path, "missing. Name what the arms are compared by, for example val/acc.")
    elif isinstance(value, str) and value.startswith("test/"):
        faults.add(path, f"{value} must be a validation metric: the test set is opened by select and test alone.")
    elif not isinstance(value, str) or not value.removeprefix("val/") or not value.startswith("val/"):
        faults.add(path, f"must be a validation metric such as val/acc or val/loss, got {value!r}.")
    return str(value)


def read_quantity(value: Any, path: str, faults: Faults) -> str:
    """Read what a claim measures of a run."""
    if isinstance(value, str) and "test/" not in value:
        try:
            quantity(value)
        except ValueError as error:
            faults.add(path, str(error))
        return value
    return read_metric(value, path, faults)


def read_choice(value: Any, path: str, allowed: tuple[str, ...], faults: Faults, *, default: str = "") -> Any:
    """Read one word of a closed set.

    Args:
        value: What stands there.
        path: Where.
        allowed: The words.
        faults: Where what is wrong is noted.
        default: What it is if nothing stands there; without one, something must.

    Returns:
        The word, or the first one that is allowed.
    """
    if value is None and default:
        return default
    if value is None:
        faults.add(path, f"missing. Write one of {', '.join(allowed)}.")
    elif value not in allowed:
        faults.add(path, unknown(path.rpartition(".")[2], str(value), allowed))
    return value if value in allowed else allowed[0]


def read_margin(value: Any, path: str, faults: Faults) -> float | None:
    """Read the difference in the metric that does not matter, if there is one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        faults.add(path, f"must be a difference in the metric above 0, for example 0.01, got {value!r}.")
        return None
    return float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
