"""The guides: what they tell people to type is typed, in order, in an empty folder; what they point at is there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support import Lab

ROOT = Path(__file__).parents[1]
GUIDES = ("guide", "teaching")
TEXTS = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in GUIDES}
#: The file that a block of YAML or Python is saved as stands before it, in backticks.
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"`(\w+\.(?:yaml|py))`")
_LINK = re.compile(r"\]\(([^)#]+)\)")


def type_in(name: str, lab: Lab, folder: Path) -> dict[str, str]:
    """Do what a guide says; the output of each command."""
    said: dict[str, str] = {}
    for block in _BLOCK.finditer(TEXTS[name]):
        language, text = block[1], block[2]
        if language in ("yaml", "python"):
            save(folder / _FILE.findall(TEXTS[name][: block.start()])[-1], text)
        elif language == "sh":
            for line in text.splitlines():
                said[line] = command(line, lab, folder)
        else:
            assert language == "text"
    return said


def save(file: Path, text: str) -> None:
    key, _, rest = text.partition(":")
    if rest.count("\n") == 1:  # one line of the file is changed
        text, changed = re.subn(rf"^{key}:.*\n", text, file.read_text(), flags=re.MULTILINE)
        assert changed == 1
    file.write_text(text)


def command(line: str, lab: Lab, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return ""
    if program == "tensorboard":  # tests/test_tensorboard.py opens one
        assert list((folder / arguments[arguments.index("--logdir") + 1]).rglob("events.out.tfevents.*"))
        return ""
    arguments = [found for one in arguments for found in (expanded(one, folder) if "*" in one else [one])]
    if program != "lightning-lab":
        return subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout
    try:
        answer = lab(*arguments)
    except SystemExit as end:  # of jsonargparse's own help
        if end.code:
            raise
        return ""
    assert answer.code == 0, f"{line}\n{answer.err}"
    return answer.out


def expanded(argument: str, folder: Path) -> list[str]:
    """Do what a shell does with an asterisk."""
    found = sorted(str(path.relative_to(folder)) for path in folder.glob(argument))
    assert found
    return found


def test_a_newcomer_comes_to_the_end(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    said = type_in("guide", lab, tmp_path)
    assert "model.net.dropout  0 -> 0.3" in said["lightning-lab runs diff lenet5/first lenet5/dropout"]
    assert said["lightning-lab study run width.yaml"].startswith("width-again: 40 cells, 0 done, 40 to do.")
    assert "10 readings of the test set" in said["lightning-lab study test width.yaml"]
    report = (tmp_path / "logs" / "studies" / "width-again" / "report.md").read_text()
    assert "40 runs, 40 completed, 0 diverged, 0 failed." in report
    assert {path.name for path in (tmp_path / "logs").rglob("*.png")} >= {"lenet5.png", "confusion_matrix.png"}


def test_a_class_comes_to_the_end(lab: Lab, tmp_path: Path) -> None:
    said = type_in("teaching", lab, tmp_path)
    again = said["lightning-lab runs diff class/logs/studies/lab-anna/dropout-0_seed0_* check/lab-anna/again"]
    assert re.search(r"configuration\n  the same\n", again)
    assert re.search(r"environment\n  the same\n", again)
    assert (tmp_path / "anna.tar.gz").stat().st_size < 2**20  # about a megabyte, it says
    # Another student's run of the same setting has the same key and the same numbers, and goes into the same folder.
    other = (tmp_path / "anna.yaml").read_text().replace("lab-anna", "lab-ben").partition("\nclaims:")[0] + "\n"
    save(tmp_path / "ben.yaml", other)
    save(tmp_path / "ben.yaml", "factors: {model.net.dropout: [0.0, 0.1]}\n")
    assert lab("study", "run", "ben.yaml").code == 0
    for line in TEXTS["teaching"].splitlines():
        if line.startswith(("tar ", "lightning-lab study report class/")):
            command(line.replace("anna", "ben"), lab, tmp_path)
    assert {path.parent.name for path in (tmp_path / "class").rglob("report.html")} == {"lab-anna", "lab-ben"}
    anna, ben = (
        {path.parent.name: json.loads(path.read_text())["last"] for path in Path("logs/studies").glob(found)}
        for found in ("lab-anna/dropout-0_*/summary.json", "lab-ben/dropout-0_*/summary.json")
    )
    assert len(anna) == 5
    assert anna == ben


@pytest.mark.parametrize("name", GUIDES)
def test_what_a_guide_points_at_is_there(name: str) -> None:
    links = _LINK.findall(TEXTS[name])
    assert links
    for link in links:
        path = ROOT / "docs" / link
        assert path.exists(), link
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
