"""`embedkit encode` with a learned sparse model: JSON lines of terms with weights, or a matrix in compressed rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from embedkit.types import Computing

from .shared import console, models, options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedkit.data.records import Document
    from embedkit.encoding.sparse import SparseEncoder, SparseWindow
    from embedkit.encoding.sparse_job import SparseOptions, SparseProgress

SHOWN_TERMS = 8  # of a text, on a terminal


def encode_sparse(
    model: str | Path,
    wanted: SparseOptions,
    inputs: Iterable[Document],
    output: Path | None,
    computing: Computing,
    printing: options.Printing,
    *,
    max_seq_length: int | None,
    max_active_dims: int | None,
) -> None:
    """Encode documents as `embedkit encode` was asked to."""
    from embedkit.encoding.sparse_job import check_sparse_output
    from embedkit.pipelines.models import load_sparse_encoder

    if output is not None:
        check_sparse_output(output)
    encoder = load_sparse_encoder(
        model,
        computing,
        max_seq_length=max_seq_length,
        max_active_dims=max_active_dims,
    )
    models.say_choice(encoder.choice)
    if output is None:
        _to_stdout(encoder, inputs, wanted, as_json=printing.as_json)
    else:
        _to_file(encoder, inputs, wanted, output, printing)


def _to_file(
    encoder: SparseEncoder,
    inputs: Iterable[Document],
    wanted: SparseOptions,
    output: Path,
    printing: options.Printing,
) -> None:
    from embedkit.encoding.sparse_job import SparseProgress, encode_sparse_to_file

    report = SparseProgress()
    try:
        with console.progress_bar("encode") as bar:
            for report in encode_sparse_to_file(encoder, inputs, output, wanted):
                bar.update(_fraction(inputs), f"{report.texts:,} texts")
    except KeyboardInterrupt:
        console.tell(
            f"interrupted after {report.texts:,} texts; start again with:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    if printing.as_json:
        summary = {"output": str(output), "model": encoder.name, **models.choice_as_json(encoder.choice)}
        console.print_json(summary | {"dimension": encoder.dimension, **report.as_json()})
        return
    _summarize(encoder, report, wanted, str(output))


def _to_stdout(
    encoder: SparseEncoder, inputs: Iterable[Document], wanted: SparseOptions, *, as_json: bool
) -> None:
    from embedkit.encoding.sparse_job import SparseProgress, encode_sparse_stream, json_rows

    report = SparseProgress()
    shorten = sys.stdout.isatty() and not as_json
    with console.stream_bar("encode") as bar:
        for documents, window in encode_sparse_stream(encoder, inputs, wanted):
            report = report.plus(documents, window)
            if shorten:
                for line in _short_rows(encoder, documents, window):
                    console.say(line)
            else:
                for row in json_rows(encoder, documents, window):
                    console.write_json(row)
            bar.update(_fraction(inputs), f"{report.texts:,} texts")
    sys.stdout.flush()
    if shorten:
        console.note("all terms: --output FILE, or a pipe, or --json")
    _summarize(encoder, report, wanted, "standard output")


def _short_rows(encoder: SparseEncoder, documents: list[Document], window: SparseWindow) -> Iterator[str]:
    for document, terms in zip(documents, encoder.describe(window.vectors), strict=True):
        shown = ", ".join(f"{term} {weight:.2f}" for term, weight in list(terms.items())[:SHOWN_TERMS])
        yield f"{document.doc_id}  {shown}{', …' if len(terms) > SHOWN_TERMS else ''}  ({len(terms)} terms)"


def _summarize(encoder: SparseEncoder, report: SparseProgress, wanted: SparseOptions, output: str) -> None:
    speed = f" in {report.seconds:,.1f} s" if report.seconds else ""
    console.note(
        f"{console.counted(report.texts, 'text')}, {console.counted(report.tokens, 'token')}{speed} -> {output} "
        f"({report.mean_terms:,.1f} of {encoder.dimension:,} terms a text), model {encoder.name}"
    )
    if report.truncated:
        limit = encoder.of_role(wanted.role).tokenizer.max_length
        console.warn(
            f"{console.counted(report.truncated, 'text')} cut to the {limit} tokens that the model reads; the first is "
            f"{report.first_truncated}. Take the terms of all pieces with --on-truncate chunk"
        )
    if report.empty:
        console.warn(
            f"{console.counted(report.empty, 'text')} empty or without tokens for this model; the first is {report.first_empty}"
        )
    models.say_unknown(report.unknown, "text", report.first_unknown)


def _fraction(inputs: Iterable[Document]) -> float | None:
    fraction = getattr(inputs, "fraction", None)
    return None if fraction is None else fraction()
