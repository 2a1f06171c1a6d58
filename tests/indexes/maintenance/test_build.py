"""build(): what goes in, what is passed over, what is refused; and that a stopped build goes on where it was."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.data.scope import scope_of
from embedkit.errors import IndexMismatchError, RecordError
from indexes import BuildReport, Index, Settings, build, build_vectors, delete_keys, find_vanished, verify
from indexes.storage.codes import FloatArray
from tests.indexes.fakes import DIMENSION, create, documents, embed


class CountingEmbed:
    """The fake encoder, with all texts it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        self.texts.extend(texts)
        return embed(texts)


def halves(title: str, text: str) -> list[tuple[int, int]]:
    middle = len(text) // 2
    return [(0, middle), (middle, len(text))] if text else []


def last(index: Index, docs: Sequence[Document], **options: object) -> BuildReport:
    *_, report = build(index, docs, **{"embed": embed, "commit_every": 16, **options})  # type: ignore[arg-type]  # tests give the right ones
    return report


def contents(index: Index) -> list[tuple[str, str, bytes]]:
    """Everything a search can find, without row numbers: (id, text, vector)."""
    hits = index.search(embed(["anything"]), k=10_000)[0]
    return sorted((hit.doc_id, hit.text, f"{hit.score:.9g}".encode()) for hit in hits)


def test_a_build_adds_documents_and_reports_what_it_did(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        report = last(index, [*documents(40), Document("blank", "  ", "", {}, "notes.jsonl", 41)])
        assert replace(report, seconds=0.0) == BuildReport(
            read=41,
            added=41,
            empty=1,
            first_empty="notes.jsonl:41",
            passages=40,
            embedded=40,
            fraction=1.0,
            finished=True,
        )
        assert len(index) == 40
        hit = index.search(embed(["Title 7 Note 7 of version 1 is about topic 0."]), k=1)[0][0]
        assert (hit.doc_id, hit.title, hit.metadata["topic"]) == ("note-0007", "Title 7", 0)
        assert hit.score == pytest.approx(1.0)


def test_the_same_command_again_embeds_nothing(tmp_path: Path) -> None:
    counting = CountingEmbed()
    with create(tmp_path / "i") as index:
        last(index, documents(40))
        report = last(index, documents(40), embed=counting)
    assert (report.unchanged, report.added, report.updated, counting.texts) == (40, 0, 0, [])


def test_only_changed_documents_are_embedded_again_and_replaced(tmp_path: Path) -> None:
    counting = CountingEmbed()
    docs = documents(40)
    docs[3] = documents(4, version=2)[3]
    docs[5] = replace(docs[5], metadata={"topic": 99})
    with create(tmp_path / "i") as index:
        last(index, documents(40))
        report = last(index, docs, embed=counting)
        assert (report.updated, report.unchanged) == (2, 38)
        assert counting.texts == ["Title 3 Note 3 of version 2 is about topic 3."]
        assert len(index) == 40
        assert [hit.doc_id for hit in index.search(embed(["a"]), k=5, where="topic = 99")[0]] == ["note-0005"]
        assert not index.search_text(["version 1"], where="id = 'note-0003'")[0][0].text.count("version 1")
        assert list(verify(tmp_path / "i")) == []


def test_sync_deletes_what_vanished_from_the_sources_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        last(
            index, [*documents(20, source="docs/a.jsonl"), Document("other", "kept", "", {}, "else.jsonl", 1)]
        )
        kept = documents(5, source="docs/a.jsonl")
        assert last(index, kept).deleted == 0
        gone = find_vanished(index, scope_of(["docs"]))
        delete_keys(index, gone, commit_every=4)
        assert (len(gone), len(index)) == (15, 6)
        last(index, [])
        assert find_vanished(index, scope_of(["docs/b.jsonl"])) == []
        assert len(find_vanished(index, scope_of(["docs/*.jsonl"]))) == 5
        assert list(verify(tmp_path / "i")) == []


def test_passages_carry_the_title_into_their_vectors_and_their_own_text_into_hits(tmp_path: Path) -> None:
    counting = CountingEmbed()
    with create(tmp_path / "i") as index:
        last(index, documents(3), embed=counting, split=halves)
        assert len(counting.texts) == 6
        assert all(text.startswith("Title ") for text in counting.texts)
        hit = index.search(embed([counting.texts[3]]), k=1)[0][0]
        assert (hit.doc_id, hit.passage) == ("note-0001", 1)
        assert f"Title 1 {hit.text}" == counting.texts[3]


@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
def test_a_stopped_build_that_goes_on_equals_one_that_never_stopped(tmp_path: Path, stop_after: int) -> None:
    with create(tmp_path / "whole") as index:
        last(index, documents(90), split=halves)
        whole = contents(index)
    with create(tmp_path / "parts") as index:
        reports = build(index, documents(90), embed=embed, split=halves, commit_every=16)
        list(islice(reports, stop_after))
        reports.close()  # type: ignore[attr-defined]  # a generator, as every iterator of reports is
    with Index.open(tmp_path / "parts", writable=True) as index:
        report = last(index, documents(90), split=halves)
        assert contents(index) == whole
        assert report.unchanged + report.added == 90
    assert list(verify(tmp_path / "parts")) == []


def test_an_id_that_stands_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    docs = [*documents(600), Document("note-0004", "again", "", {}, "more.jsonl", 9)]
    with create(tmp_path / "i") as index:
        with pytest.raises(RecordError) as caught:
            last(index, docs, commit_every=64)
        assert str(caught.value) == (
            "more.jsonl:9: the id 'note-0004' stands there again; it was at notes.jsonl:5. "
            "Ids must be different: rename one or remove it"
        )
        assert index.search(embed(["x"]), k=1, where="id = 'note-0004' and text like '%version 1%'")[0]
        with pytest.raises(RecordError, match=r"b:2: the id 'x' stands there again; it was at a:1"):
            index.add(
                [Document("x", "", "", {}, "a", 1), Document("x", "", "", {}, "b", 2)],
                np.ones((2, DIMENSION), np.float32),
            )


def test_what_the_reader_raises_comes_through_and_earlier_commits_stay(tmp_path: Path) -> None:
    def broken() -> object:
        yield from documents(512)
        raise RecordError("notes.jsonl:513: not JSON")

    with create(tmp_path / "i") as index:
        with pytest.raises(RecordError, match=r"notes\.jsonl:513: not JSON"):
            last(index, broken(), commit_every=32)  # type: ignore[arg-type]  # a generator is an iterable
        assert len(index) >= 256
        assert list(verify(tmp_path / "i")) == []


def test_a_build_that_ends_early_does_not_wait_for_what_is_being_embedded(tmp_path: Path) -> None:
    begun, may_end, ended = Event(), Event(), Event()

    def slow(texts: Sequence[str]) -> FloatArray:
        begun.set()
        may_end.wait(20)
        ended.set()
        return embed(texts)

    def unreadable() -> Iterator[Document]:
        yield from documents(20)
        assert begun.wait(20)
        raise RecordError("notes.jsonl:21: cannot be read")

    with create(tmp_path / "i") as index:
        with pytest.raises(RecordError):
            list(build(index, unreadable(), embed=slow, commit_every=16))
        assert not ended.is_set()
        may_end.set()
        assert ended.wait(20)


def test_an_encoder_of_another_dimension_is_refused_with_both_shapes(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        with pytest.raises(
            IndexMismatchError, match=r"shape \(5, 8\); 5 texts in an index of dimension 16 need \(5, 16\)"
        ):
            last(index, documents(5), embed=lambda texts: np.ones((len(texts), 8), np.float32))
        with pytest.raises(ValueError, match="commit_every is 0"):
            build(index, [], embed=embed, commit_every=0)


def test_passages_without_a_direction_are_left_out_of_a_cosine_index(tmp_path: Path) -> None:
    """What an encoder finds no tokens in: a document of such passages alone is empty, its neighbours are all there."""

    def zero_where_blank(texts: Sequence[str]) -> FloatArray:
        vectors = embed(texts)
        vectors[["blank" in text for text in texts]] = 0
        return vectors

    texts = ["one two", "blankblank", "three 4blank ", "five six"]
    found = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    with create(tmp_path / "i") as index:
        report = last(index, found, embed=zero_where_blank, split=halves)
        assert (report.read, report.added, report.empty, report.passages) == (4, 4, 1, 5)
        hits = index.search(embed(["three"]), k=9)[0]
        assert (hits[0].doc_id, hits[0].text) == ("d2", "three ")
        assert {hit.doc_id for hit in hits} == {"d0", "d2", "d3"}
        assert len(index) == len(hits) == 5
        assert last(index, found, embed=zero_where_blank, split=halves).unchanged == 4
        assert list(verify(tmp_path / "i")) == []
    with Index.create(tmp_path / "dot", Settings(dimension=DIMENSION, metric="dot")) as index:
        assert last(index, found, embed=zero_where_blank).empty == 0
        assert len(index) == 4


def test_ready_vectors_are_added_resumed_and_replaced(tmp_path: Path) -> None:
    ids = [f"v{number}" for number in range(100)]
    vectors = embed(ids)
    with create(tmp_path / "i") as index:
        next(build_vectors(index, ids, vectors, commit_every=40))
        assert len(index) == 40
        *_, report = build_vectors(index, ids, vectors, commit_every=40)
        assert (report.added, report.unchanged, report.finished) == (60, 40, True)
        vectors[7] = embed(["other"])[0]
        *_, report = build_vectors(index, ids, vectors, commit_every=40)
        assert (report.updated, report.unchanged) == (1, 99)
        assert index.search(embed(["other"]), k=1)[0][0].doc_id == "v7"
        with pytest.raises(
            IndexMismatchError,
            match=r"shape \(99, 16\); 100 ids in an index of dimension 16 need \(100, 16\)",
        ):
            build_vectors(index, ids, vectors[1:])
        with pytest.raises(RecordError, match="ids:2: the id 'a' stands there again; it was at ids:1"):
            build_vectors(index, ["a", "a"], vectors[:2])
        with pytest.raises(RecordError, match="ids:2: the id is empty"):
            build_vectors(index, ["a", ""], vectors[:2])


def test_many_small_commits_leave_few_segments(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        for number in range(60):
            index.add([Document(f"d{number}", "")], embed([str(number)]))
        assert len(index.snapshot.segments) <= 17
        assert len(index.search(embed(["x"]), k=100)[0]) == 60
        assert index.search(embed(["33"]), k=1)[0][0].doc_id == "d33"


def test_no_passage_goes_beyond_a_part(tmp_path: Path) -> None:
    text = "one two three four " * 2
    parts = (0, 19, 30)  # the first begins where the text does; the last within words
    found = [Document("a", text, parts=parts), Document("b", text)]
    with create(tmp_path) as index:
        last(index, found, split=halves)
        spans = index.database.execute(
            "SELECT doc_id, start, stop FROM passages JOIN documents USING (doc_key) ORDER BY passages.doc_key, start"
        ).fetchall()
    expected = [(0, 9), (9, 19), (19, 24), (24, 30), (30, 34), (34, 38)]
    assert [span[1:] for span in spans if span[0] == "a"] == expected
    assert [span[1:] for span in spans if span[0] == "b"] == [(0, 19), (19, 38)]
