"""Where a store is: `postgresql://user@host/database?table=docs`, `lance://folder?table=docs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from embedkit.errors import StoreError

KINDS = {"postgresql": "pgvector", "postgres": "pgvector", "lance": "lancedb"}
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")  # with what is put behind it, a name of PostgreSQL's
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
FORMS = "postgresql://USER@HOST/DATABASE?table=NAME, lance://FOLDER?table=NAME"


@dataclass(frozen=True)
class StoreUrl:
    """The parts of a store's URL; `options` are ours, `rest` the query that goes to the store."""

    kind: str
    parts: SplitResult = field(repr=False)
    table: str
    options: Mapping[str, str]
    rest: Mapping[str, str] = field(repr=False)

    @property
    def place(self) -> str:
        """The URL as messages show it: without its password."""
        user = self.parts.username
        host = self.parts.netloc.rpartition("@")[2]
        return f"{self.parts.scheme}://{'' if user is None else user + '@'}{host}{self.parts.path}?table={self.table}"

    @property
    def folder(self) -> str:
        """The path in a URL without a host."""
        return unquote(self.parts.netloc + self.parts.path)

    @property
    def address(self) -> str:
        """The URL as the store's own client takes it."""
        query = urlencode(self.rest, quote_via=quote)
        return self.parts._replace(query=query).geturl()


def is_store_url(word: str) -> bool:
    """Say whether a word is a URL, of whatever kind; `read_url` says which are known."""
    return _SCHEME.match(word) is not None


def read_url(url: str) -> StoreUrl:
    """Read a store's URL.

    Raises:
        StoreError: it is of no kind that we know, names no table, or cannot be read.
    """
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1] not in KINDS:
        what = f"{scheme[1]}:// is" if scheme else "this is"
        raise StoreError(f"{_hidden(url)}: {what} no store that is known here. Known are: {FORMS}")
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        _ = parts.port
    except ValueError as exc:
        raise StoreError(f"{_hidden(url)}: cannot be read ({exc}). Write it like: {FORMS}") from exc
    table = query.pop("table", "")
    if not _TABLE.fullmatch(table):
        got = f"the table's name is {table!r}" if table else "the URL names no table"
        raise StoreError(
            f"{_hidden(url)}: {got}; wanted are letters, digits and _, 40 at most, no digit first. Write it like: {FORMS}"
        )
    ours = {name: query.pop(name) for name in ("language",) if name in query}
    return StoreUrl(KINDS[scheme[1]], parts, table, ours, query)


def _hidden(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", url)
