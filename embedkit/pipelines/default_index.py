"""The index that a folder has by default: `.embedkit/index`, found upwards as `.git` is."""

from __future__ import annotations

from pathlib import Path

from embedkit.data.walking import INDEX_HOME
from indexes import is_searchable

NAME = "index"


def find_default_index(start: Path | None = None) -> Path | None:
    """Return the default index of a folder or of the nearest folder above it that has one."""
    start = Path.cwd() if start is None else start.absolute()
    for folder in (start, *start.parents):
        path = folder / INDEX_HOME / NAME
        if is_searchable(path):
            return path
    return None


def make_home(index: Path) -> None:
    """Make the folder of a default index, which git is to pass over as it does a cache; any other index needs none."""
    home = index.parent
    if home.name == INDEX_HOME and not home.exists():
        home.mkdir(parents=True)
        (home / ".gitignore").write_text("*\n", encoding="utf-8")


def remove_home(index: Path) -> None:
    """Remove the folder of a default index that has gone, if nothing else is in it."""
    home = index.parent
    if home.name == INDEX_HOME and home.is_dir() and [each.name for each in home.iterdir()] == [".gitignore"]:
        (home / ".gitignore").unlink()
        home.rmdir()


def index_of_folder(folder: Path) -> Path | None:
    """Return the default index that a folder itself has, also where the folder is `.embedkit`; None where it has none."""
    for path in (folder / INDEX_HOME / NAME, folder / NAME):
        if is_searchable(path) and path.parent.name == INDEX_HOME:
            return path
    return None


def default_index(start: Path | None = None) -> Path:
    """Return the default index that is there, else where the one of this folder would be made."""
    found = find_default_index(start)
    return (
        found
        if found is not None
        else (Path.cwd() if start is None else start.absolute()) / INDEX_HOME / NAME
    )
