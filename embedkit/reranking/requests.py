"""What there is to rerank: lines of JSON with a query and its candidates, or a TREC run with its texts."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embedkit.data.formats import read_lines
from embedkit.data.qrels import name_some, ranking
from embedkit.data.queries import read_distinct_queries
from embedkit.data.reading import read_documents
from embedkit.data.records import ReadOptions, titled_text
from embedkit.data.trec import read_run
from embedkit.errors import EvaluationError, RecordError
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.reranking import blend, checked, score_within
from embedkit.types import Float32

Json = Mapping[str, Any]  # Any: whatever JSON holds
# The names that people, search engines and the services that rerank give the texts of a query.
CANDIDATE_KEYS = ("candidates", "hits", "documents", "texts", "passages")


@dataclass(frozen=True)
class Request:
    """A query with its candidates, best first. `row` is what it was made of; `key` is where the candidates stand in it."""

    query: str
    texts: Sequence[str]
    row: Json
    candidates: Sequence[Json]
    key: str = "candidates"


@dataclass(frozen=True)
class Answer:
    """A request with the scores of its first D candidates: (D,) float32.

    With a `weight` below 1 their order is that of both stages' scores together (`blend`), where all D had a `score` before.
    """

    request: Request
    scores: Float32
    weight: float = 1.0

    @cached_property
    def first_scores(self) -> list[float] | None:
        """What the scored candidates had from the first stage; None where one of them had nothing."""
        given = [row.get("score") for row in self.request.candidates[: len(self.scores)]]
        numbers = [float(score) for score in given if isinstance(score, int | float) and math.isfinite(score)]
        return numbers if len(numbers) == len(given) else None

    @property
    def blended(self) -> bool:
        """Whether the first stage has a say in the order."""
        return self.weight < 1 and self.first_scores is not None

    @property
    def final_scores(self) -> npt.NDArray[np.float64]:
        """What the scored candidates are ordered by: (D,)."""
        first = self.first_scores if self.weight < 1 else None
        return self.scores.astype(np.float64) if first is None else blend(first, self.scores, self.weight)

    def row(self, top_k: int | None = None) -> dict[str, Any]:
        """Return the request's row with its candidates in their new order, each with its `rerank_score`.

        Where the first stage had a say each has its `final_score` too. Candidates beyond the depth follow in their old order; their `rerank_score` is null.
        """
        given = self.request.candidates
        final = self.final_scores
        places = [*np.argsort(-final, kind="stable").tolist(), *range(len(final), len(given))]
        unscored = [None] * (len(given) - len(final))
        columns: dict[str, list[float | None]] = {"rerank_score": [*self.scores.tolist(), *unscored]}
        if self.blended:
            columns["final_score"] = [*final.tolist(), *unscored]
        listed = [dict(given[i]) | {name: values[i] for name, values in columns.items()} for i in places]
        return dict(self.request.row) | {self.request.key: listed[:top_k]}

    def run_scores(self) -> dict[str, float]:
        """Return what the answer is as part of a run: id -> score, falling in the new order.

        Candidates beyond the depth get scores of 1, 2, 3 … below the lowest.
        """
        scores: dict[str, float] = {}
        lowest, beyond = 0.0, 0
        name = "final_score" if self.blended else "rerank_score"
        for row in self.row()[self.request.key]:
            if row[name] is None:
                beyond += 1
                scores[row["id"]] = lowest - beyond
            else:
                scores[row["id"]] = lowest = row[name]
        return scores


def read_requests(stream: BinaryIO, source: str) -> Iterator[Request]:
    """Read lines such as {"query": "…", "candidates": [{"id": "…", "text": "…", "score": 0.7}, …]}.

    A candidate may have a `title` and any other keys, or be a text alone; no candidates are a request too. The list may also be
    called "hits", "documents", "texts" or "passages". Lines of hits, each
    with its `query`, as `embedkit search --queries` prints them, make a request of those that follow one another.

    Raises:
        RecordError: a line is not JSON, or lacks its query or the text of a candidate; the message names the line.
    """
    hits: list[Json] = []
    first_hit = source
    for number, line in read_lines(stream, source, ReadOptions.max_line_bytes):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        row = _parsed(line, where)
        if hits and not (_is_hit(row) and _query_of(row) == _query_of(hits[0])):
            yield _of_hits(hits, first_hit)
            hits = []
        if _is_hit(row):
            _check_hit(row, where)
            first_hit = first_hit if hits else where
            hits.append(row)
        else:
            yield _request(row, where)
    if hits:
        yield _of_hits(hits, first_hit)


def _parsed(line: str, where: str) -> Any:  # Any: whatever JSON holds
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise RecordError(f"{where}: not JSON ({exc}). Each line must be one JSON object") from exc


def _is_hit(row: Any) -> bool:  # Any: whatever JSON holds
    """Tell a hit of a search, which has a text of its own, from a query with its candidates."""
    return (
        isinstance(row, dict)
        and "text" in row
        and ("query" in row or "query_id" in row)
        and not any(key in row for key in CANDIDATE_KEYS)
    )


def _query_of(row: Json) -> tuple[Any, Any]:  # Any: whatever JSON holds
    return row.get("query_id"), row.get("query")


def _check_hit(row: Json, where: str) -> None:
    if not isinstance(row.get("query"), str):
        raise RecordError(
            f"{where}: a hit of query {row.get('query_id')!r} without the query's text; keys here: {', '.join(row)}. "
            "Add it as 'query', or rerank a TREC run with --run, --queries and --documents"
        )


def _of_hits(hits: Sequence[Json], where: str) -> Request:
    asked = {name: hits[0][name] for name in ("query_id", "query") if name in hits[0]}
    candidates = [{key: value for key, value in hit.items() if key not in asked} for hit in hits]
    return _request(asked | {CANDIDATE_KEYS[0]: candidates}, where)


def _request(row: Any, where: str) -> Request:  # Any: whatever JSON holds
    keys = ", ".join(row) if isinstance(row, dict) else "none"
    query = row.get("query") if isinstance(row, dict) else None
    key = next((key for key in CANDIDATE_KEYS if isinstance(row, dict) and key in row), None)
    if not isinstance(query, str) or key is None or not isinstance(row[key], list):
        raise RecordError(
            f"{where}: wanted a string 'query' and a list {' or '.join(map(repr, CANDIDATE_KEYS))}; keys here: {keys}. "
            'Write {"query": "…", "candidates": [{"id": "…", "text": "…"}]}'
        )
    candidates = [{"text": given} if isinstance(given, str) else given for given in row[key]]
    texts = []
    for i, candidate in enumerate(candidates):
        text = candidate.get("text") if isinstance(candidate, dict) else None
        title = candidate.get("title") or "" if isinstance(candidate, dict) else ""
        if not isinstance(text, str) or not isinstance(title, str):
            raise RecordError(
                f"{where}: {key}[{i}] has no string 'text'; a candidate is a string, or an object with 'text' "
                "and perhaps 'title'. Complete it"
            )
        texts.append(titled_text(title, text))
    return Request(query, texts, row, candidates, key)


def requests_of_run(run_path: str | Path, queries: Sequence[str], documents: Sequence[str]) -> list[Request]:
    """Make a request of each query of a TREC run, with the texts that it needs of a collection.

    Queries stand in the order of the run, candidates by their scores. The collection is read once; only the texts
    that the run names are kept.

    Raises:
        RecordError: a file cannot be read, or an id occurs twice in the texts.
        EvaluationError: a query or a document of the run has no text; nothing is left out.
    """
    run = read_run(run_path)
    query_texts = {query.query_id: query.text for query in read_distinct_queries(queries)}
    wanted = {doc_id for scores in run.values() for doc_id in scores}
    texts: dict[str, str] = {}
    for document in read_documents(documents):
        if document.doc_id in wanted:
            if document.doc_id in texts:
                raise RecordError(
                    f"{document.where}: the document id {document.doc_id!r} occurs twice. Rename or remove one"
                )
            texts[document.doc_id] = titled_text(document.title, document.text)
    for what, missing, total, option in (
        ("queries", [query_id for query_id in run if query_id not in query_texts], len(run), "--queries"),
        ("documents", sorted(wanted - texts.keys()), len(wanted), "--documents"),
    ):
        if missing:
            raise EvaluationError(
                f"{run_path}: {len(missing)} of its {total} {what} have no text: {name_some(missing)}. "
                f"Give {option} the files that the run was made on"
            )
    requests = []
    for query_id, scores in run.items():
        order = ranking(scores)
        candidates = [{"id": doc_id, "score": scores[doc_id]} for doc_id in order]
        row = {"query_id": query_id, "query": query_texts[query_id]}
        requests.append(Request(query_texts[query_id], [texts[doc_id] for doc_id in order], row, candidates))
    return requests


def answer(
    reranker: Reranker,
    requests: Iterable[Request],
    *,
    candidates: int | None = None,
    budget_seconds: float | None = None,
    weight: float | None = None,
) -> Iterator[Answer]:
    """Score the first `candidates` texts of each request, or as many as the budget allows; answers in order.

    `weight` is the part of the reranker's score in the order; None: the reranker's own.
    Without a budget the reranker gets the whole stream, and may compute pairs of several requests together.
    """
    weight = reranker.weight if weight is None else weight
    if budget_seconds is None:
        yield from _answer_together(reranker, requests, candidates, weight)
        return
    for request in requests:
        texts = request.texts[:candidates]
        scores = score_within(reranker, request.query, texts, budget_seconds=budget_seconds)
        yield Answer(request, scores, weight)


def _answer_together(
    reranker: Reranker, requests: Iterable[Request], candidates: int | None, weight: float
) -> Iterator[Answer]:
    waiting: deque[Request] = deque()

    def groups() -> Iterator[tuple[str, Sequence[str]]]:
        for request in requests:
            waiting.append(request)
            yield request.query, request.texts[:candidates]

    for scores in reranker.score_groups(groups()):
        request = waiting.popleft()
        yield Answer(request, checked(scores, len(request.texts[:candidates])), weight)


def trec_lines(reply: Answer, *, top_k: int | None = None, tag: str = "embedkit") -> str:
    """Write an answer to a run's query as lines of a TREC run."""
    query_id = reply.request.row["query_id"]
    ranked = list(reply.run_scores().items())[:top_k]
    return "".join(
        f"{query_id} Q0 {doc_id} {rank} {score!r} {tag}\n" for rank, (doc_id, score) in enumerate(ranked, 1)
    )
