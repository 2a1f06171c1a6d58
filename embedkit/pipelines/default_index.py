"""The index that a folder has by default: `.embedkit/index`, found upwards as `.git` is."""

from __future__ import annotations

from pathlib import Path

from indexes import is_index

HOME, NAME = ".embedkit", "index"


def find_default_index(start: Path | None = None) -> Path | None:
    """Return the default index of a folder or of the nearest folder above it that has one."""
    start = Path.cwd() if start is None else start.absolute()
    for folder in (start, *start.parents):
        path = folder / HOME / NAME
        if is_index(path):
            return path
    return None


def default_index(start: Path | None = None) -> Path:
    """Return the default index that is there, else where the one of this folder would be made."""
    found = find_default_index(start)
    return found if found is not None else (Path.cwd() if start is None else start.absolute()) / HOME / NAME
