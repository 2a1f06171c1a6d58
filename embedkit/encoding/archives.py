"""Archives of what each text has a number of its own of, vectors or weights of terms: uncompressed `.npz`, written a stretch at a time.

Equal content gives equal bytes: no times are kept.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.vectors import npy_header

ENTRY = np.dtype([("term", "<i4"), ("weight", "<f4")])  # of a sparse vector, as a job appends them
_AT_ONCE = 2**20  # entries, 8 MB; or bytes
_COLUMNS = (("indices", "term"), ("data", "weight"))
Array = NDArray[Any]  # Any: of each type


def pack_tokens(folder: Path, content: Path, dimension: int, whole: Path) -> None:
    """Put a job's counts, ids and vectors into one archive."""
    counts = _counts(folder)
    ids = (folder / "ids").read_text(encoding="utf-8").split("\n")[:-1]
    with _archive(whole) as archive:
        _write_array(archive, "counts", counts)
        _write_array(archive, "ids", np.array(ids, dtype=np.str_))
        with _member(archive, "vectors") as member, content.open("rb") as stream:
            member.write(npy_header(int(counts.sum()), dimension))
            shutil.copyfileobj(stream, member, _AT_ONCE)


def pack_matrix(folder: Path, content: Path, dimension: int, whole: Path) -> None:
    """Put a job's rows into one archive, the CSR matrix of scipy's `load_npz`."""
    with _archive(whole) as archive:
        total = _write_rows(archive, _counts(folder), dimension)
        for name, column in _COLUMNS:
            with _member(archive, name) as member:
                _write_header(member, ENTRY[column], total)
                for entries in _entries(content):
                    member.write(np.ascontiguousarray(entries[column]).data)


def join_tokens(paths: Sequence[Path], whole: Path) -> Iterator[float]:
    """Make one archive of several of token vectors; yields how much is done."""
    counts, ids = (np.concatenate([_read(path, name) for path in paths]) for name in ("counts", "ids"))
    with _archive(whole) as archive:
        _write_array(archive, "counts", counts)
        _write_array(archive, "ids", ids)
        with _member(archive, "vectors") as member:
            for number, path in enumerate(paths, 1):
                with _stored(path, "vectors") as (shape, stream):
                    if number == 1:
                        member.write(npy_header(int(counts.sum()), shape[1]))
                    shutil.copyfileobj(stream, member, _AT_ONCE)
                yield number / len(paths)


def join_matrices(paths: Sequence[Path], whole: Path) -> Iterator[float]:
    """Make one archive of several of CSR matrices; yields how much is done."""
    counts = np.concatenate([np.diff(_read(path, "indptr")) for path in paths])
    with _archive(whole) as archive:
        total = _write_rows(archive, counts, int(_read(paths[0], "shape")[1]))
        for done, (name, column) in enumerate(_COLUMNS):
            with _member(archive, name) as member:
                _write_header(member, ENTRY[column], total)
                for number, path in enumerate(paths, 1):
                    with _stored(path, name) as (_, stream):
                        shutil.copyfileobj(stream, member, _AT_ONCE)
                    yield (done + number / len(paths)) / len(_COLUMNS)


def count_rows(path: Path) -> int:
    """Return how many texts there is something of in an archive of either kind."""
    with zipfile.ZipFile(path) as archive:
        name = "counts" if "counts.npy" in archive.namelist() else "shape"
    found = _read(path, name)
    return len(found) if name == "counts" else int(found[0])


def _write_rows(archive: zipfile.ZipFile, counts: NDArray[np.int64], dimension: int) -> int:
    """Write what says where the rows of a matrix lie, and return how many entries they have."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    _write_array(archive, "format", np.array(b"csr"))
    _write_array(archive, "shape", np.array([len(counts), dimension]))
    _write_array(archive, "indptr", starts)
    return int(starts[-1])


def _entries(content: Path) -> Iterator[Array]:
    with content.open("rb") as stream:
        while len(entries := np.fromfile(stream, ENTRY, _AT_ONCE)):
            yield entries


def _counts(folder: Path) -> NDArray[np.int64]:
    return np.fromfile(folder / "counts", dtype="<i8")


def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    with _member(archive, name) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _write_header(member: IO[bytes], dtype: np.dtype[Any], length: int) -> None:
    np.lib.format.write_array_header_1_0(
        member, {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    )


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        yield member


@contextmanager
def _stored(path: Path, name: str) -> Iterator[tuple[tuple[int, ...], IO[bytes]]]:
    """Open an array of an archive: its shape, and its bytes."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, _ = np.lib.format.read_array_header_1_0(member)
        yield shape, member


def _read(path: Path, name: str) -> Array:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        found: Array = np.lib.format.read_array(member, allow_pickle=False)
        return found
