"""What of a folder is read by which reader, and that an extra which is installed later changes what is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedkit.extras import EXTRAS
from embedkit.pipelines.grep.folder import Folder
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.refresh import RefreshReport
from embedkit.retrieval.options import SearchOptions
from embedkit.types import Computing

MADE = Path(__file__).resolve().parents[2] / "data" / "documents" / "fixtures"
CODE = "def dog():\n    return 'runs'\n\n\nclass Cat:\n    def sleep(self): return 'sleeps'\n\n\ndef horse():\n    return 'walks'\n"
Make = Callable[[], Folder]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.py").write_text(CODE, encoding="utf-8")
    (root / "notes.txt").write_text("the dog runs\n", encoding="utf-8")
    for name in ("guide.pdf", "guide.docx", "encrypted.pdf"):
        shutil.copy(MADE / name, root / name)
    for path in root.iterdir():
        os.utime(path, (1e9, 1e9 + 0.5))

    def folder() -> Folder:
        home = Home(tmp_path / "home", root)
        home.make()
        return Folder(home, Computing(device="cpu"), model=str(tiny_model))

    return folder


def last(folder: Folder) -> RefreshReport:
    return list(folder.refresh())[-1]


def found(folder: Folder, query: str) -> list[str]:
    options = SearchOptions(k=10, mode="text")
    with folder.open(options) as opened:
        return [hit.where for hit in folder.search(opened, query, options)]


def test_hits_in_code_and_documents_name_their_places(make: Make) -> None:
    folder = make()
    report = last(folder)
    (problem,) = report.problems
    assert "encrypted.pdf: it is encrypted" in problem
    assert found(folder, "horse walks") == ["a.py:9-10"]
    assert found(folder, "dog runs") == ["notes.txt:1", "a.py:1-2"]
    assert found(folder, "eel") == ["guide.docx", "guide.pdf p. 2"]
    with folder.open(options := SearchOptions(mode="text")) as opened:
        hit, *_ = folder.search(opened, "sleeps", options)
    assert hit.place is not None
    assert hit.place.headings == ("class Cat",)
    assert last(folder).done == 0


def test_an_extra_that_is_installed_later_reads_again_what_it_reads(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("pdf", "code"):
        monkeypatch.setitem(EXTRAS, extra, "no_such_package")
    folder = make()
    assert last(folder).files == 3
    assert found(folder, "dog runs") == ["notes.txt:1", "a.py:1-5"]
    assert "2 files that are documents (.pdf; install" in folder.status().left_out
    monkeypatch.undo()
    report = last(folder)
    assert (report.files, report.done) == (5, 3)
    assert found(folder, "dog runs") == ["notes.txt:1", "a.py:1-2"]
    assert "guide.pdf p. 2" in found(folder, "eel")
    assert folder.status().left_out == ""
    assert last(folder).done == 0
    monkeypatch.setitem(EXTRAS, "pdf", "no_such_package")
    assert last(folder).files == 3
    assert found(folder, "eel") == ["guide.docx"]
