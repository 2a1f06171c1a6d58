"""Our own routes: the answers of a server are those of a local search, and what is wrong is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.data.records import Document
from embedkit.pipelines.judging import judge
from embedkit.pipelines.searching import open_search
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.indexes.shard_json import vectors_json
from embedkit.types import Computing
from indexes import Index
from tests.serving.indexes.served_indexes import Caller, ask, build, numbered, serving
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

FP32 = Computing(precision="fp32")
IDS = ("a/b c", "%2F", "ü?x=1&y#z", "../up", "/", "a//b", "a.", "line\nend")
MODES = ("dense", "text", "hybrid")
FILTERED_WORK = ("search", "search_ids", "search_text", "misuses", "count_rows")
QUERIES = ("the girl plays the guitar", "a horse at the beach", "old song 7", "zzz", "", "new water")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    made = tmp_path_factory.mktemp("served")
    build(made / "docs.index", numbered(60, tag="old"), tiny_model)
    build(made / "news.index", numbered(30, tag="new"), tiny_model)
    odd = [{"id": name, "text": f"the girl number {number}"} for number, name in enumerate(IDS[:-1])]
    build(made / "odd.index", odd, tiny_model)
    with Index.open(made / "odd.index", writable=True) as index:  # by a program: a file cannot hold it
        last = Document(IDS[-1], f"the girl number {len(IDS) - 1}")
        index.add([last], np.ones((1, index.settings.dimension), np.float32))
    other = write_tiny_model(made / "other", seed=5)
    build(made / "other.index", numbered(30, tag="other"), other)
    write_tiny_cross_encoder(made / "reranker")
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    reranker = CrossEncoder.load(folder / "reranker", precision="fp32")
    names = ("docs", "news", "odd", "other")
    with serving(*(folder / f"{name}.index" for name in names), rerankers={"tiny": reranker}) as found:
        yield found


def search(address: str, **body: Any) -> dict[str, Any]:
    status, content = ask(address, "POST", "/search", body)
    assert status == 200, content
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "dense"},
        {"mode": "text"},
        {"mode": "hybrid", "group": False},
        {"mode": "hybrid", "dense_weight": 2.0, "text_weight": 0.5, "k": 3},
        {"mode": "hybrid", "fusion": "ranks", "candidates": 7},
        {"mode": "hybrid", "where": "number > 20 and tag = 'old'"},
        {"mode": "dense", "min_score": 0.5},
        {"mode": "hybrid", "rerank": True},
        {"mode": "dense", "rerank": "tiny", "rerank_weight": 0.3, "candidates": 12},
    ],
)
def test_a_search_over_http_is_the_local_search_hit_by_hit(
    folder: Path, address: str, options: dict[str, Any]
) -> None:
    reranked = bool(options.get("rerank"))
    wanted = SearchOptions(
        **{"group": True} | {name: value for name, value in options.items() if name != "rerank"}
    )
    rerank = str(folder / "reranker") if reranked else None
    with open_search(folder / "docs.index", wanted, FP32, rerank=rerank) as opened:
        for query in QUERIES:
            local = judge(opened, query, opened.retriever.search([query], wanted)[0], wanted)
            answer = search(address, query=query, index="docs", all=True, **options)
            assert [
                (
                    *(hit[name] for name in ("id", "passage", "score", "scores", "text", "title", "start")),
                    *(hit[name] for name in ("stop", "source", "where", "metadata", "strength", "weak")),
                )
                for hit in answer["hits"]
            ] == [
                (
                    *(one.hit.doc_id, one.hit.passage, one.hit.score, one.hit.scores, one.hit.text),
                    *(one.hit.title, one.hit.start, one.hit.stop, one.hit.source, one.hit.where),
                    *(one.hit.metadata, one.strength, one.weak),
                )
                for one in local
            ]
            assert answer["left_out"] == 0
            shown = search(address, query=query, index="docs", **options)
            assert len(shown["hits"]) == sum(not one.weak for one in local)
            assert shown["left_out"] == sum(one.weak for one in local)
            assert shown["reranker"] == ("reranker" if reranked else None)  # not the path


def test_many_at_once_get_their_own_answers(address: str) -> None:
    alone = {query: search(address, query=query, index="docs", all=True)["hits"] for query in QUERIES}
    wrong: list[str] = []

    def ask_all(first: int) -> None:
        with closing(Caller(address)) as caller:
            for number in range(12):
                query = QUERIES[(first + number) % len(QUERIES)]
                status, content = caller("POST", "/search", {"query": query, "index": "docs", "all": True})
                if status != 200 or content["hits"] != alone[query]:
                    wrong.append(query)

    threads = [threading.Thread(target=ask_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_indexes_of_one_model_are_merged_by_score(address: str) -> None:
    for mode in ("dense", "hybrid"):
        apart = [
            (hit["score"], hit["index"], hit["id"])
            for name in ("docs", "news")
            for hit in search(address, query=QUERIES[0], index=name, k=90, mode=mode, all=True)["hits"]
        ]
        together = search(address, query=QUERIES[0], index=["docs", "news"], k=20, mode=mode, all=True)
        assert together["indexes"] == ["docs", "news"]
        expected = sorted(apart, key=lambda found: (-found[0], *found[1:]))[:20]
        assert [(hit["score"], hit["index"], hit["id"]) for hit in together["hits"]] == expected
        assert {hit["index"] for hit in together["hits"]} == {"docs", "news"}


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_indexes_of_several_models_are_merged_by_where_hits_lie_between_chance_and_what_is_typical(
    address: str, mode: str
) -> None:
    answer = search(address, query="the girl 6", index=["docs", "other"], k=40, mode=mode, all=True)
    hits = answer["hits"]
    assert {hit["index"] for hit in hits} == {"docs", "other"}
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    for hit in hits:  # strength is the same, but that it ends at 0 and 1
        if not hit["weak"]:
            assert hit["strength"] == pytest.approx(min(1.0, max(0.0, hit["score"])))
    for name in ("docs", "other"):  # within an index the order stays
        own = search(address, query="the girl 6", index=name, k=40, mode=mode, all=True)["hits"]
        found = [hit["id"] for hit in hits if hit["index"] == name]
        assert found == [hit["id"] for hit in own][: len(found)]


def test_all_indexes_are_searched_where_none_is_named_and_reranked_as_one_list(address: str) -> None:
    answer = search(address, query="the girl", k=30, rerank=True, all=True)
    assert answer["indexes"] == ["docs", "news", "odd", "other"]
    scores = [hit["scores"]["rerank"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 31))
    ranks = search(address, query="the girl", k=8, fusion="ranks", all=True)
    assert [hit["score"] for hit in ranks["hits"][:4]] == [1 / 61] * 4
    least = ranks["hits"][4]["score"] + 1e-9
    assert len(search(address, query="the girl", fusion="ranks", all=True, min_score=least)["hits"]) == 4


def test_a_link_searches_as_a_body_does(address: str) -> None:
    path = "/search?q=the%20girl&index=docs&index=news&k=4&mode=dense&all=true&group=false&where=number%3C9"
    status, by_link = ask(address, "GET", path)
    assert status == 200
    body = {"query": "the girl", "index": ["docs", "news"], "k": 4, "mode": "dense", "all": True}
    by_body = search(address, **body, group=False, where="number<9")
    assert by_link["hits"] == by_body["hits"]
    assert len(by_link["hits"]) == 4
    for path, reason in (
        ("/search", "q is missing"),
        ("/search?q=a&k=many", "k is 'many'"),
        ("/search?q=a&k=0", "k is 0; it must be at least 1"),
        ("/search?q=a&kk=1", "there is no 'kk'"),
        ("/search?q=a&q=b", "'q' comes twice"),
        ("/search?q=a&mode=best", "Invalid enum value 'best'"),
        ("/search?q=a&group=perhaps", "it must be true or false"),
    ):
        status, content = ask(address, "GET", path)
        assert status == 400
        assert reason in content["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (
            {"query": "a", "index": "nope"},
            404,
            "no index 'nope' is served here; there is docs, news, odd, other",
        ),
        ({"query": "a", "index": []}, 400, "empty list"),
        (
            {"query": "a", "index": "docs", "where": "colour = 1"},
            400,
            "where 'colour = 1': no document has the field 'colour'",
        ),
        ({"query": "a", "k": 0}, 400, "k is 0; it must be at least 1"),
        ({"query": "a", "k": 10**6}, 400, "k is 1,000,000; it must be 10,000 at most"),
        ({"query": "a", "dense_weight": 0, "text_weight": 0}, 400, "both 0"),
        ({"query": "a", "rerank": True, "rerank_budget": "soon"}, 400, "not a time budget"),
        ({"query": "a", "rerank": "big"}, 404, "no reranker 'big' is served here; there is tiny"),
        ({"query": ["a"]}, 400, "Expected `str`"),
        ({"query": "a", "top_k": 3}, 400, "there is no field 'top_k'"),
        ({}, 400, "query"),
    ],
)
def test_what_is_wrong_is_said(address: str, body: dict[str, Any], status: int, reason: str) -> None:
    found, content = ask(address, "POST", "/search", body)
    assert (found, content["error"]["status"]) == (status, status)
    assert reason in content["error"]["message"]
    assert "--" not in content["error"]["message"]  # options are the command line's


REGEX = "text matches '(a+)+b'"


def test_regular_expressions_of_clients_are_refused_on_every_route(address: str) -> None:
    """`(a+)+b` on 29 times "a" takes most of a minute, in which no other request is answered."""
    asking = {"query": "a", "where": REGEX}
    several: list[object] = ["docs", "news"]
    searches = [
        ("POST", "/search", {**asking, "index": index, "mode": mode})
        for index in ("docs", several)
        for mode in MODES
    ]
    link = ("GET", f"/search?q=a&where={quote(REGEX)}", None)
    shard: dict[str, Any] = {"index": "docs", "where": REGEX, "fields": ["tag"], "queries": ["a"]}
    shard["vectors"] = vectors_json(np.ones((1, 32), np.float32))
    asked = [("POST", "/shard", {**shard, "do": work}) for work in FILTERED_WORK]
    for method, path, body in [*searches, link, *asked]:
        status, content = ask(address, method, path, body)
        message = content["error"]["message"]
        assert status == 400
        assert message.startswith(f"where {REGEX!r}: regular expressions (matches) are off here")
        assert message.endswith("Use like or glob, or start the server with: embedkit serve --allow-regex")


def test_a_server_may_allow_regular_expressions(folder: Path) -> None:
    with serving(folder / "docs.index", allow_regex=True) as address:
        found = search(address, query="the girl", where="title matches '^dog [0-9]$'", all=True)
        assert [hit["id"] for hit in found["hits"]] == ["old/1"]


def test_a_budget_and_notes_and_times(address: str) -> None:
    answer = search(address, query="the girl", index="docs", rerank=True, rerank_budget="1ms", all=True)
    assert 4 <= sum("rerank" in hit["scores"] for hit in answer["hits"]) <= 10
    assert set(answer["took_ms"]) == {"embed", "search", "rerank", "total"}
    assert answer["took_ms"]["total"] >= answer["took_ms"]["rerank"] > 0
    long = search(address, query="girl " * 100, index="docs")
    assert any("cut to the 32 tokens" in note for note in long["notes"])
    assert search(address, query="  ", index="docs")["notes"] == ["the query is empty"]
    unknown = search(address, query="Ωμέγα", index="docs")
    assert any("nothing that" in note for note in unknown["notes"])
    hit = search(address, query="guitar", index="docs", mode="text", k=1)["hits"][0]
    start, stop = hit["snippet"]["spans"][0]
    assert hit["snippet"]["text"][start:stop] == "guitar"


def test_documents_have_any_id(address: str) -> None:
    for number, name in enumerate(IDS):
        status, content = ask(address, "GET", f"/documents/{quote(name, safe='')}?index=odd")
        assert status == 200, name
        assert (content["id"], content["text"]) == (name, f"the girl number {number}")
        status, content = ask(address, "GET", f"/similar/{quote(name, safe='')}?index=odd&k=3")
        assert (status, len(content["hits"])) == (200, 3)
        assert name not in [hit["id"] for hit in content["hits"]]
    status, content = ask(address, "GET", "/documents/old/3?index=docs")  # slashes as they are
    assert content["metadata"] == {"number": 3, "tag": "old"}
    assert content["passages"] == [
        {"passage": 0, "start": 0, "stop": len(content["text"])}
        | {
            "where": content["passages"][0]["where"],
            "place": {"lines": [4, 4]},
        }
    ]
    for path, status, reason in (
        ("/documents/none?index=docs", 404, "there is no document 'none' in the index 'docs'"),
        ("/documents/none", 400, "several indexes are served here: docs, news, odd, other"),
        ("/documents/none?indx=docs", 400, "there is no 'indx' here"),
        ("/similar/old/3?index=docs&passage=4", 404, "has no passage 4; it has 0 to 0"),
        ("/similar/old/3?index=docs&k=x", 400, "k is 'x'"),
        (f"/similar/old/3?index=docs&k={'9' * 5000}", 400, "it must be a whole number from 1 to 10,000"),
    ):
        found, content = ask(address, "GET", path)
        assert found == status
        assert reason in content["error"]["message"]


def test_what_is_similar_is_what_the_vectors_say(folder: Path, address: str) -> None:
    with open_search(folder / "docs.index", SearchOptions(mode="dense"), FP32) as opened:
        _, vectors = opened.index.passages("old/7")
        expected = [
            (hit.doc_id, hit.score) for hit in opened.index.search(vectors, k=8)[0] if hit.doc_id != "old/7"
        ]
    _, content = ask(address, "GET", "/similar/old/7?index=docs&k=7")
    assert [(hit["id"], hit["score"]) for hit in content["hits"]] == expected


def test_the_list_of_indexes(address: str) -> None:
    status, content = ask(address, "GET", "/indexes")
    assert status == 200
    docs = content["indexes"][0]
    assert (docs["name"], docs["documents"], docs["passages"], docs["metric"]) == ("docs", 60, 60, "cosine")
    number, tag = docs["fields"]
    assert (number["name"], number["kind"], number["min"], number["max"]) == ("number", "number", 0, 59)
    assert tag == {"name": "tag", "kind": "text", "values": ["old"], "min": "old", "max": "old"}
    assert content["rerankers"] == ["tiny"]
    assert content["writable"] is False
    assert ask(address, "POST", "/documents", {"documents": []})[0] in (404, 405)
