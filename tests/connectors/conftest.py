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
from tests.connectors.servers import Postgres, postgres

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


KINDS = [
    "memory",
    pytest.param("pgvector", marks=pytest.mark.stores),
    pytest.param("lancedb", marks=pytest.mark.stores),
]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "memory":
        server = MemoryServer()
        return Target("memory", lambda: MemoryStore(server))
    if request.param == "pgvector":
        started: Postgres = request.getfixturevalue("postgres_server")
        url = started.url(f"table_{next(_tables)}")
    else:
        pytest.importorskip("lancedb", reason="needs: pip install 'embedkit[lancedb]'")
        url = f"lance://{tmp_path / 'lance'}?table=docs"
    return Target(request.param, lambda: open_store(url), url)
