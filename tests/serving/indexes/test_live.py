"""Indexes that change underneath a server: every answer belongs wholly to one state, and none fails."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.data.records import Document
from embedkit.errors import IndexFileError
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.indexes.models import IndexModels
from embedkit.serving.indexes.names import index_names
from embedkit.types import Computing
from indexes import Index, Settings, compact
from tests.cli.index.test_index import invoke
from tests.cli.search.test_search import hits as local_hits
from tests.serving.indexes.served_indexes import Caller, ask, build, numbered, serving
from tests.tiny import tiny_config, write_tiny_model

SEARCH = {"query": "the girl plays the guitar", "k": 100, "all": True}


def searched_during(
    address: str, change: Callable[[], None], body: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Search from 8 threads while something changes, and a little after it; return all answers."""
    answers: list[dict[str, Any]] = []
    failures: list[object] = []
    ending = threading.Event()

    def search() -> None:
        with closing(Caller(address)) as caller:
            last = False
            while not last:
                last = ending.is_set()  # one more, after the change
                status, content = caller("POST", "/search", body or SEARCH)
                (answers if status == 200 else failures).append(content)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        change()
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    return answers


def states(answers: Sequence[dict[str, Any]]) -> set[tuple[int, tuple[str, ...]]]:
    """Return for each answer how many hits it has, and the tags in them."""
    return {
        (len(answer["hits"]), tuple(sorted({hit["metadata"]["tag"] for hit in answer["hits"]})))
        for answer in answers
    }


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def test_an_index_replaced_underneath_gives_one_state_or_the_other(tmp_path: Path, tiny_model: Path) -> None:
    here = build(tmp_path / "docs.index", numbered(40, tag="old"), tiny_model)
    other = build(tmp_path / "other.index", numbered(25, tag="new"), tiny_model)

    between: list[
        dict[str, Any]
    ] = []  # an answer after each change, so that both states are seen however busy it is

    def change() -> None:
        for _ in range(9):
            swap(here, other)
            between.append(ask(address, "POST", "/search", SEARCH)[1])

    with serving(here) as address:
        answers = searched_during(address, change) + between
        assert states(answers) == {(40, ("old",)), (25, ("new",))}
        assert states([ask(address, "POST", "/search", SEARCH)[1]]) == {(25, ("new",))}


def test_an_index_removed_and_built_again_is_followed_without_a_failure(
    tmp_path: Path, tiny_model: Path
) -> None:
    here = build(tmp_path / "docs.index", numbered(40, tag="old"), tiny_model)
    between: list[dict[str, Any]] = []

    def change() -> None:
        for tag in ("new", "old", "new"):
            while here.exists():  # a reader that opens it meanwhile leaves a file of SQLite's behind
                shutil.rmtree(here, ignore_errors=True)
            build(here, numbered(25 if tag == "new" else 40, tag=tag), tiny_model)
            between.append(ask(address, "POST", "/search", SEARCH)[1])

    with serving(here) as address:
        answers = searched_during(address, change) + between
        # Between its making and its first commit a new index is empty, and a missing one is answered for by the one before.
        assert states(answers) <= {(40, ("old",)), (25, ("new",)), (0, ())}
        assert states(answers) >= {(40, ("old",)), (25, ("new",))}


def test_what_is_added_deleted_and_compacted_is_seen_whole(tmp_path: Path, tiny_model: Path) -> None:
    """Each commit adds, or deletes, two documents: an answer has both or neither."""
    here = build(tmp_path / "docs.index", numbered(20), tiny_model)
    between: list[dict[str, Any]] = []  # an answer after each commit, so that the others see many of them

    def change() -> None:
        random = np.random.default_rng(0)
        for number in range(8):
            pair = [f"pair {number} {side}" for side in "ab"]
            documents = [
                Document(name, f"the girl {number}", metadata={"tag": "pair", "pair": number})
                for name in pair
            ]
            with Index.open(here, writable=True) as index:
                index.add(documents, random.normal(size=(2, index.settings.dimension)).astype(np.float32))
                if number % 3 == 2:
                    index.delete([f"pair {number - 1} {side}" for side in "ab"])
                if number % 4 == 3:
                    list(compact(index))
            between.append(ask(address, "POST", "/search", SEARCH)[1])

    with serving(here) as address:
        answers = searched_during(address, change) + between
        for answer in answers:
            pairs = [hit["metadata"]["pair"] for hit in answer["hits"] if hit["metadata"]["tag"] == "pair"]
            assert all(pairs.count(number) == 2 for number in pairs)
            assert len(answer["hits"]) - len(pairs) == 20
        assert len({len(answer["hits"]) for answer in answers}) > 3
        _, last = ask(address, "POST", "/search", SEARCH)
        assert len(last["hits"]) == 20 + 2 * (8 - 2)


def test_an_index_of_another_model_is_searched_with_that_model(tmp_path: Path, tiny_model: Path) -> None:
    here = build(tmp_path / "docs.index", numbered(40, tag="old"), tiny_model)
    model = write_tiny_model(tmp_path / "other", seed=7, config=tiny_config(hidden_size=48))
    other = build(tmp_path / "other.index", numbered(25, tag="new"), model)
    expected = {
        "old": [float(str(hit["score"])) for hit in local_hits(here, SEARCH["query"], "-k", 100, "--group")],
        "new": [float(str(hit["score"])) for hit in local_hits(other, SEARCH["query"], "-k", 100, "--group")],
    }

    def change() -> None:
        for _ in range(5):
            swap(here, other)
            threading.Event().wait(0.1)

    with serving(here) as address:
        answers = searched_during(address, change)
        assert states(answers) == {(40, ("old",)), (25, ("new",))}
        for answer in answers:
            tag = answer["hits"][0]["metadata"]["tag"]
            # The command line takes what starts fastest, which rounds otherwise.
            found = [hit["score"] for hit in answer["hits"]]
            np.testing.assert_allclose(sorted(found, reverse=True), expected[tag], atol=1e-6)
            assert answer["models"] == {"docs": tiny_model.name if tag == "old" else "other"}


def test_what_cannot_be_opened_leaves_the_one_before_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    here = build(tmp_path / "docs.index", numbered(40, tag="old"), tiny_model)
    model = write_tiny_model(tmp_path / "model", seed=7)
    lost = build(tmp_path / "lost.index", numbered(5, tag="lost"), model)
    shutil.rmtree(model)
    with serving(here) as address:
        (here / "new").write_bytes(b"no database")
        (here / "new").replace(here / "index.sqlite")
        status, content = ask(address, "POST", "/search", SEARCH)
        assert (status, states([content])) == (200, {(40, ("old",))})
        assert "cannot be opened" in content["notes"][0]
        shutil.rmtree(here)
        status, content = ask(address, "POST", "/search", SEARCH)
        assert (status, states([content])) == (200, {(40, ("old",))})
        assert "there is no such folder" in content["notes"][0]
        lost.rename(here)
        status, content = ask(address, "POST", "/search", SEARCH)
        assert (status, states([content])) == (200, {(40, ("old",))})
        assert "Name the model that it was built with" in content["notes"][0]
        shutil.rmtree(here)
        build(here, numbered(7, tag="new"), tiny_model)
        ends = time.monotonic() + 10
        while (
            content["notes"] and time.monotonic() < ends
        ):  # what could not be opened is tried again each second
            status, content = ask(address, "POST", "/search", SEARCH)
        assert (status, states([content]), content["notes"]) == (200, {(7, ("new",))}, [])


def test_handles_are_few_and_leave_the_log_to_the_writer(tmp_path: Path, tiny_model: Path) -> None:
    here = build(tmp_path / "docs.index", numbered(40), tiny_model)
    live = LiveIndex("docs", here, IndexModels(computing=Computing(precision="fp32")), most_handles=2)
    with live.opened() as first, live.opened() as second:
        third = threading.Thread(target=lambda: live.opened().__enter__(), daemon=True)
        third.start()
        third.join(0.1)
        assert third.is_alive()  # it waits for one of the two
        assert first.index is not second.index
    third.join(10)
    assert not third.is_alive()
    live.close()
    live = LiveIndex("docs", here, IndexModels(computing=Computing(precision="fp32")))
    with live.opened() as opened:
        held = opened.index
    with live.opened() as opened:
        assert opened.index is held  # no opening for each request
        assert isinstance(opened.index, Index)
        snapshot = opened.index.snapshot
    with live.opened() as opened:
        assert isinstance(opened.index, Index)
        assert opened.index.snapshot is snapshot
    build(here, [*numbered(40), {"id": "one more", "text": "a girl", "tag": "old"}], tiny_model)
    with closing(sqlite3.connect(here / "index.sqlite")) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0  # no reader holds an old commit
    with live.opened() as opened:
        assert len(opened.index) == 41
    live.close()


def test_what_is_damaged_or_missing_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="there is no such folder"):
        LiveIndex("docs", tmp_path / "docs.index", IndexModels())


def test_an_index_of_ready_vectors_is_searched_by_words_alone(tmp_path: Path) -> None:
    with Index.create(tmp_path / "v.index", Settings(dimension=4)) as index:
        index.add([Document("a", "a guitar")], np.ones((1, 4), np.float32))
    with serving(tmp_path / "v.index") as address:
        status, content = ask(address, "POST", "/search", {"query": "guitar"})
        assert status == 400
        assert '"mode": "text"' in content["error"]["message"]
        status, content = ask(address, "POST", "/search", {"query": "guitar", "mode": "text"})
        assert [hit["id"] for hit in content["hits"]] == ["a"]
        assert ask(address, "GET", "/indexes")[1]["indexes"][0]["modes"] == ["text"]


def test_names_of_indexes() -> None:
    paths = [Path("/a/docs.index"), Path("/b/docs.index"), Path("/c/notes/.embedkit/index"), Path("/c/x")]
    assert list(index_names(paths)) == ["a/docs", "b/docs", "notes", "x"]
    assert list(index_names([Path("/x/a/docs"), Path("/y/a/docs.index")])) == ["x/a/docs", "y/a/docs"]
    with pytest.raises(IndexFileError, match="named twice"):
        index_names([Path("/a/docs.index"), Path("/a/docs.index")])


def test_the_command_line_writes_while_a_server_reads(tmp_path: Path, tiny_model: Path) -> None:
    here = build(tmp_path / "docs.index", numbered(10), tiny_model)
    with serving(here) as address:
        assert len(ask(address, "POST", "/search", SEARCH)[1]["hits"]) == 10
        invoke("index", "delete", here, "old/1", "old/2")
        assert len(ask(address, "POST", "/search", SEARCH)[1]["hits"]) == 8
        invoke("index", "compact", here)
        assert len(ask(address, "POST", "/search", SEARCH)[1]["hits"]) == 8
