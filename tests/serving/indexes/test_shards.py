"""An index in shards behind a server: its answers are those of one index, and a note says what is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.data.records import Hit
from embedkit.errors import FilterError
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.serving.client.shard import ServedShard
from embedkit.types import Computing
from indexes import GatherOptions, Index, ShardedIndex, ShardsFile
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.indexes.sharded.joined import join
from tests.serving.indexes.served_indexes import ask, build, numbered, serving
from tests.tiny_multi_vector import write_tiny_multi_vector


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rows = numbered(40)
    build(folder / "one.index", rows, tiny_model)
    parts = [build(folder / f"p{n}.index", rows[n * 20 : n * 20 + 20], tiny_model) for n in range(2)]
    join(folder / "big.index", parts)
    return folder


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_shards_are_served_as_one_index(made: Path, mode: str) -> None:
    with serving(made / "one.index", made / "big.index") as address:
        answers = {}
        for name in ("one", "big"):
            body = {"query": "the girl plays the guitar", "index": name, "mode": mode, "all": True}
            status, answers[name] = ask(address, "POST", "/search", body)
            assert status == 200
        found, expected = (
            [
                (hit["id"], hit["score"], hit["strength"], hit["weak"], hit["text"])
                for hit in answers[name]["hits"]
            ]
            for name in ("big", "one")
        )
        assert found == expected
        assert answers["big"]["notes"] == []
        _, listed = ask(address, "GET", "/indexes")
        one, big = (
            {**each, "name": ""} for each in sorted(listed["indexes"], key=lambda each: each["name"] != "one")
        )
        for each in (one, big):  # of numbers that all occur once some stand first
            assert len(each["fields"][0].pop("values")) == 20
        assert big == one
        _, document = ask(address, "GET", "/documents/old/30?index=big")
        assert document["text"] == numbered(40)[30]["text"]
        status, alike = ask(address, "GET", "/similar/old/30?index=big")
        assert status == 200
        assert alike["hits"]


def test_a_missing_shard_is_a_note_and_what_is_written_in_one_is_seen(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "big.index", tmp_path / "big.index")
    with serving(tmp_path / "big.index") as address:
        with Index.open(tmp_path / "big.index/shards/00000.index", writable=True) as index:
            index.delete(["old/2"])
        body = {"query": "horse", "mode": "text", "all": True, "k": 40}
        _, answer = ask(address, "POST", "/search", body)
        assert "old/2" not in [hit["id"] for hit in answer["hits"]]
    shutil.rmtree(tmp_path / "big.index/shards/00001.index")
    with serving(tmp_path / "big.index") as address:
        _, answer = ask(address, "POST", "/search", body)
        assert answer["hits"]
        (note,) = answer["notes"]
        assert note.startswith("big: coverage: 1/2 shards; 00001 failed (")


def test_shards_may_lie_on_servers(made: Path, tmp_path: Path) -> None:
    """One shard is here and one behind a server: ids, scores and texts are those of one index."""
    file = ShardsFile.read(made / "big.index")
    with serving(made / "p1.index") as address:
        (tmp_path / "big.index").mkdir()
        shutil.copytree(made / "p0.index", tmp_path / "big.index/shards/00000.index")
        served = replace(file.shards[1], location=f"{address}/p1")
        ShardsFile(file.plan, file.settings, file.model_path, [file.shards[0], served]).write(
            tmp_path / "big.index"
        )
        gathering = GatherOptions(connect=ServedShard, require_all=True)
        with (
            Index.open(made / "one.index") as one,
            ShardedIndex.open(tmp_path / "big.index", gathering=gathering) as sharded,
        ):
            queries = ["the girl plays the guitar", "old horse", "zzz"]
            vectors = one.vectors_at(np.array([3, 30, 39]))
            for options in (
                SearchOptions(mode="dense", k=40),
                SearchOptions(mode="text", k=40, where="number > 3"),
                SearchOptions(mode="hybrid", group=True),
            ):
                found, expected = (
                    Retriever(index, embed=lambda _: vectors).search(queries, options)
                    for index in (sharded, one)
                )
                assert [list(map(seen, hits)) for hits in found] == [
                    list(map(seen, hits)) for hits in expected
                ]
            assert sharded.search_ids(vectors) == one.search_ids(vectors)
            assert sharded.noise == one.noise
            assert sharded.count_documents() == 40
            assert sharded.count_rows("number > 25") == 14
            assert sharded.known_ids(["old/30", "none"]) == {"old/30"}
            document = sharded.document("old/30")
            assert document is not None
            assert document.text == numbered(40)[30]["text"]
            assert sharded.passages("old/30")[0][0].doc_id == "old/30"
            assert len(sharded.field_values()) == 2
            with pytest.raises(FilterError, match=r"^--where 'numbr = 3': no document has the field"):
                sharded.search_text(queries, where="numbr = 3")
            assert not sharded.follow()
    with ShardedIndex.open(tmp_path / "big.index", gathering=GatherOptions(connect=ServedShard)) as sharded:
        assert "no server listens there" in sharded.take_coverage().failed["00001"]


def test_regular_expressions_need_the_leave_of_whoever_is_asked(made: Path, tmp_path: Path) -> None:
    """A coordinator that allows them names the shard's server that does not; one that does not asks no shard."""
    where = "title matches '^dog'"
    file = ShardsFile.read(made / "big.index")
    body = {"query": "dog", "mode": "text", "where": where, "all": True}
    with serving(made / "big.index") as address:
        status, answer = ask(address, "POST", "/search", body)
        assert (status, "are off here" in answer["error"]["message"]) == (400, True)
    for shard_allows in (False, True):
        folder = tmp_path / f"{shard_allows}.index"
        folder.mkdir()
        with serving(made / "p0.index", allow_regex=shard_allows) as address:
            served = replace(file.shards[0], location=f"{address}/p0")
            ShardsFile(file.plan, file.settings, file.model_path, [served]).write(folder)
            gathering = GatherOptions(connect=ServedShard, require_all=True)
            with ShardedIndex.open(folder, gathering=gathering) as sharded:
                if shard_allows:
                    assert sharded.count_rows(where) == 2
                else:
                    said_by = (
                        rf"off here, .*--allow-regex \(said by the server of a shard, {re.escape(address)}\)$"
                    )
                    with pytest.raises(FilterError, match=said_by):
                        sharded.search_text(["dog"], where=where)
            with ShardedIndex.open(folder, gathering=gathering, allow_regex=False) as sharded:
                query = np.ones((1, 32), np.float32)
                searches: list[Callable[[], object]] = [
                    partial(sharded.search_text, ["dog"], where=where),
                    partial(sharded.search, query, where=where),
                    partial(sharded.search_ids, query, where=where),
                    partial(sharded.count_rows, where),
                ]
                for search in searches:
                    with pytest.raises(FilterError, match=r"off here, .*--allow-regex$"):
                        search()


def test_what_is_no_question_to_a_shard_is_refused(made: Path) -> None:
    with serving(made / "one.index", made / "big.index") as address:
        for index, body, why in (
            ("big", {"do": "describe"}, "lies in shards"),
            ("one", {"do": "search"}, "no question to a shard"),
            ("one", {"do": "search", "vectors": {"shape": [1, 2], "float32": "AAAA"}}, ""),
            ("one", {"do": "document"}, "no question to a shard"),
            ("one", {"do": "vectors_at", "places": [2**70]}, "no question to a shard"),
            ("one", {"do": "vectors_at", "places": [1, -1]}, "place -1 is below 0"),
            ("one", {"do": "search_text", "queries": ["a"], "k": 0}, "k is 0"),
        ):
            status, answer = ask(address, "POST", "/shard", {"index": index, **body})
            assert status == 400, answer
            assert why in answer["error"]["message"]


def seen(hit: Hit) -> tuple[object, ...]:
    return hit.doc_id, hit.score, hit.passage, hit.scores, hit.text, hit.title, hit.metadata


@pytest.mark.parametrize("kind", ["tokens", "terms"])
def test_shards_of_other_kinds_are_served_as_they_are_searched_here(tmp_path: Path, kind: str) -> None:
    make = write_tiny_multi_vector if kind == "tokens" else write_tiny_sparse
    model, rows = make(tmp_path / "model"), numbered(40)
    parts = [build(tmp_path / f"p{n}.index", rows[n * 20 : n * 20 + 20], model) for n in range(2)]
    join(tmp_path / "big.index", parts)
    query, wanted = "the girl plays the guitar", SearchOptions(mode="hybrid", k=6)
    with open_search(tmp_path / "big.index", wanted, Computing(precision="fp32")) as opened:
        (local,) = opened.retriever.search([query], wanted)
    with serving(tmp_path / "big.index") as address:
        status, answer = ask(
            address, "POST", "/search", {"query": query, "mode": "hybrid", "k": 6, "all": True}
        )
        assert status == 200, answer
        assert [hit["id"] for hit in answer["hits"]] == [hit.doc_id for hit in local]
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == pytest.approx([hit.score for hit in local], rel=1e-4)
        status, alike = ask(address, "GET", "/similar/old/30?index=big")
        assert status == 200
        assert alike["hits"]
        assert "old/30" not in [hit["id"] for hit in alike["hits"]]
        status, refused = ask(address, "POST", "/shard", {"do": "describe", "index": "big"})
        assert (status, "'big' lies in shards" in refused["error"]["message"]) == (400, True)
