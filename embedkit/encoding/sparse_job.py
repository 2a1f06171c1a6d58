"""Encoding documents with a learned sparse model, into JSON lines or a matrix; a stop leaves no file behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Document
from embedkit.data.vectors import ids_path
from embedkit.encoding.draft import check_output
from embedkit.encoding.job import document_text
from embedkit.encoding.sparse import SparseEncoder, SparseWindow
from embedkit.encoding.sparse_files import write_sparse
from embedkit.encoding.windows import TextRefusedError
from embedkit.errors import OutputError, RecordError
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.storage.files import output_errors, put_in_place, write_text
from embedkit.types import OnTruncate, TextRole

MATRIX = ".npz"
ENDINGS = (".jsonl", MATRIX)


@dataclass(frozen=True, kw_only=True)
class SparseOptions:
    """What is done with the texts."""

    role: TextRole
    on_truncate: OnTruncate = "warn"
    fail_on_empty: bool = False


@dataclass(frozen=True, kw_only=True)
class SparseProgress:
    """How far an encoding is; `terms` counts the weights that are not 0, the `first_…` name the place of the first such text."""

    texts: int = 0
    tokens: int = 0
    terms: int = 0
    truncated: int = 0
    empty: int = 0
    unknown: int = 0
    seconds: float = 0.0
    first_truncated: str = ""
    first_empty: str = ""
    first_unknown: str = ""

    @property
    def mean_terms(self) -> float:
        return self.terms / self.texts if self.texts else 0.0

    def as_json(self) -> dict[str, Any]:  # Any: JSON values
        counts = {name: value for name, value in asdict(self).items() if not name.startswith("first_")}
        return counts | {"seconds": round(self.seconds, 3), "terms_per_text": round(self.mean_terms, 2)}

    def plus(
        self, documents: Sequence[Document], window: SparseWindow, seconds: float = 0.0
    ) -> SparseProgress:
        """Add one window's texts to the counts."""

        def first(flags: NDArray[np.bool_], known: str) -> str:
            return known or (documents[int(np.argmax(flags))].where if flags.any() else "")

        return replace(
            self,
            texts=self.texts + len(documents),
            tokens=self.tokens + window.num_tokens,
            terms=self.terms + len(window.vectors.terms),
            truncated=self.truncated + int(window.truncated.sum()),
            empty=self.empty + int(window.empty.sum()),
            unknown=self.unknown + int(window.unknown.sum()),
            seconds=seconds,
            first_truncated=first(window.truncated, self.first_truncated),
            first_empty=first(window.empty, self.first_empty),
            first_unknown=first(window.unknown, self.first_unknown),
        )


def check_sparse_output(output: Path) -> None:
    """Make sure that an encoding can begin.

    Raises:
        OutputError: the output exists, has an ending that we do not write, or lies in a file.
    """
    check_output(output, content="terms", endings=ENDINGS)
    if output.suffix == MATRIX and ids_path(output).exists():
        raise OutputError(f"{ids_path(output)}: already exists. Choose another --output, or remove it first")


def encode_sparse_stream(
    encoder: SparseEncoder, documents: Iterable[Document], options: SparseOptions
) -> Iterator[tuple[list[Document], SparseWindow]]:
    """Encode documents window by window, each window with the documents it is of.

    Raises (while iterating):
        RecordError: a text is refused.
    """
    waiting: list[Document] = []

    def texts() -> Iterator[str]:
        for document in documents:
            text = document_text(document)
            if options.fail_on_empty and not text:
                raise RecordError(
                    f"{document.where}: the text is empty. Remove the row, or pass --on-empty warn"
                )
            waiting.append(document)
            yield text

    try:
        for window in encoder.encode_windows(texts(), role=options.role, on_truncate=options.on_truncate):
            chunk, waiting[:] = waiting[: len(window.vectors)], waiting[len(window.vectors) :]
            if options.fail_on_empty and window.empty.any():
                document = chunk[int(np.argmax(window.empty))]
                raise RecordError(
                    f"{document.where}: the text {document.text[:60]!r} has no tokens for this model. Remove the row, or pass "
                    "--on-empty warn"
                )
            yield chunk, window
    except TextRefusedError as exc:  # of the window that would have come next
        raise RecordError(f"{waiting[exc.row].where}: {exc}") from exc


def json_rows(encoder: SparseEncoder, documents: Sequence[Document], window: SparseWindow) -> list[str]:
    """Write a JSON line of each text: its id, and its terms with their weights, the largest first."""
    rows = zip(documents, encoder.describe(window.vectors), strict=True)
    return [
        json.dumps({"id": document.doc_id, "terms": terms}, ensure_ascii=False) + "\n"
        for document, terms in rows
    ]


def encode_sparse_to_file(
    encoder: SparseEncoder, documents: Iterable[Document], output: Path, options: SparseOptions
) -> Iterator[SparseProgress]:
    """Encode documents into `output`, .jsonl or .npz with the ids beside it; yield a report after each window.

    A `.npz` is the CSR matrix of scipy's `load_npz`, N × V float32; its `.ids.txt` has an id a line. It is held in memory until all is done.

    Raises:
        OutputError: the output exists, has another ending, or cannot be written.
        RecordError: an input cannot be read, or holds what the options forbid.
    """
    check_sparse_output(output)
    return _encode_to_file(encoder, documents, output, options)


def _encode_to_file(
    encoder: SparseEncoder, documents: Iterable[Document], output: Path, options: SparseOptions
) -> Iterator[SparseProgress]:
    started, progress = time.monotonic(), SparseProgress()
    parts, ids = [SparseVectors.none(encoder.dimension)], list[str]()
    temporary = output.with_name(output.name + ".new")
    with output_errors(output, "Make room, and run the command again"):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                for some, window in encode_sparse_stream(encoder, documents, options):
                    progress = progress.plus(some, window, time.monotonic() - started)
                    if output.suffix == MATRIX:
                        parts.append(window.vectors)
                        ids += [document.doc_id for document in some]
                    else:
                        stream.writelines(json_rows(encoder, some, window))
                    yield progress
            if output.suffix != MATRIX:
                put_in_place(temporary, output)
        finally:
            temporary.unlink(missing_ok=True)
    if output.suffix == MATRIX:
        write_text(ids_path(output), "".join(f"{doc_id}\n" for doc_id in ids))
        write_sparse(output, SparseVectors.concatenate(parts))
    yield progress
