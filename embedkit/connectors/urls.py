"""Where a store is: `postgresql://user@host/database?table=docs`, `lance://folder?table=docs`, `s3://bucket/folder?table=docs` …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from embedkit.errors import StoreError

KINDS = {
    "postgresql": "pgvector",
    "postgres": "pgvector",
    "lance": "lancedb",
    "s3": "lancedb",
    "qdrant": "qdrant",
    "qdrant+https": "qdrant",
    "chroma": "chroma",
    "chroma+https": "chroma",
    "milvus": "milvus",
    "milvus+https": "milvus",
}
# Ours in the query.
_OPTIONS = {
    "pgvector": ("language",),
    "qdrant": ("quantization",),
    "chroma": ("tenant", "database"),
    "milvus": ("database",),
}
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")  # with what is put behind it, a name of PostgreSQL's
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
FORMS = (
    "postgresql://USER@HOST/DATABASE?table=NAME, lance://FOLDER?table=NAME, s3://BUCKET/FOLDER?table=NAME, qdrant://HOST:PORT?collection=NAME, "
    "chroma://HOST:PORT?collection=NAME, milvus://HOST:PORT?collection=NAME; without a server qdrant:///FOLDER, "
    "chroma:///FOLDER, milvus:///FILE.db"
)


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
        account = f"{user}@" if user else ""
        return f"{self.parts.scheme}://{account}{host}{self.parts.path}?{noun_of(self.kind)}={self.table}"

    @property
    def folder(self) -> str:
        """The path in a URL without a host; of a bucket with `s3://` before it."""
        path = unquote(self.parts.netloc + self.parts.path)
        return f"s3://{path.rstrip('/')}" if self.parts.scheme == "s3" else path

    @property
    def address(self) -> str:
        """The URL as the store's own client takes it."""
        query = urlencode(self.rest, quote_via=quote)
        return self.parts._replace(query=query).geturl()


def is_store_url(word: str) -> bool:
    """Say whether a word is a URL, of whatever kind; `read_url` says which are known."""
    return _SCHEME.match(word) is not None


def noun_of(kind: str) -> str:
    """Return what a store of a kind calls what it holds."""
    return "table" if kind in ("pgvector", "lancedb") else "collection"


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
    if parts.scheme == "s3" and (not parts.netloc or "@" in parts.netloc):
        got = "holds a user or a key; those come from the environment" if parts.netloc else "names no bucket"
        raise StoreError(f"{_hidden(url)}: the URL {got}. Write it like: s3://BUCKET/FOLDER?table=NAME")
    kind = KINDS[scheme[1]]
    noun = noun_of(kind)
    table = query.pop(noun, "")
    if not _TABLE.fullmatch(table):
        got = f"the {noun}'s name is {table!r}" if table else f"the URL names no {noun}"
        raise StoreError(
            f"{_hidden(url)}: {got}; wanted are letters, digits and _, 40 at most, no digit first. Write it like: {FORMS}"
        )
    known = _OPTIONS.get(kind, ())
    ours = {name: query.pop(name) for name in known if name in query}
    if query and kind != "pgvector":  # whose client knows more
        unknown, others = next(iter(query)), ", ".join((noun, *known))
        raise StoreError(f"{_hidden(url)}: unknown parameter {unknown!r}; known here: {others}. Leave it out")
    return StoreUrl(kind, parts, table, ours, query)


def _hidden(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", url)
