"""Multi-vector and learned sparse indexes behind a server: the answers are those of a local search, and what is not there is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from embedkit.pipelines.judging import judge
from embedkit.pipelines.searching import open_search
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.opening import all_routes, open_services
from embedkit.serving.options import ServeOptions
from embedkit.types import Computing
from indexes import Index
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.cli.index.test_index import invoke
from tests.serving.indexes.served_indexes import ask, build, numbered, serving
from tests.serving.running import OPEN, served
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.tiny_multi_vector import write_tiny_multi_vector

FP32 = Computing(precision="fp32")
QUERIES = ("the girl plays the guitar", "a horse at the beach", "old song 7", "水水", "zzz", "")
KINDS = ("tokens", "terms", "table")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    made = tmp_path_factory.mktemp("kinds")
    write_tiny_multi_vector(made / "colbert")
    write_tiny_sparse(made / "splade")
    write_tiny_sparse(made / "splade-table", weigh_queries=True)
    for name, model in zip(KINDS, ("colbert", "splade", "splade-table"), strict=True):
        build(made / f"{name}.index", numbered(60), made / model)
    build(made / "new.index", numbered(30, tag="new"), made / "splade")
    build(made / "dense.index", numbered(30, tag="dense"), tiny_model)
    write_tiny_cross_encoder(made / "reranker")
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    reranker = CrossEncoder.load(folder / "reranker", precision="fp32")
    names = (*KINDS, "new", "dense")
    with serving(*(folder / f"{name}.index" for name in names), rerankers={"tiny": reranker}) as found:
        yield found


def search(address: str, **body: Any) -> dict[str, Any]:
    status, content = ask(address, "POST", "/search", body)
    assert status == 200, content
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "dense"},
        {"mode": "text"},
        {"mode": "hybrid", "group": False},
        {"mode": "hybrid", "fusion": "ranks", "candidates": 7, "where": "number > 20"},
        {"mode": "dense", "min_score": 1.5, "k": 3},
        {"mode": "hybrid", "rerank": True, "candidates": 12},
    ],
)
def test_a_search_over_http_is_the_local_search_to_the_score(
    folder: Path, address: str, kind: str, options: dict[str, Any]
) -> None:
    wanted = SearchOptions(
        **{"group": True} | {name: value for name, value in options.items() if name != "rerank"}
    )
    rerank = str(folder / "reranker") if options.get("rerank") else None
    found = 0
    with open_search(folder / f"{kind}.index", wanted, FP32, rerank=rerank) as opened:
        for query in QUERIES:
            local = judge(opened, query, opened.retriever.search([query], wanted)[0], wanted)
            answer = search(address, query=query, index=kind, all=True, **options)
            assert [
                (hit["id"], hit["passage"], hit["score"], hit["scores"], hit["strength"])
                for hit in answer["hits"]
            ] == [
                (one.hit.doc_id, one.hit.passage, one.hit.score, one.hit.scores, one.strength)
                for one in local
            ]
            found += len(local)
    assert found


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_prints_of_a_server_what_it_prints_of_the_index(
    folder: Path, address: str, kind: str
) -> None:
    def hits(place: object, *more: object) -> list[dict[str, Any]]:
        printed = invoke("search", place, QUERIES[0], "--json", "-k", 5, "--mode", "dense", *more)
        return [json.loads(line) for line in printed.splitlines()]

    here = hits(folder / f"{kind}.index", "--precision", "fp32")
    there = hits(f"{address}/{kind}")
    assert len(here) == 5
    for one, other in zip(here, there, strict=True):
        # A query alone is computed by what starts fastest, here; a table of weights is read alike.
        assert other["score"] == (one["score"] if kind == "table" else pytest.approx(one["score"], rel=1e-4))
    assert [each["id"] for each in here] == [each["id"] for each in there]


def test_a_query_that_the_model_knows_nothing_of_is_explained(address: str) -> None:
    answer = search(address, query="水水", index="terms", mode="dense")
    assert answer["hits"] == []
    assert answer["notes"] == [
        "the query is made of nothing that splade knows, as of another script: nothing was found by meaning"
    ]
    long = search(address, query="the girl " * 40, index="tokens", mode="dense")
    assert "tokens that colbert reads" in long["notes"][0]
    assert long["hits"]


def test_indexes_of_all_kinds_are_searched_at_once(address: str) -> None:
    for mode in ("dense", "hybrid", "text"):
        names = ["dense", "tokens", "terms"]
        answer = search(address, query=QUERIES[0], index=names, mode=mode, k=30, all=True)
        assert {hit["index"] for hit in answer["hits"]} == set(names)
        firsts = {
            search(address, query=QUERIES[0], index=name, mode=mode, k=1, all=True)["hits"][0]["id"]
            for name in names
        }
        assert firsts <= {hit["id"] for hit in answer["hits"]}
        if mode != "text":
            assert answer["models"].keys() == set(names)
            assert {hit["id"] for hit in answer["hits"][:3]} == firsts  # by ranks: their scores have no scale


def test_two_indexes_of_one_model_are_merged_by_its_scores(address: str) -> None:
    apart = [
        (hit["score"], hit["id"])
        for name in ("terms", "new")
        for hit in search(address, query=QUERIES[0], index=name, k=90, mode="dense", all=True)["hits"]
    ]
    together = search(address, query=QUERIES[0], index=["terms", "new"], k=20, mode="dense", all=True)
    expected = sorted(apart, key=lambda found: -found[0])[:20]
    assert [hit["score"] for hit in together["hits"]] == [score for score, _ in expected]


def test_documents_and_what_is_similar(address: str) -> None:
    for kind, count in zip(KINDS, (60, 60, 60), strict=True):
        status, document = ask(address, "GET", f"/documents/old/3?index={kind}")
        assert (status, document["id"], len(document["passages"])) == (200, "old/3", 1)
        status, answer = ask(address, "GET", f"/similar/old/3?index={kind}&k={count}")
        assert status == 200
        ids = [hit["id"] for hit in answer["hits"]]
        assert ids
        assert "old/3" not in ids
        strengths = [hit["strength"] for hit in answer["hits"]]
        assert strengths == sorted(strengths, reverse=True)


def test_the_list_says_what_each_is(address: str) -> None:
    _, content = ask(address, "GET", "/indexes")
    listed = {each["name"]: (each["kind"], each["model"], each["modes"]) for each in content["indexes"]}
    modes = ["dense", "text", "hybrid"]
    assert listed["tokens"] == ("multi-vector", "colbert", modes)
    assert listed["terms"] == ("sparse", "splade", modes)
    assert listed["dense"][0] == "dense"


def test_what_takes_one_vector_a_text_is_refused_by_name(address: str, folder: Path) -> None:
    status, content = ask(address, "POST", "/shard", {"do": "describe", "index": "terms"})
    assert status == 400
    assert "is a sparse index; a shard takes one vector a passage" in content["error"]["message"]


def test_such_models_give_no_vectors_and_load_no_other(folder: Path) -> None:
    services = open_services(ServeOptions(indexes=[folder / "tokens.index"], computing=FP32))
    try:
        assert services.encoders == {}
        with served(lambda app: list(all_routes(services, app)), OPEN, services.limits) as address:
            for model in ("colbert", None):
                body = {"input": "a dog"} | ({} if model is None else {"model": model})
                status, content = ask(address, "POST", "/v1/embeddings", body)
                assert status == 400
                message = content["error"]["message"]
                assert "'colbert' is a multi-vector model" in message
                assert "it searches the index 'tokens', and gives a text no single vector" in message
            status, content = ask(address, "POST", "/v1/embeddings", {"input": "a", "model": "other"})
            assert status == 404
            assert ask(address, "GET", "/v1/models")[1]["data"] == []
            assert ask(address, "GET", "/api/tags")[1] == {"models": []}
            assert search(address, query="a dog")["hits"]
    finally:
        services.close()


def test_an_index_of_another_kind_takes_its_place(folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    here = tmp_path / "docs.index"
    build(here, numbered(10), folder / "splade")
    with serving(here) as address:
        assert search(address, query="a dog")["hits"][0]["scores"].keys() >= {"sparse"}
        for model, part in (
            (folder / "colbert", "dense"),
            (tiny_model, "dense"),
            (folder / "splade", "sparse"),
        ):
            build(tmp_path / "next.index", numbered(10, tag="new"), model)
            shutil.rmtree(here)
            (tmp_path / "next.index").rename(here)
            answer = search(address, query="the dog", mode="dense", all=True)
            assert answer["models"] == {"docs": Path(model).name}
            assert answer["hits"][0]["scores"].keys() == {part}
            assert answer["hits"][0]["id"].startswith("new/")
            assert answer["notes"] == []


@pytest.mark.parametrize("model", ["colbert", "splade"])
def test_what_is_added_is_what_a_build_makes(folder: Path, tmp_path: Path, model: str) -> None:
    rows = numbered(14)
    here, whole = tmp_path / "docs.index", tmp_path / "whole.index"
    build(here, rows[:10], folder / model)
    build(whole, rows[:10], folder / model)
    build(whole, rows, folder / model)
    new = [
        {name: row[name] for name in ("id", "title", "text")}
        | {"metadata": {"tag": row["tag"], "number": row["number"]}}
        for row in rows[10:]
    ]
    with serving(here, writable=True) as address:
        status, content = ask(address, "POST", "/documents", {"documents": new})
        assert (status, content["added"]) == (200, 4)
        answer = search(address, query="the girl and a dog", mode="dense", k=14, all=True)
        status, content = ask(address, "DELETE", "/documents/old/3")
        assert content == {"deleted": 1, "missing": []}
    wanted = SearchOptions(mode="dense", k=14, group=True)
    with open_search(whole, wanted, FP32) as opened:
        local = opened.retriever.search(["the girl and a dog"], wanted)[0]
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [(hit.doc_id, hit.score) for hit in local]
    with Index.open(here) as index:
        assert index.count_documents() == 13
