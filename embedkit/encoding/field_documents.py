"""Documents with fields to vectors: the texts of their fields in one stream, then each field's expert."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embedkit.data.fields import FieldTexts, field_texts, refuse_unknown
from embedkit.encoding.windows import WINDOW_CHARS, WINDOW_TEXTS, EncodedWindow, TextRefusedError
from embedkit.types import Float32

Encode = Callable[[list[str]], Iterator[EncodedWindow]]


def fields_of_mappings(
    documents: Sequence[Any],  # Any: checked here
    fields: Sequence[str],
) -> Iterator[FieldTexts]:
    """Return the texts of the fields of documents that are mappings.

    Raises (while iterating):
        RecordError: one has none of the fields, or one that is not among them.
        TypeError: one is no mapping.
    """
    for number, document in enumerate(documents):
        where = f"document {number}"
        if not isinstance(document, Mapping):
            raise TypeError(
                f"{where} is {type(document).__name__}; this model's documents are mappings with some of the fields {', '.join(fields)}"
            )
        refuse_unknown(document, fields, where)
        yield field_texts(document, fields, where)


def encode_fields(
    documents: Iterable[FieldTexts], encode: Encode, lay_out: Callable[[Float32], Float32], *, size: int
) -> Iterator[EncodedWindow]:
    """Encode documents window by window: (N, F·E), in order. Windows are cut by the documents alone.

    `encode` makes vectors of `size` E of texts, and `lay_out` a document's out of those of its fields, (N, F, E). A field without tokens counts as missing. A document is `empty` where all its fields are, `unknown` where those that are there are,
    and `truncated` where any is.

    Raises (while iterating):
        TextRefusedError: `encode` refuses a text; the row is the document's within the window.
    """
    for window in _cut(documents):
        yield _encoded(window, encode, lay_out, size)


def _cut(documents: Iterable[FieldTexts]) -> Iterator[list[FieldTexts]]:
    """Yield documents in windows of as many texts as a window of texts holds, about."""
    window: list[FieldTexts] = []
    texts = chars = 0
    for document in documents:
        window.append(document)
        texts += sum(text is not None for text in document)
        chars += sum(len(text) for text in document if text)
        if texts >= WINDOW_TEXTS or chars >= WINDOW_CHARS or len(window) == WINDOW_TEXTS:
            yield window
            window, texts, chars = [], 0, 0
    if window:
        yield window


def _encoded(
    documents: list[FieldTexts], encode: Encode, lay_out: Callable[[Float32], Float32], size: int
) -> EncodedWindow:
    places = [(row, field) for row, texts in enumerate(documents) for field, text in enumerate(texts) if text]
    rows = np.array([row for row, _ in places], dtype=np.int64)
    fields = np.array([field for _, field in places], dtype=np.int64)
    try:
        found = list(encode([documents[row][field] or "" for row, field in places]))
    except TextRefusedError as exc:
        raise TextRefusedError(exc.message, places[exc.row][0], exc.option) from exc
    shape = (len(documents), len(documents[0]))
    vectors = np.zeros((*shape, size), dtype=np.float32)
    truncated, there, known = (np.zeros(shape, dtype=np.bool_) for _ in range(3))
    if found:
        empty = np.concatenate([window.empty for window in found])
        embeddings = np.concatenate([window.embeddings for window in found])
        vectors[rows, fields] = np.where(empty[:, None], np.float32(0), embeddings)
        truncated[rows, fields] = np.concatenate([window.truncated for window in found])
        there[rows, fields] = ~empty
        known[rows, fields] = ~empty & ~np.concatenate([window.unknown for window in found])
    any_there = np.logical_or.reduce(there, axis=1)
    return EncodedWindow(
        lay_out(vectors),
        np.logical_or.reduce(truncated, axis=1),
        ~any_there,
        any_there & ~np.logical_or.reduce(known, axis=1),
        sum(window.num_tokens for window in found),
    )
