"""A folder's index: found by its path, kept up to date within a time, shared by two calls, trimmed."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.data.records import Hit
from embedkit.errors import FilterError, RecordError
from embedkit.pipelines.grep import refresh as refreshing
from embedkit.pipelines.grep.filtering import Narrowing
from embedkit.pipelines.grep.folder import Folder, find_home
from embedkit.pipelines.grep.home import DEFAULT, cached_home, cached_homes, inner_home, trim_cache
from embedkit.pipelines.grep.refresh import RefreshReport
from embedkit.retrieval.options import SearchOptions
from embedkit.types import Computing


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "a.md": "# Animals\n\nthe dog runs\n\n## Cats\nthe cat sleeps\n",
        "music/b.py": "def play():\n    return 'guitar'\n\n\ndef sing():\n    return 'song'\n",
        "music/c.txt": "a woman sings a song\n",
    }.items():
        path = tmp_path / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1e9, 1e9 + 0.5))  # what was written a moment ago may change without another time
    return (tmp_path / "notes").resolve()


def opened(path: Path, model: Path) -> Folder:
    home, _ = find_home(path, DEFAULT)
    if not home.is_there:
        home.make()
    return Folder(home, Computing(device="cpu"), model=str(model))


def up_to_date(folder: Folder, **options: object) -> RefreshReport:
    return list(folder.refresh(**options))[-1]  # type: ignore[arg-type] # tests give the right ones


def search(folder: Folder, query: str, k: int = 5, **narrowing: object) -> list[Hit]:
    options = SearchOptions(mode="text", k=k)
    with folder.open(options) as search:
        return folder.search(search, query, options, Narrowing(**narrowing))  # type: ignore[arg-type] # as above


def where(hits: list[Hit]) -> list[str]:
    """Return the places, by name: which of two good passages is better is not what is asked here."""
    return sorted(hit.where for hit in hits)


def test_the_first_refresh_builds_and_later_ones_read_what_has_changed(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    assert not folder.status().is_there
    report = up_to_date(folder)
    assert (report.files, report.done, report.finished, report.problems) == (3, 3, True, ())
    assert folder.is_complete
    assert where(search(folder, "song")) == ["music/b.py:5-6", "music/c.txt:1"]
    assert where(search(folder, "cat")) == ["a.md:1-6"]
    (root / "a.md").write_text("# Animals\n\nthe horse runs\n", encoding="utf-8")
    (root / "music" / "c.txt").unlink()
    (root / "new.md").write_text("a new song\n", encoding="utf-8")
    report = up_to_date(folder)
    assert (report.files, report.done, report.gone) == (3, report.changed, 1)
    assert where(search(folder, "song")) == ["music/b.py:5-6", "new.md:1"]
    assert where(search(folder, "cat")) == []
    assert where(search(folder, "horse")) == ["a.md:1-3"]
    assert search(folder, "horse")[0].source == str(root / "a.md")


def test_a_file_that_was_only_touched_is_not_embedded_again(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    os.utime(root / "a.md", ns=(1, 1))
    report = up_to_date(folder)
    assert report.passages == 0
    assert folder.look().unseen == 0


def test_past_its_time_a_refresh_leaves_the_rest_to_the_next(
    root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    monkeypatch.setattr(refreshing, "_STEP_BYTES", 100)
    for number in range(6):
        path = root / f"new{number}.md"
        path.write_text(f"the piano {number}" + " word" * 12, encoding="utf-8")
        os.utime(path, (1000.5 + number, 1000.5 + number))
    monkeypatch.setattr(refreshing, "_FIRST_BYTES_PER_SECOND", 200_000)
    seen = 0
    for _ in range(12):
        report = up_to_date(folder, seconds=0.2)
        assert report.finished == (report.unseen == 0)
        found = len(search(folder, "piano", k=10))
        assert found == 6 - report.unseen >= seen
        seen = found
        if report.finished:
            break
    assert folder.look().unseen == 6 - seen
    up_to_date(folder)
    assert len(search(folder, "piano", k=10)) == 6


def test_a_refresh_of_no_time_reads_nothing_and_says_what_it_has_not_seen(
    root: Path, tiny_model: Path
) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    (root / "new.md").write_text("a piano", encoding="utf-8")
    report = up_to_date(folder, seconds=1e-9)
    assert (report.unseen, report.finished) == (1, False)
    assert folder.look().unseen == 1  # though the folder has been listed


def test_files_paths_types_patterns_and_expressions_narrow_a_search(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    assert where(search(folder, "song dog", scopes=["music"])) == ["music/b.py:5-6", "music/c.txt:1"]
    assert where(search(folder, "song dog", scopes=["music/c.txt", "a.md"])) == ["a.md:1-6", "music/c.txt:1"]
    assert where(search(folder, "song dog", scopes=["mus"])) == []
    assert where(search(folder, "song", types=["python"])) == ["music/b.py:5-6"]
    assert where(search(folder, "song", globs=["music/*", "!*.py"])) == ["music/c.txt:1"]
    assert where(search(folder, "song", regex=r"def \w+\(\)")) == ["music/b.py:5-6"]
    assert where(search(folder, "song", regex="nothing like it")) == []
    with pytest.raises(FilterError, match=r"'\(' is no regular expression"):
        Narrowing(regex="(")


def test_a_path_within_a_folder_that_has_an_index_is_searched_there(root: Path, tiny_model: Path) -> None:
    up_to_date(opened(root, tiny_model))
    home, scope = find_home(root / "music", DEFAULT)
    assert (home.root, scope) == (root, "music")
    assert find_home(root / "music" / "c.txt", DEFAULT)[1] == "music/c.txt"
    (root / "unknown").mkdir()
    assert find_home(root / "unknown", DEFAULT)[0].root == root / "unknown"
    assert find_home(root / "music", replace(DEFAULT, hidden=True))[0].root == root / "music"
    with pytest.raises(RecordError, match=r"nowhere: there is no such file or folder"):
        find_home(root / "nowhere", DEFAULT)


def test_a_single_file_has_an_index_of_its_own(root: Path, tiny_model: Path) -> None:
    folder = opened(root / "music" / "c.txt", tiny_model)
    assert up_to_date(folder).files == 1
    assert where(search(folder, "song")) == ["c.txt:1"]
    (root / "music" / "c.txt").write_text("one\ntwo\na song", encoding="utf-8")
    up_to_date(folder)
    assert where(search(folder, "song")) == ["c.txt:1-3"]


def test_an_index_inside_its_folder_moves_with_it(root: Path, tiny_model: Path) -> None:
    inner_home(root).make()
    folder = opened(root, tiny_model)
    assert folder.home.path == root / ".embedkit" / "grep"
    assert up_to_date(folder).files == 3
    moved = root.rename(root.parent / "moved")
    folder = opened(moved / "music", tiny_model)
    assert folder.home.root == moved
    assert up_to_date(folder).passages == 0
    assert search(folder, "cat")[0].source == str(moved / "a.md")


def test_it_is_said_how_far_the_first_build_is(
    root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "_SLICE_TEXTS", 1)
    (root / "long.md").write_text("the dog runs. the cat sleeps. " * 100, encoding="utf-8")
    reports = list(opened(root, tiny_model).refresh())
    shares = [report.fraction for report in reports]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert any(0.3 < share < 0.9 for share in shares)
    assert all(report.done == 0 for report in reports if report.passages < 10)  # nothing is committed yet


def test_who_finds_the_lock_held_answers_from_what_is_there(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    (root / "new.md").write_text("a piano", encoding="utf-8")
    with folder.home.held() as mine:
        assert mine
        report = up_to_date(folder)
    assert (report.busy, report.unseen) == (True, 1)
    assert where(search(folder, "song")) == ["music/b.py:5-6", "music/c.txt:1"]


def test_who_finds_the_first_build_at_work_waits_for_it(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    begun = threading.Event()
    reports: list[RefreshReport] = []

    def second() -> None:
        for report in opened(root, tiny_model).refresh():
            reports.append(report)
            begun.set()

    with folder.home.held() as mine:
        assert mine
        waiting = threading.Thread(target=second)
        waiting.start()
        assert begun.wait(60)
        assert reports == [RefreshReport(busy=True)]
    waiting.join(60)
    assert reports[-1].finished
    assert reports[-1].done == 3


def test_a_file_that_cannot_be_read_is_named_once_and_no_longer_found(root: Path, tiny_model: Path) -> None:
    folder = opened(root, tiny_model)
    up_to_date(folder)
    (root / "a.md").write_bytes(b"x" * 9000 + b"\0")  # it begins as text does
    report = up_to_date(folder)
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{root / 'a.md'}: a NUL byte at character 9001")
    assert where(search(folder, "dog")) == []
    assert up_to_date(folder).problems == ()
    assert folder.status().problems == list(report.problems)
    (root / "a.md").write_text("the dog is back", encoding="utf-8")
    up_to_date(folder)
    assert where(search(folder, "dog")) == ["a.md:1"]


def test_a_folder_without_text_says_what_is_left_out(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "x.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "bin" / ".hidden").touch()
    folder = opened(tmp_path / "bin", tiny_model)
    with pytest.raises(
        RecordError, match=r"no text to search\. Left out: 1 file of another kind \(\.png\), 1 hidden file"
    ):
        up_to_date(folder)


def test_the_cache_keeps_the_folders_that_were_used_last(tmp_path: Path) -> None:
    homes = []
    for number in range(3):
        (tmp_path / f"n{number}").mkdir()
        home = cached_home((tmp_path / f"n{number}").resolve())
        home.make()
        (home.path / "data").write_bytes(bytes(1000))
        home.note_use()
        os.utime(home.path / "used", (number, number))
        homes.append(home)
    assert [home.root for home in cached_homes()] == [home.root for home in reversed(homes)]
    size = homes[0].num_bytes
    assert trim_cache(10 * size, homes[0]) == []
    assert [home.root for home in trim_cache(2 * size, homes[0])] == [homes[1].root]
    assert [home.root for home in cached_homes()] == [homes[2].root, homes[0].root]
