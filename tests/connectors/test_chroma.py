"""Chroma beyond what the suite asks of every store: a server that goes away, the lease, what an upsert leaves behind, the graph."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.pushing import PushOptions, push
from embedkit.connectors.store import Hnsw
from embedkit.data.records import Document
from embedkit.errors import StoreError
from tests.connectors.conftest import Target
from tests.connectors.servers import chroma, free_port
from tests.connectors.test_conformance import content, info_of, make, pull_all, push_all, searched
from tests.indexes.fakes import create, embed

pytestmark = pytest.mark.stores


@pytest.fixture(autouse=True)
def client() -> Any:  # Any: a module that may be missing
    return pytest.importorskip("chromadb", reason="needs: pip install 'embedkit[chroma]'")


def at(url: str) -> Target:
    return Target("chroma", lambda: open_store(url), url)


def test_a_missing_server_is_said_without_the_key() -> None:
    with (
        closing(open_store("chroma://:secret@127.0.0.1:1?collection=docs")) as store,
        pytest.raises(StoreError, match=r"127.0.0.1:1\?collection=docs: Chroma does not answer") as caught,
    ):
        store.read_info()
    assert "secret" not in str(caught.value)


def test_a_server_that_goes_away_half_way(tmp_path: Path) -> None:
    port = free_port()
    target = at(f"chroma://127.0.0.1:{port}?collection=docs")
    with make(tmp_path / "a", 2500) as index:
        with closing(target.open()) as store:
            with chroma(tmp_path, port):
                reports = push(index, store, info_of(index), PushOptions())
                sent = next(report.sent for report in reports if report.step == "push")
            with pytest.raises(StoreError, match=r"Chroma does not answer.*the same command goes on"):
                list(reports)
        with chroma(tmp_path, port):
            report = push_all(index, target)
            assert 0 < sent == report.unchanged
            assert report.sent == 2507 - sent
            with pull_all(target, tmp_path / "b") as pulled:
                assert content(pulled) == content(index)


def test_rows_are_read_by_many_pages_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.extras.chroma._PAGE_IDS", 100)
    target = at(f"chroma://{tmp_path / 'there'}?collection=docs")
    with make(tmp_path / "a", 250) as index:
        push_all(index, target)
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_what_a_changed_row_had_before_is_gone(tmp_path: Path) -> None:
    """Chroma merges a new row into the old one; filters must not find what has gone."""
    target = at(f"chroma://{tmp_path / 'chroma'}?collection=docs")
    with create(tmp_path / "a") as index:
        index.add([Document("x", "one", "", {"year": 1990, "n": 1})], embed(["x"]))
        index.add([Document("y", "two", "", {"year": 1, "n": 2})], embed(["y"]))
        push_all(index, target)
        index.add([Document("x", "one", "", {"n": 3})], embed(["x"]))
        push_all(index, target)
        with searched(target) as store:
            for where in ("year > 1980", "year = 1990", "n = 1", "not year is null and n = 3"):
                assert store.count_rows(where) == 0, where
            assert store.count_rows("n = 3") == 1


def test_collections_of_somebody_else_stay_as_they_are(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    with client.PersistentClient(str(folder)) as other:
        for name in ("docs", "other_embedkit"):
            other.create_collection(name, embedding_function=None)
    with make(tmp_path / "a") as index:
        for name, named in (("docs", "'docs'"), ("other", "'other_embedkit'")):
            with pytest.raises(StoreError, match=f"a collection {named} that embedkit did not make"):
                push_all(index, at(f"chroma://{folder}?collection={name}"))


def test_a_point_of_somebody_else_is_named(client: Any, tmp_path: Path) -> None:
    target = at(f"chroma://{tmp_path / 'chroma'}?collection=docs")
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        with client.PersistentClient(str(tmp_path / "chroma")) as other:
            points = other.get_collection("docs", embedding_function=None)
            points.add(ids=["theirs"], embeddings=[[1.0] * 16], metadatas=[{"a": 1}])
        with pytest.raises(StoreError, match="did not write, such as passage 0 of 'theirs'"):
            push_all(index, target)


def test_nothing_is_made_before_a_push(tmp_path: Path) -> None:
    with closing(open_store(f"chroma://{tmp_path / 'no'}?collection=docs")) as store:
        assert store.read_info() is None
    assert not (tmp_path / "no").exists()


def test_the_graph_is_made_as_asked_for_and_stays(client: Any, tmp_path: Path) -> None:
    target = at(f"chroma://{tmp_path / 'chroma'}?collection=docs")
    with make(tmp_path / "a", 5) as index:
        assert push_all(index, target, hnsw=Hnsw(m=8, ef_construction=40)).notes == []
        with client.PersistentClient(str(tmp_path / "chroma")) as other:
            graph = other.get_collection("docs", embedding_function=None).configuration_json["hnsw"]
            assert (graph["space"], graph["max_neighbors"], graph["ef_construction"]) == ("ip", 8, 40)
        (note,) = push_all(index, target, hnsw=Hnsw(m=12, ef_construction=40)).notes
        assert "stays as it was made, with --hnsw-m 8 --hnsw-ef-construction 40" in note
        (note,) = push_all(index, target, hnsw=Hnsw(m=0)).notes
        assert "searches look at all of it" in note


def test_a_name_that_chroma_refuses(tmp_path: Path) -> None:
    with (
        make(tmp_path / "a") as index,
        pytest.raises(StoreError, match=r"Chroma says: .*Expected a name containing 3-512 characters"),
    ):
        push_all(index, at(f"chroma://{tmp_path / 'chroma'}?collection=a"))
