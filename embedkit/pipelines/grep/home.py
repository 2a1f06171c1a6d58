"""Where the index of a folder is kept: in the cache, by the folder's real path, or in the folder itself where it was put there.

HOME/home.json      which folder it is of, and what of it is read
HOME/index/         the index
HOME/files.sqlite   the files as they were when they were read
HOME/lock           held by whoever brings it up to date
HOME/used           its time is that of the last search
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedkit.data.walking import WalkOptions
from embedkit.errors import OutputError, RecordError
from embedkit.storage.cache import cache_folder
from embedkit.storage.files import output_errors, write_text

INSIDE = Path(".embedkit") / "grep"
MAX_BYTES = 4_000_000  # of a file: larger ones are data or logs
DEFAULT = WalkOptions(ignore=True, kinds="text", max_bytes=MAX_BYTES)
_NOTE, _LOCK, _USED = "home.json", "lock", "used"


@dataclass(frozen=True)
class Home:
    """Where an index is kept, and what it is of: a folder, or one file of it where `only` names that."""

    path: Path
    root: Path
    only: str = ""
    walking: WalkOptions = DEFAULT
    lasting: bool = True  # False: it goes when the search is over

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def files(self) -> Path:
        return self.path / "files.sqlite"

    @property
    def is_there(self) -> bool:
        return (self.path / _NOTE).is_file()

    def make(self) -> None:
        """Make the folder, so that it is found again.

        Raises:
            OutputError: it cannot be written.
        """
        with output_errors(self.path, "Set EMBEDKIT_CACHE to a folder that can be written"):
            self.path.mkdir(parents=True, exist_ok=True)
        if self.path.parts[-2:] == INSIDE.parts:
            write_text(self.path / ".gitignore", "*\n")
        note = {"root": str(self.root), "only": self.only, **asdict(self.walking)}
        write_text(self.path / _NOTE, json.dumps(note) + "\n")

    def note_use(self) -> None:
        with suppress(OSError):
            (self.path / _USED).touch()

    @property
    def last_used(self) -> float:
        """When it was last searched, in seconds since 1970."""
        for name in (_USED, _NOTE):
            with suppress(OSError):
                return (self.path / name).stat().st_mtime
        return 0.0

    @property
    def num_bytes(self) -> int:
        return sum(_size(Path(folder) / name) for folder, _, names in os.walk(self.path) for name in names)

    @contextmanager
    def held(self, *, wait: bool = False) -> Iterator[bool]:
        """Hold the lock while the block runs; gives False where another process has it and `wait` does not wait for it.

        Raises:
            OutputError: the folder cannot be written.
        """
        with output_errors(self.path, "Set EMBEDKIT_CACHE to a folder that can be written"):
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield _locked(descriptor, wait)
        finally:
            os.close(descriptor)

    def forget(self) -> bool:
        """Remove it; False where another process is bringing it up to date, or it was not there."""
        if not self.path.is_dir():
            return False
        with self.held() as mine:
            if mine:
                shutil.rmtree(self.path, ignore_errors=True)
            return mine


def _locked(descriptor: int, wait: bool) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return False
            time.sleep(0.05)
        else:
            return True


def cached_home(path: Path, walking: WalkOptions = DEFAULT) -> Home:
    """Return where the index of a folder or file is kept in the cache; `path` is resolved."""
    said = {name: value for name, value in asdict(walking).items() if value != getattr(DEFAULT, name)}
    key = hashlib.blake2b(json.dumps([str(path), said], sort_keys=True).encode(), digest_size=8).hexdigest()
    name = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in path.name[:40])
    folder = cache_folder() / "grep" / f"{name}-{key}"
    if path.is_dir():
        return Home(folder, path, walking=walking)
    return Home(folder, path.parent, only=path.name, walking=walking)


def inner_home(folder: Path, walking: WalkOptions = DEFAULT) -> Home:
    """Return where the index of a folder is kept in the folder itself."""
    return Home(folder / INSIDE, folder, walking=walking)


def read_home(path: Path) -> Home | None:
    """Return the home that a folder is; None where it is none."""
    try:
        note = json.loads((path / _NOTE).read_text(encoding="utf-8"))
        root, only = Path(note.pop("root")), str(note.pop("only"))
        return Home(path, root, only, WalkOptions(**note))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def resolved(path: Path) -> Path:
    """Return the real path of what is to be searched.

    Raises:
        RecordError: there is nothing, or what is no file, such as a pipe that would be waited for.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # RuntimeError: links that lead in a circle, before Python 3.13
        raise RecordError(
            f"{path}: there is no such file or folder. Put a question of several words in quotes, and name folders after it"
        ) from exc
    if not (real.is_dir() or real.is_file()):
        raise RecordError(
            f"{path}: neither a file nor a folder, such as a pipe or a device. Write what comes from it to a file and name that"
        )
    return real


def homes_of(path: Path, walking: WalkOptions) -> Iterator[Home]:
    """Yield the homes that are there of a path and of the folders above it, the nearest first.

    One inside a folder is taken as it was made, unless something else is asked for.
    """
    for folder in (path, *path.parents):
        inner = read_home(folder / INSIDE)
        if inner is not None and walking in (DEFAULT, inner.walking):
            yield replace(inner, root=folder)  # the folder may have moved
        cached = read_home(cached_home(folder, walking).path)
        if cached is not None and (cached.root / cached.only if cached.only else cached.root) == folder:
            yield cached


def cached_homes() -> list[Home]:
    """Return all homes in the cache, the one that was used last first."""
    folder = cache_folder() / "grep"
    found = [read_home(each) for each in folder.iterdir()] if folder.is_dir() else []
    return sorted((home for home in found if home is not None), key=lambda home: -home.last_used)


def trim_cache(limit_bytes: int, keep: Home) -> list[Home]:
    """Remove the homes that were not used for longest until the rest take no more than the limit; return what went."""
    taken = keep.num_bytes
    gone = []
    for home in cached_homes():
        if home.path == keep.path:
            continue
        size = home.num_bytes
        taken += size
        if taken > limit_bytes:
            with suppress(OutputError):
                if home.forget():
                    gone.append(home)
                    taken -= size
    return gone


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
