"""Where things are kept that can be made again: all of it may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


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
    """Keep a small text in the cache, whole or not at all; where nothing can be written it is found anew the next time."""
    path = cache_folder() / name
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        return
