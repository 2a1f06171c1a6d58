"""Options and arguments that several commands share, spelled and explained alike everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from embedkit import types
from embedkit.data.formats import Format
from embedkit.data.records import ReadOptions
from embedkit.models import ENCODER
from embedkit.retrieval.options import Fusion, Mode, SearchOptions
from embedkit.types import Device, WantedPrecision, WantedRuntime
from indexes import GatherOptions
from indexes.sharded.options import SECONDS, Connect

from . import completing

if TYPE_CHECKING:
    from indexes.sharded.shard import Shard

KEY_VARIABLE = "EMBEDKIT_API_KEY"
TUNING = "Tuning"  # the panel of options that few need

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (.txt .jsonl .csv .tsv .parquet .md .rst .html, also .gz .zst), folders, globs, or - for standard input.",
        show_default=False,
    ),
]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (.txt .jsonl .csv .tsv .parquet .md .rst .html, also .gz .zst), folders or globs.",
        show_default=False,
    ),
]
Model = Annotated[
    Path,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=completing.complete_model,
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
        autocompletion=completing.complete_model,
        envvar="EMBEDKIT_MODEL",
        help=f"Model folder, or a shipped model's name. Default: {ENCODER}.",
        show_default=False,
    ),
]
MaxSeqLength = Annotated[
    int | None,
    typer.Option(
        "--max-seq-length",
        rich_help_panel=TUNING,
        metavar="N",
        min=3,
        help="Tokens read of each text. Default: the model's own.",
        show_default=False,
    ),
]
LoraRank = Annotated[
    int | None,
    typer.Option(
        "--lora-rank",
        metavar="R",
        min=1,
        help="Leave the encoder's weights and train two matrices of rank R beside each (LoRA); see the recipes with lora.",
        show_default=False,
    ),
]
TruncateDim = Annotated[
    int | None,
    typer.Option(
        "--truncate-dim",
        rich_help_panel=TUNING,
        metavar="N",
        min=1,
        help="Keep the first N dimensions (Matryoshka models).",
        show_default=False,
    ),
]
MaxActiveDims = Annotated[
    int | None,
    typer.Option(
        "--max-active-dims",
        rich_help_panel=TUNING,
        metavar="N",
        min=1,
        help="Of a learned sparse model: keep the N terms of largest weight of each text. Default: as the model's folder says.",
        show_default=False,
    ),
]
MergeTokens = Annotated[
    float | None,
    typer.Option(
        "--merge-tokens",
        rich_help_panel=TUNING,
        metavar="R",
        min=0.0,
        max=0.5,
        help="Merge a share R of a long text's tokens in each layer (ToMe): faster, a little worse. 0.1 leaves half of them after six layers. An index keeps its R.",
        show_default=False,
    ),
]
Recursions = Annotated[
    int | None,
    typer.Option(
        "--recursions",
        rich_help_panel=TUNING,
        metavar="N",
        min=1,
        help="Run the layers that recur N times, less often than they were trained: faster, at some cost in quality. Default: as trained.",
        show_default=False,
    ),
]

IndexPath = Annotated[
    Path | None,
    typer.Option(
        "--index",
        "-i",
        metavar="FOLDER",
        autocompletion=completing.complete_index,
        help="Index folder. Default: .embedkit/index in this folder, or in one above that has it.",
        show_default=False,
    ),
]
# Without envvar: an index's own model comes before what the environment names.
IndexModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=completing.complete_model,
        help=f"Model folder or name. Default: the index's own; for a new one $EMBEDKIT_MODEL, else {ENCODER}.",
        show_default=False,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        autocompletion=completing.complete_filter,
        help="Only documents whose metadata match, such as \"lang = 'en' and year > 2020 and tags contains 'news'\".",
        show_default=False,
    ),
]
SomeInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Files, folders, globs, or - for standard input.", show_default=False
    ),
]


def seconds(text: str) -> float:
    """Read a time such as 200ms or 1.5s, as the value of an option."""
    from embedkit.retrieval.reranking import parse_budget

    try:
        return parse_budget(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
PrecisionOption = Annotated[
    WantedPrecision,
    typer.Option(
        "--precision",
        envvar="EMBEDKIT_PRECISION",
        help="Number format of weights and activations; auto: the fastest here that is as good as fp32 (measured once).",
    ),
]
RerankWeight = Annotated[
    float | None,
    typer.Option(
        "--rerank-weight",
        rich_help_panel=TUNING,
        metavar="W",
        min=0.0,
        max=1.0,
        help="Weight of the reranker's score in the order of hits, the rest being the first stage's, each scaled to 0 … 1. "
        "Default: what the reranker's folder says, else 1.",
        show_default=False,
    ),
]
FusionOption = Annotated[
    Fusion,
    typer.Option(
        "--fusion",
        rich_help_panel=TUNING,
        help="What mode hybrid joins: the scores, each scaled to 0 … 1, or the ranks alone (reciprocal rank fusion).",
    ),
]
TextUnit = Annotated[
    Literal["line", "file"], typer.Option("--text-unit", help="What one document is in a .txt file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON lines.")]


@dataclass(frozen=True, kw_only=True)
class Printing:
    """How the result is printed."""

    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class ComputingOptions(types.Computing):
    """What computes a model, where its kind leaves a choice."""

    PANEL: ClassVar[str] = "Computing"

    device: DeviceOption = "auto"
    precision: PrecisionOption = "auto"
    backend: Annotated[
        WantedRuntime,
        typer.Option(
            "--backend",
            help="What computes; auto: the fastest of native, numpy and torch that can. onnx and openvino are optional packages.",
        ),
    ] = "auto"
    force_precision: Annotated[
        bool,
        typer.Option("--force-precision", help="Take a half precision even where the processor emulates it."),
    ] = False


ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar=KEY_VARIABLE,
        help="Key of the server, where one is named.",
        show_default=False,
        show_envvar=True,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="SIGN",
        help="What separates columns of CSV and TSV: one sign, or tab. Default: by the file.",
        show_default=False,
    ),
]
Header = Annotated[
    bool,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of CSV and TSV names the columns. Without names they are 1, 2, 3 …",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Reading(ReadOptions):
    """How input files are read."""

    PANEL: ClassVar[str] = "Reading files"

    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="What the input is. Default: by its name; a pipe is JSON lines or plain text by its first line.",
            show_default=False,
        ),
    ] = None
    text_field: Annotated[
        str | None,
        typer.Option(
            "--text-field",
            metavar="NAME",
            autocompletion=completing.complete_field,
            help="Key or column of the text. Default: text, body, content, contents or sentence.",
            show_default=False,
        ),
    ] = None
    id_field: Annotated[
        str | None,
        typer.Option(
            "--id-field",
            metavar="NAME",
            autocompletion=completing.complete_field,
            help="Key or column of the id. Default: _id, id or doc_id, else file:line.",
            show_default=False,
        ),
    ] = None
    title_field: Annotated[
        str | None,
        typer.Option(
            "--title-field",
            metavar="NAME",
            autocompletion=completing.complete_field,
            help="Key or column of the title. Default: title.",
            show_default=False,
        ),
    ] = None
    text_unit: TextUnit = "line"
    max_line_bytes: Annotated[
        int,
        typer.Option(
            "--max-line-bytes", metavar="N", min=1, help="Refuse longer lines: they are rarely one text."
        ),
    ] = ReadOptions.max_line_bytes
    delimiter: Delimiter = None
    header: Header = True


@dataclass(frozen=True, kw_only=True)
class ReadingFiles(Reading):
    """How input files are read where a text file is one document."""

    text_unit: TextUnit = "file"


@dataclass(frozen=True, kw_only=True)
class Walking:
    """What of a folder is read."""

    PANEL: ClassVar[str] = "Reading files"

    no_ignore: Annotated[
        bool,
        typer.Option(
            "--no-ignore",
            help="Also read what .gitignore, .ignore and .embedkitignore name, node_modules and build folders.",
        ),
    ] = False
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Also read files and folders whose names begin with a dot.")
    ] = False


TextWeight = Annotated[
    float,
    typer.Option(
        "--text-weight",
        rich_help_panel=TUNING,
        metavar="W",
        min=0.0,
        help="Weight of words in mode hybrid.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Searching(SearchOptions):
    """How an index is searched."""

    k: Annotated[int, typer.Option("--top-k", "-k", metavar="K", min=1, help="Hits per query, at most.")] = 10
    mode: Annotated[
        Mode, typer.Option("--mode", help="By meaning (dense), by words (text, BM25), or both (hybrid).")
    ] = "hybrid"
    where: Where = None
    group: Annotated[bool, typer.Option("--group", help="One hit per document: its best passage.")] = False
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            rich_help_panel=TUNING,
            metavar="S",
            help="Leave out hits below this score, and only those.",
            show_default=False,
        ),
    ] = None
    candidates: Annotated[
        int,
        typer.Option(
            "--candidates",
            rich_help_panel=TUNING,
            metavar="N",
            min=1,
            help="Hits fetched for fusion and reranking.",
        ),
    ] = 100
    dense_weight: Annotated[
        float,
        typer.Option(
            "--dense-weight",
            rich_help_panel=TUNING,
            metavar="W",
            min=0.0,
            help="Weight of meaning in mode hybrid.",
        ),
    ] = 1.0
    text_weight: TextWeight = 1.0
    fusion: FusionOption = "scores"
    rerank_weight: RerankWeight = None
    rerank_budget_seconds: Annotated[
        float | None,
        typer.Option(
            "--rerank-budget",
            rich_help_panel=TUNING,
            metavar="TIME",
            parser=seconds,
            help="Rerank as deep as fits in so much time per query, such as 200ms.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Gathering:
    """How an index in shards is searched."""

    PANEL: ClassVar[str] = "Indexes in shards"

    require_all: Annotated[
        bool,
        typer.Option("--require-all", help="Refuse an answer that lacks a shard, instead of saying which."),
    ] = False
    shard_timeout: Annotated[
        float,
        typer.Option(
            "--shard-timeout", metavar="SECONDS", min=0.001, help="Leave out shards that take longer."
        ),
    ] = SECONDS

    def options(self, api_key: str | None = None, more: Sequence[str] = ()) -> GatherOptions:
        """Return the options; `api_key` is what servers of shards want to see, `more` are further shards."""
        return GatherOptions(
            require_all=self.require_all,
            seconds=self.shard_timeout,
            connect=shard_servers(api_key),
            more=more,
        )


def shard_servers(api_key: str | None = None) -> Connect:
    """Return what opens a shard that a server holds; the key is that of the environment where none is given."""
    key = api_key or os.environ.get(KEY_VARIABLE)

    def connect(address: str) -> Shard:
        from embedkit.serving.client.shard import ServedShard

        return ServedShard(address, key=key)

    return connect
