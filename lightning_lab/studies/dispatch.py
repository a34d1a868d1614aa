"""From cells to orders: what each is told, and which are trained together. Free of torch.

What goes together is what might be stacked. Whether it can be is seen where an arm's parts are built, in the process
that would train it (`replicates.supported`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_lab.runs.listing import flatten
from lightning_lab.studies.cells import Arm, Cell, CellResult
from lightning_lab.studies.design import Study
from lightning_lab.studies.orders import Order
from lightning_lab.studies.reading import load_value
from lightning_lab.studies.values import merge_bases

#: Cells in one process: each holds its own split of the data.
MOST = 32


def orders_of(study: Study, cells: Sequence[Cell], folder: Path, *, threads: int) -> list[Order]:
    """Word cells for a worker.

    Args:
        study: The study.
        cells: Its cells that are to do.
        folder: Its folder.
        threads: Threads of each cell.
    """
    several = {arm.name: is_on_several(_settings(arm)) for arm in study.arms}
    # The best checkpoint is the one that the study may test: best by the study's metric.
    more = [f"--checkpoint.monitor={study.metric}", f"--checkpoint.mode={study.goal}"]
    more += [f"--run.threads={threads}", "--progress.style=lines"]
    return [
        Order(
            arguments=(*cell.arguments, *more),
            directory=str(cell.directory.path.absolute()),
            folder=str(Path.cwd()),
            study=str(folder.absolute()),
            warm=not several[cell.arm],
        )
        for cell in cells
    ]


def is_on_several(settings: Mapping[str, Any]) -> bool:
    """Tell whether a run takes several processes.

    ``auto`` counts as one: it is one on a processor, and on a cluster each worker sees the GPU it was given.

    Args:
        settings: By dotted keys.

    Example:
        >>> is_on_several({"trainer.devices": 2}), is_on_several({"trainer.devices": "0,1"}), is_on_several({})
        (True, True, False)
    """
    nodes, devices = (_value(settings.get(f"trainer.{key}", 1)) for key in ("num_nodes", "devices"))
    if isinstance(devices, str):  # "0,1" or "auto"
        devices = [one for one in devices.split(",") if one.strip()]
    if isinstance(devices, list):
        devices = len(devices)
    return nodes not in (1, None) or devices not in (0, 1, None)  # -1 is all there are


def groups_of(study: Study, results: Sequence[CellResult], orders: Sequence[Order]) -> list[tuple[Order, ...]]:
    """Put the cells together that may be stacked, and leave the others alone.

    Args:
        study: The study.
        results: What the cells that are to do have come to.
        orders: Theirs, in the order in which they are to begin.

    Returns:
        Groups of cells of one arm; most are of one cell. What a process still has, which is waited for, comes last.
    """
    arms = {arm.name for arm in study.arms if _may_be_stacked(study, _settings(arm))}
    members: dict[str, list[Order]] = {}
    for result, order in zip(results, orders, strict=True):
        if result.cell.arm in arms and result.status != "running" and order.begins:
            members.setdefault(result.cell.arm, []).append(order)
    stacks = {part[0]: part for of_arm in members.values() for part in _parts(of_arm)}
    inside = {order for part in stacks.values() for order in part[1:]}
    groups = [stacks.get(order, (order,)) for order in orders if order not in inside]
    waits = {order for result, order in zip(results, orders, strict=True) if result.status == "running"}
    return sorted(groups, key=lambda group: group[0] in waits)


def _parts(orders: list[Order]) -> list[tuple[Order, ...]]:
    # Of nearly one size, so that they end together when they are trained side by side.
    count = -(-len(orders) // MOST)
    return [tuple(orders[part::count]) for part in range(count)]


def _may_be_stacked(study: Study, settings: Mapping[str, Any]) -> bool:
    net = str(settings.get("model.net", "")).rpartition(".")[2]
    return net == "MLP" and study.budget.unit != "seconds" and not is_on_several(settings)


def _settings(arm: Arm) -> dict[str, Any]:
    return flatten(merge_bases(arm.bases)) | arm.overrides


def _value(value: Any) -> Any:
    return load_value(value) if isinstance(value, str) else value
