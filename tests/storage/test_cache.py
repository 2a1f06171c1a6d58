from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.storage.cache import cache_folder, keep_note, read_note


def test_the_folder_is_the_given_one_the_named_one_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", "/named")
    monkeypatch.setenv("XDG_CACHE_HOME", "/users")
    assert cache_folder(Path("/given")) == Path("/given")
    assert cache_folder() == Path("/named")
    monkeypatch.delenv("EMBEDKIT_CACHE")
    assert cache_folder() == Path("/users/embedkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/embedkit")


def test_a_note_is_kept_where_it_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    assert read_note("deep/note") is None
    keep_note("deep/note", "text")
    assert read_note("deep/note") == "text"
    assert [path.name for path in (tmp_path / "cache" / "deep").iterdir()] == ["note"]
    for place in (
        "deep/note/below",
        "deep",
    ):  # a file where there should be a folder, and the other way round
        keep_note(place, "lost")
        assert read_note(place) is None
