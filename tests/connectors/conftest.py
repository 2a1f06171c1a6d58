"""The stores that the suite runs against: one in memory always, the others with the marker `stores`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.store import Store
from tests.connectors.memory import MemoryServer, MemoryStore
from tests.connectors.servers import Postgres, chroma, postgres

_tables = itertools.count()


@dataclass
class Target:
    """A table that is not there yet, and how to open it, again and again."""

    kind: str
    open: Callable[[], Store]
    url: str = ""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with chroma(tmp_path_factory.mktemp("chroma")) as port:
        yield port


KINDS = [
    "memory",
    pytest.param("pgvector", marks=pytest.mark.stores),
    pytest.param("lancedb", marks=pytest.mark.stores),
    pytest.param("qdrant", marks=pytest.mark.stores),
    pytest.param("chroma", marks=pytest.mark.stores),
    pytest.param("chroma-folder", marks=pytest.mark.stores),
    pytest.param("milvus", marks=pytest.mark.stores),
]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "memory":
        server = MemoryServer()
        return Target("memory", lambda: MemoryStore(server))
    url = _url(request, tmp_path)
    return Target(request.param, lambda: open_store(url), url)


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind = request.param
    if kind == "pgvector":
        started: Postgres = request.getfixturevalue("postgres_server")
        return started.url(f"table_{next(_tables)}")
    if kind == "chroma":
        return f"chroma://127.0.0.1:{request.getfixturevalue('chroma_port')}?collection=table_{next(_tables)}"
    package, scheme, noun = _FOLDERS[kind]
    pytest.importorskip(package, reason=f"needs: pip install 'embedkit[{scheme}]'")
    return f"{scheme}://{tmp_path / 'store.db'}?{noun}=docs"


_FOLDERS = {
    "lancedb": ("lancedb", "lance", "table"),
    "qdrant": ("qdrant_client", "qdrant", "collection"),
    "chroma-folder": ("chromadb", "chroma", "collection"),
    "milvus": ("milvus_lite", "milvus", "collection"),
}
