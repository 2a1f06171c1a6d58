"""`embedkit encode`: texts in files, vectors out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedkit.types import Computing, OnTruncate, TextRole

from .encode_output import EncodeJob, to_file, to_stdout
from .encode_shards import encode_in_shards
from .shared import console, models, options
from .shared.groups import grouped
from .shared.sharding import Sharding

if TYPE_CHECKING:
    from indexes.types import VectorKind

    from .encode_output import AnyEncoder

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


_KINDS: dict[VectorKind, str] = {
    "dense": "a dense model, which gives a text one vector",
    "multi-vector": "a multi-vector model",
    "sparse": "a learned sparse model",
}
_OF_ONE_KIND: dict[str, VectorKind] = {"token_pooling": "multi-vector", "max_active_dims": "sparse"}


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

    def loading(self, kind: VectorKind) -> dict[str, float | None]:
        """Return the options of `load` that a kind of model takes."""
        own = {
            "dense": ("truncate_dim", "recursions"),
            "multi-vector": ("token_pooling",),
            "sparse": ("max_active_dims",),
        }
        return {name: getattr(self, name) for name in ("max_seq_length", *own[kind])}


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
    from embedkit.encoding.draft import check_output
    from embedkit.encoding.job import EncodeOptions
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.output_forms import forms_of

    if server is not None:
        _refuse_what_a_server_decides(encoding)
    if encoding.prompt is not None and encoding.prompt_name is not None:
        raise typer.BadParameter("--prompt and --prompt-name exclude each other")
    if encoding.role is not None and (encoding.prompt is not None or encoding.prompt_name is not None):
        raise typer.BadParameter(
            "--role puts the model's own prompt before texts, and excludes --prompt and --prompt-name"
        )
    kind = _kind(model) if server is None else "dense"
    _check_kind(encoding, kind, output)
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
        encode_in_shards(
            inputs,
            output,
            sharding,
            settings,
            model=model,
            prompt_name=encoding.prompt_name,
            kind=kind,
            loading=encoding.loading(kind),
            merge_tokens=encoding.merge_tokens or 0.0,
            computing=computing,
            reading=reading,
            printing=printing,
        )
        return
    sharding.refuse_alone()
    if output is not None:  # before the model is loaded, which takes longer
        check_output(output, forms=forms_of(kind))
    reader = DocumentReader(inputs, reading)
    console.say_waiting(inputs)
    with _encoder(model, kind, server, api_key, encoding, computing) as encoder:
        models.say_choice(encoder.choice)
        if encoding.prompt_name is not None and not isinstance(encoder, MultiVectorEncoder):
            settings = replace(settings, prompt=encoder.prompt(encoding.prompt_name))
        job = EncodeJob(encoder, reader, settings)
        if output is None:
            to_stdout(job, as_json=printing.as_json)
        else:
            to_file(job, output, printing)


def _kind(model: str | None) -> VectorKind:
    from embedkit.pipelines.models import kind_of_model, or_default

    return kind_of_model(or_default(model))


def _refuse_what_a_server_decides(encoding: Encoding) -> None:
    for name in ("max_seq_length", "truncate_dim", "merge_tokens", "recursions", *_OF_ONE_KIND):
        if getattr(encoding, name) is not None:
            raise typer.BadParameter(
                f"{_option(name)} and --server exclude each other: the server's model is as it was started"
            )


def _check_kind(encoding: Encoding, kind: VectorKind, output: Path | None) -> None:
    """Refuse what does not go with the kind of the model."""
    for name, owner in _OF_ONE_KIND.items():
        if owner != kind and getattr(encoding, name) is not None:
            raise typer.BadParameter(f"{_option(name)} goes with {_KINDS[owner]}, and this is {_KINDS[kind]}")
    if kind == "dense":
        return
    for name in ("prompt", "prompt_name", "truncate_dim", "merge_tokens", "recursions"):
        if getattr(encoding, name) is not None:
            raise typer.BadParameter(f"{_option(name)} does not go with {_KINDS[kind]}; leave it out")
    if encoding.role is None:
        raise typer.BadParameter(
            f"{_KINDS[kind]} encodes queries and documents in ways of their own: --role query or --role document"
        )
    if kind == "sparse":
        return
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


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@contextmanager
def _encoder(
    model: str | None,
    kind: VectorKind,
    server: str | None,
    api_key: str | None,
    encoding: Encoding,
    computing: Computing,
) -> Iterator[AnyEncoder]:
    """Load the model, or turn to a server."""
    if server is not None:
        from embedkit.serving.client.connection import Address, Client
        from embedkit.serving.client.encoding import ServedEncoder

        with Client(Address.of(server), key=api_key) as client:
            yield ServedEncoder(client, model, role=encoding.role)
        return
    from embedkit.pipelines.embedders import load_any_encoder
    from embedkit.pipelines.models import or_default

    yield load_any_encoder(
        or_default(model), computing, encoding.loading(kind), merge_tokens=encoding.merge_tokens or 0.0
    )
