"""The text index is filled from the documents, a document at a time, with what its view says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedkit.data.records import Document
from indexes import Index, compact, repair, verify
from indexes.storage.documents import Passage
from indexes.storage.text_rows import stored_text_rows
from tests.indexes.fakes import create, embed

FIXTURES = Path(__file__).parent.parent / "fixtures"
TEXTS = {
    "plain": "one two three four five six seven",
    "folded": "ﬁne 数据库 e\u0301t\u0301 ß",
    "nul": "before\0after it and more",  # JSON can write it
    "wide": "👩‍👩‍👧 emoji are two code units elsewhere",
    "empty": "",
}


def with_passages(folder: Path) -> Index:
    """Make an index in which each document is cut in three, but for the last, which is whole."""
    index = create(folder)
    docs = [Document(name, text, f"Title of {name}") for name, text in TEXTS.items()]
    cuts = [[Passage(0, 6), Passage(4, 9), Passage(9, len(doc.text))] for doc in docs[:-1]]
    whole = [Passage(0, -1)]
    index.add(docs, embed([str(n) for n in range(3 * len(cuts) + 1)]), passages=[*cuts, whole])
    return index


def test_the_rows_are_those_of_the_view(tmp_path: Path) -> None:
    with with_passages(tmp_path / "i") as index:
        database = index.database
        rows = list(stored_text_rows(database.execute, database.version))
        view = database.execute("SELECT row, title, text FROM passage_words ORDER BY row").fetchall()
    assert rows == view
    assert len(rows) == 13
    assert {text for _, _, text in rows} >= {"before", "re", ""}  # SQLite ends a part at NUL


@pytest.mark.parametrize("name", ["v1-float32", "v2-float32"])
def test_the_rows_of_earlier_formats_are_those_of_their_view(name: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / name, tmp_path / name)
    with Index.open(tmp_path / name) as index:
        view = {1: "passage_texts", 2: "passage_words"}[index.database.version]
        wanted = index.database.execute(f"SELECT row, title, text FROM {view} ORDER BY row").fetchall()
        assert sorted(stored_text_rows(index.database.execute, index.database.version)) == wanted


def test_what_was_written_is_forgotten_and_written_again_whole(tmp_path: Path) -> None:
    with with_passages(tmp_path / "i") as index:
        assert list(verify(index.path)) == []
        assert [hit.doc_id for hit in index.search_text(["seven"])[0]] == ["plain"]
        index.delete(["plain", "nul"])
        assert list(verify(index.path)) == []
        assert index.search_text(["seven"])[0] == []
        list(compact(index))
    before = list(repair(tmp_path / "i"))
    assert [done.done for done in before] == ["built the text index again"]
    assert list(verify(tmp_path / "i")) == []
    with Index.open(tmp_path / "i") as index:
        assert [hit.doc_id for hit in index.search_text(["elsewhere"])[0]] == ["wide"]


def test_no_statement_reads_the_view_which_reads_a_document_for_each_of_its_passages(tmp_path: Path) -> None:
    said: list[str] = []
    with with_passages(tmp_path / "i") as index:
        index.database._connection.set_trace_callback(said.append)
        index.add([Document("late", "some words")], embed(["late"]))
        index.delete(["plain"])
        with index.database.transaction():
            index.database.rebuild_text_index()
    assert any("text_index" in statement for statement in said)
    assert not [
        statement for statement in said if "passage_words" in statement or "passage_texts" in statement
    ]
