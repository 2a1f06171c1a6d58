"""Options and arguments that several commands share, spelled and explained alike everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from embedkit.data.records import ReadOptions
from embedkit.models import ENCODER, RERANKER


class InputFormat(StrEnum):
    txt = "txt"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    file = "file"


class ModeName(StrEnum):
    dense = "dense"
    text = "text"
    hybrid = "hybrid"


class FusionName(StrEnum):
    scores = "scores"
    ranks = "ranks"


class DeviceName(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class PrecisionName(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class BackendName(StrEnum):
    auto = "auto"
    native = "native"
    numpy = "numpy"
    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class OnTruncateName(StrEnum):
    warn = "warn"
    error = "error"
    chunk = "chunk"
    ok = "ok"


class OnEmptyName(StrEnum):
    warn = "warn"
    error = "error"


class RerankCommand(TyperCommand):
    """A command whose `--rerank` may stand without a value, last or before another option: it then means the shipped one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: as in the parent
        return super().parse_args(ctx, with_reranker(args))


def with_reranker(words: list[str]) -> list[str]:
    """Put the shipped reranker's name after each `--rerank` that has no value."""
    options_end = words.index("--") if "--" in words else len(words)
    found = []
    for place, word in enumerate(words):
        found.append(word)
        following = words[place + 1 : place + 2]
        if word == "--rerank" and place < options_end and (not following or following[0].startswith("-")):
            found.append(RERANKER)
    return found


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (.txt .jsonl .csv .tsv .parquet .md .rst .html, also .gz .zst), folders, globs, or - for standard input.",
        show_default=False,
    ),
]
Model = Annotated[
    Path,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar="EMBEDKIT_MODEL",
        help="Model folder, or a shipped model's name.",
        show_default=False,
    ),
]
SomeModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar="EMBEDKIT_MODEL",
        help=f"Model folder, or a shipped model's name. Default: {ENCODER}.",
        show_default=False,
    ),
]
Device = Annotated[DeviceName, typer.Option("--device", help="Where to compute.")]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        "--precision",
        envvar="EMBEDKIT_PRECISION",
        help="Number format of weights and activations; auto: the fastest here that is as good as fp32 (measured once).",
    ),
]
Backend = Annotated[
    BackendName,
    typer.Option(
        "--backend",
        help="What computes; auto: the fastest of native, numpy and torch that can. onnx and openvino are optional packages.",
    ),
]
ForcePrecision = Annotated[
    bool,
    typer.Option("--force-precision", help="Take a half precision even where the processor emulates it."),
]
MaxSeqLength = Annotated[
    int | None,
    typer.Option(
        "--max-seq-length",
        metavar="N",
        min=3,
        help="Tokens read of each text. Default: the model's own.",
        show_default=False,
    ),
]
TruncateDim = Annotated[
    int | None,
    typer.Option(
        "--truncate-dim",
        metavar="N",
        min=1,
        help="Keep the first N dimensions (Matryoshka models).",
        show_default=False,
    ),
]
FusionBy = Annotated[
    FusionName,
    typer.Option(
        "--fusion",
        help="What mode hybrid joins: the scores, each scaled to 0 … 1, or the ranks alone (reciprocal rank fusion).",
    ),
]
RerankWeight = Annotated[
    float | None,
    typer.Option(
        "--rerank-weight",
        metavar="W",
        min=0.0,
        max=1.0,
        help="Part of the reranker's score in the order, the rest being the first stage's, each scaled to 0 … 1. "
        "Default: what the reranker's folder says, else 1.",
        show_default=False,
    ),
]
MergeTokens = Annotated[
    float | None,
    typer.Option(
        "--merge-tokens",
        metavar="R",
        min=0.0,
        max=0.5,
        help="Merge a share R of a long text's tokens in each layer (ToMe): faster, a little worse. 0.1 leaves half of them after six layers. An index keeps its R.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
Format = Annotated[
    InputFormat | None,
    typer.Option(
        "--format",
        help="What the input is. Default: by its name; a pipe is JSON lines or plain text by its first line.",
        show_default=False,
    ),
]
TextField = Annotated[
    str | None,
    typer.Option(
        "--text-field",
        metavar="NAME",
        help="Key or column of the text. Default: text, body, content or sentence.",
        show_default=False,
    ),
]
IdField = Annotated[
    str | None,
    typer.Option(
        "--id-field",
        metavar="NAME",
        help="Key or column of the id. Default: _id, id or doc_id, else file:line.",
        show_default=False,
    ),
]
TitleField = Annotated[
    str | None,
    typer.Option(
        "--title-field",
        metavar="NAME",
        help="Key or column of the title. Default: title.",
        show_default=False,
    ),
]
MaxLineBytes = Annotated[
    int,
    typer.Option(
        "--max-line-bytes", metavar="N", min=1, help="Refuse longer lines: they are rarely one text."
    ),
]

DEFAULT_MAX_LINE_BYTES = ReadOptions.max_line_bytes
IndexPath = Annotated[
    Path, typer.Option("--index", "-i", metavar="FOLDER", help="Index folder.", show_default=False)
]
# Without envvar: an index's own model comes before what the environment names.
IndexModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=f"Model folder or name. Default: the index's own; for a new one $EMBEDKIT_MODEL, else {ENCODER}.",
        show_default=False,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Only documents whose metadata match, such as \"lang = 'en' and year > 2020\".",
        show_default=False,
    ),
]
SomeInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Files, folders, globs, or - for standard input.", show_default=False
    ),
]
