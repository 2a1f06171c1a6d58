"""Documents going into an index: cut, embedded and committed alike, whoever reads them and whatever computes their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from embedkit.data.fields import FieldTexts, document_fields
from embedkit.data.records import Document
from embedkit.retrieval.vectors import Vectors
from indexes import BuildReport, Index, build

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.pipelines.embedders import AnyEncoder
    from embedkit.tokenization.tokenizer import Tokenizer

Spans = Sequence[tuple[int, int]]


def fill_index(
    index: Index,
    documents: Iterable[Document],
    encoder: AnyEncoder,
    embed: Callable[[Sequence[Any]], Vectors],  # Any: texts, or those of the model's fields
    *,
    tokenizer: Tokenizer | None = None,
    commit_every: int = 4096,
    fraction: Callable[[], float | None] = lambda: None,
) -> Iterator[BuildReport]:
    """Bring an index up to date with documents, cut as those that are in it, by `indexes.build`.

    `tokenizer` is the one that cuts them, where it is not the encoder's only one.

    Raises:
        As `indexes.build`.
    """
    from embedkit.tokenization.passages import PassageSplitter

    cutting = index.settings.cutting
    if tokenizer is None:
        tokenizer = cast("Encoder", encoder).tokenizer
    split = PassageSplitter.of(tokenizer, **cutting) if cutting else None
    return build(
        index,
        documents,
        embed=embed,
        split=_untitled(split) if split is not None and encoder.fields else split,
        commit_every=commit_every,
        fraction=fraction,
        content_of=partial(_fields_of, encoder.fields) if encoder.fields else None,
    )


def _untitled(split: Callable[[str, str], Spans]) -> Callable[[str, str], Spans]:
    """Cut texts that no title is put before."""
    return lambda title, text: split("", text)


def _fields_of(fields: Sequence[str], document: Document, text: str) -> FieldTexts:
    """Return what of a passage is embedded by fields: its own text, and the other fields of its document as they are."""
    return document_fields(replace(document, text=text), fields, may_be_empty=True)
