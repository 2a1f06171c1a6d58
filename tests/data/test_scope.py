"""Which sources an input stands for: globs as `glob` reads them, folders as a whole, and nothing beside them."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from embedkit.data.scope import scope_of

FILES = ("a.md", "b.txt", "sub/s.md", "sub/deep/d.md", "[x].md", "sub/.hidden.md")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / "w" / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    (tmp_path / "ext").mkdir()
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path


@pytest.mark.parametrize(
    "pattern", ["docs/*.md", "docs/**/*.md", "docs/*/*", "docs/**", "./docs/*.md", "docs/[ab].*"]
)
def test_a_pattern_means_what_glob_finds(tree: Path, pattern: str) -> None:
    within = scope_of([pattern])
    found = {Path(name).resolve().as_posix() for name in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    for name in FILES:
        source = (tree / "w" / "docs" / name).as_posix()
        if "/." not in source:  # glob passes over hidden files
            assert within(source) == (source in found), source


def test_a_folder_is_what_lies_in_it_however_it_is_spelled(tree: Path) -> None:
    inside, outside = (tree / "w/docs/a.md").as_posix(), (tree / "ext/e.md").as_posix()
    for spelled in (".", "docs", "./docs/", str(tree / "w/docs"), "../w/docs"):
        within = scope_of([spelled])
        assert within(inside), spelled
        assert not within(outside), spelled
        assert within((tree / "w/docs2/a.md").as_posix()) == (spelled == ".")
    assert scope_of([".."])(outside)


def test_a_source_of_an_earlier_version_is_taken_as_seen_from_here(tree: Path) -> None:
    assert scope_of(["docs"])("docs/a.md")
    assert not scope_of(["docs"])("../ext/e.md")


def test_standard_input_is_itself_alone() -> None:
    assert scope_of(["-"])("stdin")
    assert not scope_of(["."])("stdin")
