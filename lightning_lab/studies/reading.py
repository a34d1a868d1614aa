"""A study file as YAML, with all that is wrong in it collected. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_lab import shipped
from lightning_lab.runs.errors import InputError


class Faults:
    """What is wrong in a study file, to be told at once.

    Args:
        file: The study file.

    Example:
        >>> faults = Faults(Path("a.yaml"))
        >>> faults.add("goal", "missing.")
        >>> faults.end()
        Traceback (most recent call last):
            ...
        lightning_lab.runs.errors.InputError: a.yaml has 1 fault:
          goal: missing.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[str] = []

    def add(self, path: str, message: str) -> None:
        """Note one fault.

        Args:
            path: The dotted path of the entry in the file, for example ``claims[0].arm``.
            message: What is wrong, what is allowed, the remedy.
        """
        line = f"  {path}: {' '.join(message.split())}"
        if line not in self.lines:
            self.lines.append(line)

    def end(self) -> None:
        """Raise if there is a fault.

        Raises:
            InputError: With one line for each fault.
        """
        if self.lines:
            count = f"{len(self.lines)} fault{'s' if len(self.lines) > 1 else ''}"
            raise InputError("\n".join([f"{self.file} has {count}:", *self.lines]))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 but for what surprises in it: 1e-3 is a number, on and off are words, and there are no dates."""


# As the configurations are read (jsonargparse._loaders_dumpers), so that a level means the same in both.
_FLOAT = r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE])|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
_REPLACED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT})$", re.IGNORECASE), list("-+0123456789.")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))


def load_value(text: str) -> Any:
    """Read one value as a study file would; what is not valid YAML is a word.

    Example:
        >>> load_value("1e-3"), load_value("[1, 2]"), load_value("off")
        (0.001, [1, 2], 'off')
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError:
        return text


def load_file(path: Path) -> dict[str, Any]:
    """Read a configuration, which is valid YAML (`shipped.check`)."""
    return yaml.load(path.read_text(), _Loader) or {}


def load_study(path: Path, faults: Faults) -> dict[str, Any]:
    """Read a study file; keys that stand there twice are noted, the last one counts.

    Raises:
        InputError: If the file cannot be read, or is no mapping in valid YAML.
    """
    shipped.check(path)
    tree = yaml.compose(path.read_text(), _Loader)
    for key, line in _doubled(tree, "", set()):
        faults.add(key, f"stands there twice, the second time in line {line}. Leave one.")
    return load_file(path)


def _doubled(node: Any, path: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    if id(node) in seen:  # an anchor, told where it stands first
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _doubled(item, f"{path}[{i}]", seen)
    elif isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            where = f"{path}.{key.value}" if path else str(key.value)
            if key.value in names and isinstance(key, yaml.ScalarNode):
                yield where, key.start_mark.line + 1
            names.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            yield from _doubled(value, where, seen)
