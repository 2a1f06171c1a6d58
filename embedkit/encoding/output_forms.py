"""How vectors are laid out in the file that a job makes: in what it appends to, and once it is finished.

The job's own files only grow (`embedkit.encoding.draft`). What has vectors, or terms, of a number of its own for each text keeps these
numbers in a file `counts`, and is packed into an archive at the end, a stretch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedkit.data.vectors import npy_header
from embedkit.encoding.archives import join_matrices, join_tokens, pack_matrix, pack_tokens


@dataclass(frozen=True)
class OutputForm:
    """How a finished file is laid out; as it stands here, it is what was appended.

    `header(rows, dimension)`, of a fixed length, stands before the content; `pack(folder, content, dimension, whole)` writes the final file
    of the job's own, and `join(paths, whole)` one of several finished ones.
    """

    ids_beside: bool = False  # in a file of their own, an id a line
    header: Callable[[int, int], bytes] | None = None
    pack: Callable[[Path, Path, int, Path], None] | None = None
    join: Callable[[Sequence[Path], Path], Iterator[float]] | None = None


LINES = OutputForm()
_DENSE = {".npy": OutputForm(ids_beside=True, header=npy_header), ".jsonl": LINES}
_TOKENS = {".npz": OutputForm(pack=pack_tokens, join=join_tokens), ".jsonl": LINES}
_SPARSE = {".npz": OutputForm(ids_beside=True, pack=pack_matrix, join=join_matrices), ".jsonl": LINES}
_OF_KIND = {"multi-vector": _TOKENS, "sparse": _SPARSE}


def forms_of(kind: object) -> Mapping[str, OutputForm]:
    """Return how the vectors of a kind of model are written, by the ending of the file; None is dense."""
    return _OF_KIND.get(str(kind), _DENSE)
