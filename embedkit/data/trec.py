"""Reading judgements, runs and topics in the formats of TREC and BEIR, and writing runs.

Any file may be plain, `.gz` or `.zst`. What contradicts itself is an error with its path and line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from embedkit.data.one_file import open_lines
from embedkit.data.qrels import Run, ranking
from embedkit.data.records import Query
from embedkit.errors import EvaluationError, RecordError
from embedkit.storage.files import write_text

HIGHEST_SCORE = float(np.finfo(np.float32).max)
# What the header of a BEIR judgement file begins with; any other first line is a judgement.
HEADER_STARTS = ("query-id", "query_id", "qid", "query")


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR (`query-id corpus-id score`, tabs, with or without header) or TREC (`query 0 doc level`).

    Raises:
        RecordError: a line has another shape, contradicts an earlier one, or there is none at all.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        cells = line.split("\t")
        if len(cells) != 3:
            cells = line.split()
        if number == 1 and len(cells) == 3 and cells[0].lower() in HEADER_STARTS:
            continue
        if len(cells) == 4:
            query_id, _, doc_id, level = cells
        elif len(cells) == 3:
            query_id, doc_id, level = cells
        else:
            raise RecordError(
                f"{path}:{number}: {len(cells)} columns; a judgement has 4 (query 0 document level, as TREC) "
                "or 3 with tabs (query document level, as BEIR). Check the separators of this line"
            )
        if not _is_whole(level):
            raise RecordError(
                f"{path}:{number}: the level is {level!r}; it must be a whole number. "
                "A run, which has scores instead, is read as a run"
            )
        earlier = qrels.setdefault(query_id, {}).setdefault(doc_id, int(level))
        if earlier != int(level):
            raise RecordError(
                f"{path}:{number}: document {doc_id!r} is judged {level} for query {query_id!r} here and {earlier} "
                "before. Keep one of the two"
            )
    if not qrels:
        raise RecordError(f"{path}: there is no judgement in it; each line must be one")
    return qrels


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,9}", text) is not None


def read_run(path: str | Path, *, check_ranks: bool = True) -> dict[str, dict[str, float]]:
    """Read a TREC run: `query Q0 document rank score tag`, one hit a line, in any order.

    The score alone decides, as in trec_eval. With `check_ranks` a rank column that says otherwise is an error.

    Raises:
        RecordError: a line has another shape, a score is not finite, a document or a rank occurs twice for a
            query, ranks and scores disagree, or there is no hit at all.
    """
    run: dict[str, dict[str, float]] = {}
    ranks: dict[str, dict[int, tuple[float, int]]] = {}  # query_id -> rank -> score, line number
    for number, line in _lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise RecordError(
                f"{path}:{number}: {len(cells)} columns; a line of a run has 6: query Q0 document rank score tag. "
                "Check this line"
            )
        query_id, _, doc_id, rank, score, _ = cells
        hits = run.setdefault(query_id, {})
        if doc_id in hits:
            raise RecordError(
                f"{path}:{number}: document {doc_id!r} occurs twice for query {query_id!r}. Keep its best hit"
            )
        hits[doc_id] = _as_score(score, path, number)
        if check_ranks:
            _note_rank(ranks.setdefault(query_id, {}), rank, hits[doc_id], query_id, path, number)
    if not run:
        raise RecordError(f"{path}: there is no hit in it; each line must be one")
    for query_id, of_query in ranks.items():
        _refuse_unsorted(of_query, query_id, path)
    return run


def _as_score(text: str, path: str | Path, number: int) -> float:
    try:
        score = float(text)
    except ValueError as exc:
        raise RecordError(
            f"{path}:{number}: the score is {text!r}; it must be a number. Check the columns"
        ) from exc
    if not abs(score) <= HIGHEST_SCORE:
        raise RecordError(
            f"{path}:{number}: the score is {text}; it must be a finite 32-bit float, or no ranking can be told from it. "
            "Look at what made the run"
        )
    return score


def _note_rank(
    ranks: dict[int, tuple[float, int]],
    text: str,
    score: float,
    query_id: str,
    path: str | Path,
    number: int,
) -> None:
    if not _is_whole(text):
        raise RecordError(
            f"{path}:{number}: the rank is {text!r}; it must be a whole number. Check the columns"
        )
    if int(text) in ranks:
        _, earlier = ranks[int(text)]
        raise RecordError(
            f"{path}:{number}: rank {int(text)} of query {query_id!r} stands in line {earlier} already. "
            "Renumber the ranks, or read the run without its ranks"
        )
    ranks[int(text)] = score, number


def _refuse_unsorted(ranks: Mapping[int, tuple[float, int]], query_id: str, path: str | Path) -> None:
    best, above = np.inf, 0
    for rank in sorted(ranks):
        score, number = ranks[rank]
        # As trec_eval: what is equal as float32 may stand in any order.
        if score > best and np.float32(score) > np.float32(best):
            raise RecordError(
                f"{path}:{number}: rank {rank} of query {query_id!r} has the score {score}, rank {above} the lower {best}. "
                "Higher must be better: sort the run, negate distances, or read the run without its ranks"
            )
        best, above = score, rank


def write_run(path: str | Path, run: Run, *, tag: str = "embedkit") -> None:
    """Write a TREC run, hits by score as the metrics rank them; reading it gives the same scores, bit by bit.

    Raises:
        EvaluationError: an id or the tag is empty or holds white space, or a score is not finite.
        OutputError: the file cannot be written.
    """
    lines = []
    refuse_white_space(tag, "tag")
    for query_id, scores in run.items():
        refuse_white_space(query_id, "query id")
        for rank, doc_id in enumerate(ranking(scores), 1):
            refuse_white_space(doc_id, "document id")
            lines.append(f"{query_id} Q0 {doc_id} {rank} {float(scores[doc_id])!r} {tag}\n")
    write_text(path, "".join(lines))


def refuse_white_space(name: str, what: str) -> None:
    """Refuse an id that a TREC run cannot hold.

    Raises:
        EvaluationError: it is empty or holds white space.
    """
    if name.split() != [name]:
        raise EvaluationError(
            f"the {what} {name!r} is empty or holds white space, which separates the columns of a TREC run. Rename it"
        )


def read_topics(path: str | Path) -> list[Query]:
    """Read queries from TREC topics (`<top> <num> <title>`) or from lines of `id`, tab, `text`.

    Of a topic the title is the query; `Number:` and `Topic:` before the value are dropped, closing tags allowed.

    Raises:
        RecordError: a topic lacks its number or title, a line its tab, an id occurs twice, or there is no query.
    """
    lines = list(_lines(path))
    sgml = any(re.match(r"\s*<top>", line, re.IGNORECASE) for _, line in lines)
    queries: dict[str, Query] = {}
    for query_id, text, where in _sgml_topics(lines, path) if sgml else _tab_topics(lines, path):
        if not query_id or not text:
            missing = "number" if not query_id else "text"
            raise RecordError(f"{where}: the topic {query_id!r} has no {missing}; it needs both. Complete it")
        if query_id in queries:
            raise RecordError(f"{where}: the query id {query_id!r} occurs twice. Rename or remove one")
        queries[query_id] = Query(query_id, text)
    if not queries:
        raise RecordError(
            f"{path}: there is no topic in it; each is <top> … </top>, or a line of id, tab, text"
        )
    return list(queries.values())


def _tab_topics(lines: Iterable[tuple[int, str]], path: str | Path) -> Iterator[tuple[str, str, str]]:
    for number, line in lines:
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise RecordError(f"{path}:{number}: no tab in the line; a query is its id, a tab and its text")
        yield query_id.strip(), text.strip(), f"{path}:{number}"


def _sgml_topics(lines: Iterable[tuple[int, str]], path: str | Path) -> Iterator[tuple[str, str, str]]:
    """Yield (number, title, place); the tags of TREC are often not closed, so a field ends where the next begins."""
    fields: dict[str, str] = {}
    where, tag = "", ""
    for number, line in lines:
        for piece in re.split(r"(</?[A-Za-z]+>)", line):
            if not re.fullmatch(r"</?[A-Za-z]+>", piece):
                fields[tag] = f"{fields.get(tag, '')} {piece}"
                continue
            ended, tag = where and piece.lower() in ("<top>", "</top>"), piece.strip("<>").lower()
            if ended:
                yield _topic(fields, where)
                where = ""
            if tag == "top":
                fields, where = {}, f"{path}:{number}"
    if where:
        yield _topic(fields, where)


def _topic(fields: Mapping[str, str], where: str) -> tuple[str, str, str]:
    number = re.sub(r"^\s*Number:", "", fields.get("num", ""), flags=re.IGNORECASE)
    title = re.sub(r"^\s*Topic:", "", fields.get("title", ""), flags=re.IGNORECASE)
    return number.strip(), " ".join(html.unescape(title).split()), where


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers."""
    return ((number, line) for number, line in open_lines(path) if line.strip())
