"""Walking a folder: the files to read, and what is left out, counted by kind; nothing is passed over silently."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedkit.data.documents.kinds import is_document, is_readable
from embedkit.data.formats import format_of, plain_suffix
from embedkit.data.ignoring import IGNORE_FILES, Rules, rules_of
from embedkit.data.left_out import LeftOut

INDEX_HOME = ".embedkit"  # where a folder has its default index: ours, and so not worth a word
# Folders that hold other people's files or what programs made; the second kind only beside the file that made them.
PASSED_FOLDERS = ("node_modules", "bower_components", "__pycache__", "venv", "site-packages")
BUILD_FOLDERS = ("build", "dist", "target", "out", "_build")
BUILD_FILES = frozenset(
    [
        "Cargo.toml",
        "CMakeLists.txt",
        "Makefile",
        "build.gradle",
        "build.gradle.kts",
        "meson.build",
        "package.json",
        "pom.xml",
        "pyproject.toml",
        "setup.py",
        "conf.py",
    ]  # a list to read, not to edit
)
# Files that mark a folder as one of a kind.
INDEX_FILE = "index.sqlite"
MARKED = {
    INDEX_FILE: "folders that are an index",
    "CACHEDIR.TAG": "cache folders",
    "pyvenv.cfg": "virtual environments",
}
_HEAD_BYTES = 8192
DOCUMENT_SIZE = 25  # pictures and fonts make documents as many times as large as texts


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """What of a folder is read.

    `ignore` heeds ignore files and leaves out build folders; `hidden` reads names that begin with a dot, but never `.git`.
    `kinds` are the files of known formats, these and any other text, or every text as text, rows or not; the last
    two with the documents whose readers are installed. Files of more than `max_bytes` are left out, documents of more than `DOCUMENT_SIZE` times as many.
    """

    ignore: bool = False
    hidden: bool = False
    kinds: Literal["known", "any", "text"] = "known"
    max_bytes: int | None = None

    def most_bytes(self, name: str) -> int | None:
        """Return how large a file of a name may be."""
        if self.max_bytes is None or not is_document(Path(name).suffix.lower()):
            return self.max_bytes
        return self.max_bytes * DOCUMENT_SIZE


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file to read, as the folder lists it."""

    name: str
    num_bytes: int
    mtime_ns: int


@dataclass
class Listing:
    """One folder of a walk: what of it is read, and what is left out. `path` is relative to where the walk began, "" there."""

    path: str
    mtime_ns: int = 0
    files: list[FileEntry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # names
    ignore_files: list[FileEntry] = field(default_factory=list)  # whose rules hold here
    skipped: list[FileEntry] = field(
        default_factory=list
    )  # left out for what they hold: another content may let them in
    left_out: LeftOut = field(default_factory=LeftOut)


class Walker:
    """Lists folders below a root, which is a folder."""

    def __init__(self, root: Path, options: WalkOptions) -> None:
        self.root, self.options = root, options
        self._real = root.resolve()
        self._device = self._real.stat().st_dev

    def walk(self, start: str = "", rules: Rules | None = None) -> Iterator[Listing]:
        """Yield a folder and all folders below it, each before those in it, by name."""
        waiting = [(start, self.rules(start) if rules is None else rules)]
        while waiting:
            path, rules = waiting.pop()
            listing = self.list(path, rules)
            yield listing
            for name in reversed(listing.folders):
                inner = f"{path}/{name}" if path else name
                waiting.append((inner, rules.below(self._real / inner) if self.options.ignore else rules))

    def rules(self, path: str) -> Rules:
        """Return the rules that hold in a folder; "" is the root."""
        if not self.options.ignore:
            return Rules("")
        rules, here = rules_of(self._real), self._real
        for part in path.split("/") if path else ():
            here = here / part
            rules = rules.below(here)
        return rules

    def list(self, path: str, rules: Rules) -> Listing:
        """List one folder."""
        folder = self.root / path
        listing = Listing(path)
        left = listing.left_out
        try:
            # The time comes first: what changes meanwhile is seen by the next walk.
            listing.mtime_ns = folder.stat().st_mtime_ns
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as exc:
            left.unreadable.append(f"{folder}: cannot be read ({exc.strerror or exc})")
            return listing
        names = {entry.name for entry in entries}
        mark = next((what for name, what in MARKED.items() if name in names), None)
        if mark is not None and path and (self.options.ignore or INDEX_FILE in names):
            left.counts[mark] += 1
            return listing
        for entry in entries:
            if entry.name in IGNORE_FILES and self.options.ignore and entry.is_file():
                status = entry.stat()
                listing.ignore_files.append(FileEntry(entry.name, status.st_size, status.st_mtime_ns))
            reason = self._reason(entry, names, rules)
            if reason is None:
                self._take(entry, listing)
            elif reason:
                left.counts[reason] += 1
        return listing

    def _reason(self, entry: os.DirEntry[str], beside: set[str], rules: Rules) -> str | None:
        """Say why an entry is left out by its name; None where it is not."""
        name, is_folder = entry.name, entry.is_dir(follow_symlinks=False)
        what = "folders" if is_folder else "files"
        if not _is_writable_name(name):
            return f"{what} whose names hold line ends, tabs or bytes that are not UTF-8"
        if is_folder and name == INDEX_HOME:
            return ""
        if name.startswith(".") and (not self.options.hidden or name == ".git"):
            return f"hidden {what}"
        if is_folder and name in PASSED_FOLDERS and (self.options.ignore or self.options.kinds == "known"):
            return f"folders called {name}"
        if self.options.ignore:
            if is_folder and name in BUILD_FOLDERS and beside & BUILD_FILES:
                return f"build folders called {name}"
            if rules.ignores(name, is_folder=is_folder):
                return f"{what} that ignore files name"
        return None

    def _take(self, entry: os.DirEntry[str], listing: Listing) -> None:
        left = listing.left_out
        try:
            if entry.is_symlink():
                reason = self._link_reason(entry)
                if reason is not None:
                    left.counts[reason] += 1
                    return
            status = entry.stat()
        except OSError as exc:
            left.unreadable.append(f"{entry.path}: cannot be read ({exc.strerror or exc})")
            return
        if stat.S_ISDIR(status.st_mode):
            if status.st_dev != self._device:
                left.counts["folders on other file systems"] += 1
            else:
                listing.folders.append(entry.name)
        elif not stat.S_ISREG(status.st_mode):
            left.counts[_NO_FILES] += 1
        else:
            file = FileEntry(entry.name, status.st_size, status.st_mtime_ns)
            suffix, most = self._document(entry.name), self.options.most_bytes(entry.name)
            if suffix and not is_readable(suffix):
                left.documents[suffix] += 1
            elif most is not None and status.st_size > most:
                left.counts[f"files larger than {most / 1e6:g} MB"] += 1
                listing.skipped.append(file)
            elif not self._is_read(entry):
                left.endings[Path(entry.name).suffix.lower()] += 1
                listing.skipped.append(file)
            else:
                listing.files.append(file)

    def _link_reason(self, entry: os.DirEntry[str]) -> str | None:
        try:
            if entry.is_dir():
                return "links to folders"
            if not entry.is_file():
                return _NO_FILES
        except OSError:  # a link to itself
            return _NO_FILES
        target = os.path.realpath(entry.path)
        inside = target.startswith(f"{self._real.as_posix().rstrip('/')}/")
        return "links to files of the same folder" if inside and self.options.kinds == "text" else None

    def _document(self, name: str) -> str:
        """Return a file's ending if it is one of a document, and documents are read; else ""."""
        if self.options.kinds == "known":
            return ""
        suffix = Path(name).suffix.lower() if self.options.kinds == "text" else plain_suffix(name)
        return suffix if is_document(suffix) else ""

    def _is_read(self, entry: os.DirEntry[str]) -> bool:
        known = format_of(entry.name)
        if self._document(entry.name):
            return True
        if is_document(plain_suffix(entry.name)) and self.options.kinds == "known":
            return False
        if self.options.kinds != "text" and known is not None:
            return known != "json"  # a program's settings more often than rows
        return self.options.kinds != "known" and is_text(Path(entry.path))


_NO_FILES = "files that are links to nothing, or no files"


def is_text(path: Path) -> bool:
    """Say whether a file begins as text does; one that cannot be read may be: reading it says why."""
    try:
        with path.open("rb", buffering=0) as stream:
            return is_text_head(stream.read(_HEAD_BYTES))
    except OSError:
        return True


def is_text_head(head: bytes) -> bool:
    """Say whether text begins so: without a NUL, unless it is UTF-16 with its mark."""
    return b"\0" not in head[:_HEAD_BYTES] or head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _is_writable_name(name: str) -> bool:
    """Say whether a name can be part of an id, which is written as a line of UTF-8."""
    if name.isascii():
        return not ("\n" in name or "\r" in name or "\t" in name)
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not any(sign in name for sign in "\n\r\t")


def walk(folder: Path, options: WalkOptions | None = None) -> tuple[list[Path], LeftOut]:
    """Return the files to read below a folder, by name, and what was left out."""
    found: list[Path] = []
    left = LeftOut()
    for listing in Walker(folder, options or WalkOptions()).walk():
        found += [folder / listing.path / file.name for file in listing.files]
        left.add(listing.left_out)
    return sorted(found), left
