"""A retrieval test set in the folder layout of BEIR: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedkit.data.formats import format_of
from embedkit.data.one_file import open_lines
from embedkit.data.qrels import Qrels
from embedkit.data.queries import read_distinct_queries
from embedkit.data.records import QueryReadOptions
from embedkit.data.trec import read_qrels, read_topics
from embedkit.errors import EvaluationError, RecordError

ENDINGS = ("", ".zst", ".gz")


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """What a retrieval evaluation needs; the corpus stays on disk, it may be large. None: it is in an index alone.

    `queries` holds the text of each judged query that the query file knows, `qrels` every judgement of the split.
    `files` are all that was or will be read, for hashes.
    """

    name: str
    split: str
    corpus: Path | None
    queries: Mapping[str, str]
    qrels: Qrels
    files: tuple[Path, ...]


def folder_and_split(source: str) -> tuple[str, str]:
    """Part FOLDER[:SPLIT] into its halves; what is there under its whole name has no split."""
    folder, _, split = source.partition(":") if not Path(source).exists() else (source, "", "")
    return folder, split


def load_retrieval_set(folder: str | Path, *, split: str = "test") -> RetrievalSet:
    """Read the queries and judgements of a folder; each file may be plain, `.zst` or `.gz`.

    Raises:
        RecordError: a file is missing or cannot be read; the message lists what there is.
        EvaluationError: no judged query is among the queries.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(
            f"{folder}: there is no such folder; it must hold corpus.jsonl, queries.jsonl and qrels/"
        )
    corpus, query_file = _find(folder, "corpus.jsonl"), _find(folder, "queries.jsonl")
    qrels_file = _find(folder, f"qrels/{split}.tsv")
    return _gather(folder.resolve().name, split, corpus, query_file, qrels_file)


def load_topic_set(
    queries: str | Path, qrels: str | Path, *, corpus: str | Path | None = None
) -> RetrievalSet:
    """Read a test set of single files: TREC topics or a query file, and judgements; its name is that of the judgements.

    Raises: as `load_retrieval_set`.
    """
    qrels = Path(qrels)
    return _gather(qrels.name, "test", None if corpus is None else Path(corpus), Path(queries), qrels)


def read_query_texts(path: str | Path) -> dict[str, str]:
    """Read queries by id: JSON lines, CSV, Parquet or a `.tsv` with a header, else TREC topics or `id`, tab, `text`.

    Raises:
        RecordError: the file cannot be read, or an id occurs twice.
    """
    form = format_of(path)
    # A .tsv without a header is lines of id, tab, text, as TREC has them.
    by_rows = form in ("jsonl", "json", "csv", "parquet") or (form == "tsv" and _has_header(path))
    queries = read_distinct_queries([str(path)]) if by_rows else read_topics(path)
    return {query.query_id: query.text for query in queries}


def _has_header(path: str | Path) -> bool:
    _, first = next(open_lines(path), (0, ""))
    return not set(QueryReadOptions.TEXT_FIELDS).isdisjoint(first.split("\t"))


def _gather(name: str, split: str, corpus: Path | None, query_file: Path, qrels_file: Path) -> RetrievalSet:
    qrels, queries = read_qrels(qrels_file), read_query_texts(query_file)
    judged = {query_id: queries[query_id] for query_id in qrels if query_id in queries}
    if not judged:
        raise EvaluationError(
            f"{qrels_file}: none of its {len(qrels)} queries (the first is {next(iter(qrels))!r}) is among the "
            f"{len(queries)} of {query_file.name}. Check that the two belong together"
        )
    return RetrievalSet(
        name=name,
        split=split,
        corpus=corpus,
        queries=judged,
        qrels=qrels,
        files=(*([] if corpus is None else [corpus]), query_file, qrels_file),
    )


def _find(folder: Path, name: str) -> Path:
    for ending in ENDINGS:
        if (folder / (name + ending)).is_file():
            return folder / (name + ending)
    beside = (folder / name).parent
    there = sorted(child.name for child in beside.iterdir()) if beside.is_dir() else []
    raise RecordError(
        f"{folder}: {name} is missing (nor is it there with .zst or .gz); {beside.name}/ holds "
        f"{', '.join(there[:20]) or 'nothing'}. Name another folder or split"
    )
