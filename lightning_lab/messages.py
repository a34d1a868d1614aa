"""jsonargparse's errors in one sentence: the key as the user wrote it, the value, what is allowed."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterable

from lightning_lab.runs.errors import unknown

_KEY = re.compile(r'Parser key "([^"]+)":')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_CALLED = re.compile(r"expects a function or a callable class: .*Namespace\(class_path='([^']+)'")
_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_ARGUMENT = re.compile(r"[Uu]nrecognized arguments: (.+)")
_EXPECTED = re.compile(r"Expected an? (.+?)(?:\. Got value: (.*))?$")
_GIVEN = re.compile(r"Given value: (?:NestedArg\(key='([^']*)', val=)?(.+?)(?:\. Got value: .*)?$")
_REQUIRED = re.compile(r"(?:following arguments are required|Key\(s\) required.*?): (.+?)\.?$")
_AMBIGUOUS = re.compile(r"Multiple subclasses with name .+")
_IMPORT = re.compile(r"(?:Expected a dot import path string|No module named|Import failed.*?): '?([\w.]+)'?")


def explain(text: str, *, keys: Iterable[str], classes: dict[str, list[str]]) -> str:
    """Reword what the parser said.

    Args:
        text: The parser's message, which nests one level a line.
        keys: The keys the parser knows at the top.
        classes: For a key that takes a class, the known class names; for a name that is none of them.

    Returns:
        One sentence with the remedy; the parser's own words where their form is not known.
    """
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    path = ".".join(match[1] for line in lines if (match := _KEY.search(line)))
    owners = [match[1] for line in lines if (match := _CLASS.search(line))]
    for line in lines:
        if match := _ARGUMENT.search(line):
            name = match[1].split()[0].split("=")[0].removeprefix("--")
            return unknown("key", name, keys)
        if match := _OPTION.search(line):
            if not owners:
                return unknown("key", match[1], keys)
            called = _CALLED.search(line)  # an optimiser or a schedule: what it gets first is not the user's
            known = _parameters(called[1])[1:] if called else _parameters(owners[-1])
            return unknown("key", _join(path, match[1]), [_join(path, name) for name in known])
        if match := _REQUIRED.search(line):
            if not owners and "model" in match[1]:
                return "No configuration names a model. Put one in front, for example --config digits/lenet5."
            names = ", ".join(_join(path, name) for name in match[1].split(", "))
            return f"Missing: {names}. {owners[-1] if owners else 'The command'} cannot do without."
        if _AMBIGUOUS.search(line):
            return f"`{path}`: {line}"
    leaf = path.rsplit(".", 1)[-1]
    if leaf in classes:
        for line in lines:
            if match := _IMPORT.search(line):
                return unknown(leaf, match[1].rsplit(".", 1)[-1], classes[leaf])
    allowed = [match for line in lines if (match := _EXPECTED.search(line)) and "NoneType" not in match[1]]
    # Of a union's members, a plain kind says more than that a class or a file would do too.
    plain = [match for match in allowed if not match[1].startswith(("dot import path", "path but"))] or allowed
    if plain and path:
        given = [match[2].rstrip(")").strip("'") for line in lines if (match := _GIVEN.search(line))]
        closed = [match[1] for match in plain if "Literal[" in match[1]]
        kind = _merged(closed) if plain[-1][1] in closed else plain[-1][1]
        return f"`{path}` must be {_plain(kind)}, got {plain[-1][2] or (given or ['?'])[0]}."
    return text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _merged(closed: list[str]) -> str:
    # A union of sets of names, as Lightning's precision is, allows the names of all of them.
    return "Literal[" + ", ".join(kind.removeprefix("typing.").removeprefix("Literal[")[:-1] for kind in closed) + "]"


def _plain(kind: str) -> str:
    kind = kind.removeprefix("typing.").replace("<class ", "").replace(">", "").strip("'")
    if kind.startswith("Literal["):
        return "one of " + kind.removeprefix("Literal[").removesuffix("]")
    return {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
        "tuple": "a list such as [20, 10]",
    }.get(kind, f"a {kind}")


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        owner = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    return [
        parameter for parameter in inspect.signature(owner).parameters if parameter not in ("self", "args", "kwargs")
    ]


def quieten() -> None:
    """Leave out what Lightning and torch say that tells a user nothing, and word warnings as a user reads them."""
    # A warning names its slot; the line of code it comes from says nothing to a user.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # Notices of which accelerators are absent, and an advertisement; what matters of them is said in one line of ours.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # Nothing is logged by the step here, so the interval for it cannot be too long.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    # Continuing in the run's own folder is what the folder is for.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Said wherever SLURM is installed; a run of one process needs no `srun`.
    warnings.filterwarnings("ignore", "The `srun` command is available")
    # Lightning 2.6 calls what torch 2.15 deprecates; nothing of ours.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # The values that tasks log were added up over all processes by torchmetrics already.
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True\)`")
    # Weights with one input channel have two equally good stride orders; DDP copies 25 numbers the other way.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
