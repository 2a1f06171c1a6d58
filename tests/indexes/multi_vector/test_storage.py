"""Segments of token vectors on disk: kills, damage and repair, as of every index."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Hit
from embedkit.errors import IndexFileError
from indexes import Index, build, repair, verify
from indexes.maintenance.content import content_hash
from indexes.multi_vector.segment_file import make_lists
from tests.full_disk import files_limited_to
from tests.indexes.fakes import create_tokens, documents, embed_tokens
from tests.indexes.storage.test_damage import cut, flip

COUNT = 200
QUERIES = [f"{doc.title} {doc.text}" for doc in documents(COUNT)[::10]]


def test_lists_name_each_row_once_for_each_of_its_centroids() -> None:
    ids, counts = np.array([5, 2, 5, 2, 2, 9], np.uint16), np.array([3, 1, 2])
    of, starts, postings = make_lists(ids, counts)
    assert (of.tolist(), starts.tolist(), postings.tolist()) == ([2, 5, 9], [0, 3, 4, 5], [0, 1, 2, 0, 2])
    of, starts, postings = make_lists(np.array([0], np.uint16), np.array([1]))
    assert (of.tolist(), starts.tolist(), postings.tolist()) == ([0], [0, 1], [0])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two segments and tombstones."""
    folder = tmp_path_factory.mktemp("sound") / "i"
    with create_tokens(folder) as index:
        list(build(index, documents(COUNT), embed=embed_tokens, commit_every=100))
        index.delete([doc.doc_id for doc in documents(COUNT)[1::50]])
    assert list(verify(folder)) == []
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "i"))


def search_all(folder: Path) -> list[list[Hit]]:
    """Search in every way; whatever is damaged must not be told as if it were true."""
    with Index.open(folder) as index:
        exact = index.search(embed_tokens(QUERIES), k=COUNT, exact=True)
        index.search(embed_tokens(QUERIES), k=1, knobs={"nprobe": 100, "candidates": 1})
        content_hash(index)
        return exact


def rebuild(folder: Path) -> None:
    kept = [doc for number, doc in enumerate(documents(COUNT)) if number % 50 != 1]
    with Index.open(folder, writable=True) as index:
        list(build(index, kept, embed=embed_tokens))


@pytest.mark.parametrize("harm", [flip, cut])
def test_a_damaged_file_is_named_refused_and_repaired(
    folder: Path, harm: Callable[[Path, int], None]
) -> None:
    truth = search_all(folder)
    path = sorted(folder.glob("segments/*.vectors"))[0]
    whole = path.read_bytes()
    moments = random.Random(1)
    for _ in range(16):
        path.write_bytes(whole)
        harm(path, moments.randrange(len(whole)))
        findings = list(verify(folder))
        if not findings:  # the few bytes between the parts hold nothing
            assert search_all(folder) == truth
            continue
        assert path.name in findings[0].place
        assert "repair" in findings[0].advice
        with pytest.raises(IndexFileError, match=path.name):
            search_all(folder)
    lost = [done.lost for done in repair(folder) if done.lost]
    assert list(verify(folder)) == []
    assert len(lost) <= 1
    rebuild(folder)
    assert search_all(folder) == truth


def test_lists_that_are_damaged_are_made_again_and_cost_no_document(folder: Path) -> None:
    truth = search_all(folder)
    path = sorted(folder.glob("segments/*.vectors"))[0]
    flip(path, path.stat().st_size - 3)  # of the last posting
    (finding,) = verify(folder)
    assert "the lists of its rows by centroid do not match their checksums" in finding.problem
    with Index.open(folder) as index:
        with pytest.raises(IndexFileError, match="the checksum of the lists of its rows by centroid"):
            index.search(embed_tokens(QUERIES), k=1, knobs={"nprobe": 10**4, "candidates": 1})
        assert index.search(embed_tokens(QUERIES), k=COUNT, exact=True) == truth
    assert [done.lost for done in repair(folder) if done.lost] == []
    assert list(verify(folder)) == []
    assert search_all(folder) == truth


def test_a_damaged_codebook_is_named_and_nothing_is_told_by_it(folder: Path) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    (stored,) = connection.execute("SELECT value FROM meta WHERE name = 'codebook'").fetchone()
    harmed = bytearray(stored)
    harmed[100] ^= 1
    connection.execute("UPDATE meta SET value = ? WHERE name = 'codebook'", (bytes(harmed),))
    connection.commit()
    connection.close()
    assert "the codebook of the token vectors is not what was written" in next(iter(verify(folder))).problem
    with pytest.raises(IndexFileError, match="Build the index again"):
        Index.open(folder)


def test_a_database_that_lost_pages_keeps_its_codebook_and_its_version(folder: Path) -> None:
    truth = search_all(folder)
    path = folder / "index.sqlite"
    connection = sqlite3.connect(path)
    (page,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'passages_of_document'"
    ).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = bytes(size)
    path.write_bytes(data)
    assert list(verify(folder))
    list(repair(folder))
    assert list(verify(folder)) == []
    with Index.open(folder) as index:
        assert index.database.version == 4
    rebuild(folder)
    assert search_all(folder) == truth


def test_a_full_disk_is_said_so_and_the_same_writer_goes_on(tmp_path: Path) -> None:
    docs = documents(3000)
    vectors = embed_tokens([doc.text for doc in docs])
    with create_tokens(tmp_path / "i") as index:
        for limit in (1_000, 60_000, 300_000):
            with (
                files_limited_to(limit),
                pytest.raises(IndexFileError, match=r"cannot be written|SQLite says"),
            ):
                index.add(docs, vectors)
            assert len(index) == 0
        index.add(docs, vectors)
        assert len(index.search(vectors.take(np.array([0])))[0]) == 10
    assert list(verify(tmp_path / "i")) == []


def test_a_reader_sees_one_snapshot_while_a_writer_changes_everything(tmp_path: Path) -> None:
    query = embed_tokens(["Note 3"])
    with create_tokens(tmp_path / "i") as writer, Index.open(tmp_path / "i") as reader:
        assert reader.search(query) == [[]]  # there is no codebook yet
        docs = documents(50)
        writer.add(docs, embed_tokens([doc.text for doc in docs]))
        assert reader.search(query) == [[]]
        reader.refresh()
        before = reader.search(query, k=50)
        assert len(before[0]) == 50
        writer.delete([doc.doc_id for doc in docs[:25]])
        assert reader.search(query, k=50) == before
        reader.refresh()
        assert reader.search(query, k=50) == writer.search(query, k=50)
