"""Which index a command means: the one it names, else the default index of this folder or of one above it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .completing import complete_index

HIDDEN_INDEX = Annotated[
    Path | None,
    typer.Option(
        "--index", "-i", metavar="FOLDER", hidden=True, show_default=False, autocompletion=complete_index
    ),
]


def existing(named: Path | None) -> Path:
    """Return the index that is named, else the default one.

    Raises:
        IndexFileError: there is no default index.
    """
    from embedkit.errors import IndexFileError
    from embedkit.pipelines.default_index import find_default_index

    found = named or find_default_index()
    if found is None:
        raise IndexFileError(
            "no index was named, and neither this folder nor one above it has a default index (.embedkit/index). "
            "Make one with: embedkit index ."
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Located:
    """The index of a command that works on one that is there."""

    index: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INDEX]",
            help="Index folder. Default: this folder's.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = None
    named: HIDDEN_INDEX = None  # as it was spelled before

    def __post_init__(self) -> None:
        if self.index is not None and self.named is not None:
            raise ValueError(f"the index is named twice: {self.index} and --index {self.named}")

    @property
    def path(self) -> Path:
        return existing(self.index or self.named)


def split_words(words: list[str], named: Path | None = None) -> tuple[Path, list[str]]:
    """Tell the index from the words after it: the first word where it is one, else the default index and all words.

    Raises:
        IndexFileError: the first word looks like a path where there is no index, or there is no default index.
    """
    from embedkit.errors import IndexFileError
    from embedkit.pipelines.default_index import find_default_index
    from indexes import is_index

    if named is not None:
        return named, words
    if words and is_index(Path(words[0])):
        return Path(words[0]), words[1:]
    default = find_default_index()
    if words and (default is None or _looks_like_an_index(words[0])):
        raise IndexFileError(f"{words[0]}: there is no index here. {_near_miss(Path(words[0]))}")
    return existing(default), words


def _looks_like_an_index(word: str) -> bool:
    return word.endswith((".index", "/")) or (("/" in word or word.startswith(".")) and Path(word).exists())


def _near_miss(path: Path) -> str:
    from difflib import get_close_matches

    close = get_close_matches(path.name, [each.name for each in _indexes_in(path.parent)], n=1)
    if close:
        return f"Did you mean {path.parent / close[0]}?"
    return f"Build it with: embedkit index build INPUT --index {path}"


def _indexes_in(folder: Path) -> list[Path]:
    from indexes import is_index

    return [each for each in folder.iterdir() if is_index(each)] if folder.is_dir() else []
