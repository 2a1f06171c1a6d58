"""Training rows out of a retrieval set in BEIR's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedkit.data.beir import load_retrieval_set
from embedkit.data.fields import document_fields
from embedkit.data.reading import read_documents
from embedkit.data.records import titled_text
from embedkit.errors import RecordError
from embedkit.training.rows.collector import Collector
from embedkit.training.rows.columns import Columns, Kind, choose_kind
from embedkit.training.rows.examples import Examples


def read_retrieval_rows(
    folder: Path, split: str, kinds: Sequence[Kind], purpose: str, *, fields: Sequence[str] = ()
) -> Examples:
    """Make a row of each query and each document judged above 0; those judged 0 become negatives of the query.

    A document is its title and text, or those of its `fields` that are there.

    Raises:
        RecordError: the set cannot be read, lacks a judged document, or has several splits and none was named.
    """
    found = load_retrieval_set(folder, split=split or _only_split(folder))
    wanted = {doc_id for judgements in found.qrels.values() for doc_id in judgements}
    documents = {
        document.doc_id: document_fields(document, fields)
        if fields
        else titled_text(document.title, document.text)
        for document in read_documents([str(found.corpus)])
        if document.doc_id in wanted
    }
    missing = sorted(wanted - set(documents))
    if missing:
        raise RecordError(
            f"{found.corpus}: {len(missing)} judged documents are not in it, such as {missing[0]!r}. "
            "Take corpus and judgements of one release"
        )
    columns = Columns({"first": "query", "second": "document"}, ("judged 0",), ("query", "document"))
    has_negatives = any(level <= 0 for judged in found.qrels.values() for level in judged.values())
    if not has_negatives:
        columns = replace(columns, negatives=())
    kind = choose_kind(columns, kinds, str(folder), purpose)
    collector = Collector(str(folder), columns, kind, fields=fields)
    for query_id, text in found.queries.items():
        judged = found.qrels[query_id]
        negatives = [documents[doc_id] for doc_id, level in judged.items() if level <= 0]
        for doc_id, level in judged.items():
            if level > 0:
                row = {"query": text, "document": documents[doc_id], "judged 0": negatives}
                collector.add(f"{folder}: query {query_id!r}", row)
    return collector.examples()


def _only_split(folder: Path) -> str:
    splits = sorted({path.name.partition(".")[0] for path in (folder / "qrels").iterdir()})
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else splits[0]
    raise RecordError(
        f"{folder}: qrels/ holds {', '.join(splits) or 'nothing'}; which one to train on? Name it: {folder}:{splits[0] if splits else 'train'}"
    )
