"""What every store must do: the same tests for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.connectors.info import StoreInfo, read_info
from embedkit.connectors.pulling import pull
from embedkit.connectors.pushing import PushOptions, PushReport, push
from embedkit.connectors.searching import StoreIndex
from embedkit.connectors.store import Hnsw, Key, StoredAs, StoreRow
from embedkit.data.places import Mark
from embedkit.data.records import Document, Hit
from embedkit.errors import FilterError, IndexMismatchError, OutputError, StoreError
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from indexes import Index, Passage, Settings
from indexes.storage.documents import read_documents
from tests.connectors.conftest import Target
from tests.indexes.fakes import DIMENSION, create, documents, embed

STRANGE = [
    Document(
        "a/b#1",
        "Zero \0 byte, quote ' and \" and \\ and \n line.",
        "Title \0",
        {"x": "nul \0", "n": 1.0},
        "s.md",
    ),
    Document("", "A text whose id is empty.", "", {"big": 10**30, "deep": {"er": [1, None, {"k": True}]}}),
    Document(
        "смайл 😀",
        "Текст 😀 " * 50,
        "é",
        {"tags": ["x", "y'", 'q"\\', 1], "words": 'a"b\\\n', "float": 1e-7, "e": 1e22},
        "файл.txt",
    ),
    Document(
        "cut",
        "One two. Three four.  Five six!",
        "Cut",
        {"tags": [], "none": None},
        "cut.md",
        marks=(Mark(0, "lines", 1),),
    ),
    Document("empty", "", "Only a title", {}),
]
FINGERPRINT = {"weights": "abc", "pooling": "mean"}


def make(folder: Path, count: int = 0, **settings: object) -> Index:
    """Make an index of strange documents, one of which is cut into passages with gaps and overlap, and of `count` plain ones."""
    chosen: dict[str, Any] = {"fingerprint": FINGERPRINT, **settings}
    index = create(folder, **chosen)
    whole = [Passage(0, -1)]
    cuts = [
        [Passage(1, 8), Passage(5, 14), Passage(22, 30)] if doc.doc_id == "cut" else whole for doc in STRANGE
    ]
    index.add(STRANGE[1:], embed([f"strange {n}" for n in range(6)]), passages=cuts[1:])
    index.add(STRANGE[:1], embed(["strange 0"]))
    if count:
        docs = documents(count)
        index.add(docs, embed([doc.text for doc in docs]))
    return index


def info_of(index: Index, storage: StoredAs = "float32", hnsw: Hnsw | None = None) -> StoreInfo:
    return StoreInfo.of(index, storage, hnsw or Hnsw())


def push_all(index: Index, target: Target, options: PushOptions | None = None, **more: object) -> PushReport:
    with closing(target.open()) as store:
        *_, report = push(index, store, info_of(index, **more), options or PushOptions())  # type: ignore[arg-type]
    return report


@contextmanager
def searched(target: Target) -> Iterator[StoreIndex]:
    with closing(target.open()) as store:
        yield StoreIndex(store, read_info(store))


def pull_all(target: Target, path: Path) -> Index:
    with closing(target.open()) as store:
        *_, report = pull(store, path)
    assert report.finished
    return Index.open(path)


def content(index: Index) -> dict[str, tuple[object, ...]]:
    """Return all that an index holds, by id."""
    return {
        stored.document.doc_id: (
            stored.document,
            stored.metadata,
            stored.digest,
            [(start, stop) for _, start, stop in stored.passages],
            index.snapshot.gather(np.asarray([row for row, _, _ in stored.passages], np.int64)).tobytes(),
        )
        for stored in read_documents(index.database, 0, 100_000)
    }


def plain(hits: Sequence[Hit]) -> list[Hit]:
    return [replace(hit, score=0.0, scores={}) for hit in hits]


@pytest.mark.parametrize(("metric", "count"), [("cosine", 1500), ("dot", 200), ("l2", 200)])
def test_what_is_pulled_is_what_was_pushed_bit_by_bit(
    target: Target, tmp_path: Path, metric: str, count: int
) -> None:
    with make(tmp_path / "a", count, metric=metric) as index:
        report = push_all(index, target)
        assert (report.new, report.sent, report.deleted) == (count + 7, count + 7, 0)
        assert report.verified >= 100
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)
            assert pulled.settings == index.settings
            assert pulled.database.field_names() == index.database.field_names()
            query = embed(["Note 3 of version 1 is about topic 3."])
            assert pulled.search(query, k=20) == index.search(query, k=20)
            assert pulled.search_text(["topic 3"], k=20) == index.search_text(["topic 3"], k=20)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_search_finds_what_the_index_finds(target: Target, tmp_path: Path, metric: str) -> None:
    with make(tmp_path / "a", 300, metric=metric) as index:
        push_all(index, target, hnsw=Hnsw(m=0))
        queries = embed(["Note 3 of version 1 is about topic 3.", "something", "strange 2"])
        with searched(target) as store:
            assert len(store) == len(index)
            for group in (False, True):
                ours = index.search(queries, k=12, group=group)
                theirs = store.search(queries, k=12, where=None, group=group, bare=False)
                for mine, other in zip(ours, theirs, strict=True):
                    assert plain(other) == plain(mine)
                    np.testing.assert_allclose(
                        [hit.score for hit in other], [hit.score for hit in mine], rtol=2e-6
                    )
                    assert [hit.score for hit in other] == [hit.scores["dense"] for hit in other]


def test_a_graph_finds_nearly_all_of_it(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 2000) as index:
        push_all(index, target, hnsw=Hnsw(m=8, ef_construction=40))
        queries = embed([f"query {number}" for number in range(20)])
        with searched(target) as store:
            store.ef = 200
            theirs = store.search(queries, k=10, where=None, group=False, bare=True)
            filtered = store.search(queries, k=10, where="topic = 3", group=False, bare=True)
            few = "id in ('note-0007', 'note-1234', 'cut')"
            lone = store.search(queries, k=10, where=few, group=True, bare=True)
        found = sum(
            len({hit.doc_id for hit in a} & {hit.doc_id for hit in b})
            for a, b in zip(theirs, index.search(queries, k=10), strict=True)
        )
        assert found >= 190
        assert [len(hits) for hits in filtered] == [10] * 20
        assert [{hit.doc_id for hit in hits} for hits in lone] == [{"note-0007", "note-1234", "cut"}] * 20


FILTERS = [
    "topic = 3",
    "topic != 3",
    "not topic = 3",
    "topic >= 2 and topic < 5",
    "lang = 'en' or topic in (1, 2)",
    "lang like 'E%'",
    "lang < 'e'",
    "topic between 2 and 4 and not lang = 'de'",
    "topic is null",
    "none is null and tags is not null",
    "n = 1",
    "n = true",
    "topic = '3'",
    "id = 'note-0003'",
    "id like 'NOTE-000_'",
    "id > 'note-0200'",
    "id = 3",
    "title like 'Title 1%'",
    "source glob '*.jsonl'",
    "id glob 'note-001?'",
    "id glob 'a/**'",
    "id glob '[!n]*'",
    "tags contains 'x'",
    "'y''' in tags",
    "not tags contains 'x'",
    "tags contains 1",
    "tags contains '1'",
    "tags contains 'q\"\\'",
    "words = 'a\"b\\\n'",
    "words > 'a' and words < 'b'",
    "words like 'A\"B\\%'",
    "words glob 'a?b*'",
    "deep.er contains 1",
    "deep.er contains true",
    "big > 1e29",
    "float < 0.001",
    "e = 1e22",
]


_PATTERNS = [where for where in FILTERS if " like " in where or " glob " in where]
_QUOTES = ["tags contains 'q\"\\'"]
REFUSED = {
    **dict.fromkeys(("lancedb", "lancedb-s3"), _QUOTES),
    **dict.fromkeys(("qdrant", "chroma", "chroma-folder", "milvus"), _PATTERNS),
}


def test_filters_mean_what_they_mean_in_the_index(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 250) as index:
        push_all(index, target)
        query = embed(["anything"])
        with searched(target) as store:
            for where in FILTERS:
                wanted = {(hit.doc_id, hit.passage) for hit in index.search(query, k=1000, where=where)[0]}
                if where in REFUSED.get(target.kind, ()):
                    with pytest.raises(FilterError, match="embedkit index pull"):
                        store.search(query, k=1, where=where, group=False, bare=True)
                    continue
                found = store.search(query, k=1000, where=where, group=False, bare=True)[0]
                assert {(hit.doc_id, hit.passage) for hit in found} == wanted, where
                assert store.count_rows(where) == len(wanted), where


def test_filters_that_cannot_be_are_refused_as_in_the_index(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 10) as index:
        push_all(index, target)
        with searched(target) as store:
            for where in ("tags = 'x'", "lang contains 'en'", "deep = 1", "nothing = 1", "topic ="):
                with pytest.raises(FilterError) as ours:
                    index.search(embed(["x"]), where=where)
                with pytest.raises(FilterError) as theirs:
                    store.search(embed(["x"]), k=1, where=where, group=False, bare=True)
                assert str(theirs.value) == str(ours.value)


def test_search_by_words_and_hybrid(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 50) as index:
        push_all(index, target)
        with searched(target) as store:
            if not store.store.has_text:
                with pytest.raises(StoreError, match="--mode dense"):
                    store.search_text(["x"], k=1, where=None, group=False, bare=False)
                return
            (hits,) = store.search_text(["five six"], k=5, where=None, group=False, bare=False)
            assert (hits[0].doc_id, hits[0].passage, hits[0].text) == ("cut", 2, "Five six")
            assert 0 < hits[0].score <= store.text_limits(["five six"])[0]
            assert hits[0].place == index.search_text(["five six"])[0][0].place
            assert store.search_text(["'\\ & | !", ""], k=5, where=None, group=False, bare=False) == [[], []]
            retriever = Retriever(store, embed=embed)
            (mixed,) = retriever.search(["Title 7"], SearchOptions(mode="hybrid", k=5, where="topic = 0"))
            assert mixed[0].doc_id == "note-0007"
            assert mixed[0].text.startswith("Note 7")
            assert {"dense", "text"} <= mixed[0].scores.keys()
            asked: Any = {"k": 9, "where": None, "group": False, "bare": True}
            (words,) = store.search_text(["five six note"], vectors=embed(["Title 7"]), **asked)
            (nearest,) = store.search(embed(["Title 7"]), **asked | {"k": 60})
            cosines = {(hit.doc_id, hit.passage): hit.score for hit in nearest}
            assert len(words) == 9
            for hit in words:
                assert hit.scores["dense"] == pytest.approx(cosines[hit.doc_id, hit.passage], abs=1e-5)


def test_a_second_push_sends_nothing_and_a_changed_index_what_has_changed(
    target: Target, tmp_path: Path
) -> None:
    with make(tmp_path / "a", 60) as index:
        push_all(index, target)
        again = push_all(index, target)
        assert (again.unchanged, again.sent, again.deleted) == (67, 0, 0)
        changed = documents(3, version=2)
        index.add(changed, embed([doc.text for doc in changed]))
        index.delete(["note-0010", "cut"])
        index.add([Document("cut", "Shorter.", "Cut")], embed(["shorter"]))
        dry = push_all(index, target, PushOptions(dry_run=True))
        assert (dry.new, dry.changed, dry.gone, dry.sent, dry.deleted) == (0, 4, 3, 0, 0)
        kept = push_all(index, target, PushOptions(keep=True))
        assert (kept.changed, kept.sent, kept.deleted, kept.kept) == (4, 4, 2, 1)
        with pull_all(target, tmp_path / "kept") as pulled:
            assert pulled.known_ids(["note-0010", "cut"]) == {"note-0010", "cut"}
        last = push_all(index, target)
        assert (last.changed, last.deleted) == (0, 1)
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_a_stopped_push_goes_on_and_does_not_look_done(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 2500) as index:
        with closing(target.open()) as store:
            reports = push(index, store, info_of(index), PushOptions())
            stopped = next(report for report in reports if report.step == "push")
            assert 0 < stopped.sent < 2507
            sent = stopped.sent
            reports.close()
        with closing(target.open()) as store, pytest.raises(StoreError, match="has not ended"):
            pull(store, tmp_path / "no")
        report = push_all(index, target)
        assert (report.sent, report.unchanged) == (2507 - sent, sent)
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_float16_is_carried_exactly(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 100, storage="float16") as index:
        push_all(index, target, storage="float16")
        with pull_all(target, tmp_path / "b") as pulled:
            assert pulled.settings.storage == "float16"
            assert content(pulled) == content(index)
        with pytest.raises(IndexMismatchError, match='storage is "float16" there and "float32" here'):
            push_all(index, target, storage="float32")


@pytest.mark.parametrize("storage", ["int8", "binary"])
def test_an_index_of_fewer_bits_is_carried_as_the_vectors_it_stands_for(
    target: Target, tmp_path: Path, storage: str
) -> None:
    with make(tmp_path / "a", 30, storage=storage) as index:
        push_all(index, target)
        with pull_all(target, tmp_path / "b") as pulled:
            assert pulled.settings == replace(index.settings, storage="float32")
            assert content(pulled) == content(index)


def test_ready_vectors_are_carried_too(target: Target, tmp_path: Path) -> None:
    from indexes import build_vectors

    with create(tmp_path / "a", fingerprint=None) as index:
        list(build_vectors(index, ["x", "y", "z"], embed(["x", "y", "z"])))
        index.add([Document("w", "A text of its own")], embed(["w"]))
        push_all(index, target)
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_an_empty_index(target: Target, tmp_path: Path) -> None:
    with create(tmp_path / "a") as index:
        push_all(index, target)
        with pull_all(target, tmp_path / "b") as pulled:
            assert len(pulled) == 0
        with searched(target) as store:
            assert store.search(embed(["x"]), k=3, where=None, group=False, bare=False) == [[]]


def test_another_model_or_dimension_is_refused_and_named(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
    with (
        make(tmp_path / "b", 5, fingerprint={**FINGERPRINT, "pooling": "cls"}) as index,
        pytest.raises(IndexMismatchError, match='pooling is "mean" there and "cls" here'),
    ):
        push_all(index, target)
    with (
        Index.create(tmp_path / "c", Settings(dimension=DIMENSION + 1)) as index,
        pytest.raises(IndexMismatchError, match="dimension is 16 there and 17 here"),
    ):
        push_all(index, target)
    with searched(target) as store, pytest.raises(IndexMismatchError, match="pooling"):
        store.check_encoder({**FINGERPRINT, "pooling": "cls"})
    with searched(target) as store, pytest.raises(IndexMismatchError, match="need"):
        store.search(np.ones((1, 3), np.float32), k=1, where=None, group=False, bare=False)


def test_two_pushes_at_once(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        with (
            closing(target.open()) as first,
            first.writing(),
            pytest.raises(StoreError, match=r"is pushing to it|another process has the folder open"),
        ):
            push_all(index, target)
        assert push_all(index, target).step == "done"


def test_rows_that_are_not_ours(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        with closing(target.open()) as store:
            row = StoreRow(Key("theirs", 0), "", "text", "", "{}", "{}", "no digest of ours")
            store.upsert([row], embed(["x"]))
        with pytest.raises(
            StoreError, match=r"did not write, such as passage 0 of 'theirs'. Nothing was changed"
        ):
            push_all(index, target)
        with closing(target.open()) as store, pytest.raises(StoreError, match="'theirs'"):
            list(pull(store, tmp_path / "b"))
        assert not (tmp_path / "b").exists()


def test_most_rows_are_not_deleted_without_consent(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 50) as index:
        push_all(index, target)
    with make(tmp_path / "b", 20) as index:
        with pytest.raises(
            StoreError, match=r"30 of its 57 rows are not in the index .*nothing was changed.* --yes"
        ):
            push_all(index, target)
        assert push_all(index, target, PushOptions(consent=True)).deleted == 30


def test_a_row_that_was_changed_is_noticed(target: Target, tmp_path: Path) -> None:
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        with closing(target.open()) as store:
            key = Key("note-0001", 0)
            row, vector = store.fetch([key])[key], store.vectors([key])[key]
            store.upsert([row], -vector[None])
        with (
            closing(target.open()) as store,
            pytest.raises(StoreError, match="'note-0001' is not what was pushed"),
        ):
            list(pull(store, tmp_path / "b"))
        with pytest.raises(StoreError, match="'note-0001' is not what was sent"):
            push_all(index, target)


def test_nothing_was_pushed(target: Target, tmp_path: Path) -> None:
    with closing(target.open()) as store, pytest.raises(StoreError, match="nothing was pushed there"):
        pull(store, tmp_path / "b")
    with make(tmp_path / "a", 5) as index:
        assert push_all(index, target, PushOptions(dry_run=True)).new == 12
        with closing(target.open()) as store:
            assert store.read_info() is None
        push_all(index, target)
        with closing(target.open()) as store, pytest.raises(OutputError, match="there is something already"):
            pull(store, tmp_path / "a")
