"""Forgetting files that were read otherwise than they would be now, so that they are read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from embedkit.data.documents.kinds import read_otherwise, readers
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.state import FolderState, joined
from indexes import Index, is_index

_DELETED_AT_ONCE = 4096


def forget_read_otherwise(home: Home, state: FolderState) -> None:
    """Forget the files that other readers read, so that they are read again: an extra was installed since, or embedkit is newer."""
    before, now = state.meta("readers"), readers()
    if before == now:
        return
    endings = read_otherwise(before or "")
    files = [
        (folder, name)
        for folder, names in state.files().items()
        for name in names
        if PurePosixPath(name).suffix.lower() in endings
    ]
    if files and is_index(home.index):
        with Index.open(home.index, writable=True) as index:
            delete_files(index, files)
    state.forget_files(files)
    state.set_meta("above", None)  # all folders are listed again: files that were left out may be read now
    state.set_meta("readers", now)


def delete_files(index: Index, files: Sequence[tuple[str, str]]) -> None:
    """Delete the documents of files."""
    ids = [joined(folder, name) for folder, name in files]
    for start in range(0, len(ids), _DELETED_AT_ONCE):
        index.delete(ids[start : start + _DELETED_AT_ONCE])
