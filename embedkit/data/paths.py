"""From files, folders, globs and `-` to the list of files to read, and what of the folders is left out."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from embedkit.data.formats import Format, format_of, known_endings
from embedkit.data.left_out import LeftOut
from embedkit.data.walking import WalkOptions, is_text, walk
from embedkit.errors import RecordError
from embedkit.storage.files import is_utf8

STDIN = "-"


@dataclass
class Expanded:
    """The files to read, each once; those that were named themselves; and what of the folders is left out."""

    paths: list[Path] = field(default_factory=list)
    named: set[Path] = field(default_factory=set)
    left_out: LeftOut = field(default_factory=LeftOut)


def expand_inputs(inputs: Sequence[str], *, explicit_format: Format | None = None) -> list[Path]:
    """Turn files, globs, folders and `-` into a list of files, each once.

    Raises:
        RecordError: nothing is there, a folder cannot be read or holds no file we read, or the format cannot be told.
    """
    expanded = expand(inputs, explicit_format=explicit_format)
    if expanded.left_out.unreadable:
        raise RecordError(f"{expanded.left_out.unreadable[0]}. Check its permissions")
    return expanded.paths


def expand(
    inputs: Sequence[str], *, explicit_format: Format | None = None, walking: WalkOptions | None = None
) -> Expanded:
    """Turn files, globs, folders and `-` into files, noting what of the folders cannot be read.

    Raises:
        RecordError: nothing is there, a folder holds no file we read, or the format cannot be told.
    """
    if not inputs:
        raise RecordError("no input was given; name files, folders or globs, or '-' to read standard input")
    expanded = Expanded()
    walking = walking or WalkOptions()
    found = dict.fromkeys(
        path for name in inputs for path in _expand_one(name, explicit_format, walking, expanded)
    )
    expanded.paths = _one_name_each(list(found), expanded.named)
    again = len(found) - len(expanded.paths)
    if again:
        expanded.left_out.counts["files read under another name"] += again
    return expanded


def _one_name_each(paths: Sequence[Path], named: Container[Path]) -> list[Path]:
    """Keep one path of each file, its own rather than a link to it; a link that was named itself stays."""
    parents: dict[Path, Path] = {}

    def real(path: Path) -> Path:
        if path.parent not in parents:
            parents[path.parent] = path.parent.resolve()
        return parents[path.parent] / path.name

    links = {path: path.resolve() for path in paths if path.is_symlink()}
    own = {real(path) for path in paths if path not in links} if links else set()
    kept: list[Path] = []
    taken: set[Path] = set()
    for path in paths:
        target = links.get(path) or real(path)
        is_link = path in links
        again = target in taken or (is_link and target in own)
        if not again or (is_link and path in named):
            taken.add(target)
            kept.append(path)
    return kept


def _expand_one(
    name: str, explicit_format: Format | None, walking: WalkOptions, expanded: Expanded
) -> list[Path]:
    path = Path(name)
    if name == STDIN:
        expanded.named.add(path)
        return [path]
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except OSError as exc:  # a name that is too long, a folder that may not be looked into
        start = name if len(name) <= 60 else name[:60] + "…"
        raise RecordError(
            f"{start}: cannot be looked up ({exc.strerror}). Name a file, or pipe texts in and pass '-'"
        ) from exc
    if is_folder:
        _check_name(path)
        found, left_out = walk(path, walking)
        expanded.left_out.add(left_out)
        if not found and not left_out.unreadable:
            raise _nothing_in(name, left_out.described(), walking)
        return found
    if is_there:
        found = [path]
        expanded.named.add(path)
    elif glob.has_magic(name):
        matches = (Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (absolute patterns)
        found = sorted(match for match in matches if match.is_file())
        if not found:
            raise RecordError(f"{name}: the pattern matches no file; look with: ls {name}")
    else:
        as_text = ". To read a text itself, pipe it in and name it '-'" if " " in name else ""
        raise RecordError(f"{name}: there is no such file or folder; {_near_miss(path)}{as_text}")
    for file in found:
        _check_file(file, explicit_format, any_text=walking.kinds != "known")
    return found


def _nothing_in(name: str, left_out: str, walking: WalkOptions) -> RecordError:
    if not left_out:
        return RecordError(f"{name}: the folder holds no file. Name one that does")
    if walking.kinds != "known":
        return RecordError(
            f"{name}: the folder holds no text that is read. Left out: {left_out}. Name the files themselves",
            ", or pass --no-ignore or --hidden",
        )
    return RecordError(
        f"{name}: the folder holds no file with a known ending; known are {known_endings()}. Left out: {left_out}. "
        "Name the files themselves",
        ", and say what they are with --format",
    )


def _near_miss(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208 (names, not paths)
    close = get_close_matches(path.name, siblings, n=1)
    return f"did you mean {(path.parent / close[0]).as_posix()!r}?" if close else "check the path"


def _check_file(path: Path, explicit_format: Format | None, *, any_text: bool) -> None:
    if explicit_format is None and format_of(path) is None and not (any_text and is_text(path)):
        raise RecordError(
            f"{path}: the ending {path.suffix!r} is not known; known are {known_endings()}. "
            "Rename or convert it",
            ", or say what it is with --format txt|jsonl|csv|tsv|parquet|file",
        )
    _check_name(path)


def _check_name(path: Path) -> None:
    name = path.as_posix()  # part of the ids, which are written as lines of UTF-8
    if any(sign in name for sign in "\n\r\t") or not is_utf8(name):
        raise RecordError(
            f"{name!r}: the file's name holds a line end, a tab or bytes that are not UTF-8. Rename it"
        )
