"""The verbs ``runs``, ``runs show`` and ``runs diff``: what has been run, and how two runs differ. Free of torch."""

from __future__ import annotations

import time
from argparse import RawDescriptionHelpFormatter
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.directory import RunDirectory
from lightning_lab.runs.errors import InputError, unknown
from lightning_lab.runs.lock import is_locked

_EXAMPLES = """examples:
  lightning-lab runs
  lightning-lab runs show lenet5/2026-01-31_10-15-00-123_seed0
  lightning-lab runs diff lenet5/baseline lenet5/dropout
  lightning-lab runs fork lenet5/baseline --trainer.max_epochs 40"""


def main(args: list[str]) -> int:
    """List, show or compare runs; print to standard output.

    Args:
        args: What follows ``runs`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If a named run does not exist.
    """
    parser = Parser(
        prog="lightning-lab runs",
        description="List the runs below the logs folder; show one; compare two (configurations and results); let a "
        "new run go on from where another one is (`runs fork --help`).",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run.logs", dest="logs", default="logs", metavar="DIR", help="where runs are (default: logs)")
    actions = parser.add_subparsers(dest="action", metavar="{show,diff}")
    show = actions.add_parser("show", help="one run: status, metrics, files")
    show.add_argument("run", help="<experiment>/<name>, a unique part of it, or a folder")
    diff = actions.add_parser("diff", help="two runs: what differs in configuration and result")
    diff.add_argument("a", help="the first run")
    diff.add_argument("b", help="the second run")
    options = parser.parse_args(args)
    logs = Path(options.logs)
    if options.action == "show":
        print(_show(find_run(options.run, logs)))
    elif options.action == "diff":
        print(_diff(find_run(options.a, logs), find_run(options.b, logs)))
    else:
        print(_list(logs))
    return 0


def find_runs(logs: Path) -> list[RunDirectory]:
    """Find every run below `logs`, oldest first.

    Raises:
        InputError: If `logs` is no name that a folder can have.
    """
    try:
        summaries = [path for path in logs.rglob("summary.json") if (path.parent / "config.yaml").exists()]
    except OSError as error:
        raise InputError(
            f"`run.logs` {logs} cannot be read ({error.strerror}). Name the folder of the runs."
        ) from error
    return [RunDirectory(path.parent) for path in sorted(summaries, key=lambda path: (_started(path), path))]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys, written as on the command line (`init_args` left out).

    Example:
        >>> flatten({"model": {"class_path": "A", "init_args": {"net": None}}})
        {'model': 'A', 'model.net': None}
    """
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "class_path":
            flat[prefix] = value
        else:
            flat |= flatten(value, prefix if key == "init_args" else f"{prefix}.{key}".lstrip("."))
    return flat


def status_of(run: RunDirectory) -> str:
    """Tell a run's status; a run that says "running" while no process has its lock is "killed".

    Raises:
        InputError: If the run's summary is damaged.
    """
    status = str(run.read_summary().get("status", "unknown"))
    return "killed" if status == "running" and not is_locked(run.path) else status


def _list(logs: Path) -> str:
    runs = find_runs(logs)
    if not runs:
        return f"No runs in {logs}/ yet. Start one: lightning-lab fit"
    rows = [("RUN", "STATUS", "EPOCHS", "BEST", "LAST", "TEST", "AGE")]
    damaged = ""
    for run in runs:
        name, age = run.path.relative_to(logs).as_posix(), _age(_started(run.summary))
        try:
            rows.append((name, *_result(run), age))
        except InputError:  # one run's, and no reason to withhold the others
            rows.append((name, "damaged", "-", "-", "-", "-", age))
            damaged = "\n\ndamaged: `lightning-lab runs show RUN` says which file, and the way on."
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return (
        "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
        + damaged
    )


def _result(run: RunDirectory) -> tuple[str, str, str, str, str]:
    summary = run.read_summary()
    best, test = summary.get("best") or {}, summary.get("test") or {}
    return (
        status_of(run),
        str(summary.get("epochs", "-")),
        f"{best['metric']} {best['value']:.4g} (epoch {best['epoch']})" if best else "-",
        _fixed((summary.get("last") or {}).get(best.get("metric"))),
        " ".join(f"{key} {_fixed(test[key])}" for key in ("test/acc", "test/loss") if key in test) or "-",
    )


def _show(run: RunDirectory) -> str:
    summary = run.read_summary()
    lines = [
        f"{run.path}",
        f"  status   {status_of(run)}" + (f": {summary['reason']}" if summary.get("reason") else ""),
    ]
    lines += [f"  {key:<8} {summary[key]}" for key in ("epochs", "steps", "wall_s", "seed", "split") if key in summary]
    if summary.get("best"):
        best = summary["best"]
        lines.append(f"  best     {best['metric']} {best['value']:.6g} at epoch {best['epoch']}")
    for part in ("last", "test"):
        if summary.get(part):
            lines.append(f"  {part:<8} " + "  ".join(f"{key} {_number(value)}" for key, value in summary[part].items()))
    rows = run.read_metrics()
    if rows:
        columns = [key for key in ("epoch", "train/loss", "val/loss", "train/acc", "val/acc", "lr") if key in rows[-1]]
        shown = rows if len(rows) <= 12 else [*rows[:3], *rows[-8:]]
        lines += ["", "  " + "  ".join(f"{column:>10}" for column in columns)]
        lines += ["  " + "  ".join(f"{_number(row.get(column)):>10}" for column in columns) for row in shown]
    lines += ["", f"  continue or repeat: lightning-lab fit --config {run.config}"]
    lines += [f"  curves:             tensorboard --logdir {run.path}"]
    return "\n".join(lines)


def _diff(a: RunDirectory, b: RunDirectory) -> str:
    lines = [f"a: {a.path}", f"b: {b.path}", "", "configuration"]
    lines += differences(flatten(a.read_config()), flatten(b.read_config())) or ["  the same"]
    lines += ["", "environment"]
    lines += _environments(a, b) or ["  the same"]
    lines += ["", "results"]
    lines += differences(_results(a), _results(b)) or ["  the same"]
    return "\n".join(lines)


def changed_keys(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Name the entries in which two mappings differ.

    Example:
        >>> changed_keys({"same": 1, "kind": 1, "gone": None}, {"same": 1, "kind": True})
        ['kind', 'gone']
    """
    # Compared as written: 1 equals true in Python, and not in a configuration.
    return [key for key in {**a, **b} if repr(a.get(key, "-")) != repr(b.get(key, "-"))]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Word the entries in which two mappings differ, one line each: ``key  a -> b``."""
    keys = changed_keys(a, b)
    width = max(map(len, keys), default=0)
    return [f"  {key:<{width}}  {_number(a.get(key, '-'))} -> {_number(b.get(key, '-'))}" for key in keys]


def _environments(a: RunDirectory, b: RunDirectory) -> list[str]:
    known = []
    for run in (a, b):
        try:
            known.append(run.read_environment())
        except InputError as error:  # the configurations and the results can be compared all the same
            return [f"  not compared: {error}"]
    keys = ("lightning_lab", "commit", "dirty", "python", "versions", "hardware")
    before, after = (flatten({key: one.get(key) for key in keys}) for one in known)
    return differences(before, after)


def _results(run: RunDirectory) -> dict[str, Any]:
    summary = run.read_summary()
    return flatten(
        {key: summary[key] for key in ("status", "epochs", "split", "best", "last", "test") if key in summary}
    )


def find_run(name: str, logs: Path) -> RunDirectory:
    """Find one run.

    Args:
        name: ``<experiment>/<name>``, a part of it that fits no other run, or the run's folder.
        logs: Where runs are.

    Raises:
        InputError: If there is none, or if there are several.
    """
    folder = Path(name)
    with suppress(OSError):  # too long for a folder's name, or not ours to look into
        if (folder / "summary.json").exists():
            return RunDirectory(folder)
    runs = {run.path.relative_to(logs).as_posix(): run for run in find_runs(logs)}
    matches = [known for known in runs if known.endswith(f"/{name}")] or [known for known in runs if name in known]
    if name in runs:
        return runs[name]
    if len(matches) == 1:
        return runs[matches[0]]
    if matches:
        raise InputError(f"{name!r} fits several runs: {', '.join(matches)}. Write more of the name.")
    raise InputError(unknown("run", name, runs))


def _started(summary: Path) -> float:
    environment = summary.parent / "environment.json"
    return (environment if environment.exists() else summary).stat().st_mtime


def _age(started: float) -> str:
    seconds = max(0.0, time.time() - started)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _fixed(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-"  # a metric that was not finite is null


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
