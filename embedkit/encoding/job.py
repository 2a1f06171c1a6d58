"""Encoding files to files: bounded memory, and a stop at any moment that the same call resumes.

The work goes on in a folder `OUTPUT.partial` (see `embedkit.encoding.draft`), which is committed after each window. A
later call cuts its files back to the last commit, reads past the texts that are done (they must still be the same) and
goes on. Windows begin at the same texts as in an uninterrupted run, so the bits come out equal. At the end the files
take their final names, the vectors last.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedkit.data.fields import FieldTexts, document_fields
from embedkit.data.records import Document, titled_text
from embedkit.encoding.draft import Draft
from embedkit.encoding.output_forms import forms_of
from embedkit.encoding.sparse_windows import SparseWindow
from embedkit.encoding.vector_files import file_content
from embedkit.encoding.windows import AnyWindow, TextRefusedError, TokenWindow
from embedkit.errors import CheckpointError, RecordError
from embedkit.storage.files import output_errors
from embedkit.types import OnTruncate, TextRole

W = TypeVar("W", bound=AnyWindow, covariant=True)


class WindowEncoder(Protocol[W]):
    """What a job needs of what encodes its texts: an `Encoder`, a `MultiVectorEncoder`, a `SparseEncoder`, or a server's."""

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> dict[str, Any]: ...  # Any: JSON

    @property
    def backend(self) -> object: ...

    @property
    def folder(self) -> Any: ...  # Any: with the path of the model

    def width(self, role: TextRole | None) -> int: ...

    def encode_role_windows(
        self, texts: Iterable[str], *, role: TextRole | None, prompt: str | None, on_truncate: OnTruncate
    ) -> Iterator[W]: ...

    def encode_field_windows(
        self, documents: Iterable[FieldTexts], *, on_truncate: OnTruncate
    ) -> Iterator[W]: ...


@dataclass(frozen=True, kw_only=True)
class EncodeProgress:
    """How far an encoding job is. Counts run from the job's first start; `seconds` and `session_tokens` from this one's.

    `unknown` counts texts that the model's vocabulary has no part of, `nonfinite` vectors with a value that is not finite; `duplicates`, known at the end only, counts texts
    that stood earlier already; `vectors` those of a multi-vector model, `terms` the weights of a learned sparse one; the `first_…` name the place of the first such text.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    unknown: int = 0
    nonfinite: int = 0
    duplicates: int | None = None
    vectors: int = 0
    terms: int = 0
    resumed_at: int = 0
    seconds: float = 0.0
    session_tokens: int = 0
    first_truncated: str = ""
    first_empty: str = ""
    first_unknown: str = ""
    done: bool = False

    @property
    def tokens_per_second(self) -> float:
        return self.session_tokens / self.seconds if self.seconds else 0.0

    @property
    def terms_per_text(self) -> float:
        return self.terms / self.texts if self.texts else 0.0

    @property
    def texts_per_second(self) -> float:
        return (self.texts - self.resumed_at) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """What an encoding job does with its texts.

    `prompt` None takes the model's default. With a `role` texts are encoded as an index and a search do it, with the model's prompt for
    documents or queries and in the form that is compared; `prompt` does not count then.
    """

    prompt: str | None = None
    role: TextRole | None = None
    on_truncate: OnTruncate = "warn"
    fail_on_empty: bool = False
    join_title: bool = True


def document_text(document: Document, *, join_title: bool = True) -> str:
    """Return what is encoded of a document, as in an index: its title and text, or the text alone, without space around them."""
    return titled_text(document.title if join_title else "", document.text)


def encode_stream(
    encoder: WindowEncoder[W], documents: Iterable[Document], options: EncodeOptions
) -> Iterator[tuple[list[Document], W]]:
    """Encode documents window by window, each window with the documents it is of.

    Raises:
        CheckpointError: the model's documents have fields, and no role is given.
        RecordError (while iterating): a text is refused, or a field is no text.
    """
    _check_role(encoder, options)
    return _encode_stream(encoder, documents, options)


def _check_role(encoder: WindowEncoder[AnyWindow], options: EncodeOptions) -> None:
    if encoder.fields and options.role is None:
        raise CheckpointError(
            f"{encoder.folder.path}: it compares queries with documents that have the fields {', '.join(encoder.fields)}, whose vectors "
            "are made in different ways. Say which these are",
            ": --role query or --role document",
        )


def _encode_stream(
    encoder: WindowEncoder[W], documents: Iterable[Document], options: EncodeOptions
) -> Iterator[tuple[list[Document], W]]:
    waiting: list[Document] = []

    def watched() -> Iterator[Document]:
        for document in documents:
            if options.fail_on_empty and not any(_texts(encoder, document, options)):
                raise RecordError(
                    f"{document.where}: the text is empty. Remove the row, or pass --on-empty warn"
                )
            waiting.append(document)
            yield document

    try:
        for window in _windows(encoder, watched(), options):
            size = len(window.truncated)
            chunk, waiting[:] = waiting[:size], waiting[size:]
            if options.fail_on_empty and window.empty.any():
                document = chunk[int(np.argmax(window.empty))]
                raise RecordError(
                    f"{document.where}: the text {document.text[:60]!r} has no tokens for this model. Remove the row, or pass "
                    "--on-empty warn"
                )
            yield chunk, window
    except TextRefusedError as exc:  # of the window that would have come next
        raise RecordError(f"{waiting[exc.row].where}: {exc}") from exc


def _texts(encoder: WindowEncoder[AnyWindow], document: Document, options: EncodeOptions) -> FieldTexts:
    """Return what is encoded of a document: its text, or those of the model's fields."""
    if encoder.fields and options.role == "document":
        return document_fields(document, encoder.fields, may_be_empty=True)
    return (document_text(document, join_title=options.join_title),)


def _windows(encoder: WindowEncoder[W], documents: Iterator[Document], options: EncodeOptions) -> Iterator[W]:
    of_documents = (_texts(encoder, document, options) for document in documents)
    if encoder.fields and options.role == "document":
        yield from encoder.encode_field_windows(of_documents, on_truncate=options.on_truncate)
        return
    texts = (text or "" for (text,) in of_documents)
    prompt = options.prompt if options.role is None else None
    yield from encoder.encode_role_windows(
        texts, role=options.role, prompt=prompt, on_truncate=options.on_truncate
    )


def encode_to_file(
    encoder: WindowEncoder[AnyWindow],
    documents: Iterable[Document],
    output: str | Path,
    options: EncodeOptions | None = None,
) -> Iterator[EncodeProgress]:
    """Encode documents into `output` (.npy or .jsonl), with the ids beside it; yield a report after each window.

    `vectors.npy` gets `vectors.ids.txt`, an id a line in the order of the rows; JSON lines hold their ids. Token vectors and weights of terms are
    written as .npz or .jsonl; see `embedkit.encoding.vector_files`.
    Stopped at any moment, the same call resumes.

    Raises:
        OutputError: the output exists, has another ending, cannot be written, or was begun with other settings or texts.
        RecordError: an input cannot be read, or holds what the options forbid.
    """
    options = options or EncodeOptions()
    settings = {
        "encoder": encoder.fingerprint,
        "backend": repr(encoder.backend),
        "options": asdict(options),
    }
    _check_role(encoder, options)
    draft = Draft(
        Path(output),
        dimension=encoder.width(options.role),
        settings=settings,
        forms=forms_of(encoder.fingerprint.get("kind")),
    )
    return _run(encoder, documents, draft, options)


def _run(
    encoder: WindowEncoder[AnyWindow], documents: Iterable[Document], draft: Draft, options: EncodeOptions
) -> Iterator[EncodeProgress]:
    def keys(some: Iterable[Document]) -> Iterator[tuple[str, str]]:
        for document in some:
            texts = _texts(encoder, document, options)
            yield document.doc_id, "\0".join(text or "" for text in texts)

    start = time.monotonic()
    stopped = f"What is done lies in {draft.folder}; make room, and the same command goes on"
    with output_errors(draft.output, stopped):
        with draft:
            before = draft.report | {"resumed_at": draft.rows, "session_tokens": 0, "seconds": 0.0}
            progress = EncodeProgress(**before)
            rest = iter(documents)
            draft.skip(keys(islice(rest, draft.rows)))
            yield progress
            for window_documents, window in encode_stream(encoder, rest, options):
                progress = count_window(progress, window_documents, window, time.monotonic() - start)
                content, counts = file_content(
                    [each.doc_id for each in window_documents], window, draft.output
                )
                draft.append(keys(window_documents), content, asdict(progress), counts=counts)
                yield progress
            progress = replace(progress, duplicates=draft.count_duplicates(), done=True)
            draft.finish()
        yield progress


def count_window(
    progress: EncodeProgress, documents: list[Document], window: AnyWindow, seconds: float = 0.0
) -> EncodeProgress:
    """Add one window's texts to the counts."""

    def first(flags: NDArray[np.bool_], known: str) -> str:
        return known or (documents[int(np.argmax(flags))].where if flags.any() else "")

    return replace(
        progress,
        texts=progress.texts + len(documents),
        tokens=progress.tokens + window.num_tokens,
        session_tokens=progress.session_tokens + window.num_tokens,
        truncated=progress.truncated + int(window.truncated.sum()),
        empty=progress.empty + int(window.empty.sum()),
        unknown=progress.unknown + int(window.unknown.sum()),
        vectors=progress.vectors + (len(window.vectors.vectors) if isinstance(window, TokenWindow) else 0),
        terms=progress.terms + (len(window.vectors.terms) if isinstance(window, SparseWindow) else 0),
        nonfinite=progress.nonfinite + int((~window.finite).sum()),
        first_truncated=first(window.truncated, progress.first_truncated),
        first_empty=first(window.empty, progress.first_empty),
        first_unknown=first(window.unknown, progress.first_unknown),
        seconds=seconds,
    )
