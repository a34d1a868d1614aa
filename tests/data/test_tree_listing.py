"""Image trees that are not as they should be: classes twice, links that lead astray, folders that cannot be listed."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lightning_lab.data.images import read_images, read_predict_folder
from lightning_lab.data.listing import class_folders, list_images
from lightning_lab.runs.errors import InputError

Write = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("Cat", "cat", "'Cat' and 'cat'"),
        ("caf\u00e9", "cafe\u0301", r"'cafe\u0301' and 'caf\xe9'"),
        ("stra\u00dfe", "STRASSE", r"'STRASSE' and 'stra\xdfe'"),
    ],
)
def test_two_folders_of_one_class_are_refused(tmp_path: Path, first: str, second: str, shown: str) -> None:
    [(tmp_path / name).mkdir() for name in (first, second, "dog")]
    message = re.escape(f"{tmp_path} has two folders of one class, {shown}. Put them together.")
    with pytest.raises(InputError, match=f"^{message}$"):
        class_folders(tmp_path)


@pytest.mark.parametrize("name", [b"d\xff", b"d\n"])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, image: Write, name: bytes) -> None:
    image(tmp_path / os.fsdecode(name) / os.fsdecode(name + b".png"))
    (tmp_path / "ant").mkdir()
    with pytest.raises(
        InputError, match=r"has bytes in its name that are no UTF-8, or a control character\. Rename it"
    ):
        class_folders(tmp_path)
    with pytest.raises(InputError, match=r"\.png' has bytes in its name that are no UTF-8"):
        read_predict_folder(str(tmp_path), channels=3, image_size=8)


def test_links_to_images_and_classes_elsewhere_are_followed(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "store" / "1.png")
    (tmp_path / "tree" / "ant").mkdir(parents=True)
    (tmp_path / "tree" / "ant" / "2.png").symlink_to("../../store/1.png")
    (tmp_path / "tree" / "bee").symlink_to("../store")
    assert class_folders(tmp_path / "tree") == ["ant", "bee"]
    assert [path.name for path in list_images(tmp_path / "tree" / "bee")] == ["1.png"]
    assert [path.name for path in list_images(tmp_path / "tree" / "ant")] == ["2.png"]


@pytest.mark.parametrize("target", ["gone.png", "link.png"], ids=["nowhere", "itself"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "link.png").symlink_to(target)
    message = re.escape(f"{tmp_path / 'link.png'} is a link to {target}, which is not there. Repair or remove it.")
    with pytest.raises(InputError, match=f"^{message}$"):
        list_images(tmp_path)


@pytest.mark.parametrize("target", ["gone", "bee"], ids=["nowhere", "itself"])
def test_a_class_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    [(tmp_path / name).mkdir() for name in ("ant", "cow")]
    (tmp_path / "bee").symlink_to(target)
    with pytest.raises(InputError, match=rf"bee is a link to {target}, which is not there\. Repair or remove it\.$"):
        class_folders(tmp_path)


@pytest.mark.parametrize("target", ["ant", ".", "..", "ant/deeper"])
def test_classes_that_share_images_are_refused(tmp_path: Path, target: str) -> None:
    [(tmp_path / "train" / name).mkdir(parents=True) for name in ("ant/deeper", "cow")]
    (tmp_path / "train" / "loop").symlink_to(target)
    with pytest.raises(InputError, match="are links to one place, or one holds the other: the same images would be of"):
        class_folders(tmp_path / "train")


@pytest.mark.parametrize("target", ["..", ".", "../elsewhere"])
def test_a_link_to_a_folder_is_not_walked_and_that_is_said(
    tmp_path: Path, image: Write, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    image(tmp_path / "elsewhere" / "2.png")
    image(tmp_path / "ant" / "1.png")
    (tmp_path / "ant" / "more").symlink_to(target)
    with caplog.at_level(logging.WARNING, logger="lightning_lab.data.listing"):
        assert list_images(tmp_path / "ant") == [tmp_path / "ant" / "1.png"]
    assert caplog.messages == [f"{tmp_path / 'ant' / 'more'} is a link to a folder: its images are not read."]


@pytest.fixture
def others() -> Iterator[Path]:
    """Give a folder that every user can reach, and be one whom permissions hold for: they do not for root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_a_file_that_may_not_be_read_is_named(others: Path, image: Write) -> None:
    image(others / "own.png")
    (others / "own.png").chmod(0)
    with pytest.raises(InputError, match=r"own\.png cannot be read as an image: Permission denied\. Repair or remove"):
        read_images([others / "own.png"], channels=3, image_size=8)


@pytest.mark.parametrize("listing", [class_folders, list_images])
def test_a_folder_that_may_not_be_listed_is_named(others: Path, listing: Callable[[Path], object]) -> None:
    (others / "own").mkdir(0)
    with pytest.raises(InputError, match=r"own cannot be listed: Permission denied\. Let it be read, or remove it\.$"):
        listing(others / "own")
