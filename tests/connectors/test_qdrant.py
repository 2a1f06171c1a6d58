"""Qdrant beyond what the suite asks of every store: a server's errors and keys, the lease, the local mode's folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.pushing import PushOptions, push
from embedkit.connectors.store import Hnsw
from embedkit.errors import StoreError
from tests.connectors.conftest import Target
from tests.connectors.qdrant_server import qdrant_server
from tests.connectors.test_conformance import content, info_of, make, pull_all, push_all, searched
from tests.indexes.fakes import embed

pytestmark = pytest.mark.stores


@pytest.fixture(autouse=True)
def client() -> Any:  # Any: a module that may be missing
    return pytest.importorskip("qdrant_client", reason="needs: pip install 'embedkit[qdrant]'")


def at(url: str) -> Target:
    return Target("qdrant", lambda: open_store(url), url)


def test_over_http_come_the_same_bits_and_hits(tmp_path: Path) -> None:
    with qdrant_server() as server, make(tmp_path / "a", 300) as index:
        target = at(server.url("docs"))
        assert push_all(index, target).sent == 307
        assert push_all(index, target).sent == 0
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)
        with searched(target) as store:
            for where in (None, "topic >= 2 and topic < 5", "id > 'note-0200' and not lang = 'de'"):
                ours = index.search(embed(["strange 2"]), k=10, where=where)[0]
                theirs = store.search(embed(["strange 2"]), k=10, where=where, group=False, bare=False)[0]
                assert [hit.doc_id for hit in theirs] == [hit.doc_id for hit in ours]
                np.testing.assert_allclose(
                    [hit.score for hit in theirs], [hit.score for hit in ours], rtol=2e-6
                )
            (hits,) = store.search_text(["five six"], k=5, where=None, group=False, bare=False)
            assert (hits[0].doc_id, hits[0].passage) == ("cut", 2)


def test_a_server_is_asked_for_graph_numbers_and_indexes(tmp_path: Path) -> None:
    with qdrant_server() as server, make(tmp_path / "a", 5, storage="float16") as index:
        target = at(server.url("docs", more="&quantization=int8"))
        push_all(index, target, storage="float16", hnsw=Hnsw(m=8, ef_construction=40))
        asked = {(method, path): body for method, path, body in server.asked}
        made = asked["PUT", "/collections/docs"]
        assert made["vectors"]["embedding"] == {"size": 16, "distance": "Dot", "datatype": "float16"}
        assert made["sparse_vectors"] == {"words": {"modifier": "idf"}}
        assert made["hnsw_config"] == {"m": 0}
        assert made["quantization_config"] == {"scalar": {"type": "int8", "always_ram": True}}
        assert asked["PATCH", "/collections/docs"] == {"hnsw_config": {"m": 8, "ef_construct": 40}}
        indexed = [body["field_name"] for _, path, body in server.asked if path.endswith("/index")]
        assert indexed == ["tokens", "numbers[].key", "numbers[].value"]
        with searched(target) as store:
            store.ef = 99
            store.search(embed(["x"]), k=3, where=None, group=False, bare=True)
        params = server.asked[-1][2]["params"]
        assert params == {
            "hnsw_ef": 99,
            "exact": False,
            "quantization": {"rescore": True, "oversampling": 2.0},
        }


def test_a_wrong_key_and_a_missing_server_are_said_without_the_key(tmp_path: Path) -> None:
    with (
        qdrant_server() as server,
        closing(open_store(server.url("docs", key="wrong"))) as store,
        pytest.raises(StoreError, match=r"Qdrant says: 401.*Must provide.*Check the API key") as caught,
    ):
        store.read_info()
    assert "wrong" not in str(caught.value)
    with (
        closing(open_store("qdrant://:secret@127.0.0.1:1?collection=docs")) as store,
        pytest.raises(StoreError, match=r"127.0.0.1:1\?collection=docs: Qdrant does not answer.*refused"),
    ):
        store.read_info()


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant_server() as server:
        monkeypatch.setenv("QDRANT_API_KEY", "the key")
        with closing(open_store(f"qdrant://127.0.0.1:{server.port}?collection=docs")) as store:
            assert store.read_info() is None


def test_a_server_that_goes_away_half_way(tmp_path: Path) -> None:
    with qdrant_server() as server, make(tmp_path / "a", 2500) as index:
        target = at(server.url("docs"))
        server.fail_after = 1  # a batch
        with closing(target.open()) as store:
            reports = push(index, store, info_of(index), PushOptions())
            with pytest.raises(StoreError, match=r"Qdrant does not answer.*the same command goes on"):
                list(reports)
        server.fail_after = None
        report = push_all(index, target)
        assert 0 < report.unchanged < 2507
        assert report.unchanged + report.sent == 2507
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_two_pushes_at_once_to_a_server(tmp_path: Path) -> None:
    with qdrant_server() as server, make(tmp_path / "a", 5) as index:
        target = at(server.url("docs"))
        push_all(index, target)
        with (
            closing(target.open()) as first,
            first.writing(),
            pytest.raises(StoreError, match=r"process \d+ on .* is pushing to it"),
        ):
            push_all(index, target)
        assert push_all(index, target).step == "done"


def test_collections_of_somebody_else_stay_as_they_are(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "qdrant"
    local = client.QdrantClient(path=str(folder))
    shape = client.models.VectorParams(size=3, distance="Cosine")
    local.create_collection("docs", vectors_config=shape)
    local.create_collection("other_embedkit", vectors_config=shape)
    local.close()
    with make(tmp_path / "a") as index:
        for name, named in (("docs", "'docs'"), ("other", "'other_embedkit'")):
            target = at(f"qdrant://{folder}?collection={name}")
            with pytest.raises(StoreError, match=f"a collection {named} that embedkit did not make"):
                push_all(index, target)


def test_a_collection_made_anew_by_somebody_else_is_noticed(client: Any, tmp_path: Path) -> None:
    target = at(f"qdrant://{tmp_path / 'qdrant'}?collection=docs")
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        local = client.QdrantClient(path=str(tmp_path / "qdrant"))
        local.delete_collection("docs")
        local.create_collection("docs", vectors_config=client.models.VectorParams(size=3, distance="Dot"))
        local.close()
        with pytest.raises(StoreError, match="a collection 'docs' that embedkit did not make"):
            push_all(index, target)


def test_a_point_of_somebody_else_is_named(client: Any, tmp_path: Path) -> None:
    target = at(f"qdrant://{tmp_path / 'qdrant'}?collection=docs")
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        local = client.QdrantClient(path=str(tmp_path / "qdrant"))
        local.upsert("docs", [client.models.PointStruct(id=77, vector={}, payload={"a": 1})])
        local.close()
        with pytest.raises(StoreError, match="did not write, such as passage 0 of '77'"):
            push_all(index, target)
        with pytest.raises(StoreError, match="did not write, such as 77"):
            pull_all(target, tmp_path / "b")


def test_nothing_is_made_before_a_push(tmp_path: Path) -> None:
    with closing(open_store(f"qdrant://{tmp_path / 'no'}?collection=docs")) as store:
        assert store.read_info() is None
    assert not (tmp_path / "no").exists()


def test_the_local_mode_says_when_it_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import embedkit.extras.qdrant as extra

    monkeypatch.setattr(extra, "_SLOW_ROWS", 10)
    with make(tmp_path / "a", 5) as index:
        report = push_all(index, at(f"qdrant://{tmp_path / 'qdrant'}?collection=docs"))
    assert report.notes == [
        "Qdrant's local mode compares a query with every vector, 12 here: use a server for so many"
    ]


def test_an_unknown_quantization(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="quantization is 'int4'; wanted is int8"):
        open_store(f"qdrant://{tmp_path}?collection=docs&quantization=int4")
