"""The variables that say where decoded images are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_lab.runs.cache_folder import cache_folder


@pytest.mark.parametrize(
    ("own", "base", "place"),
    [
        ("/c/own", "/c/xdg", "/c/own"),
        ("~/own", None, "/c/home/own"),
        (None, "/c/xdg", "/c/xdg/lightning_lab"),
        ("", "", "/c/home/.cache/lightning_lab"),
        (None, None, "/c/home/.cache/lightning_lab"),
    ],
)
def test_the_variables_say_where_it_is(
    monkeypatch: pytest.MonkeyPatch, own: str | None, base: str | None, place: str
) -> None:
    monkeypatch.setenv("HOME", "/c/home")
    monkeypatch.delenv("LIGHTNING_LAB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if own is not None:
        monkeypatch.setenv("LIGHTNING_LAB_CACHE", own)
    if base is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", base)
    assert cache_folder() == Path(place)
