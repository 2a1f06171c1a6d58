"""Where the files of an index lie in its folder, and what they are called."""

from __future__ import annotations

from pathlib import Path

from embedkit.errors import IndexFileError

DATABASE_NAME = "index.sqlite"
LOCK_NAME = "index.lock"
SEGMENT_FOLDER = "segments"
SEGMENT_PATTERN = "{:06d}.vectors"
ANN_PATTERN = "ann-{:06d}.faiss"


def database_path(folder: Path) -> Path:
    return folder / DATABASE_NAME


def is_index(path: str | Path) -> bool:
    """Say whether a folder holds an index."""
    return database_path(Path(path)).is_file()


def empty_folder(folder: Path) -> Path:
    """Make the folder for a new index, or find it empty.

    Raises:
        IndexFileError: something is there already, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A creation that was killed leaves no more than these.
        others = sorted(
            child.name
            for child in folder.iterdir()
            if child.name not in (LOCK_NAME, SEGMENT_FOLDER) and ".new" not in child.name
        )
    except OSError as exc:
        raise IndexFileError(
            f"{folder}: cannot be made ({exc.strerror}). Check the path and the permissions"
        ) from exc
    if database_path(folder).exists():
        raise IndexFileError(f"{folder}: there is an index already. Add to it, or choose another folder")
    if others:
        raise IndexFileError(
            f"{folder}: the folder holds {others[0]!r}; an index wants an empty folder. Choose another"
        )
    return folder
