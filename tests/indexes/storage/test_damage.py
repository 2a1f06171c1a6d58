"""Bytes flipped or cut in any file: verify names it, search refuses or is right, repair brings back what it can."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError
from indexes import Index, build, build_ann, repair, verify
from tests.indexes.fakes import create, documents, embed

COUNT = 200
QUERIES = [f"{doc.title} {doc.text}" for doc in documents(COUNT)[::10]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two segments, tombstones and an ANN structure."""
    folder = tmp_path_factory.mktemp("sound") / "i"
    with create(folder) as index:
        list(build(index, documents(COUNT), embed=embed, commit_every=100))
        index.delete([doc.doc_id for doc in documents(COUNT)[1::50]])
        list(build_ann(index, "hnsw"))
    assert list(verify(folder)) == []
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "i"))


def search_all(folder: Path) -> list[list[Hit]]:
    """Search in every way; whatever is damaged must not be told as if it were true."""
    with Index.open(folder) as index:
        named = index.search_ids(embed(QUERIES), k=5, exact=True)
        exact = index.search(embed(QUERIES), k=5, exact=True)
        assert named == [[(hit.doc_id, hit.score) for hit in hits] for hits in exact]
        index.search(embed(QUERIES), k=5)
        return exact


def rebuild(folder: Path) -> None:
    kept = [doc for number, doc in enumerate(documents(COUNT)) if number % 50 != 1]
    with Index.open(folder, writable=True) as index:
        list(build(index, kept, embed=embed))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize("pattern", ["segments/*.vectors", "ann-*.faiss"])
def test_a_damaged_file_is_named_refused_and_repaired(
    folder: Path, pattern: str, harm: Callable[[Path, int], None]
) -> None:
    truth = search_all(folder)
    path = sorted(folder.glob(pattern))[0]
    whole = path.read_bytes()
    moments = random.Random(1)
    for _ in range(12):
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
    (lost,) = [done.lost for done in repair(folder) if done.lost] or [()]
    assert list(verify(folder)) == []
    assert len(lost) <= 100
    with Index.open(folder) as index:
        found = {hit.doc_id for hits in index.search(embed(QUERIES), k=COUNT) for hit in hits}
        assert not found & set(lost)
        assert len(found) == COUNT - 4 - len(lost)
    rebuild(folder)
    assert search_all(folder) == truth


def test_a_missing_segment_is_named_and_its_documents_are_embedded_again(folder: Path) -> None:
    truth = search_all(folder)
    first = min((folder / "segments").iterdir())
    first.unlink()
    assert any(first.name in finding.place for finding in verify(folder))
    with pytest.raises(
        IndexFileError, match=f"{first.name}: the segment is missing, though the database names it"
    ):
        Index.open(folder)
    assert sum(len(done.lost) for done in repair(folder)) in (98, 100)
    assert list(verify(folder)) == []
    rebuild(folder)
    assert search_all(folder) == truth


def test_a_missing_ann_file_leaves_search_exact(folder: Path) -> None:
    truth = search_all(folder)
    next(folder.glob("ann-*.faiss")).unlink()
    with Index.open(folder) as index:
        assert index.search(embed(QUERIES), k=5) == truth
    assert ["missing" in finding.problem for finding in verify(folder)] == [True]
    list(repair(folder))
    assert list(verify(folder)) == []


def test_a_flipped_byte_in_the_database_is_never_told_as_truth(folder: Path) -> None:
    truth = search_all(folder)
    path = folder / "index.sqlite"
    whole = path.read_bytes()
    moments = random.Random(2)
    noticed = 0
    for _ in range(40):
        path.write_bytes(whole)
        flip(path, moments.randrange(len(whole)))
        try:
            assert search_all(folder) == truth
        except IndexFileError:
            noticed += 1
            assert list(verify(folder)) != []
    assert noticed


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_database_is_repaired_or_refused_whole(folder: Path, seed: int) -> None:
    truth = search_all(folder)
    path = folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    moments = random.Random(seed)
    for _ in range(3):
        at = moments.randrange(8192, len(data) - 64)  # behind the schema: without it nothing can be read
        data[at : at + 64] = moments.randbytes(64)
    path.write_bytes(data)
    if not list(verify(folder)):  # all three fell where nothing is stored
        assert search_all(folder) == truth
        return
    try:
        list(repair(folder))
    except IndexFileError as exc:
        if "the settings cannot be read" not in str(exc):
            raise
        return
    assert list(verify(folder)) == []
    rebuild(folder)
    assert search_all(folder) == truth


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE documents SET text = 'other' WHERE doc_id = 'note-0030'",
            "document 'note-0030' is not what was written",
        ),
        (
            "UPDATE documents SET metadata = '{}' WHERE doc_id = 'note-0030'",
            "document 'note-0030' is not what was written",
        ),
        *(
            (
                f"UPDATE documents SET {column} = {value} WHERE doc_id = 'note-0030'",
                "document 'note-0030' is not what was written",
            )
            for column, value in (
                ("text", "x'00ff'"),
                ("title", "x'00ff'"),
                ("content_hash", "'words'"),
                ("content_hash", "7"),
            )
        ),
        ("DELETE FROM tombstones WHERE row = 2", "the tombstones are not those that were written"),
        (
            "DELETE FROM passages WHERE row = 31",
            "1 vectors without a passage or tombstone; the first is row 31",
        ),
        ("UPDATE passages SET number = -1 WHERE row = 31", "1 vectors that belong to another text"),
        ("UPDATE passages SET start = 'two' WHERE row = 31", "1 vectors that belong to another text"),
        ("UPDATE passages SET doc_key = 40 WHERE row = 31", "1 vectors that belong to another text"),
        (
            "UPDATE passages SET row = 9999 WHERE row = 31",
            "1 passages without a vector; the first is row 9999",
        ),
        (
            "UPDATE meta SET value = value || ' ' WHERE name = 'settings'",
            "the entry 'settings' is not what was written",
        ),
        (
            "INSERT INTO text_index (text_index) VALUES ('delete-all')",
            "the text index does not fit the documents",
        ),
    ],
)
def test_each_table_is_checked_against_the_others(folder: Path, statement: str, problem: str) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert any(problem in finding.problem for finding in verify(folder)), [f.problem for f in verify(folder)]
    if "settings" in statement:
        with pytest.raises(IndexFileError, match="the settings cannot be read"):
            list(repair(folder))
        return
    list(repair(folder))
    assert list(verify(folder)) == []


def test_repair_of_a_sound_index_changes_nothing_that_can_be_found(folder: Path) -> None:
    truth = search_all(folder)
    assert all(not done.lost for done in repair(folder))
    assert search_all(folder) == truth
    assert list(verify(folder)) == []


def test_what_is_no_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"there is no such folder"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(IndexFileError, match=r"the folder holds no 'index\.sqlite'"):
        Index.open(tmp_path)
    for action in (verify, repair):
        with pytest.raises(IndexFileError, match="there is no index here"):
            action(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"this is not a database, though it has the name of one" * 40)
    with pytest.raises(IndexFileError, match="file is not a database"):
        Index.open(tmp_path)
    assert ["file is not a database" in finding.problem for finding in verify(tmp_path)] == [True]
    (tmp_path / "index.sqlite").write_bytes(b"")
    with pytest.raises(IndexFileError, match="no such table: meta"):
        Index.open(tmp_path)
    with pytest.raises(IndexFileError, match="there is an index already"):
        create(tmp_path)


def test_an_index_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(
        IndexFileError, match=r"the folder holds 'thesis.tex'; an index wants an empty folder"
    ):
        create(tmp_path)


def test_an_index_of_a_newer_format_is_refused(folder: Path) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    connection.execute("UPDATE meta SET value = 5 WHERE name = 'format_version'")
    connection.commit()
    connection.close()
    with pytest.raises(
        IndexFileError, match=r"index format version 5; this embedkit reads up to 4\. Update embedkit"
    ):
        Index.open(folder)
    with pytest.raises(IndexFileError, match="index format version 5; this embedkit repairs up to 4"):
        list(repair(folder))


def test_repair_keeps_a_document_of_which_the_model_reads_nothing(folder: Path) -> None:
    """It has a text and no passage; where passages were lost, nobody can tell the two apart, and both are deleted."""
    with Index.open(folder, writable=True) as index:
        index.add([Document("mute", "\x00")], embed([]), passages=[[]])
    assert list(verify(folder)) == []
    assert all(not done.lost for done in repair(folder))
    with Index.open(folder, writable=True) as index:
        assert index.document("mute") is not None
        with index.database.transaction():
            index.database.execute(
                "DELETE FROM passages WHERE doc_key = (SELECT doc_key FROM documents WHERE doc_id = 'note-0000')"
            )
    assert [done.lost for done in repair(folder) if done.lost] == [("mute", "note-0000")]
    assert list(verify(folder)) == []
