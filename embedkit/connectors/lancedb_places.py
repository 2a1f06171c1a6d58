"""Where LanceDB's tables lie, and what lies beside them: a lock and a note in a folder; in a bucket, where nothing locks, tables for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedkit.connectors.locks import Lease, file_lock

if TYPE_CHECKING:
    from embedkit.extras.lancedb import LanceFolder

_GRAPH = "hnsw"  # the note that says what a graph was made with, which LanceDB does not
_BEAT_SECONDS = 5.0  # between signs of life in a bucket, each of which is a few requests


class LancePlace(Protocol):
    """What a table needs beside it."""

    @contextmanager
    def writing(self) -> Iterator[Callable[[], None]]:
        """Keep other pushes out; yields what raises a StoreError where one has come in all the same."""
        ...

    def read_graph(self) -> str:
        """Return what the graph was made with; "" where nobody knows."""
        ...

    def write_graph(self, text: str) -> None: ...

    def num_bytes(self) -> int | None: ...


class InFolder:
    """See `LancePlace`."""

    def __init__(self, folder: Path, table: str, place: str) -> None:
        self._folder, self._table, self._place = folder, table, place

    @contextmanager
    def writing(self) -> Iterator[Callable[[], None]]:
        with file_lock(self._folder / f"{self._table}.embedkit-lock", self._place):
            yield lambda: None

    @property
    def _graph(self) -> Path:
        return (self._folder / f"{self._table}.embedkit-{_GRAPH}").resolve()

    def read_graph(self) -> str:
        return self._graph.read_text(encoding="utf-8") if self._graph.exists() else ""

    def write_graph(self, text: str) -> None:
        self._graph.write_text(text, encoding="utf-8")

    def num_bytes(self) -> int:
        files = (self._folder / f"{self._table}.lance").rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())


class InBucket:
    """See `LancePlace`; each note is a table (`embedkit.connectors.locks.Notes`)."""

    def __init__(self, database: LanceFolder, table: str, place: str) -> None:
        self._database, self._table, self._place = database, table, place

    @contextmanager
    def writing(self) -> Iterator[Callable[[], None]]:
        with Lease(self, self._place, beat_seconds=_BEAT_SECONDS).held() as check:
            yield check

    def _of(self, name: str) -> str:
        return f"{self._table}_embedkit_{name}"

    def read_note(self, name: str) -> str | None:
        return self._database.read_text(self._of(name))

    def write_note(self, name: str, text: str) -> None:
        self._database.write_text(self._of(name), text)

    def remove_note(self, name: str) -> None:
        self._database.drop(self._of(name))

    def read_graph(self) -> str:
        return self.read_note(_GRAPH) or ""

    def write_graph(self, text: str) -> None:
        self.write_note(_GRAPH, text)

    def num_bytes(self) -> None:
        return None
