"""The configurations that come with the package: finding them by name, checking what a user gave. Free of torch."""

from __future__ import annotations

from pathlib import Path

import yaml

from lightning_lab.runs.errors import InputError, unknown

_PACKAGE = Path(__file__).resolve().parent
#: A wheel carries the configurations inside the package; in a checkout they stand beside it.
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
#: What ``fit`` does with nothing else said.
DEFAULT = "digits/lenet5"


def names() -> list[str]:
    """List the names of the shipped configurations, for example ``cifar10/lenet5``."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def main(args: list[str]) -> int:
    """Print each shipped configuration with its first line: the verb ``configs``."""
    if args in (["--help"], ["-h"]):
        print("usage: lightning-lab configs\n\nList the shipped configurations, usable by name: --config NAME")
        return 0
    if args:
        raise InputError(f"`configs` takes no arguments, got {' '.join(args)}.")
    width = max(map(len, names()))
    for name in names():
        first = (FOLDER / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ")
        print(f"{name:<{width}}  {first}")
    print("\nUse one by name:  lightning-lab fit --config digits/lenet5")
    print("Look at one:      lightning-lab fit --config digits/lenet5 --print_config")
    return 0


def find(name: str) -> Path:
    """Find a configuration: a path wins over a shipped one's name.

    Args:
        name: What stands behind ``--config``.

    Returns:
        The file, which holds a mapping in valid YAML.

    Raises:
        InputError: If there is none, or it cannot be parsed.
    """
    path = Path(name)
    if not path.is_file():
        shipped = FOLDER / f"{name.removesuffix('.yaml').removeprefix('configs/')}.yaml"
        if path.suffix in (".yaml", ".yml", ".json") and not shipped.is_file():
            raise InputError(f"There is no configuration file {name}. `lightning-lab configs` lists the shipped ones.")
        if not shipped.is_file():
            raise InputError(unknown("configuration", name, names()))
        path = shipped
    _check(path)
    return path


def _check(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file ({error.reason}). Give a YAML configuration.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        lines = path.read_text().splitlines()
        line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
        if "\t" in line:
            raise InputError(f"{path}{where}: there is a tab. YAML is indented with spaces; replace it.") from error
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}{where} is not valid YAML: {problem}.") from error
    if content is not None and not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; a configuration is a mapping of keys to values.")
