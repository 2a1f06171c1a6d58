"""Walking a folder: the files to read, and what is left out, counted by kind; nothing is passed over silently."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from embedkit.data.formats import format_of

# Folders that hold other people's files or what programs made.
PASSED_FOLDERS = ("node_modules", "__pycache__", "venv", "site-packages")
INDEX_FILE = "index.sqlite"  # a folder with this file is one of our indexes
INDEX_HOME = ".embedkit"  # where a folder has its default index: ours, and so not worth a word
# Endings named of the files of other kinds; the rest are "…".
NAMED_ENDINGS = 8


@dataclass
class LeftOut:
    """What a walk did not read, by kind."""

    endings: Counter[str] = field(default_factory=Counter)  # of files of other kinds
    counts: Counter[str] = field(default_factory=Counter)  # "hidden folders", "links to folders" …
    unreadable: list[str] = field(default_factory=list)  # PATH: reason

    def described(self) -> str:
        """Say what was left out, in one line; '' where that is nothing."""
        parts = []
        if self.endings:
            names = [ending or "no ending" for ending, _ in self.endings.most_common(NAMED_ENDINGS)]
            more = " …" if len(self.endings) > NAMED_ENDINGS else ""
            parts.append(
                f"{_counted(self.endings.total(), 'files of other kinds')} ({' '.join(sorted(names))}{more})"
            )
        parts += [_counted(count, what) for what, count in sorted(self.counts.items())]
        return ", ".join(parts)

    def as_dict(self) -> dict[str, int]:
        """Return the counts by kind, files of other kinds by their ending."""
        return {**{f"*{ending}": count for ending, count in sorted(self.endings.items())}, **self.counts}

    def add(self, other: LeftOut) -> None:
        self.endings.update(other.endings)
        self.counts.update(other.counts)
        self.unreadable += other.unreadable


_SINGULAR = {"links to folders": "link to a folder", "files of other kinds": "file of another kind"}


def _counted(count: int, what: str) -> str:
    if count == 1:
        what = _SINGULAR.get(what, what.replace("files", "file").replace("folders", "folder"))
    return f"{count:,} {what}"


def walk(folder: Path) -> tuple[list[Path], LeftOut]:
    """Return the files of known formats below a folder, by name, and what was left out.

    Hidden files and folders, links to folders, our own indexes, `PASSED_FOLDERS` and .json files are left out.
    """
    found: list[Path] = []
    left = LeftOut()

    def note(error: OSError) -> None:
        left.unreadable.append(f"{error.filename}: cannot be read ({error.strerror or error})")

    for name, folders, files in os.walk(folder, onerror=note):
        here = Path(name)
        if here != folder and INDEX_FILE in files:
            left.counts["folders that are an index"] += 1
            folders.clear()
            continue
        folders[:] = sorted(each for each in folders if _is_walked(here / each, left))
        for file in sorted(files):
            path = here / file
            if file.startswith("."):
                left.counts["hidden files"] += 1
            elif format_of(path) in (None, "json"):  # .json is a program's settings more often than rows
                left.endings[path.suffix.lower()] += 1
            elif path.is_file():
                found.append(path)
            else:
                left.counts["files that are links to nothing, or no files"] += 1
    return sorted(found), left


def _is_walked(folder: Path, left: LeftOut) -> bool:
    if folder.is_symlink():
        left.counts["links to folders"] += 1
    elif folder.name.startswith("."):
        if folder.name != INDEX_HOME:
            left.counts["hidden folders"] += 1
    elif folder.name in PASSED_FOLDERS:
        left.counts[f"folders called {folder.name}"] += 1
    else:
        return True
    return False
