"""A multi-vector model as a server's reranker: the scores are those of a local search, in every route that reranks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.errors import ConfigError
from embedkit.pipelines.judging import judge
from embedkit.pipelines.searching import open_search
from embedkit.reranking.maxsim import GROUP_TEXTS, MaxSim
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.engine.engine import EmbedWork, Engine
from embedkit.serving.engine.scoring import RerankWork, score, score_soon
from embedkit.serving.opening import all_routes, open_services
from embedkit.serving.options import ServeOptions
from embedkit.types import Computing
from tests.serving.engine.fakes import PATIENCE_SECONDS, HeldBackend
from tests.serving.indexes.served_indexes import ask, build, numbered
from tests.serving.running import OPEN, served
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import LONG, write_tiny_cross_encoder
from tests.tiny_multi_vector import write_tiny_multi_vector

FP32 = Computing(precision="fp32")
ROUNDING = 1e-6  # other batch shapes
QUERY = "the girl plays the guitar"
TEXTS = ["the dog runs", "", "水 水", "girl", "the dog runs", LONG, "a small red horse"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    made = tmp_path_factory.mktemp("rerankers")
    write_tiny_multi_vector(made / "colbert")
    write_tiny_cross_encoder(made / "pairs")
    build(made / "docs.index", numbered(40), tiny_model)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> MaxSim:
    return MaxSim(MultiVectorEncoder.load(folder / "colbert"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    names = [str(folder / name) for name in ("colbert", "pairs")]
    services = open_services(
        ServeOptions(indexes=[folder / "docs.index"], rerankers=names, computing=FP32, models=())
    )
    try:
        with served(lambda app: list(all_routes(services, app)), OPEN, services.limits) as found:
            yield found
    finally:
        services.close()


def post(address: str, path: str, **body: Any) -> Any:
    status, content = ask(address, "POST", path, body)
    assert status == 200, content
    return content


@pytest.mark.parametrize("query", [QUERY, "", "水", LONG])
@pytest.mark.parametrize("texts", [TEXTS, [], TEXTS * (GROUP_TEXTS // len(TEXTS) + 1)])
def test_the_engine_scores_as_the_model_does(model: MaxSim, query: str, texts: list[str]) -> None:
    with Engine() as engine:
        work = RerankWork(model=model, query=query, texts=texts)
        found, soon = score(engine, work), asyncio.run(score_soon(engine, work))
    wanted = model.score(query, texts)
    for each in (found, soon):
        np.testing.assert_allclose(each.scores, wanted, rtol=0, atol=ROUNDING)
        expected = np.array([text == LONG or query == LONG for text in texts], dtype=bool)
        np.testing.assert_array_equal(each.truncated, expected)
        assert (each.tokens > 0).all()


def test_what_nobody_waits_for_any_more_is_cancelled(model: MaxSim, tmp_path: Path) -> None:
    held = HeldBackend()
    other = Encoder(read_model_folder(write_tiny_model(tmp_path / "dense")), held)

    async def leave(engine: Engine) -> None:
        waiting = asyncio.ensure_future(score_soon(engine, RerankWork(model=model, query=QUERY, texts=TEXTS)))
        while not engine.stats().waiting_requests:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with Engine() as engine:
        with held.held():
            first = engine.embed(EmbedWork(encoder=other, texts=["the dog"], priority="interactive"))
            held.wait_until_computing()
            asyncio.run(asyncio.wait_for(leave(engine), PATIENCE_SECONDS))
            assert not engine.stats().waiting_requests
        first.result(PATIENCE_SECONDS)


def test_a_search_is_reranked_as_the_local_search_is(folder: Path, address: str) -> None:
    wanted = SearchOptions(mode="hybrid", candidates=12)
    with open_search(folder / "docs.index", wanted, FP32, rerank=str(folder / "colbert")) as opened:
        local = judge(opened, QUERY, opened.retriever.search([QUERY], wanted)[0], wanted)
    # The first of the server's rerankers, and by name.
    for named in (True, "colbert"):
        answer = post(address, "/search", query=QUERY, index="docs", rerank=named, candidates=12, all=True)
        assert answer["reranker"] == "colbert"
        assert [hit["id"] for hit in answer["hits"]] == [one.hit.doc_id for one in local]
        for hit, one in zip(answer["hits"], local, strict=True):
            assert hit["scores"]["rerank"] == pytest.approx(one.hit.scores["rerank"], abs=ROUNDING)
            assert hit["strength"] == pytest.approx(one.strength, abs=1e-4)
    pairs = post(address, "/search", query=QUERY, index="docs", rerank="pairs", candidates=12, all=True)
    assert pairs["reranker"] == "pairs"


def test_the_routes_of_others_give_its_scores(address: str, model: MaxSim) -> None:
    own = model.score(QUERY, TEXTS)
    order = list(np.argsort(-own, kind="stable"))
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = post(address, path, query=QUERY, documents=TEXTS, model="colbert")
        assert [row["index"] for row in answer["results"]] == order
        found = [row["relevance_score"] for row in answer["results"]]
        np.testing.assert_allclose(found, own[order], rtol=0, atol=ROUNDING)
    for raw in (False, True):
        ranks = post(address, "/rerank", query=QUERY, texts=TEXTS, raw_scores=raw)
        assert [rank["index"] for rank in ranks] == order
        np.testing.assert_allclose([rank["score"] for rank in ranks], own[order], rtol=0, atol=ROUNDING)


def test_what_is_too_long_is_cut_or_refused(address: str) -> None:
    body = {"query": QUERY, "texts": ["a", LONG]}
    status, content = ask(address, "POST", "/rerank", {**body, "truncate": False})
    assert status == 413
    assert (
        "texts[1] and the query have more tokens than the 20 that colbert reads of a document"
        in content["error"]
    )
    status, content = ask(address, "POST", "/rerank", {**body, "truncation_direction": "Left"})
    assert status == 422
    assert "colbert is a multi-vector model, which reads the beginning of a text" in content["error"]
    short = post(address, "/v2/rerank", query=QUERY, documents=["a girl runs"], max_tokens_per_doc=1)
    assert short["results"][0]["relevance_score"] == pytest.approx(
        post(address, "/v2/rerank", query=QUERY, documents=["a"])["results"][0]["relevance_score"]
    )


def test_maxsim_by_name_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'maxsim' reranks with the encoder of one search"):
        open_services(
            ServeOptions(indexes=[folder / "docs.index"], rerankers=["maxsim"], computing=FP32)
        ).close()
