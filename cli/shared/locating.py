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


def is_address(word: str) -> bool:
    """Say whether a word is the address of a server, and no path."""
    return word.lower().startswith(("http://", "https://"))


def existing(named: Path | None) -> Path:
    """Return the index that is named, or that of the folder that is named, else the default one.

    Raises:
        IndexFileError: there is no default index.
    """
    from embedkit.errors import IndexFileError
    from embedkit.pipelines.default_index import find_default_index, index_of_folder

    if named is not None:
        return index_of_folder(named) or named
    found = find_default_index()
    if found is None:
        raise IndexFileError(f"no index was named, and {_NO_DEFAULT}")
    return found


_NO_DEFAULT = "neither this folder nor one above it has a default index (.embedkit/index). Make one with: embedkit index ."


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


def split_words(
    words: list[str], named: Path | None = None, *, of_ids: bool = False
) -> tuple[Path, list[str]]:
    """Tell the index from the words after it: the first word where it is one, else the default index and all words.

    A path may stand for the index that its folder has by default. `of_ids` says that the words name documents, as paths of
    files may.

    Raises:
        IndexFileError: the first word is a path where there is no index, or there is no default index.
    """
    from embedkit.errors import IndexFileError
    from embedkit.pipelines.default_index import find_default_index, index_of_folder
    from indexes import is_searchable

    if named is not None:
        return existing(named), words
    first = Path(words[0]) if words else None
    if first is not None and is_searchable(first):
        return first, words[1:]
    if first is not None and _is_path(words[0]):
        own = index_of_folder(first)
        if own is not None:
            return own, words[1:]
        if first.is_dir() or words[0].endswith((".index", "/")):
            raise IndexFileError(f"{words[0]}: there is no index here. {_near_miss(first)}")
        if first.is_file() and len(words) > 1 and not of_ids:
            raise IndexFileError(f"{words[0]}: this is a file, not an index. Leave it out")
    default = find_default_index()
    if default is None and first is not None:
        raise IndexFileError(f"no index: {words[0]!r} is none, and {_NO_DEFAULT}")
    return existing(default), words


def looks_like_index(word: str) -> bool:
    """Say whether a word is an index, or spelled as only the path of one is."""
    from indexes import is_searchable

    return is_searchable(word) or _is_path(word)


def _is_path(word: str) -> bool:
    return word.startswith(".") or "/" in word or word.endswith(".index")


def _near_miss(path: Path) -> str:
    from difflib import get_close_matches

    from embedkit.pipelines.default_index import find_default_index

    close = get_close_matches(path.name, [each.name for each in _indexes_in(path.parent)], n=1)
    if close:
        return f"Did you mean {path.parent / close[0]}?"
    if not path.is_dir():
        return f"Build it with: embedkit index build INPUT --index {path}"
    default = find_default_index()
    leave = "" if default is None else f"Leave it out to search {default}, or make"
    return f"{leave or 'Make'} one with: embedkit index build {path} --index {path.resolve().name}.index"


def _indexes_in(folder: Path) -> list[Path]:
    from indexes import is_searchable

    return [each for each in folder.iterdir() if is_searchable(each)] if folder.is_dir() else []
