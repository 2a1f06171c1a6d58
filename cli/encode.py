"""`embedkit encode`: texts in files, vectors out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embedkit.types import Computing, OnTruncate, TextRole

from .encode_shards import encode_in_shards
from .shared import console, models, options
from .shared.groups import grouped
from .shared.sharding import Sharding

if TYPE_CHECKING:
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.job import EncodeOptions, EncodeProgress
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.windows import AnyWindow
    from embedkit.serving.client.encoding import ServedEncoder
    from indexes.types import VectorKind

    AnyEncoder = Encoder | MultiVectorEncoder | ServedEncoder

EXAMPLES = """\b
Examples:
  embedkit encode notes.txt --output notes.npy
  embedkit encode 'corpus/*.jsonl.gz' --model FOLDER -o corpus.npy --precision bf16
  embedkit encode papers.jsonl --role document --model fields -o papers.npy   # with an expert for each field
  embedkit encode notes.txt --server http://localhost:8080 -o notes.npy   # by `embedkit serve`
  embedkit encode 'corpus/*.jsonl' -o corpus.npy --shards 16 --workers 4   # or --executor ray
  embedkit encode corpus.jsonl --role document --model COLBERT -o corpus.npz   # a vector for each token
  embedkit encode corpus.jsonl --role document --model SPLADE -o corpus.npz   # weights of terms
  cat queries.txt | embedkit encode - > queries.jsonl
"""


SHOWN_NUMBERS = 4  # of a vector, on a terminal


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become vectors."""

    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="TEXT", help="Put this before each text.", show_default=False),
    ] = None
    prompt_name: Annotated[
        str | None,
        typer.Option(
            "--prompt-name",
            metavar="NAME",
            help="Put the model's prompt of this name before each text.",
            show_default=False,
        ),
    ] = None
    role: Annotated[
        TextRole | None,
        typer.Option(
            "--role",
            help="Encode as an index does documents, or a search its queries: with the model's prompt for them, and in the form that "
            "is compared. A model with experts for fields needs it.",
            show_default=False,
        ),
    ] = None
    on_truncate: Annotated[
        OnTruncate,
        typer.Option(
            "--on-truncate",
            help="Texts longer than the model reads: cut and count, stop, or average the vectors of all pieces.",
        ),
    ] = "warn"
    on_empty: Annotated[
        Literal["warn", "error"],
        typer.Option(
            "--on-empty",
            help="Texts without tokens: encode what the model puts around them (zeros where it is nothing) and count, or stop.",
        ),
    ] = "warn"
    max_seq_length: options.MaxSeqLength = None
    truncate_dim: options.TruncateDim = None
    merge_tokens: options.MergeTokens = None
    recursions: options.Recursions = None
    token_pooling: Annotated[
        float | None,
        typer.Option(
            "--token-pooling",
            metavar="FACTOR",
            min=1.0,
            rich_help_panel=options.TUNING,
            help="Of a multi-vector model: keep one of FACTOR vectors of a document. Default: as the model's folder says.",
            show_default=False,
        ),
    ] = None
    max_active_dims: options.MaxActiveDims = None


@grouped
def encode(
    inputs: options.Inputs,
    *,
    model: options.SomeModel = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Let `embedkit serve` there encode; --model then names one of its models.",
            show_default=False,
        ),
    ] = None,
    api_key: options.ApiKey = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".npy (ids beside it) or .jsonl; of a multi-vector or learned sparse model .npz or .jsonl; with --shards also a folder, in "
            "which the shards stay. Default: JSON lines to standard output.",
            show_default=False,
        ),
    ] = None,
    encoding: Encoding,
    sharding: Sharding,
    computing: options.ComputingOptions,
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    """Turn texts into vectors: of sentences, of tokens with a multi-vector model, of terms with a sparse one.

    A title is put before its text, and white space around both is left out, as `index build` does. Every text has its row:
    a blank one, which an index leaves out, is encoded as an empty text and counted. Memory does not grow with the input. Stopped at any moment, the same command goes on
    where it was and ends with the same bits.
    """
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.draft import ENDINGS, check_output
    from embedkit.encoding.job import EncodeOptions
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.vector_files import TOKEN_ENDINGS

    if server is not None:
        _refuse_what_a_server_decides(encoding)
    if encoding.prompt is not None and encoding.prompt_name is not None:
        raise typer.BadParameter("--prompt and --prompt-name exclude each other")
    if encoding.role is not None and (encoding.prompt is not None or encoding.prompt_name is not None):
        raise typer.BadParameter(
            "--role puts the model's own prompt before texts, and excludes --prompt and --prompt-name"
        )
    if server is None and _kind(model) == "sparse":
        _encode_terms(inputs, model, output, sharding, encoding, computing, reading, printing)
        return
    if encoding.max_active_dims is not None:
        raise typer.BadParameter(
            "--max-active-dims goes with a learned sparse model, and this is none; leave it out"
        )
    tokens = server is None and _kind(model) == "multi-vector"
    _check_kind(encoding, tokens=tokens, output=output)
    settings = EncodeOptions(
        prompt=encoding.prompt,
        role=encoding.role,
        on_truncate=encoding.on_truncate,
        fail_on_empty=encoding.on_empty == "error",
    )
    if sharding.shards is not None:
        if server is not None:
            raise typer.BadParameter(
                "--shards and --server exclude each other: workers have the model themselves"
            )
        if tokens:
            raise typer.BadParameter("--shards does not go with a multi-vector model; leave it out")
        encode_in_shards(
            inputs,
            output,
            sharding,
            settings,
            model=model,
            prompt_name=encoding.prompt_name,
            loading={
                "max_seq_length": encoding.max_seq_length,
                "truncate_dim": encoding.truncate_dim,
                "recursions": encoding.recursions,
            },
            merge_tokens=encoding.merge_tokens or 0.0,
            computing=computing,
            reading=reading,
            printing=printing,
        )
        return
    sharding.refuse_alone()
    if output is not None:  # before the model is loaded, which takes longer
        check_output(output, endings=TOKEN_ENDINGS if tokens else ENDINGS)
    reader = DocumentReader(inputs, reading)
    console.say_waiting(inputs)
    with _encoder(model, server, api_key, encoding, computing) as encoder:
        models.say_choice(encoder.choice)
        if encoding.prompt_name is not None and not isinstance(encoder, MultiVectorEncoder):
            settings = replace(settings, prompt=encoder.prompt(encoding.prompt_name))
        job = _Job(encoder, reader, settings)
        if output is None:
            _to_stdout(job, as_json=printing.as_json)
        else:
            _to_file(job, output, printing)


def _role_for_terms(encoding: Encoding) -> TextRole:
    """Refuse what a learned sparse model does not have, and return the role, which it needs."""
    for name in ("prompt", "prompt_name", "truncate_dim", "merge_tokens", "recursions", "token_pooling"):
        if getattr(encoding, name) is not None:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} does not go with a learned sparse model; leave it out"
            )
    if encoding.role is None:
        raise typer.BadParameter(
            "a learned sparse model encodes queries and documents each in their way: --role query or --role document"
        )
    return encoding.role


def _encode_terms(
    inputs: list[str],
    model: str | None,
    output: Path | None,
    sharding: Sharding,
    encoding: Encoding,
    computing: Computing,
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.sparse_job import SparseOptions
    from embedkit.pipelines.models import or_default

    from .encode_sparse import encode_sparse

    if sharding.shards is not None:
        raise typer.BadParameter("--shards does not go with a learned sparse model; leave it out")
    sharding.refuse_alone()
    wanted = SparseOptions(
        role=_role_for_terms(encoding),
        on_truncate=encoding.on_truncate,
        fail_on_empty=encoding.on_empty == "error",
    )
    reader = DocumentReader(inputs, reading)
    console.say_waiting(inputs)
    limits = {"max_seq_length": encoding.max_seq_length, "max_active_dims": encoding.max_active_dims}
    encode_sparse(or_default(model), wanted, reader, output, computing, printing, **limits)


def _kind(model: str | None) -> VectorKind:
    from embedkit.pipelines.models import kind_of_model, or_default

    return kind_of_model(or_default(model))


def _refuse_what_a_server_decides(encoding: Encoding) -> None:
    for name in (
        "max_seq_length",
        "truncate_dim",
        "merge_tokens",
        "recursions",
        "token_pooling",
        "max_active_dims",
    ):
        if getattr(encoding, name) is not None:
            option = name.replace("_", "-")
            raise typer.BadParameter(
                f"--{option} and --server exclude each other: the server's model is as it was started"
            )


def _check_kind(encoding: Encoding, *, tokens: bool, output: Path | None) -> None:
    """Refuse what goes with one kind of model alone, where the model is of the other."""
    if not tokens:
        if encoding.token_pooling is not None:
            raise typer.BadParameter(
                "--token-pooling goes with a multi-vector model, and this one gives a text one vector"
            )
        return
    for name in ("prompt", "prompt_name", "truncate_dim", "merge_tokens", "recursions"):
        if getattr(encoding, name) is not None:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} does not go with a multi-vector model; leave it out"
            )
    if encoding.role is None:
        raise typer.BadParameter(
            "a multi-vector model encodes queries and documents in ways of their own: --role query or --role document"
        )
    if encoding.token_pooling is not None and encoding.role == "query":
        raise typer.BadParameter("--token-pooling is of documents, and these are queries; leave it out")
    if encoding.on_truncate == "chunk" and encoding.role == "query":
        raise typer.BadParameter("--on-truncate chunk is of documents, and these are queries; choose another")
    if output is not None and output.suffix == ".npy":
        from embedkit.errors import OutputError

        raise OutputError(
            f"{output}: a multi-vector model gives each text vectors of its own number, which .npy does not hold. "
            "Choose .npz or .jsonl"
        )


@contextmanager
def _encoder(
    model: str | None, server: str | None, api_key: str | None, encoding: Encoding, computing: Computing
) -> Iterator[AnyEncoder]:
    """Load the model, or turn to a server."""
    if server is not None:
        from embedkit.serving.client.connection import Address, Client
        from embedkit.serving.client.encoding import ServedEncoder

        with Client(Address.of(server), key=api_key) as client:
            yield ServedEncoder(client, model, role=encoding.role)
        return
    from embedkit.pipelines.models import load_encoder, load_multi_vector_encoder, or_default

    if _kind(model) == "multi-vector":
        limit, factor = encoding.max_seq_length, encoding.token_pooling
        yield load_multi_vector_encoder(
            or_default(model), computing, max_seq_length=limit, token_pooling=factor
        )
        return
    yield load_encoder(
        or_default(model),
        computing,
        max_seq_length=encoding.max_seq_length,
        truncate_dim=encoding.truncate_dim,
        merge_tokens=encoding.merge_tokens or 0.0,
        recursions=encoding.recursions,
    )


@dataclass(frozen=True)
class _Job:
    """What is encoded, by what, and how."""

    encoder: AnyEncoder
    reader: DocumentReader
    settings: EncodeOptions


def _to_file(job: _Job, output: Path, printing: options.Printing) -> None:
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


def _to_stdout(job: _Job, *, as_json: bool) -> None:
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
        console.note("whole vectors: --output FILE, or a pipe, or --json")
    _summarize(report, job, "standard output", as_json=False)


def _short_rows(ids: Sequence[str], window: AnyWindow) -> Iterator[str]:
    from embedkit.encoding.windows import EncodedWindow, TokenWindow

    for number, doc_id in enumerate(ids):
        if isinstance(window, TokenWindow):
            vectors = window.vectors.text(number)
            numbers = _shown(vectors[0].tolist()) if len(vectors) else ""
            yield f"{doc_id}  {console.counted(len(vectors), 'vector')} [{numbers}, …]"
        elif isinstance(window, EncodedWindow):
            embedding = window.embeddings[number].tolist()
            yield f"{doc_id}  [{_shown(embedding)}, … {len(embedding)} numbers]"


def _shown(embedding: Sequence[float]) -> str:
    return ", ".join(f"{number:.4f}" for number in embedding[:SHOWN_NUMBERS])


def _settings(encoder: AnyEncoder) -> dict[str, Any]:
    """Return what was asked for beside the model itself, where it was."""
    from embedkit.encoding.multi_vector import MultiVectorEncoder

    if isinstance(encoder, MultiVectorEncoder):
        factor = encoder.document_pooling
        return {"token_pooling": factor} if factor > 1 else {}
    found: dict[str, Any] = {"merge_tokens": encoder.merge_tokens} if encoder.merge_tokens else {}
    recursions = encoder.folder.recursions
    return found if recursions is None else found | {"recursions": recursions}


def _summarize(report: EncodeProgress, job: _Job, output: str, *, as_json: bool) -> None:
    from embedkit.encoding.multi_vector import MultiVectorEncoder

    encoder, role = job.encoder, job.settings.role
    if as_json:
        summary: dict[str, Any] = {
            "output": output,
            "model": encoder.folder.name,
            **models.choice_as_json(encoder.choice),
            **_settings(encoder),
            "dimension": encoder.width(role),
            "texts": report.texts,
            **({"vectors": report.vectors} if isinstance(encoder, MultiVectorEncoder) else {}),
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
    shape = f"{report.texts:,}"
    limit, advice = encoder.max_length, ". Average all pieces with --on-truncate chunk"
    if isinstance(encoder, MultiVectorEncoder):
        assert role is not None
        shape, limit = console.counted(report.vectors, "vector"), encoder.max_length(role)
        advice = ". Keep the vectors of all pieces with --on-truncate chunk" if role == "document" else ""
    console.note(
        f"{console.counted(report.texts, 'text')}{resumed}, {console.counted(report.tokens, 'token')}{speed} "
        f"-> {output} ({shape} × {encoder.width(role)}), model {encoder.folder.name}"
    )
    if report.truncated:
        console.warn(
            f"{console.counted(report.truncated, 'text')} cut to the {limit} tokens that the model "
            f"reads; the first is {report.first_truncated}{advice}"
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
