"""PostgreSQL with the extension pgvector, through psycopg 3."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from embedkit.errors import StoreError

CONNECT_SECONDS = 10
Values = Sequence[Any]  # Any: what psycopg turns into SQL's values
Rows = list[tuple[Any, ...]]  # Any: as above
_ADVICE = {
    "28": "Check user and password in the URL, or in PGUSER and PGPASSWORD",
    "3D": "Make the database with: createdb NAME",
    "42501": "Ask for the right, or connect as the table's owner",
    "53100": "Free space on the server's disk; the same command goes on",
    "57": "Start it again; the same command goes on",
    "08": "Start it again; the same command goes on",
    "22P05": "Remove the character from the documents",
    "0A000": "Install pgvector on the server: https://github.com/pgvector/pgvector",
    "58P01": "Install pgvector on the server: https://github.com/pgvector/pgvector",
    "54000": "Give the documents shorter ids: PostgreSQL's keys hold 2,700 bytes",
}


class PgValue(bytes):
    """A vector as pgvector's binary protocol has it."""


class HalfValue(PgValue):
    """One of float16."""


class _AsItIs(Dumper):  # type: ignore[misc] # psycopg is not typed here, where it may be missing
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return bytes(obj)


def to_values(vectors: npt.NDArray[np.float32], *, half: bool) -> list[PgValue]:
    """Return (N, E) vectors as values: the number of dimensions, two bytes of nothing, the numbers, all big-endian."""
    head = len(vectors[0]).to_bytes(2, "big") + b"\0\0" if len(vectors) else b""
    kind = HalfValue if half else PgValue
    return [kind(head + vector.tobytes()) for vector in vectors.astype(">f2" if half else ">f4")]


def from_values(values: Sequence[bytes], dimension: int, *, half: bool) -> npt.NDArray[np.float32]:
    """Return what `to_values` took: (N, E) float32."""
    numbers = [np.frombuffer(value, ">f2" if half else ">f4", offset=4) for value in values]
    return np.stack(numbers).astype(np.float32) if numbers else np.empty((0, dimension), np.float32)


class Connection:
    """A connection whose errors are a `StoreError` that names the place; every statement is committed unless within `transaction`."""

    def __init__(self, address: str, place: str) -> None:
        """Connect.

        Raises:
            StoreError: the server is not there, or refuses.
        """
        self.place = place
        name = f"embedkit, process {os.getpid()} on {socket.gethostname()}"[:63]
        with self._errors("cannot connect"):
            self._connection = psycopg.connect(
                address, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name=name
            )
        self.notices: list[str] = []  # what the server remarks on, which is no error
        self._connection.add_notice_handler(lambda notice: self.notices.append(notice.message_primary or ""))

    def close(self) -> None:
        self._connection.close()

    def know_vectors(self) -> bool:
        """Learn the types of pgvector; False where the database does not have them."""
        with self._errors():
            for name, value in (("vector", PgValue), ("halfvec", HalfValue)):
                info = TypeInfo.fetch(self._connection, name)
                if info is None:
                    return False
                info.register(self._connection)
                dumper = type("VectorDumper", (_AsItIs,), {"oid": info.oid})
                self._connection.adapters.register_dumper(value, dumper)
        return True

    def execute(self, statement: str, values: Values = ()) -> Rows:
        """Run a statement and return its rows."""
        with self._errors(), self._connection.cursor(binary=True) as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def stream(self, statement: str, batch: int, values: Values = ()) -> Iterator[Rows]:
        """Yield the rows of a query in batches, of one moment."""
        with self._errors(), self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            with self._connection.cursor("embedkit", binary=True) as cursor:
                cursor.execute(statement, values or None)
                while rows := cursor.fetchmany(batch):
                    yield rows

    def copy(self, table: str, types: Sequence[str], rows: Iterable[Values]) -> None:
        """Copy rows into a table."""
        statement = f"COPY {table} FROM STDIN (FORMAT BINARY)"
        with self._errors(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(list(types))
            for row in rows:
                copy.write_row(row)

    def unlock(self, statement: str, values: Values) -> None:
        """Give a lock back; a connection that is lost has none any more."""
        if not self._connection.closed:
            self.execute(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done within, or nothing of it."""
        with self._errors(), self._connection.transaction():
            yield

    @contextmanager
    def _errors(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            lines = [line.strip() for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
            message = lines[0].rsplit("FATAL:", 1)[-1].strip()
            advice = next((_ADVICE[key] for key in (state, state[:2]) if key in _ADVICE), "")
            if not advice and isinstance(exc, psycopg.OperationalError):
                advice = _refused(message) if what else _ADVICE["08"]
            said = f"PostgreSQL says: {message}"
            raise StoreError(
                f"{self.place}: {what + ': ' if what else ''}{said}. {advice}".rstrip(" .")
            ) from exc


def _refused(message: str) -> str:
    """Say what to do where there is no connection: then an error has its words alone, and no code."""
    if "password" in message or "authentication" in message:
        return _ADVICE["28"]
    if "database" in message and "does not exist" in message:
        return _ADVICE["3D"]
    return "Check that the server runs and can be reached"
