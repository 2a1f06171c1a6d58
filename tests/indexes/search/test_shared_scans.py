"""Searches of many threads that go over the same vectors together find what each finds alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from embedkit.data.records import Document
from indexes import Index, Settings
from indexes.candidates import Candidates
from indexes.search.shared_scans import SharedScans

SECONDS = 20.0  # what has not come by then does not come


def scanned(queries: np.ndarray) -> Candidates:
    return Candidates(queries[:, :1], queries[:, :1].astype(np.int64))


def ask(scans: SharedScans, key: object, number: int, sizes: list[int]) -> Candidates:
    def scan(queries: np.ndarray) -> Candidates:
        sizes.append(len(queries))
        return scanned(queries)

    return scans.scan(key, np.full((1, 3), number, np.float32), scan)


def test_what_is_asked_for_during_a_scan_goes_together_after_it() -> None:
    scans, began, go_on, sizes = SharedScans(), Event(), Event(), list[int]()

    def slow(queries: np.ndarray) -> Candidates:
        began.set()
        assert go_on.wait(SECONDS)
        return scanned(queries)

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(scans.scan, "same", np.full((1, 3), 99, np.float32), slow)
        assert began.wait(SECONDS)
        others = [threads.submit(ask, scans, "same", number, sizes) for number in range(6)]
        assert ask(scans, "another", 7, sizes).rows[0, 0] == 7  # waits for nothing
        while len(scans._waiting["same"]) < 6:
            pass
        go_on.set()
        assert first.result(SECONDS).rows[0, 0] == 99
        assert [other.result(SECONDS).rows.tolist() for other in others] == [
            [[number]] for number in range(6)
        ]
    assert sizes == [1, 6]


def test_a_scan_that_fails_fails_for_those_in_it_alone() -> None:
    scans = SharedScans()

    def failing(queries: np.ndarray) -> Candidates:
        raise OSError("the disk has gone")

    with pytest.raises(OSError, match="has gone"):
        scans.scan("same", np.zeros((1, 3), np.float32), failing)
    assert ask(scans, "same", 3, []).rows[0, 0] == 3


@pytest.mark.parametrize("storage", ["float32", "int8", "binary"])
def test_handles_that_share_scans_answer_as_one_alone(tmp_path: Path, storage: str) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((500, 32)).astype(np.float32)
    queries = draw.standard_normal((40, 32)).astype(np.float32)
    settings = Settings(dimension=32, storage=storage)  # type: ignore[arg-type] # one of those that there are
    with Index.create(tmp_path / "index", settings) as index:
        index.add([Document(f"d{n}", f"text {n}") for n in range(500)], vectors)
    scans = SharedScans()
    alone, *handles = (Index.open(tmp_path / "index") for _ in range(5))
    for handle in handles:
        handle.share_scans(scans)
    expected = [alone.search(queries[[n]], k=7)[0] for n in range(40)]

    def search(number: int) -> list[object]:
        handle = handles[number % 4]
        return [handle.search(queries[[each]], k=7)[0] for each in range(number % 4, 40, 4)]

    with ThreadPoolExecutor(4) as threads:
        for number, found in enumerate(threads.map(search, range(4))):
            assert found == expected[number::4]
    for handle in (alone, *handles):
        handle.close()


def test_a_handle_on_another_commit_shares_nothing(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    with Index.create(tmp_path / "index", Settings(dimension=4)) as index:
        index.add([Document(f"d{n}", "text") for n in range(3)], vectors[:3])
    scans = SharedScans()
    before, same = (Index.open(tmp_path / "index") for _ in range(2))
    with Index.open(tmp_path / "index", writable=True) as index:
        index.delete(["d1"])
    after = Index.open(tmp_path / "index")
    keys = []
    for handle in (before, same, after):
        handle.share_scans(scans)
        keys.append(handle._searcher.snapshot.vectors_key)
        handle.close()
    assert keys[0] == keys[1] != keys[2]
