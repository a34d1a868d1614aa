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
#: Where the studies stand, below the folder.
STUDIES = "studies"


def names() -> list[str]:
    """List the names of the shipped configurations, for example ``cifar10/lenet5``; a study is none."""
    found = (path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    return sorted(name for name in found if not name.startswith(f"{STUDIES}/"))


def study_names() -> list[str]:
    """List the names of the shipped studies, for example ``lab_a/dropout``."""
    folder = FOLDER / STUDIES
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def main(args: list[str]) -> int:
    """Print each shipped configuration with its first line: the verb ``configs``."""
    if args in (["--help"], ["-h"]):
        print("usage: lightning-lab configs\n\nList the shipped configurations, usable by name: --config NAME")
        return 0
    if args:
        raise InputError(f"`configs` takes no arguments, got {' '.join(args)}.")
    width = max(map(len, names() + study_names()))
    for name in names():
        print(f"{name:<{width}}  {_first_line(name)}")
    print("\nUse one by name:  lightning-lab fit --config digits/lenet5")
    print("Look at one:      lightning-lab fit --config digits/lenet5 --print_config\n\nstudies:")
    for name in study_names():
        print(f"{name:<{width}}  {_first_line(f'{STUDIES}/{name}')}")
    print("\nLook at one:      lightning-lab study plan digits_dropout")
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
        if FOLDER / STUDIES in shipped.parents:
            raise InputError(f"{name} holds a study, which `lightning-lab study run {name}` runs.")
        path = shipped
    check(path)
    return path


def find_study(name: str) -> Path:
    """Find a study file: a path wins over a shipped one's name.

    Args:
        name: What stands behind ``study plan``.

    Raises:
        InputError: If there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    plain = name.removesuffix(".yaml").removeprefix("configs/").removeprefix(f"{STUDIES}/")
    if plain in study_names():
        return FOLDER / STUDIES / f"{plain}.yaml"
    if path.suffix in (".yaml", ".yml", ".json"):
        raise InputError(f"There is no study file {name}. `lightning-lab configs` lists the shipped ones.")
    raise InputError(unknown("study", name, study_names()))


def check(path: Path) -> None:
    """Check that a file holds a mapping in valid YAML.

    Raises:
        InputError: If it does not, with the line.
    """
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


def _first_line(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ")
