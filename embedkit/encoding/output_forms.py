"""How vectors are laid out in the file that a job makes: in what it appends to, and once it is finished.

The job's own files only grow (`embedkit.encoding.draft`). What has vectors, or terms, of a number of its own for each text keeps these
numbers in a file `counts`, and is packed into an archive at the end, a stretch at a time.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.vectors import npy_header

ENTRY = np.dtype([("term", "<i4"), ("weight", "<f4")])  # of a sparse vector, as the job appends them
_AT_ONCE = 2**20  # entries, 8 MB


@dataclass(frozen=True)
class OutputForm:
    """How a finished file is laid out; as it stands here, it is what was appended.

    `header(rows, dimension)`, of a fixed length, stands before the content; `pack(folder, content, dimension, whole)` writes the final file
    of the job's own.
    """

    ids_beside: bool = False  # in a file of their own, an id a line
    header: Callable[[int, int], bytes] | None = None
    pack: Callable[[Path, Path, int, Path], None] | None = None


def _pack_tokens(folder: Path, content: Path, dimension: int, whole: Path) -> None:
    """Put counts, ids and vectors into one uncompressed `.npz`."""
    counts = _counts(folder)
    ids = (folder / "ids").read_text(encoding="utf-8").split("\n")[:-1]
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _write_array(archive, "counts", counts)
        _write_array(archive, "ids", np.array(ids, dtype=np.str_))
        with _member(archive, "vectors") as member:
            member.write(npy_header(int(counts.sum()), dimension))
            with content.open("rb") as stream:
                shutil.copyfileobj(stream, member, 2**20)


def _pack_matrix(folder: Path, content: Path, dimension: int, whole: Path) -> None:
    """Put the rows into one uncompressed `.npz`, the CSR matrix of scipy's `load_npz`."""
    counts = _counts(folder)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _write_array(archive, "format", np.array(b"csr"))
        _write_array(archive, "shape", np.array([len(counts), dimension]))
        _write_array(archive, "indptr", starts)
        for name, column in (("indices", "term"), ("data", "weight")):
            with _member(archive, name) as member:
                header = {
                    "descr": ENTRY[column].str,
                    "fortran_order": False,
                    "shape": (int(starts[-1]),),
                }
                np.lib.format.write_array_header_1_0(member, header)
                for entries in _entries(content):
                    member.write(np.ascontiguousarray(entries[column]).data)


def _entries(content: Path) -> Iterator[NDArray[Any]]:  # Any: of ENTRY
    with content.open("rb") as stream:
        while len(entries := np.fromfile(stream, ENTRY, _AT_ONCE)):
            yield entries


def _counts(folder: Path) -> NDArray[np.int64]:
    return np.fromfile(folder / "counts", dtype="<i8")


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:  # Any: of each type
    with _member(archive, name) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        yield member


LINES = OutputForm()
_DENSE = {".npy": OutputForm(ids_beside=True, header=npy_header), ".jsonl": LINES}
_TOKENS = {".npz": OutputForm(pack=_pack_tokens), ".jsonl": LINES}
_SPARSE = {".npz": OutputForm(ids_beside=True, pack=_pack_matrix), ".jsonl": LINES}
_OF_KIND = {"multi-vector": _TOKENS, "sparse": _SPARSE}


def forms_of(kind: object) -> Mapping[str, OutputForm]:
    """Return how the vectors of a kind of model are written, by the ending of the file; None is dense."""
    return _OF_KIND.get(str(kind), _DENSE)
