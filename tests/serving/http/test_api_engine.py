from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedkit.serving.engine.engine import Embedded, EmbedWork, Engine
from embedkit.serving.http.api_engine import ApiEngine, Manners, TextsToEmbed, best_first, priority
from embedkit.serving.http.messages import HttpRequest
from tests.serving.tiny_services import tiny_services

REQUEST = HttpRequest(method="POST", path="/embed")


def test_few_short_texts_are_interactive() -> None:
    assert priority(["a"] * 16) == "interactive"
    assert priority(["a"] * 17) == "bulk"
    assert priority(["a" * 2**15]) == "interactive"
    assert priority(["a" * 2**15, "b"]) == "bulk"


def test_the_best_come_first_and_equal_ones_in_order() -> None:
    scores = np.array([0.5, 2.0, 0.5, 3.0], dtype=np.float32)
    assert best_first(scores) == [3, 1, 0, 2]
    assert best_first(scores, 3) == [3, 1, 0]
    assert best_first(scores, 9) == [3, 1, 0, 2]


class Waiting(Engine):
    """An engine that never comes to it."""

    asked: Future[Embedded] | None = None

    def embed(self, work: EmbedWork) -> Future[Embedded]:
        self.asked = Future()
        return self.asked


def test_a_request_that_is_cancelled_is_cancelled_in_the_engine(tmp_path: Path) -> None:
    with tiny_services(tmp_path) as services:
        waiting = Waiting(services.limits)
        api = ApiEngine(replace(services, engine=waiting), Manners(cut_by="…"))

        async def ask() -> None:
            asking = asyncio.ensure_future(api.embed(REQUEST, TextsToEmbed(texts=["a"], field="inputs")))
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.sleep(0.01)

        try:
            asyncio.run(ask())
            assert waiting.asked is not None
            assert waiting.asked.cancelled()
        finally:
            waiting.close()


def test_models_that_cut_at_the_start_are_made_once(tmp_path: Path) -> None:
    with tiny_services(tmp_path) as services:
        api = ApiEngine(services, Manners(cut_by="…"))
        wanted = TextsToEmbed(texts=["a"], field="inputs", cut_left=True)

        async def twice() -> None:
            await api.embed(REQUEST, wanted)
            await api.embed(REQUEST, replace(wanted, model="text-embedding-3-small"))

        asyncio.run(twice())
        assert list(api._left) == ["tiny"]
        assert api._left["tiny"].backend is services.encoders["tiny"].backend
