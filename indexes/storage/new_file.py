"""A file of an index before a transaction names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from embedkit.storage.files import sync


@contextmanager
def unnamed_file(path: Path) -> Iterator[BinaryIO]:
    """Give a stream to write a file to, which is on disk for good when the block ends, and else is removed.

    Its name is unused: a file that is there already is what a failed commit left.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        sync(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
