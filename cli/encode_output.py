"""What `embedkit encode` writes, and what it tells of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from embedkit.types import TextRole

from .shared import console, models, options

if TYPE_CHECKING:
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.job import EncodeOptions, EncodeProgress
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.encoding.windows import AnyWindow
    from embedkit.serving.client.encoding import ServedEncoder
    from indexes.types import VectorKind

    AnyEncoder = Encoder | MultiVectorEncoder | SparseEncoder | ServedEncoder

SHOWN_NUMBERS = 4  # of a vector, on a terminal
SHOWN_TERMS = 8  # of a text


@dataclass(frozen=True)
class EncodeJob:
    """What is encoded, by what, and how."""

    encoder: AnyEncoder
    reader: DocumentReader
    settings: EncodeOptions


def to_file(job: EncodeJob, output: Path, printing: options.Printing) -> None:
    from embedkit.encoding.job import EncodeProgress, encode_to_file

    report = EncodeProgress()
    try:
        with console.progress_bar("encode") as bar:
            for report in encode_to_file(job.encoder, job.reader, output, job.settings):
                rate = f"{report.texts:,} texts  {report.tokens_per_second:,.0f} tokens/s"
                bar.update(
                    job.reader.fraction(),
                    rate if report.seconds else f"going on after {report.texts:,} texts",
                )
    except KeyboardInterrupt:
        console.tell(
            f"interrupted after {report.texts:,} texts; resume with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    _summarize(report, job, str(output), as_json=printing.as_json)


def to_stdout(job: EncodeJob, *, as_json: bool) -> None:
    from embedkit.encoding.job import EncodeProgress, count_window, encode_stream
    from embedkit.encoding.vector_files import json_rows

    report = EncodeProgress()
    shorten = sys.stdout.isatty() and not as_json  # hundreds of numbers a text tell nobody anything
    with console.stream_bar("encode") as bar:
        for documents, window in encode_stream(job.encoder, job.reader, job.settings):
            report = count_window(report, documents, window)
            ids = [document.doc_id for document in documents]
            for line in _short_rows(ids, window) if shorten else json_rows(ids, window):
                (console.say if shorten else console.write_json)(line)
            bar.update(job.reader.fraction(), f"{report.texts:,} texts")
    sys.stdout.flush()
    if shorten:
        what = "all terms" if report.terms else "whole vectors"
        console.note(f"{what}: --output FILE, or a pipe, or --json")
    _summarize(report, job, "standard output", as_json=False)


def _short_rows(ids: Sequence[str], window: AnyWindow) -> Iterator[str]:
    from embedkit.encoding.sparse_windows import SparseWindow
    from embedkit.encoding.windows import EncodedWindow, TokenWindow

    terms = window.describe() if isinstance(window, SparseWindow) else []
    for number, doc_id in enumerate(ids):
        if isinstance(window, TokenWindow):
            vectors = window.vectors.text(number)
            numbers = _shown(vectors[0].tolist()) if len(vectors) else ""
            yield f"{doc_id}  {console.counted(len(vectors), 'vector')} [{numbers}, …]"
        elif isinstance(window, EncodedWindow):
            embedding = window.embeddings[number].tolist()
            yield f"{doc_id}  [{_shown(embedding)}, … {len(embedding)} numbers]"
        else:
            weights = list(terms[number].items())
            shown = ", ".join(f"{term} {weight:.2f}" for term, weight in weights[:SHOWN_TERMS])
            more = ", …" if len(weights) > SHOWN_TERMS else ""
            yield f"{doc_id}  {shown}{more}  ({console.counted(len(weights), 'term')})"


def _shown(embedding: Sequence[float]) -> str:
    return ", ".join(f"{number:.4f}" for number in embedding[:SHOWN_NUMBERS])


def _settings(encoder: AnyEncoder) -> dict[str, Any]:
    """Return what was asked for beside the model itself, where it was."""
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.sparse import SparseEncoder

    if isinstance(encoder, SparseEncoder):
        return {"max_active_dims": encoder.max_active_dims} if encoder.max_active_dims else {}
    if isinstance(encoder, MultiVectorEncoder):
        factor = encoder.document_pooling
        return {"token_pooling": factor} if factor > 1 else {}
    found: dict[str, Any] = {"merge_tokens": encoder.merge_tokens} if encoder.merge_tokens else {}
    recursions = encoder.folder.recursions
    return found if recursions is None else found | {"recursions": recursions}


def counts_as_json(kind: VectorKind, report: EncodeProgress) -> dict[str, Any]:
    """Return how many vectors or terms there are, where each text has its own number."""
    if kind == "multi-vector":
        return {"vectors": report.vectors}
    if kind == "sparse":
        return {"terms": report.terms, "terms_per_text": round(report.terms_per_text, 2)}
    return {}


def shape(kind: VectorKind, report: EncodeProgress, width: int) -> str:
    """Say what was made."""
    if kind == "sparse":
        return f"{report.terms_per_text:,.1f} of {width:,} terms per text"
    if kind == "multi-vector":
        return f"{console.counted(report.vectors, 'vector')} × {width}"
    return f"{report.texts:,} × {width}"


def on_truncated(kind: VectorKind, role: TextRole | None) -> str:
    """Say what to do about texts longer than the model reads."""
    if kind == "sparse":
        return ". Take the terms of all pieces with --on-truncate chunk"
    if kind == "multi-vector":
        return ". Keep the vectors of all pieces with --on-truncate chunk" if role == "document" else ""
    return ". Average all pieces with --on-truncate chunk"


def _kind_and_limit(encoder: AnyEncoder, role: TextRole | None) -> tuple[VectorKind, int]:
    """Return what a model makes of a text, and how many of its tokens it reads."""
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.sparse import SparseEncoder

    if not isinstance(encoder, MultiVectorEncoder | SparseEncoder):
        return "dense", encoder.max_length
    assert role is not None  # without one, these models are refused
    return "sparse" if isinstance(encoder, SparseEncoder) else "multi-vector", encoder.max_length(role)


def _summarize(report: EncodeProgress, job: EncodeJob, output: str, *, as_json: bool) -> None:
    encoder, role = job.encoder, job.settings.role
    kind, limit = _kind_and_limit(encoder, role)
    if as_json:
        summary: dict[str, Any] = {
            "output": output,
            "model": encoder.folder.name,
            **models.choice_as_json(encoder.choice),
            **_settings(encoder),
            "dimension": encoder.width(role),
            "texts": report.texts,
            **counts_as_json(kind, report),
            "tokens": report.tokens,
            "seconds": round(report.seconds, 3),
            "tokens_per_second": round(report.tokens_per_second, 1),
            "texts_per_second": round(report.texts_per_second, 1),
            "truncated": report.truncated,
            "empty": report.empty,
            "unknown": report.unknown,
            "duplicates": report.duplicates,
            "nonfinite": report.nonfinite,
            "resumed_at": report.resumed_at,
        }
        console.print_json(summary)
        return
    speed = (
        f" in {report.seconds:,.1f} s ({report.tokens_per_second:,.0f} tokens/s)" if report.seconds else ""
    )
    resumed = f", of which {report.resumed_at:,} before" if report.resumed_at else ""
    console.note(
        f"{console.counted(report.texts, 'text')}{resumed}, {console.counted(report.tokens, 'token')}{speed} "
        f"-> {output} ({shape(kind, report, encoder.width(role))}), model {encoder.folder.name}"
    )
    if report.truncated:
        console.warn(
            f"{console.counted(report.truncated, 'text')} cut to the {limit} tokens that the model "
            f"reads; the first is {report.first_truncated}{on_truncated(kind, role)}"
        )
    if report.empty:
        console.warn(
            f"{console.counted(report.empty, 'text')} empty or without tokens for this model; the first is {report.first_empty}"
        )
    models.say_unknown(report.unknown, "text", report.first_unknown)
    if report.duplicates:
        console.note(f"note: {console.counted(report.duplicates, 'text')} stood earlier already")
    if report.nonfinite:
        console.warn(
            f"{console.counted(report.nonfinite, 'vector')} with values that are not finite. Check the model: embedkit model check"
        )
