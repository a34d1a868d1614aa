"""The live table of a study as lines: what it shows, and that it fits."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_lab.studies.live_table import line_of, table_lines
from lightning_lab.studies.watching import CellState, StudyState

ARMS = ("dropout=0", "dropout=0.2", "dropout=0.5")


def cell(arm: str, seed: int, status: str = "missing", value: float | None = None, **changes: Any) -> CellState:
    done = status in ("completed", "stopped_early", "diverged")
    reached = {"completed": 10.0, "running": 4.0}.get(status, 0.0)
    known = {"reached": reached, "total": 10.0, "unit": "epochs", "wall_s": reached, "over": done} | changes
    return CellState(arm, seed, status, value, **known)


def study(
    *known: CellState, arms: tuple[str, ...] = ARMS, seeds: tuple[int, ...] = (0, 1, 2), left_s: float | None = 190.0
) -> StudyState:
    cells = {(arm, seed): cell(arm, seed) for arm in arms for seed in seeds}
    cells |= {(one.arm, one.seed): one for one in known}
    return StudyState("drop", "val/acc", arms[0], cells, 80.0, left_s)


HALF = (
    cell("dropout=0", 0, "completed", 0.97),
    cell("dropout=0.2", 0, "stopped_early", 0.9812345),
    cell("dropout=0.5", 0, "diverged"),
    cell("dropout=0", 1, "completed", 0.96),
    cell("dropout=0.2", 1, "failed"),
    cell("dropout=0.5", 1, "running", 0.5),
    cell("dropout=0", 2, "interrupted", 0.25),
)


def test_values_marks_means_and_what_runs() -> None:
    assert table_lines(study(*HALF), width=80, height=24) == [
        "drop  val/acc  80 s so far, about 3 min 10 s left",
        "+ 3 done  x 1 diverged  ! 1 failed  ~ 1 interrupted  > 1 running  . 2 missing",
        "* the reference",
        "",
        "             n    mean        0       1       2",
        "dropout=0 *  2  0.9650  0.9700+ 0.9600+ 0.2500~",
        "dropout=0.2  1  0.9812  0.9812+       !       .",
        "dropout=0.5  0       -        x 0.5000>       .",
        "",
        "> dropout=0.5  seed 1  epoch 4/10  0.5000",
    ]


def test_nothing_is_known_yet() -> None:
    assert table_lines(study(arms=("a", "b"), seeds=(7, 100), left_s=None), width=80, height=24) == [
        "drop  val/acc  80 s so far",
        ". 4 missing  * the reference",
        "",
        "     n  mean        7     100",
        "a *  0     -        .       .",
        "b    0     -        .       .",
    ]


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (49, "dropout=0 *  2  0.9650  0.9700+ 0.9600+ 0.2500~"),
        (47, "dropout=0 *  2  0.9650  0.970+ 0.960+ 0.250~"),
        (44, "dropout=0 *  2  0.9650  + + ~"),
        (29, "dropout=0 *  2  0.9650  ++~"),
    ],
)
def test_the_fullest_way_that_fits_is_taken(width: int, row: str) -> None:
    lines = table_lines(study(*HALF), width=width, height=30)
    assert [line for line in lines if line.startswith("dropout=0 *")] == [row]


def test_seeds_that_do_not_fit_go_on_in_the_next_line() -> None:
    done = [cell("a", seed, "completed", 0.5) for seed in range(25)]
    lines = table_lines(study(*done, arms=("a", "b"), seeds=tuple(range(40))), width=40, height=30)
    assert lines[5:] == [
        "      n    mean  40 seeds, 0 to 39",
        "a *  25  0.5000  ++++++++++++++++++++",
        "                 +++++...............",
        "b     0       -  ....................",
        "                 ....................",
    ]


def test_long_names_are_cut_in_the_middle() -> None:
    arms = ("net=VGG13,dropout=0.1,augment=none", "net=VGG13,dropout=0.1,augment=crop")
    assert table_lines(study(arms=arms), width=60, height=30)[-2:] == [
        "net=VGG13,..gment=none *  0     -        .       .       .",
        "net=VGG13,..gment=crop    0     -        .       .       .",
    ]


def test_arms_that_do_not_fit_are_counted_and_those_that_run_come_first() -> None:
    arms = tuple(f"arm{i}" for i in range(9))
    state = study(cell("arm8", 0, "running"), cell("arm7", 0, "completed", 0.5), arms=arms, seeds=(0, 1))
    assert table_lines(state, width=80, height=8) == [
        "drop  val/acc  80 s so far, about 3 min 10 s left",
        "+ 1 done  > 1 running  . 16 missing  * the reference",
        "        n    mean        0       1",
        "arm0 *  0       -        .       .",
        "arm1    0       -        .       .",
        "arm8    0       -        >       .",
        "6 more arms: 1 of 12 done",
    ]


def test_more_cells_run_than_there_is_room_for() -> None:
    running = [cell("a", seed, "running") for seed in range(6)]
    lines = table_lines(study(*running, arms=("a",), seeds=tuple(range(6))), width=80, height=8)
    assert lines[3:] == ["a *  0     -        >       >       >       >       >       >",
                         "> a  seed 0  epoch 4/10", "> a  seed 1  epoch 4/10", "  and 4 more that run"]  # fmt: skip


@pytest.mark.parametrize(("arms", "seeds"), [(3, 5), (12, 10), (2, 40), (1, 1), (60, 60)])
@pytest.mark.parametrize("width", [1, 20, 60, 80, 140])
@pytest.mark.parametrize("height", [1, 2, 5, 24, 50])
def test_it_always_fits(arms: int, seeds: int, width: int, height: int) -> None:
    names = tuple(f"net=VGG{i},dropout=0.{i},augment=crop" for i in range(arms))
    cells = [
        cell(arm, seed, "completed" if seed < seeds // 2 else "running", 0.5 * (seed + 1))
        for arm in names for seed in range(2 * seeds // 3)
    ]  # fmt: skip
    lines = table_lines(study(*cells, arms=names, seeds=tuple(range(seeds))), width=width, height=height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert all(len(line) <= width - 1 for line in lines)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "steps", "reached": 120.0, "total": 500.0}, "step 120/500"),
        ({"unit": "seconds", "reached": 12.4, "total": 60.0}, "second 12/60"),
    ],
)
def test_other_budgets(changes: dict[str, Any], words: str) -> None:
    state = study(cell("a", 0, "running", None, **changes), arms=("a",), seeds=(0,))
    assert table_lines(state, width=80, height=24)[-1] == f"> a  seed 0  {words}"


@pytest.mark.parametrize(
    ("value", "text"), [(0.97, "0.9700+"), (1234.0, "1234+"), (2.3e-7, "2.300e-07+"), (-0.5, "-0.5000+")]
)
def test_values_of_any_size(value: float, text: str) -> None:
    state = study(cell("a", 0, "completed", value), arms=("a",), seeds=(0,))
    assert table_lines(state, width=80, height=24)[-1].split()[-1] == text


def test_no_time_is_left_when_all_is_over() -> None:
    state = study(cell("a", 0, "completed", 0.5), arms=("a",), seeds=(0,), left_s=0.0)
    assert table_lines(state, width=80, height=24)[0] == "drop  val/acc  80 s so far"


def test_one_line_for_a_log_file() -> None:
    words = "drop: 3 done, 1 diverged, 1 failed, 1 interrupted, 1 running, 2 missing of 9 cells  80 s"
    assert line_of(study(*HALF)) == f"{words}  left 3 min 10 s"
    assert line_of(study(*HALF, left_s=None)) == words


def test_a_damaged_record_is_said() -> None:
    assert "? 1 damaged" in table_lines(study(cell("dropout=0", 0, "damaged")), width=80, height=24)[1]
