"""Where things are kept that can be made again: all of it may be deleted at any time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from embedkit.errors import OutputError
from embedkit.storage.files import write_text


def cache_folder(given: Path | None = None) -> Path:
    """Return the folder of the cache: the given one, $EMBEDKIT_CACHE, or `embedkit` in the user's cache folder."""
    if given is not None:
        return given
    if named := os.environ.get("EMBEDKIT_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedkit"


def read_note(name: str) -> str | None:
    """Return a small text that `keep_note` kept in the cache, or None."""
    try:
        return (cache_folder() / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def keep_note(name: str, text: str) -> None:
    """Keep a small text in the cache; where nothing can be written it is found again the next time."""
    path = cache_folder() / name
    with suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
