"""Documents by their ids: odd ones are refused, and those that are here already are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from embedkit.data.records import Document
from embedkit.errors import RecordError
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from indexes import Index, build, build_vectors, verify
from indexes.storage.codes import FloatArray
from indexes.storage.commit import Addition, Change
from indexes.storage.hashes import content_hash
from indexes.storage.vectors import prepare_vectors
from tests.indexes.fakes import create, embed

ODD = "a\0b"  # for SQLite's JSON functions it ends at the NUL, and would be "a"


def test_an_id_with_a_nul_is_refused_and_takes_the_place_of_no_document(tmp_path: Path) -> None:
    document = Document(ODD, "other", source="c.jsonl", line=3)
    with create(tmp_path / "i") as index:
        index.add([Document("a", "text")], embed(["text"]))
        with pytest.raises(
            RecordError, match=r"^c\.jsonl:3: the id is 'a\\x00b'; an id must not hold .* NUL"
        ):
            index.add([document], embed(["other"]))
        with pytest.raises(RecordError, match="the character NUL"):
            list(build(index, [document], embed=embed))
        with pytest.raises(RecordError, match="the character NUL"):
            list(build_vectors(index, ["a", ODD], embed(["text", "other"])))
        assert [document.doc_id for document in index.first_documents(9)] == ["a"]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Make an index of the documents "a" and "a\\0b", which earlier versions let in."""
    with create(tmp_path / "i") as index:
        index.add([Document("a", "one horse")], embed(["x"]))
        addition = Addition(Document("", "two horses"), "{}", content_hash(ODD, "", "two horses", "{}"))
        object.__setattr__(addition, "document", Document(ODD, "two horses"))
        index.need_writer().commit(
            Change([addition]), prepare_vectors(embed(["y"]), index.settings, [repr(ODD)])
        )
    return tmp_path / "i"


def test_an_id_with_a_nul_that_is_there_is_told_from_its_beginning(earlier: Path) -> None:
    assert list(verify(earlier)) == []

    def embed_queries(queries: Sequence[str]) -> FloatArray:
        return embed(["y" for _ in queries])

    with Index.open(earlier) as index:
        found = index.document(ODD)
        assert found is not None
        assert found.text == "two horses"
        assert index.known_ids([ODD, "c\0d", "a"]) == {ODD, "a"}
        assert index.passage_counts([ODD]) == {ODD: 1}
        (hits,) = Retriever(index, embed=embed_queries).search(["horse"], SearchOptions(mode="hybrid"))
        assert {hit.doc_id: hit.text for hit in hits} == {"a": "one horse", ODD: "two horses"}
    with Index.open(earlier, writable=True) as index:
        assert index.delete(["a\0c"]).documents == 0
        assert index.delete([ODD]).documents == 1
        assert [document.doc_id for document in index.first_documents(9)] == ["a"]
