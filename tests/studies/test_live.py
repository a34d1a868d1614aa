"""What `study run` shows: a table on a real pseudo-terminal, lines elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from study_files import leave, study_of, write_study

from lightning_lab.studies.cells import read_result
from lightning_lab.studies.design import cells_of, read_study
from lightning_lab.studies.live import LiveTable, Show, is_live

WIDTH, HEIGHT = 80, 24


class Screen:
    """A terminal that knows what is used here, and scrolls without end."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = [""]
        self.row = self.column = 0
        self.cursor = True

    def feed(self, text: str) -> None:
        for control, final, plain in re.findall(r"\x1b\[([?\d]*)([A-Za-z])|([^\x1b])", text):
            if final:
                self._control(control, final)
            elif plain == "\n":
                self.row += 1
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif plain == "\r":
                self.column = 0
            else:
                assert plain.isprintable(), repr(plain)
                line = self.rows[self.row]
                self.rows[self.row] = f"{line[: self.column]:<{self.column}}{plain}{line[self.column + 1 :]}"
                self.column += 1
                assert self.column <= self.width

    def _control(self, control: str, final: str) -> None:
        match final, control:
            case "A", number:
                assert self.row >= int(number)
                self.row -= int(number)
            case "K", "2":
                self.rows[self.row] = ""
            case "J", "":
                self.rows[self.row :] = [self.rows[self.row][: self.column]]
            case (("h" | "l"), "?25"):
                self.cursor = final == "h"
            case _:
                raise AssertionError(f"unknown control sequence {control}{final}")


# --- a table drawn in place ---


def test_it_is_drawn_over_and_what_is_said_stays_above() -> None:
    stream, screen = io.StringIO(), Screen(20)
    table = LiveTable(stream, lambda: os.terminal_size((20, 10)))
    table.draw(["one", "two", "three"])
    table.draw(["four", "5"], above="said")
    table.draw(["six", "", "seven"])
    table.leave()
    screen.feed(stream.getvalue().replace("\n", "\r\n"))
    assert screen.rows == ["said", "six", "", "seven", ""]
    assert screen.cursor


def test_lines_that_a_narrower_terminal_has_folded_are_drawn_over() -> None:
    stream = io.StringIO()
    sizes = iter([80, 20])
    table = LiveTable(stream, lambda: os.terminal_size((next(sizes), 24)))
    table.draw(["x" * 50, "", "x" * 20])
    stream.truncate(0)
    table.draw(["x"])
    assert "\x1b[5A" in stream.getvalue()  # three rows, one, one


# --- lines ---


def test_elsewhere_a_line_for_each_cell_and_one_a_minute(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    cells = cells_of(study, tmp_path / "logs")
    stream, now = io.StringIO(), [0.0]
    folder = tmp_path / "logs" / "studies" / study.name
    with Show(study, [read_result(cell) for cell in cells], folder, stream=stream, clock=lambda: now[0]) as show:
        for second in range(59):
            now[0] = float(second)
            show.update()
        assert stream.getvalue() == ""
        leave(cells[0], "completed", [0.5, 0.9], wall_s=30.0)
        now[0] = 60.0
        show.update()
        now[0] = 90.0
        show.end(cells[0], "[1/9] dropout=0  seed 0  completed", failed=False)
        for second in (120.0, 149.0, 150.0):  # the line was a sign of life
            now[0] = second
            show.update()
    assert stream.getvalue().splitlines() == [
        "drop: 1 done, 8 missing of 9 cells  60 s",
        "[1/9] dropout=0  seed 0  completed",
        "drop: 1 done, 8 missing of 9 cells  2 min 30 s  left 12 min 00 s",
    ]


def test_what_is_to_be_noted_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Show(study_of(tmp_path), [], tmp_path, stream=io.StringIO()) as show:
        show.note("Stopping.")
    assert capsys.readouterr().err == "Stopping.\n"


class Interrupted(io.StringIO):
    """A stream that is interrupted behind its second writing."""

    def flush(self) -> None:
        if self.getvalue().count("\r") == 2:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_within_a_drawing_waits_for_its_end() -> None:
    stream, screen = Interrupted(), Screen(20)
    table = LiveTable(stream, lambda: os.terminal_size((20, 10)))
    table.draw(["one"])
    with pytest.raises(KeyboardInterrupt):
        table.draw(["two", "three"])
    table.draw(["four", "five"], above="note")
    screen.feed(stream.getvalue().replace("\n", "\r\n"))
    assert screen.rows == ["note", "four", "five", ""]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "live"),
    [(Terminal, "xterm", True), (Terminal, "dumb", False), (Terminal, None, False), (io.StringIO, "xterm", False)],
)
def test_only_a_terminal_that_can_gets_a_table(
    stream: Callable[[], io.StringIO], term: str | None, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert is_live(stream()) is live


# --- a real study on a pseudo-terminal ---


def run_on_terminal(folder: Path, react: Callable[[str, int], None]) -> tuple[int, str]:
    """Run a study, hand over what it has printed so far, with its process id; give the exit code and all output."""
    own, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    command = [sys.executable, "-W", "ignore", "-m", "lightning_lab", "study", "run", "study.yaml", "--jobs", "2"]
    command += ["--replicates", "never"]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            output += os.read(own, 65536)
        except OSError:  # EIO: nobody has the terminal any more
            break
        react(output.decode(errors="replace"), process.pid)
    os.close(own)
    return process.wait(), output.decode()


def small_study(folder: Path, epochs: int) -> None:
    write_study(folder, base="digits/mlp", factors={"model.net.dropout": [0.0, 0.5]}, seeds=2, epochs=epochs)


def shown(output: str) -> list[str]:
    screen = Screen(WIDTH)
    screen.feed(output)
    assert screen.cursor
    return screen.rows


def test_a_study_on_a_terminal_is_one_table(tmp_path: Path) -> None:
    small_study(tmp_path, epochs=2)
    code, output = run_on_terminal(tmp_path, lambda so_far, pid: None)
    assert code == 0, output
    rows = shown(output)
    assert output.count("drop  val/acc  ") > 2  # it was drawn again and again
    assert rows[0] == "drop: 4 cells, 0 done, 4 to do."
    assert re.fullmatch(r"drop  val/acc  \d+ s so far", rows[1])
    assert rows[2:4] == ["+ 4 done  * the reference", ""]
    values = {
        (cell.arm, cell.seed): read_result(cell).rows[-1]["val/acc"]
        for cell in cells_of(read_study(tmp_path / "study.yaml"), tmp_path / "logs")
    }
    arms = ("dropout=0", "dropout=0.5")
    means = [sum(values[arm, seed] for seed in (0, 1)) / 2 for arm in arms]
    assert rows[4:7] == ["             n    mean        0       1"] + [
        f"{name:<11}  2  {mean:.4f}  {values[arm, 0]:.4f}+ {values[arm, 1]:.4f}+"
        for name, arm, mean in zip(("dropout=0 *", "dropout=0.5"), arms, means, strict=True)
    ]
    assert rows[7].startswith("Done: 4 of 4 cells, ")


def test_ctrl_c_leaves_the_table_behind(tmp_path: Path) -> None:
    small_study(tmp_path, epochs=2000)
    told = []

    def interrupt(output: str, pid: int) -> None:
        if not told and re.search(r"epoch [1-9]\d*/2000  0\.", output):
            told.append(pid)
            os.kill(pid, signal.SIGINT)

    code, output = run_on_terminal(tmp_path, interrupt)
    assert code == 130, output
    rows = shown(output)
    assert rows[1] == "Stopping: the cells that run are saved; the same command goes on with them."
    assert rows[2].startswith("drop  val/acc  ")
    assert rows[3].startswith("~ ")  # interrupted, and none is said to run
    assert "> " not in rows[3]
    assert re.match(r"dropout=0 \*  0     -  0\.\d{4}~", rows[6])
    assert rows[8:] == [""]
