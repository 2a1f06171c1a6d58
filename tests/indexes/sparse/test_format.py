"""The index that format version 4 began with is searched for good."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import IndexFileError
from embedkit.retrieval.sparse_vectors import SparseVectors
from indexes import Index, compact, verify
from tests.indexes.sparse.make_fixture import FIXTURE

QUERY = SparseVectors(
    np.array([0, 3]), np.array([0, 1, 5], np.int32), np.array([1.0, 0.5, 2.0], np.float32), 60
)
# What it gave when it was written.
EXPECTED = [[("d24", 5.000725746154785), ("d27", 3.7967376708984375), ("d9", 3.4717423915863037)]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "index"))


def test_it_is_searched_verified_and_compacted(folder: Path) -> None:
    assert not list(verify(folder))
    with Index.open(folder, writable=True) as index:
        assert (index.settings.kind, len(index), index.database.version) == ("sparse", 38, 4)
        found = index.search_ids(QUERY, k=3)
        assert found == EXPECTED
        list(compact(index))
        assert index.search_ids(QUERY, k=3) == found


def test_a_cut_or_changed_header_is_refused(folder: Path) -> None:
    path = folder / "segments" / "000001.vectors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(IndexFileError, match="was cut or replaced"):
        Index.open(folder)
    for at in (0, 12, 24, 40, 200):
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        with pytest.raises(IndexFileError, match="bytes were changed"):
            Index.open(folder)
