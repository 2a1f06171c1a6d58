"""Into an index without embedding: the documents of another index."""

from pathlib import Path

import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexMismatchError
from indexes import build, merge_indexes, verify
from tests.indexes.fakes import create, documents, embed, halves


def test_a_merged_index_finds_what_both_found(tmp_path: Path) -> None:
    docs = documents(60)
    with create(tmp_path / "all") as whole, create(tmp_path / "a") as ours, create(tmp_path / "b") as theirs:
        list(build(whole, docs, embed=embed, split=halves))
        list(build(ours, docs[:40], embed=embed, split=halves))
        list(build(theirs, docs[30:], embed=embed, split=halves))
        *_, report = merge_indexes(ours, theirs)
        assert (report.read, report.added, report.unchanged, report.finished) == (30, 20, 10, True)
        query = embed(["a", "b"])
        for found, wanted in zip(ours.search(query, k=30), whole.search(query, k=30), strict=True):
            # A vector brought to unit length twice may differ in its last bit.
            assert [(hit.doc_id, hit.passage) for hit in found] == [
                (hit.doc_id, hit.passage) for hit in wanted
            ]
        assert ours.search_text(["topic 3"], k=5) == whole.search_text(["topic 3"], k=5)
        *_, again = merge_indexes(ours, theirs)
        assert (again.added, again.unchanged) == (0, 30)
    assert list(verify(tmp_path / "a")) == []


def test_indexes_that_do_not_fit_are_not_merged(tmp_path: Path) -> None:
    with (
        create(tmp_path / "a", 2, fingerprint={"weights": "x"}) as ours,
        create(tmp_path / "b", fingerprint={"weights": "y"}) as other_model,
        create(tmp_path / "c", fingerprint={"weights": "x"}, cutting={"chunk_tokens": 9}) as other_cut,
        create(tmp_path / "d", fingerprint={"weights": "x"}) as other_text,
    ):
        with pytest.raises(IndexMismatchError, match='weights is "x" there and "y" here'):
            merge_indexes(ours, other_model)
        with pytest.raises(IndexMismatchError, match=r"chunk_tokens is \(absent\) there and 9 here"):
            merge_indexes(ours, other_cut)
        other_text.add([Document("note-0001", "else")], embed(["else"]))
        with pytest.raises(IndexMismatchError, match="hold different documents with the id 'note-0001'"):
            list(merge_indexes(ours, other_text))
        *_, report = merge_indexes(ours, other_text, replace=True)
        assert report.updated == 1
        assert ours.search(embed(["else"]), k=1)[0][0].text == "else"
