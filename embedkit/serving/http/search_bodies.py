"""What our own routes take, and what they give, as JSON has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranking import parse_budget
from embedkit.serving.http.messages import HttpRequest, RefusedError
from embedkit.serving.indexes.searching import NamedHit

MOST_HITS = 10_000  # k, and candidates
TAG = "search"


def error_body(status: int, message: str) -> Mapping[str, Any]:  # Any: JSON
    """Return an error as our own routes have it."""
    return {"error": {"message": message, "status": status}}


@dataclass(frozen=True, kw_only=True)
class SearchBody:
    """A query. `index` names one index or several; without it all are searched.

    `mode`: by meaning (dense), by words (text), or both (hybrid). `where` is a filter on metadata. `rerank` true takes the first
    reranker, and a name that one; `rerank_budget` such as "200ms" reranks as deep as fits. `group` gives one hit a document.
    `all` also lists hits that are no nearer to the query than unrelated texts.
    """

    query: str
    index: str | list[str] | None = None
    k: int = 10
    mode: Literal["hybrid", "dense", "text"] = "hybrid"
    where: str | None = None
    candidates: int = 100
    dense_weight: float = 1.0
    text_weight: float = 1.0
    fusion: Literal["scores", "ranks"] = "scores"
    group: bool = True
    rerank: bool | str = False
    rerank_weight: float | None = None
    rerank_budget: str | None = None
    min_score: float | None = None
    all: bool = False

    @property
    def options(self) -> SearchOptions:
        """The options of the search.

        Raises:
            RefusedError: 400, one is out of range.
        """
        for name in ("k", "candidates"):
            if getattr(self, name) > MOST_HITS:
                raise RefusedError(
                    400, f"{name} is {getattr(self, name):,}; it must be {MOST_HITS:,} at most"
                )
        try:
            return SearchOptions(
                k=self.k,
                mode=self.mode,
                where=self.where,
                candidates=self.candidates,
                dense_weight=self.dense_weight,
                text_weight=self.text_weight,
                fusion=self.fusion,
                rerank_weight=self.rerank_weight,
                group=self.group,
                min_score=self.min_score,
                rerank_budget_seconds=None
                if self.rerank_budget is None
                else parse_budget(self.rerank_budget),
            )
        except ValueError as exc:
            raise RefusedError(400, str(exc)) from exc


@dataclass(frozen=True, kw_only=True)
class NewDocument:
    """A document to be added; it takes the place of the one that has its id."""

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] | None = None  # Any: whatever JSON holds


@dataclass(frozen=True, kw_only=True)
class DocumentsBody:
    """Documents to be added to an index; `index` may be left out where there is one."""

    documents: list[NewDocument]
    index: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainBody:
    """A query, and either a passage of a document of an index, or a text."""

    query: str
    index: str | None = None
    id: str | None = None
    passage: int | None = None
    text: str | None = None


def _flag(value: str) -> bool:
    if value.lower() in ("true", "1", "yes", "on", ""):
        return True
    if value.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("it must be true or false")


def _flag_or_name(value: str) -> bool | str:
    try:
        return _flag(value)
    except ValueError:
        return value


_READERS: Mapping[str, Callable[[str], Any]] = {  # Any: the kind of the field
    "k": int,
    "candidates": int,
    "dense_weight": float,
    "text_weight": float,
    "rerank_weight": float,
    "min_score": float,
    "group": _flag,
    "all": _flag,
    "rerank": _flag_or_name,
}


def body_of_link(request: HttpRequest) -> dict[str, Any]:  # Any: JSON
    """Return the body that what stands behind the question mark of a link means: `q` is the query, `index` may come several times.

    Raises:
        RefusedError: 400, a name is unknown or comes twice, or a value is of the wrong kind.
    """
    known = [each.name for each in fields(SearchBody)]
    body: dict[str, Any] = {}
    indexes: list[str] = []
    for name, value in request.query_pairs:
        field = "query" if name == "q" else name
        if field == "index":
            indexes.append(value)
            continue
        if field not in known:
            raise RefusedError(400, f"there is no {name!r} in a search; there are q, {', '.join(known[1:])}")
        if field in body:
            raise RefusedError(400, f"{name!r} comes twice; only index may. Leave one out")
        try:
            body[field] = _READERS.get(field, str)(value)
        except ValueError as exc:
            raise RefusedError(400, f"{name} is {value!r}: {exc}") from exc
    if "query" not in body:
        raise RefusedError(400, "q is missing: what is to be searched. Write it as /search?q=WORDS")
    return body | ({"index": indexes} if indexes else {})


def one_value(request: HttpRequest, known: Sequence[str]) -> Mapping[str, str]:
    """Return what stands behind the question mark, each name once.

    Raises:
        RefusedError: 400, a name is unknown.
    """
    for name in request.query:
        if name not in known:
            raise RefusedError(400, f"there is no {name!r} here; there are {', '.join(known)}")
    return request.query


def hit_json(found: NamedHit, rank: int, snippet: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    hit = found.judged.hit
    return {
        "rank": rank,
        "index": found.index,
        **hit.as_dict(),
        "strength": found.judged.strength,
        "weak": found.judged.weak,
        "snippet": snippet,
    }
