"""Imports go one way: every edge stands in this table, and every row of it is used."""

from __future__ import annotations

import ast
from pathlib import Path

import lightning_lab

PACKAGE = Path(lightning_lab.__file__).parent
#: Who imports whom, inside the package. A part is a subpackage or a module at the top.
EDGES = {
    ("__main__", "__init__"),
    ("__main__", "runs"),
    ("arithmetic", "runs"),
    ("augment_sheet", "cli"),
    ("augment_sheet", "data"),
    ("augment_sheet", "endings"),
    ("augment_sheet", "messages"),
    ("augment_sheet", "runs"),
    ("augment_sheet", "verbs"),
    ("callbacks", "runs"),
    ("class_names", "data"),
    ("class_names", "nets"),
    ("class_names", "runs"),
    ("class_names", "tasks"),
    ("cli", "arithmetic"),
    ("cli", "callbacks"),
    ("cli", "class_names"),
    ("cli", "launcher"),
    ("cli", "loops"),
    ("cli", "messages"),
    ("cli", "runs"),
    ("cli", "texts"),
    ("data", "runs"),
    ("doctor", "__init__"),
    ("doctor", "arithmetic"),
    ("doctor", "callbacks"),
    ("doctor", "rehearsal"),
    ("doctor", "runs"),
    ("endings", "cli"),
    ("endings", "runs"),
    ("export", "__init__"),
    ("export", "cli"),
    ("export", "endings"),
    ("export", "export_formats"),
    ("export", "messages"),
    ("export", "runs"),
    ("export", "verbs"),
    ("export_formats", "runs"),
    ("fork", "cli"),
    ("fork", "endings"),
    ("fork", "messages"),
    ("fork", "runs"),
    ("launcher", "runs"),
    ("messages", "runs"),
    ("predictions", "runs"),
    ("rehearsal", "__main__"),
    ("rehearsal", "runs"),
    ("runs", "__init__"),
    ("schedule", "cli"),
    ("schedule", "endings"),
    ("schedule", "messages"),
    ("schedule", "runs"),
    ("schedule", "verbs"),
    ("shipped", "runs"),
    ("studies", "__main__"),
    ("studies", "callbacks"),
    ("studies", "cli"),
    ("studies", "data"),
    ("studies", "endings"),
    ("studies", "messages"),
    ("studies", "nets"),
    ("studies", "runs"),
    ("studies", "shipped"),
    ("studies", "tasks"),
    ("studies", "verbs"),
    ("tasks", "runs"),
    ("verbs", "cli"),
    ("verbs", "endings"),
    ("verbs", "messages"),
    ("verbs", "predictions"),
    ("verbs", "runs"),
    ("verbs", "shipped"),
}
#: What `nets` may import from outside, and who may touch jsonargparse.
NETS_MAY_IMPORT = {"torch"}
STANDARD_LIBRARY = {"__future__", "collections", "difflib", "itertools", "math", "typing"}


def part_of(module: str) -> str:
    names = module.split(".")
    if len(names) == 1:
        return "__init__"
    return names[1]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            submodules = {f"{module}.{a.name}" for a in node.names if _is_module(f"{module}.{a.name}")}
            found |= submodules or {module}
    return found


def _is_module(name: str) -> bool:
    place = PACKAGE.parent / Path(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def test_every_import_is_in_the_table_and_every_row_is_used() -> None:
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        own = part_of(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        targets = {part_of(name) for name in imports(path) if name.split(".")[0] == "lightning_lab"}
        seen |= {(own, target) for target in targets if target != own}
    assert seen == EDGES


def test_nets_import_torch_only() -> None:
    roots = {name.split(".")[0] for path in (PACKAGE / "nets").glob("*.py") for name in imports(path)}
    assert roots - STANDARD_LIBRARY - {"lightning_lab"} == NETS_MAY_IMPORT


def test_only_the_command_line_touches_jsonargparse() -> None:
    users = {path.name for path in PACKAGE.rglob("*.py") if any(n.startswith("jsonargparse") for n in imports(path))}
    assert users == {"cli.py"}
