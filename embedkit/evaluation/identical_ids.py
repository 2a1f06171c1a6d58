"""Hits with the id of their query: the query itself, where a test set asks with documents of its own collection.

ArguAna and Quora do, and BEIR leaves such hits out. Elsewhere two numberings may meet by chance, and the hit is as good as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embedkit.data.qrels import Qrels, Run, ranking
from embedkit.data.reading import read_documents
from embedkit.data.records import Document, titled_text

# What the count of hits that were left out is called in a result; it is there wherever they do not count.
IGNORED = "identical ids ignored"


def queries_are_documents(
    queries: Mapping[str, str], qrels: Qrels, documents: Mapping[str, Document]
) -> bool:
    """Say whether queries are documents: most of those that share an id with one have its text, and none is its own answer.

    `documents` are those that have the id of a query, or more of them.
    """
    shared = [query_id for query_id in queries if query_id in documents]
    if any(qrels.get(query_id, {}).get(query_id, 0) > 0 for query_id in shared):
        return False
    return 2 * sum(_same_text(queries[each], documents[each]) for each in shared) > len(shared)


def _same_text(query: str, document: Document) -> bool:
    texts = (document.text, titled_text(document.title, document.text))
    return query.split() in [text.split() for text in texts]


def own_documents(queries: Mapping[str, str], corpus: Path) -> dict[str, Document]:
    """Read the documents of a collection that have the id of a query.

    Raises:
        RecordError: the collection cannot be read.
    """
    return {each.doc_id: each for each in read_documents([str(corpus)]) if each.doc_id in queries}


def without_identical(run: Run) -> Run:
    """Leave out the hits that have the id of their query."""
    return {
        query_id: {doc_id: score for doc_id, score in scores.items() if doc_id != query_id}
        for query_id, scores in run.items()
    }


def ignored_note(wanted: bool | None) -> str:
    """Say that hits with the id of their query do not count, and why; `wanted` is what was asked for."""
    said = "hits with the id of their query do not count"
    if wanted:
        return f"{said} (--ignore-identical-ids)"
    return f"{said}: the queries are documents of the collection (--keep-identical-ids counts them)"


def suspicious_note(qrels: Qrels, run: Run) -> str | None:
    """Say how many queries of a run found themselves first, which only who knows the texts can judge; None where none did."""
    first = [
        query_id
        for query_id, scores in run.items()
        if query_id in scores
        and ranking(scores)[0] == query_id
        and query_id in qrels
        and qrels[query_id].get(query_id, 0) <= 0
    ]
    if not first:
        return None
    return (
        f"{len(first)} of {len(run)} queries have the document of their own id as first hit. Where queries are documents, "
        "as in ArguAna and Quora, leave it out with --ignore-identical-ids"
    )


def of_run(qrels: Qrels, run: Run, *, wanted: bool | None) -> tuple[Run, dict[str, int], tuple[str, ...]]:
    """Return a run as it counts, the counts of what was left out of it, and notes.

    Without the texts nothing is left out unless it is `wanted`; with None it is said where it looks as if it should be.
    """
    if wanted:
        kept = without_identical(run)
        ignored = sum(len(scores) - len(kept[query_id]) for query_id, scores in run.items())
        return kept, {IGNORED: ignored}, (ignored_note(wanted),)
    note = None if wanted is False else suspicious_note(qrels, run)
    return run, {}, () if note is None else (note,)
