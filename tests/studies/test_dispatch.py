"""Which cells go to a worker together, and what each is told. Nothing here trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_files import leave, study_of, write_study
from support import Lab

from lightning_lab.runs.errors import InputError
from lightning_lab.runs.lock import RunLock
from lightning_lab.studies.cells import CellResult, read_result
from lightning_lab.studies.design import Study, cells_of
from lightning_lab.studies.dispatch import groups_of, is_on_several, orders_of
from lightning_lab.studies.orders import Order
from lightning_lab.studies.resources import has_worker_with, read_resources

DENSE = {"base": "digits/mlp", "metric": "val/acc"}


def prepared(folder: Path, **changes: Any) -> tuple[Study, list[CellResult], list[Order]]:
    study = study_of(folder, **changes)
    cells = cells_of(study, folder / "logs")
    results = [read_result(cell) for cell in cells]
    return study, results, orders_of(study, cells, folder / "logs" / "studies" / study.name, threads=1)


def sizes(study: Study, results: list[CellResult], orders: list[Order]) -> list[int]:
    groups = groups_of(study, results, orders)
    assert sorted(order.directory for group in groups for order in group) == sorted(one.directory for one in orders)
    return [len(group) for group in groups]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (DENSE, [3, 3, 3]),
        ({**DENSE, "seeds": 1}, [1, 1, 1]),
        ({}, [1] * 9),  # LeNet-5
        ({"factors": {"model.net": ["LeNet5", "MLP"]}, "reference": {"model.net": "LeNet5"}}, [1, 3, 1, 1]),
        ({**DENSE, "factors": {"trainer.devices": [1, 2]}, "reference": {"trainer.devices": 1}}, [3, 1, 1, 1]),
        ({**DENSE, "base": ["digits/mlp", "trainer/ddp_cpu2"]}, [1] * 9),
        ({**DENSE, "seeds": 33, "factors": {"model.net.dropout": [0.0]}}, [17, 16]),  # 32 at the most
    ],
    ids=["dense", "one seed", "convolutions", "an arm of the two", "an arm on two devices", "two devices", "33 seeds"],
)
def test_cells_of_a_dense_arm_go_together(changes: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    assert sizes(*prepared(tmp_path, **changes)) == expected


def test_a_budget_of_seconds_is_each_cells_own(tmp_path: Path) -> None:
    assert sizes(*prepared(tmp_path, **DENSE, without=("epochs",), seconds=5)) == [1] * 9


def test_what_has_begun_goes_on_by_itself_and_what_is_under_way_comes_last(tmp_path: Path) -> None:
    _, results, orders = prepared(tmp_path, **DENSE)
    leave(results[0].cell, "interrupted", [0.5])  # of the reference
    lock = RunLock(results[1].cell.directory.path)  # of the second arm
    lock.acquire()
    leave(results[2].cell, "running")  # of the third arm, killed before its first epoch
    results[2].cell.directory.metrics.unlink()
    study, results, _ = prepared(tmp_path, **DENSE)
    groups = groups_of(study, results, orders)
    lock.release()
    by_order = [[orders.index(order) for order in group] for group in groups]
    assert by_order == [[0], [2, 5, 8], [3, 6], [4, 7], [1]]


@pytest.mark.parametrize(
    ("settings", "several"),
    [
        ({}, False),
        ({"trainer.devices": 1}, False),
        ({"trainer.devices": "1"}, False),
        ({"trainer.devices": "auto"}, False),
        ({"trainer.devices": [3]}, False),
        ({"trainer.devices": "3,"}, False),
        ({"trainer.devices": None, "trainer.num_nodes": None}, False),
        ({"trainer.devices": 2}, True),
        ({"trainer.devices": "2"}, True),
        ({"trainer.devices": -1}, True),
        ({"trainer.devices": [0, 1]}, True),
        ({"trainer.devices": "[0, 1]"}, True),
        ({"trainer.devices": "0,1"}, True),
        ({"trainer.num_nodes": 2}, True),
        ({"trainer.devices": 1, "trainer.num_nodes": "2"}, True),
    ],
    ids=str,
)
def test_runs_of_several_processes_are_known(settings: dict[str, Any], several: bool) -> None:
    assert is_on_several(settings) is several


def test_a_cell_on_several_devices_is_not_forked(tmp_path: Path) -> None:
    changes = {**DENSE, "factors": {"trainer.devices": [1, 2]}, "reference": {"trainer.devices": 1}, "seeds": 1}
    _, _, orders = prepared(tmp_path, **changes)
    assert [order.warm for order in orders] == [True, False]
    _, _, orders = prepared(tmp_path, **{**DENSE, "base": ["digits/mlp", "trainer/ddp_cpu2"]})
    assert {order.warm for order in orders} == {False}


# --- resources ---


def test_resources_are_read_as_dask_writes_them() -> None:
    assert read_resources("GPU=2 MEMORY=4e9") == {"GPU": 2.0, "MEMORY": 4e9}
    assert read_resources("") == {}


@pytest.mark.parametrize("text", ["GPU", "GPU=", "=1", "GPU=two", "GPU=0", "GPU=-1", "GPU=nan", "GPU=inf", "GPU=1=2"])
def test_resources_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"`resources` must be names with amounts above 0 such as GPU=1, got '"):
        read_resources(text)


class Cluster:
    """What a Dask client says of its workers."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.workers = {str(index): {"resources": one} for index, one in enumerate(resources)}

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": self.workers}


def test_one_worker_must_have_all_that_a_cell_claims() -> None:
    assert not has_worker_with({}, Cluster())
    assert has_worker_with({}, Cluster({}))
    assert has_worker_with({"GPU": 0.5}, Cluster({}, {"GPU": 1.0}))
    assert not has_worker_with({"GPU": 2}, Cluster({"GPU": 1.0}))
    assert not has_worker_with({"GPU": 1, "M": 1}, Cluster({"GPU": 1.0}, {"M": 1.0}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resources", "GPU=1"], "`resources` goes with --scheduler. On this machine, --gpus and --per_gpu divide"),
        (["--gpus", "-1"], "`gpus` must be at least 0, got -1."),
        (["--jobs", "0"], "`jobs` must be at least 1, got 0."),
        (["--replicates", "always"], "argument --replicates: invalid choice: 'always'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_cannot_be_are_refused(options: list[str], message: str, lab: Lab, tmp_path: Path) -> None:
    write_study(tmp_path)
    answer = lab("study", "run", "study.yaml", *options)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
