"""What the indexes of a server are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from embedkit.errors import IndexFileError

HIDDEN_FOLDER = ".embedkit"  # which holds the default index of the folder that it lies in


def index_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each index by its folder, without the ending `.index`; those of one name by the folders above, too, as far as it takes.

    A default index is called as the folder that it is of.

    >>> list(index_names([Path("/a/docs.index"), Path("/b/docs.index"), Path("/c/notes/.embedkit/index")]))
    ['a/docs', 'b/docs', 'notes']

    Raises:
        IndexFileError: one is named twice.
    """
    parts = [_parts(path) for path in paths]
    depths = [1] * len(paths)
    while True:
        names = ["/".join(each[-depth:]) for each, depth in zip(parts, depths, strict=True)]
        counts = Counter(names)
        longer = [
            min(depth + (counts[name] > 1), len(each))
            for name, depth, each in zip(names, depths, parts, strict=True)
        ]
        if longer == depths:
            break
        depths = longer
    named = dict(zip(names, paths, strict=True))
    if len(named) < len(paths):
        twice = next(name for name, count in counts.items() if count > 1)
        raise IndexFileError(f"{named[twice]}: this index is named twice. Name it once")
    return named


def _parts(path: Path) -> list[str]:
    folders = [part for part in path.resolve().parts if part != path.anchor]
    if len(folders) > 2 and folders[-2] == HIDDEN_FOLDER:
        return folders[:-2]
    return [*folders[:-1], folders[-1].removesuffix(".index") or folders[-1]]
