"""Which files an input stands for: whether a file that was read once belongs to it."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from embedkit.data.paths import STDIN


def scope_of(inputs: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether the source of a document is one of these files, lies in one of these folders or matches.

    A source is as `resolved_source` returns it, or as an earlier version stored it.
    """
    tests = [_scope_of_one(name) for name in inputs]

    def within(source: str) -> bool:
        resolved = resolved_source(source)
        return any(test(resolved) for test in tests)

    return within


def resolved_source(source: str) -> str:
    """Return the stored source of a document, which is the resolved path of a file, "stdin" or "".

    One that is relative was stored by an earlier version: it is taken as seen from the current folder.
    """
    if not source or source == "stdin" or os.path.isabs(source):  # noqa: PTH117 (a stored name)
        return source
    return Path(source).resolve().as_posix()


def _scope_of_one(name: str) -> Callable[[str], bool]:
    if name == STDIN:
        return lambda source: source == "stdin"
    if glob.has_magic(name) and not Path(name).exists():
        parts = Path(name).parts
        first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        start = Path(*parts[:first]).resolve().as_posix().rstrip("/") + "/"
        return lambda source: (
            source.startswith(start) and matches(source.removeprefix(start).split("/"), parts[first:])
        )
    path = Path(name).resolve().as_posix()
    return lambda source: source == path or source.startswith(path.rstrip("/") + "/")


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether the parts of a path match those of a pattern: a wildcard stays within a part, `**` is any number of parts.

    >>> [matches(path.split("/"), ["**", "*.md"]) for path in ("b.md", "c/d/b.md", "c/b.txt")]
    [True, True, False]
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])
