"""The stores that the suite runs against: one in memory always, the others with the marker `stores`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.store import Store
from tests.connectors.memory import MemoryServer, MemoryStore
from tests.connectors.servers import Postgres, chroma, postgres, s3

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


@pytest.fixture(scope="session")
def s3_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an empty bucket; yields its address."""
    with s3(tmp_path_factory.mktemp("s3")) as address:
        urlopen(Request(f"{address}/bucket", method="PUT"), timeout=30).close()
        yield address


def use_endpoint(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Say in the environment where the objects are, and with which keys."""
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


KINDS = [
    "memory",
    pytest.param("pgvector", marks=pytest.mark.stores),
    pytest.param("lancedb", marks=pytest.mark.stores),
    pytest.param("lancedb-s3", marks=pytest.mark.stores),
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
    if kind == "lancedb-s3":
        pytest.importorskip("lancedb", reason="needs: pip install 'embedkit[lancedb]'")
        address = request.getfixturevalue("s3_bucket")
        use_endpoint(request.getfixturevalue("monkeypatch"), address)
        return f"s3://bucket/some/folder_{next(_tables)}?table=docs"
    package, scheme, noun = _FOLDERS[kind]
    pytest.importorskip(package, reason=f"needs: pip install 'embedkit[{scheme}]'")
    return f"{scheme}://{tmp_path / 'store.db'}?{noun}=docs"


_FOLDERS = {
    "lancedb": ("lancedb", "lance", "table"),
    "qdrant": ("qdrant_client", "qdrant", "collection"),
    "chroma-folder": ("chromadb", "chroma", "collection"),
    "milvus": ("milvus_lite", "milvus", "collection"),
}
