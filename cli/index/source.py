"""The options of `embedkit index build` and `add`, and the source of vectors that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.pipelines.options import BuildOptions
from indexes.types import Kind, Metric, Storage

from ..shared import console, options

if TYPE_CHECKING:
    from embedkit.pipelines.building import Source

MADE = "How the index is made"  # the panel of what is settled with its first documents

SomeInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs, or - for standard input; .txt files are documents as a whole.",
        show_default=False,
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option(
        "--vectors",
        metavar="FILE",
        help="Ready vectors (.npy) in place of INPUT and --model.",
        show_default=False,
    ),
]
Ids = Annotated[
    Path | None,
    typer.Option("--ids", metavar="FILE", help="The ids of --vectors, one per line.", show_default=False),
]
KindOption = Annotated[
    Kind | None,
    typer.Option(
        "--kind",
        rich_help_panel=MADE,
        help="How to search: all vectors (flat), or an approximate structure.",
        show_default=False,
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(
        "--target-recall",
        rich_help_panel=MADE,
        metavar="R",
        min=0.01,
        max=1.0,
        help="Measure recall@10 and choose the structure's settings to reach R.",
        show_default=False,
    ),
]
Sync = Annotated[
    bool, typer.Option("--sync", help="Delete documents of these inputs that are no longer in them.")
]
CommitEvery = Annotated[
    int,
    typer.Option(
        "--commit-every",
        rich_help_panel=options.TUNING,
        metavar="N",
        min=1,
        help="Passages per commit.",
    ),
]


Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at the first file of a folder that cannot be read. Default: skip and name it."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]


@dataclass(frozen=True, kw_only=True)
class VectorSource:
    """Where the vectors come from: documents and a model, or ready vectors."""

    model: options.IndexModel = None
    vectors: Vectors = None
    ids: Ids = None


@dataclass(frozen=True, kw_only=True)
class Adding:
    """How documents are added to an index that is there."""

    sync: Sync = False
    yes: Yes = False
    strict: Strict = False
    commit_every: CommitEvery = BuildOptions.commit_every

    def options(self) -> BuildOptions:
        """Return them as the library takes them; how texts are cut and vectors kept is the index's own."""
        return BuildOptions(sync=self.sync, commit_every=self.commit_every)


@dataclass(frozen=True, kw_only=True)
class Building(BuildOptions):
    """How an index is made, or brought up to date."""

    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            "--chunk-tokens",
            rich_help_panel=MADE,
            metavar="N",
            min=0,
            help="Cut longer documents into passages of at most N tokens; 0: never. Default: 256, or what the model reads.",
            show_default=False,
        ),
    ] = None
    chunk_overlap: Annotated[
        int,
        typer.Option(
            "--chunk-overlap",
            rich_help_panel=MADE,
            metavar="N",
            min=0,
            help="Tokens that a passage shares with the one before, at most half of it.",
        ),
    ] = BuildOptions.chunk_overlap
    storage: Annotated[
        Storage | None,
        typer.Option(
            "--storage",
            rich_help_panel=MADE,
            help="How vectors are kept on disk. Default: float32; those of a multi-vector model's tokens 2-bit, or 4-bit.",
            show_default=False,
        ),
    ] = None
    metric: Annotated[
        Metric | None,
        typer.Option(
            "--metric",
            rich_help_panel=MADE,
            help="How vectors are compared. Default: as the model's folder says, else cosine.",
            show_default=False,
        ),
    ] = None
    sync: Sync = False
    yes: Yes = False
    strict: Strict = False
    commit_every: CommitEvery = BuildOptions.commit_every


def make_source(
    inputs: list[str] | None,
    given: VectorSource,
    *,
    reading: options.Reading,
    walking: options.Walking,
    computing: options.ComputingOptions,
    merge_tokens: float | None = None,
    strict: bool = False,
    sync: bool = False,
) -> Source:
    """Return where the vectors come from, or end with wrong usage."""
    from embedkit.data.reading import DocumentReader
    from embedkit.data.walking import WalkOptions
    from embedkit.pipelines.building import Documents, ReadyVectors

    if (given.vectors is None) != (given.ids is None):
        raise typer.BadParameter("--vectors and --ids go together")
    if given.vectors is None or given.ids is None:
        if not inputs:
            raise typer.BadParameter("name an INPUT, or --vectors and --ids")
        walked = WalkOptions(ignore=not walking.no_ignore, hidden=walking.hidden, kinds="any")
        reader = DocumentReader(inputs, reading, tolerant=not strict, walking=walked)
        console.say_waiting(inputs)
        return Documents(reader, computing, model=given.model, merge_tokens=merge_tokens)
    if inputs:
        raise typer.BadParameter("INPUT and --vectors exclude each other")
    if given.model is not None:
        raise typer.BadParameter(
            "--model and --vectors exclude each other: an index of ready vectors does not know what made them"
        )
    if sync:
        raise typer.BadParameter(
            "--sync goes with INPUT: ready vectors do not say which documents of the index came with them. "
            "Delete those that are gone by their ids: embedkit index delete"
        )
    return ReadyVectors(given.vectors, given.ids)
