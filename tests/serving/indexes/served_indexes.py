"""Small indexes, made as the command line makes them, and a server of them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedkit.encoding.encoder import Encoder
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.engine import Engine
from embedkit.serving.http.access import Access
from embedkit.serving.http.search_api import routes
from embedkit.serving.indexes.live import open_indexes
from embedkit.serving.indexes.models import IndexModels
from embedkit.serving.indexes.names import index_names
from embedkit.serving.limits import Limits
from embedkit.serving.services import Services
from embedkit.types import Computing
from tests.cli.index.test_index import invoke
from tests.serving.running import OPEN, served

WORDS = ("guitar", "dog", "horse", "piano", "beach", "boy", "girl", "song", "water", "ball", "cat", "hair")
Row = Mapping[str, Any]  # Any: JSON


def numbered(count: int, *, tag: str = "old") -> list[Row]:
    """Rows that differ in their words; `tag` is in the metadata of each and in its text."""
    return [
        {
            "id": f"{tag}/{number}",
            "title": f"{WORDS[number % 12]} {number}",
            "text": f"the {WORDS[number % 7]} and a {WORDS[number % 5]} at the {WORDS[number % 11]}. {tag}",
            "tag": tag,
            "number": number,
        }
        for number in range(count)
    ]


def build(folder: Path, rows: Sequence[Row], model: Path, *more: object) -> Path:
    """Build an index of rows, or add them to the one that is there."""
    corpus = folder.with_name(folder.name + ".jsonl")
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    invoke("index", "build", corpus, "--index", folder, "--model", model, *more)
    return folder


@contextmanager
def serving(
    *paths: Path,
    rerankers: Mapping[str, CrossEncoder] | None = None,
    writable: bool = False,
    allow_regex: bool = False,
    access: Access = OPEN,
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve indexes; yields the address."""
    models = IndexModels(computing=Computing(precision="fp32"))
    indexes = open_indexes(index_names(paths), models, allow_regex=allow_regex)
    limits = limits or Limits()
    encoders = {
        each.encoder.folder.name: each.encoder
        for each in indexes.values()
        if isinstance(each.encoder, Encoder)
    }
    with closing(Engine(limits)) as engine:
        services = Services(
            engine=engine,
            limits=limits,
            encoders=encoders,
            rerankers=rerankers or {},
            indexes=indexes,
            writable=writable,
        )
        try:
            with served(routes(services), access, limits) as address:
                yield address
        finally:
            for index in indexes.values():
                index.close()


class Caller:
    """One connection to a server."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()


def ask(address: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    with closing(Caller(address)) as caller:
        return caller(method, path, body, **headers)
