"""Tiny models behind a real engine, for tests of the routes, and the routes of all APIs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedkit.encoding.encoder import Encoder
from embedkit.model.config import SentenceConfig
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.engine import Engine
from embedkit.serving.http import cohere_api, metrics, ollama_api, openai_api, openapi, tei_api
from embedkit.serving.http.app import App
from embedkit.serving.http.messages import Route
from embedkit.serving.limits import Limits
from embedkit.serving.services import Services
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

PROMPTS = {"query": "the girl ", "document": "the boy ", "topic": "a song "}
LONG = "the old man reads a book at the beach " * 8  # more than the 32 tokens that the models read


@contextmanager
def tiny_services(
    folder: Path, *, limits: Limits | None = None, aliases: Mapping[str, str] | None = None
) -> Iterator[Services]:
    """Serve two encoders, "tiny" with prompts and "raw" that does not normalize, and the reranker "ranker"."""
    limits = limits or Limits(inputs=50)
    engine = Engine(limits)
    try:
        yield Services(
            engine=engine,
            limits=limits,
            encoders={
                "tiny": Encoder.load(write_tiny_model(folder / "tiny", prompts=PROMPTS)),
                "org/raw": Encoder.load(
                    write_tiny_model(folder / "raw", seed=1, sentence=SentenceConfig(normalize=False))
                ),
            },
            rerankers={"ranker": CrossEncoder.load(write_tiny_cross_encoder(folder / "ranker"))},
            aliases=aliases or {"text-embedding-3-small": "tiny"},
        )
    finally:
        engine.close()


def api_routes(services: Services, app: App) -> list[Route]:
    """Return the routes of all APIs that other clients speak, and those around them."""
    return [
        *openai_api.routes(services),
        *cohere_api.routes(services),
        *tei_api.routes(services),
        *ollama_api.routes(services),
        *metrics.routes(services, app),
        *openapi.routes(lambda: app.routes),
    ]
