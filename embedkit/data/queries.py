"""Queries by id, each id once: of two queries with one id the results would be mixed."""

from __future__ import annotations

from collections.abc import Sequence

from embedkit.data.reading import read_documents
from embedkit.data.records import Query, QueryReadOptions
from embedkit.errors import RecordError


def read_distinct_queries(inputs: Sequence[str]) -> list[Query]:
    """Read queries from the same kinds of files as documents, all of them.

    Raises:
        RecordError: a file cannot be read, or an id occurs twice; the message names the place.
    """
    queries = []
    places: dict[str, str] = {}
    for document in read_documents(inputs, QueryReadOptions()):
        if document.doc_id in places:
            raise RecordError(
                f"{document.where}: the query id {document.doc_id!r} occurs twice; it is also at "
                f"{places[document.doc_id]}. Rename or remove one"
            )
        places[document.doc_id] = document.where
        queries.append(Query(document.doc_id, document.text))
    return queries
