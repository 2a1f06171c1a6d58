"""Searches by vectors that wait together are one search, and each gets its own hits."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import cast

import numpy as np
import pytest

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError
from embedkit.serving.indexes.scans import SharedScans
from embedkit.types import Float32
from indexes import Index, Searchable, Settings


class SlowIndex:
    """Finds for each query a document that is named by its first number; `go` lets the first search end."""

    def __init__(self, commit: object = 1) -> None:
        self.commit = commit
        self.begun, self.go = Event(), Event()
        self.sizes: list[tuple[int, int]] = []  # queries and k of each search
        self.fails: Exception | None = None

    def search(
        self, queries: Float32, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        self.sizes.append((len(queries), k))
        self.begun.set()
        assert self.go.wait(20)
        if self.fails is not None:
            raise self.fails
        return [[Hit(str(int(query[0])), 1.0)] for query in queries]


def ask(scans: SharedScans, index: SlowIndex, *numbers: int, k: int = 10) -> list[str]:
    queries = np.array([[number, 0] for number in numbers], np.float32)
    found = scans.search(cast("Searchable", index), queries, k=k, where=None, group=False, bare=True)
    return [hit.doc_id for hits in found for hit in hits]


def wait_until_waiting(scans: SharedScans, count: int) -> None:
    for _ in range(2000):
        if sum(map(len, scans._waiting.values())) == count:
            return
        time.sleep(0.005)
    pytest.fail(f"not {count} searches wait")


def test_searches_that_wait_together_are_one_and_each_gets_its_own() -> None:
    scans, index = SharedScans(), SlowIndex()
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(ask, scans, index, 0)
        assert index.begun.wait(20)
        later: list[Future[list[str]]] = [pool.submit(ask, scans, index, n, n + 100) for n in range(1, 6)]
        wait_until_waiting(scans, 5)
        other = pool.submit(ask, scans, index, 7, k=3)
        newer = pool.submit(ask, scans, SlowIndexOf(index, commit=2), 8)
        wait_until_waiting(scans, 5)  # those of another kind, or of another commit, wait for nobody
        while len(index.sizes) < 3:
            time.sleep(0.005)
        index.go.set()
        assert first.result() == ["0"]
        assert [each.result() for each in later] == [[str(n), str(n + 100)] for n in range(1, 6)]
        assert (other.result(), newer.result()) == (["7"], ["8"])
    assert sorted(index.sizes) == [(1, 3), (1, 10), (1, 10), (10, 10)]
    assert (scans._waiting, scans._running) == ({}, set())


class SlowIndexOf(SlowIndex):
    """Another handle of an index, at another commit."""

    def __init__(self, index: SlowIndex, commit: object) -> None:
        self.__dict__.update(index.__dict__)
        self.commit = commit


def test_an_error_is_one_of_all_that_were_together_and_of_no_other() -> None:
    scans, index = SharedScans(), SlowIndex()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, scans, index, 0)
        assert index.begun.wait(20)
        later = [pool.submit(ask, scans, index, n) for n in (1, 2)]
        wait_until_waiting(scans, 2)
        index.fails = IndexFileError("damaged")
        index.go.set()
        for each in (first, *later):
            with pytest.raises(IndexFileError, match="damaged"):
                each.result()
    index.fails = None
    assert ask(scans, index, 3) == ["3"]


def test_shards_are_searched_by_themselves() -> None:
    index = SlowIndex(commit=None)
    index.go.set()
    assert ask(SharedScans(), index, 4) == ["4"]


def test_a_commit_is_the_same_in_all_handles_and_another_after_each_change(tmp_path: Path) -> None:
    with Index.create(tmp_path / "i", Settings(dimension=2)) as index:
        seen = {index.commit}
        vectors = np.eye(2, dtype=np.float32)
        for change in range(3):
            match change:
                case 0:
                    index.add([Document("a", "one"), Document("b", "two")], vectors)
                case 1:
                    index.add([Document("a", "three")], vectors[:1])  # in the place of another
                case 2:
                    index.delete(["b"])
            with Index.open(tmp_path / "i") as one, Index.open(tmp_path / "i") as two:
                assert one.commit == two.commit
                assert one.commit not in seen
                seen.add(one.commit)
