"""One index of shards holds what a build in one piece does, bit for bit."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexFileError
from indexes import Index, Passage, Settings, ShardPlace, ShardsFile, Storage, merge_shards
from indexes.storage.codes import STORAGES
from tests.indexes.sharded.cut import make_index, make_shards

TEXTS = ["wind energy", "the winds of solar energy", "数据库 one", "crème brûlée twice twice", "five"] * 8
DOCUMENTS = [
    Document(f"d{n}", f"{text} {n}", title=str(n), metadata={"n": n}) for n, text in enumerate(TEXTS)
]
CUTS = [
    [Passage(0, 4), Passage(4, len(each.text))] if n % 3 else [Passage(0, -1)]
    for n, each in enumerate(DOCUMENTS)
]
VECTORS = np.random.default_rng(1).normal(size=(sum(map(len, CUTS)), 24)).astype(np.float32)
TABLES = (
    "SELECT doc_key, doc_id, title, text, metadata, content_hash, source, places FROM documents ORDER BY doc_key",
    "SELECT row, doc_key, number, start, stop FROM passages ORDER BY row",
    "SELECT id, sz FROM text_index_docsize ORDER BY id",
    "SELECT block FROM text_index_data WHERE id = 1",  # how many words there are
    "SELECT name FROM fields ORDER BY name",
    "SELECT value FROM meta WHERE name IN ('settings', 'scales', 'next_row', 'format_version') ORDER BY name",
)


def content(path: Path) -> list[object]:
    with Index.open(path) as index:
        index.database.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, text_index, instance)")
        tables = (*TABLES, "SELECT * FROM temp.words ORDER BY term, doc, col, offset")
        codes = [np.asarray(segment.codes).tobytes() for segment in index.snapshot.dense]
        return [b"".join(codes), *(index.database.execute(table).fetchall() for table in tables)]


def shard_folder(folder: Path, wanted: Settings) -> Path:
    """Make shards as a build does: codes of all are in the steps of the first."""
    shards = make_shards(folder, wanted, DOCUMENTS, VECTORS, ends=[13, 13, 30], passages=CUTS)
    places = ShardsFile.read(shards).shards
    with Index.open(shards / places[0].location) as first:
        steps = first.database.meta("scales")
    borders = [0, 13, 13, 30, len(DOCUMENTS)]
    for number, place in enumerate(places[1:] if steps is not None else (), 1):
        shutil.rmtree(shards / place.location)
        first_document, last = borders[number], borders[number + 1]
        first_row = sum(map(len, CUTS[:first_document]))
        with Index.create(shards / place.location, wanted) as index:
            with index.database.transaction():
                index.database.set_meta("scales", steps)
            if last > first_document:
                cut = CUTS[first_document:last]
                vectors = VECTORS[first_row : first_row + sum(map(len, cut))]
                index.add(DOCUMENTS[first_document:last], vectors, passages=cut)
    return shards


def one_piece(path: Path, wanted: Settings, steps: bytes | None) -> Path:
    with Index.create(path, wanted) as index:
        if steps is not None:
            with index.database.transaction():
                index.database.set_meta("scales", steps)
        index.add(DOCUMENTS, VECTORS, passages=CUTS)
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_a_merge_of_shards_is_a_build_in_one_piece(tmp_path: Path, storage: Storage) -> None:
    wanted = Settings(dimension=24, storage=storage)
    shards = shard_folder(tmp_path / "big", wanted)
    with Index.open(shards / "shards/00000.index") as first:
        steps = first.database.meta("scales")
    one = one_piece(tmp_path / "one", wanted, steps)
    with Index.create(tmp_path / "merged", wanted) as merged:
        reports = list(merge_shards(merged, shards))
    assert [report.finished for report in reports] == [False] * (len(reports) - 1) + [True]
    assert (reports[-1].added, reports[-1].read, reports[-1].fraction) == (40, 40, 1.0)
    assert content(tmp_path / "merged") == content(one)


def test_a_merge_that_was_stopped_goes_on(tmp_path: Path) -> None:
    wanted = Settings(dimension=24)
    shards = shard_folder(tmp_path / "big", wanted)
    one = make_index(tmp_path / "one", wanted, DOCUMENTS, VECTORS, CUTS)
    with Index.create(tmp_path / "merged", wanted) as merged:
        assert len(list(islice(merge_shards(merged, shards), 1))) == 1
    with Index.open(tmp_path / "merged", writable=True) as merged:
        (*_, last) = merge_shards(merged, shards)
    assert (last.added, last.unchanged) == (27, 13)
    assert content(tmp_path / "merged") == content(one)


def test_all_shards_must_be_here(tmp_path: Path) -> None:
    wanted = Settings(dimension=24)
    shards = shard_folder(tmp_path / "big", wanted)
    file = ShardsFile.read(shards)
    served = ShardPlace("00004", "http://host:8080/a", 1, 1, "")
    with Index.create(tmp_path / "merged", wanted) as merged:
        ShardsFile("", wanted, "", [*file.shards, served]).write(shards)
        with pytest.raises(IndexFileError, match="the shard 00004 lies on a server"):
            merge_shards(merged, shards)
        file.write(shards)
        shutil.rmtree(shards / "shards/00002.index")
        with pytest.raises(IndexFileError, match=r"00002\.index: there is no index"):
            merge_shards(merged, shards)
        assert len(merged) == 0
