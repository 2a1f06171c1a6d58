"""The options of `embedkit grep` that are its own."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from embedkit.data.walking import WalkOptions
from embedkit.models import RERANKER
from embedkit.pipelines.grep.filtering import Narrowing
from embedkit.pipelines.grep.home import DEFAULT
from embedkit.retrieval.options import FOLDER_TEXT_WEIGHT

from ..shared import options

Color = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class SearchingFolder(options.Searching):
    """How the index of a folder is searched."""

    text_weight: options.TextWeight = FOLDER_TEXT_WEIGHT


Rerank = Annotated[
    str | None,
    typer.Option(
        "--rerank",
        metavar="[MODEL]",
        help=f"Rerank the candidates with a cross-encoder (without a value {RERANKER}) or a multi-vector model, or with 'maxsim'.",
        show_default=False,
    ),
]


def refresh_seconds(text: str) -> float:
    """Read how long a refresh may take: a time, `always` (without end) or `never`."""
    from embedkit.retrieval.reranking import parse_budget

    match text.strip().lower():
        case "always":
            return math.inf
        case "never":
            return 0.0
    try:
        return parse_budget(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}; or always, or never") from exc


def num_bytes(text: str) -> int:
    """Read a size such as 500MB or 2G."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; wanted one such as 500MB or 2GB")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Which files and passages are searched."""

    regex: Annotated[
        str | None,
        typer.Option(
            "--regex", "-e", metavar="REGEX", help="Passages must also match this.", show_default=False
        ),
    ] = None
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Upper and lower case are the same to --regex.")
    ] = False
    types: Annotated[
        str | None,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE,…",
            help="Files of these languages or endings: py,md,rust.",
            show_default=False,
        ),
    ] = None
    globs: Annotated[
        list[str] | None,
        typer.Option(
            "--glob",
            "-g",
            metavar="GLOB",
            help="Files that match, such as '*.md' or 'src/**'; with ! before it, all others. May be repeated.",
            show_default=False,
        ),
    ] = None

    def narrowing(self, scopes: list[str]) -> Narrowing:
        regex = self.regex if self.regex is None or not self.ignore_case else f"(?i){self.regex}"
        types = [each.strip() for each in (self.types or "").split(",") if each.strip()]
        return Narrowing(scopes=scopes, types=types, globs=self.globs or (), regex=regex)


@dataclass(frozen=True, kw_only=True)
class ShowingHits:
    """How hits are shown."""

    PANEL: ClassVar[str] = "Output"

    files_only: Annotated[
        bool, typer.Option("--files-with-matches", "-l", help="Only the paths of the files, best first.")
    ] = False
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "-C",
            metavar="N",
            min=0,
            help="Lines shown around the best one of each hit.",
            show_default=False,
        ),
    ] = None
    line_number: Annotated[
        bool, typer.Option("--line-number/--no-line-number", "-n/-N", help="Number the lines.")
    ] = True
    heading: Annotated[
        bool | None,
        typer.Option(
            "--heading/--no-heading",
            help="Name each hit above its lines, or at the start of each line. Default: above, on a terminal.",
            show_default=False,
        ),
    ] = None
    vimgrep: Annotated[
        bool, typer.Option("--vimgrep", help="A hit a line: path:line:column:text, as editors read it.")
    ] = False
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            min=1,
            help="Whole passages, best first and none twice, as many as fit into N tokens.",
            show_default=False,
        ),
    ] = None
    show_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also hits that are no nearer to the question than unrelated texts; with --json or -e they are always there.",
        ),
    ] = False
    open_hit: Annotated[
        int | None,
        typer.Option("--open", metavar="N", min=1, help="Open hit N in $EDITOR.", show_default=False),
    ] = None
    color: Annotated[Color, typer.Option("--color", help="When to colour the output.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How the index keeps up."""

    PANEL: ClassVar[str] = "Index"

    refresh: Annotated[
        float,
        typer.Option(
            "--refresh",
            metavar="TIME",
            parser=refresh_seconds,
            help="How long to bring the index up to date before the search: a time such as 500ms, always, or never. "
            "What takes longer is left to the next call. The first call reads all.",
        ),
    ] = "2s"  # type: ignore[assignment] # the parser reads it
    max_filesize: Annotated[
        int,
        typer.Option(
            "--max-filesize",
            metavar="SIZE",
            parser=num_bytes,
            help="Leave larger files out: they are data or logs.",
        ),
    ] = "4MB"  # type: ignore[assignment] # the parser reads it
    cache_limit: Annotated[
        int,
        typer.Option(
            "--cache-limit",
            metavar="SIZE",
            parser=num_bytes,
            envvar="EMBEDKIT_CACHE_LIMIT",
            help="What the indexes of all folders may take in the cache; those not used for longest go first.",
        ),
    ] = "2GB"  # type: ignore[assignment] # the parser reads it


@dataclass(frozen=True, kw_only=True)
class Refreshing(Keeping):
    """The same, where it may be built again."""

    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the index again.")] = False


@dataclass(frozen=True, kw_only=True)
class Managing:
    """What is done in place of a search."""

    PANEL: ClassVar[str] = "Index"

    init: Annotated[
        bool, typer.Option("--init", help="Keep the index of PATH in PATH/.embedkit, not in the cache.")
    ] = False
    status: Annotated[bool, typer.Option("--status", help="Show what is kept of PATH, and do nothing.")] = (
        False
    )
    forget: Annotated[bool, typer.Option("--forget", help="Remove what is kept of PATH.")] = False

    def __post_init__(self) -> None:
        if self.init + self.status + self.forget > 1:
            raise ValueError("--init, --status and --forget exclude each other")

    @property
    def asked(self) -> bool:
        return self.init or self.status or self.forget


def walk_options(walking: options.Walking, max_bytes: int) -> WalkOptions:
    """Return what is read of a folder."""
    return replace(DEFAULT, ignore=not walking.no_ignore, hidden=walking.hidden, max_bytes=max_bytes)


def shown_path(path: Path, cwd: Path) -> str:
    """Return a path as seen from a folder, where it lies below."""
    return path.relative_to(cwd).as_posix() if path.is_relative_to(cwd) else path.as_posix()
