"""Shards are searched as one index: the same ids and the same scores, however the documents are cut."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.records import Document, Hit
from embedkit.errors import FilterError, IndexFileError
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Float32
from indexes import GatherOptions, Index, Passage, Settings, ShardedIndex, ShardsFile, is_sharded, open_index
from tests.indexes.sharded.cut import Cuts, make_index, make_shards

WORDS = ["wind", "winds", "solar", "energy", "the", "of", "数据库", "数据", "crème", "x", "running", "run"]
DIMENSION = 3
SETTINGS = Settings(dimension=DIMENSION)
QUERIES = ["wind energy", "the of", "数据库 run", "solar solar creme", "nothing here", "x"]
OPTIONS = [
    SearchOptions(k=5, mode="dense"),
    SearchOptions(k=5, mode="text"),
    SearchOptions(k=4, mode="hybrid", candidates=6),
    SearchOptions(k=4, mode="hybrid", fusion="ranks"),
    SearchOptions(k=3, mode="dense", group=True),
    SearchOptions(k=3, mode="text", group=True),
    SearchOptions(k=3, mode="hybrid", group=True),
    SearchOptions(k=5, mode="hybrid", where="year > 2"),
    SearchOptions(k=5, mode="text", where="tags contains 'a' or lang = 'en'"),
    SearchOptions(k=5, mode="dense", where="not year < 4"),
    SearchOptions(k=9, mode="hybrid", min_score=0.3),
    SearchOptions(k=9, mode="text", min_score=0.5),
]
NOWHERE = {"year": 0, "tags": ["a"], "lang": "en"}  # so that every filter names fields that are there


def embed(queries: Sequence[str]) -> Float32:
    """Make vectors of few directions, so that many scores tie."""
    return np.array([[1 + len(query) % 2, len(query) % 3, 1] for query in queries], np.float32)


def seen(hits: Sequence[Hit]) -> list[tuple[object, ...]]:
    return [(hit.doc_id, hit.passage, hit.score, dict(hit.scores), hit.text, hit.metadata) for hit in hits]


def documents_of(texts: Sequence[str]) -> list[Document]:
    metadata = [
        {
            "year": number % 7,
            **({"lang": "en"} if number % 5 == 0 else {}),
            "tags": ["a"] if number % 3 else ["b"],
        }
        for number in range(len(texts))
    ]
    metadata[0] = NOWHERE
    # Ids whose order is not that of the rows.
    return [
        Document(f"{number * 7 % 31:02d}-{number}", text, title=text[:6], metadata=metadata[number])
        for number, text in enumerate(texts)
    ]


def vectors_of(cuts: Cuts) -> Float32:
    count = sum(map(len, cuts))
    return np.array([[1 + n % 2, n % 3, 1 + n % 4] for n in range(count)], np.float32)


def assert_alike(one: Index, sharded: ShardedIndex) -> None:
    for options in OPTIONS:
        expected = Retriever(one, embed=embed).search(QUERIES, options)
        found = Retriever(sharded, embed=embed).search(QUERIES, options)
        assert [seen(hits) for hits in found] == [seen(hits) for hits in expected], options
        named = Retriever(one, embed=embed).search_ids(QUERIES, options)
        assert Retriever(sharded, embed=embed).search_ids(QUERIES, options) == named, options
    np.testing.assert_allclose(sharded.text_limits(QUERIES), one.text_limits(QUERIES), rtol=1e-12)
    assert sharded.noise == one.noise
    assert len(sharded) == len(one)
    assert sharded.count_documents() == one.count_documents()
    assert sharded.count_rows("year > 2") == one.count_rows("year > 2")


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=24)


@settings(max_examples=12, deadline=None)
@given(texts, st.data())
def test_rankings_do_not_depend_on_the_sharding(found: list[str], data: st.DataObject) -> None:
    """Random texts, passages and cuts, empty shards among them; ids and scores are equal to the last bit."""
    documents = documents_of(found)
    cuts = [
        [Passage(0, len(text) // 2), Passage(len(text) // 2, len(text))]
        if data.draw(st.booleans())
        else [Passage(0, -1)]
        for text in found
    ]
    ends = data.draw(st.lists(st.integers(0, len(found)), max_size=6))
    deleted = (
        data.draw(st.lists(st.sampled_from(documents[1:] or documents), max_size=3)) if found[1:] else []
    )
    folder = Path(tempfile.mkdtemp())
    try:
        vectors = vectors_of(cuts)
        one = make_index(folder / "one", SETTINGS, documents, vectors, cuts)
        shards = make_shards(folder / "big", SETTINGS, documents, vectors, ends=ends, passages=cuts)
        for path in (one, *(shards / place.location for place in ShardsFile.read(shards).shards)):
            with Index.open(path, writable=True) as index:
                index.delete([document.doc_id for document in deleted])
        with Index.open(one) as whole, ShardedIndex.open(shards) as sharded:
            assert_alike(whole, sharded)
            assert sharded.take_coverage().complete
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def corpus() -> tuple[list[Document], Float32]:
    random = np.random.default_rng(3)
    documents = documents_of([" ".join(random.choice(WORDS, random.integers(1, 30))) for _ in range(300)])
    return documents, random.normal(size=(300, DIMENSION)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "storage"), [(1, "float32"), (2, "float16"), (3, "float32"), (7, "float32")]
)
def test_shards_of_a_larger_collection(
    tmp_path: Path, corpus: tuple[list[Document], Float32], count: int, storage: str
) -> None:
    wanted = Settings(dimension=DIMENSION, storage=storage)  # type: ignore[arg-type]  # a storage
    documents, vectors = corpus[0][:150], corpus[1][:150]  # more than a side fetches for fusing
    ends = [150 * number // count for number in range(1, count)]
    one = make_index(tmp_path / "one", wanted, documents, vectors)
    shards = make_shards(tmp_path / "big", wanted, documents, vectors, ends=ends)
    assert is_sharded(shards)
    assert not is_sharded(one)
    with Index.open(one) as whole, open_index(shards) as sharded:
        assert isinstance(sharded, ShardedIndex)
        assert_alike(whole, sharded)


@pytest.fixture
def three(tmp_path: Path, corpus: tuple[list[Document], Float32]) -> Path:
    return make_shards(tmp_path / "three", SETTINGS, *corpus, ends=[100, 200])


def test_documents_and_passages_are_found_in_whichever_shard_they_are(
    three: Path, corpus: tuple[list[Document], Float32]
) -> None:
    with ShardedIndex.open(three) as sharded:
        for document in (corpus[0][0], corpus[0][250]):
            found = sharded.document(document.doc_id)
            assert found is not None
            assert found.text == document.text
            hits, vectors = sharded.passages(document.doc_id)
            assert [hit.doc_id for hit in hits] == [document.doc_id]
            assert vectors.shape == (1, DIMENSION)
        assert sharded.document("none") is None
        assert sharded.passages("none")[0] == []
        assert sharded.known_ids(["none", corpus[0][9].doc_id]) == {corpus[0][9].doc_id}
        assert {each.name for each in sharded.field_values()} == {"year", "lang", "tags"}


def test_a_shard_that_is_damaged_is_told_and_the_others_answer(three: Path) -> None:
    (three / "shards/00001.index/index.sqlite").write_bytes(b"not a database at all")
    with ShardedIndex.open(three) as sharded:
        assert len(sharded.search_text(["wind"])[0]) == 10
        coverage = sharded.take_coverage()
    assert str(coverage) == "2/3"
    assert list(coverage.failed) == ["00001"]
    assert not coverage.timed_out
    assert "00001 failed (" in coverage.explained()


def test_what_is_damaged_after_opening_is_told_and_required(three: Path) -> None:
    """Of a shard whose vectors go bad after it was opened a search says so; the shard comes back to the next one if they do."""
    (segment,) = (three / "shards/00002.index/segments").iterdir()
    whole = segment.read_bytes()
    broken = bytearray(whole)
    broken[-8:] = bytes(byte ^ 255 for byte in broken[-8:])
    segment.write_bytes(broken)
    query = np.ones((1, DIMENSION), np.float32)
    with ShardedIndex.open(three) as sharded:
        sharded.search(query, k=300)
        assert str(sharded.take_coverage()) == "2/3"
    with (
        ShardedIndex.open(three, gathering=GatherOptions(require_all=True)) as sharded,
        pytest.raises(IndexFileError, match=r"every shard is required .*coverage: 2/3 shards; 00002 failed"),
    ):
        sharded.search(query, k=300)


def test_every_shard_can_be_required_and_none_is_an_error(three: Path) -> None:
    shutil.rmtree(three / "shards/00000.index")
    with pytest.raises(
        IndexFileError,
        match=r"every shard is required .*coverage: 2/3 shards; 00000 failed \(shards/00000.index: there is no index",
    ):
        ShardedIndex.open(three, gathering=GatherOptions(require_all=True))
    shutil.rmtree(three / "shards/00001.index")
    shutil.rmtree(three / "shards/00002.index")
    with pytest.raises(IndexFileError, match="00000"):
        ShardedIndex.open(three)


def test_filters_are_refused_as_by_one_index(
    three: Path, corpus: tuple[list[Document], Float32], tmp_path: Path
) -> None:
    one = make_index(tmp_path / "one", SETTINGS, *corpus)
    with Index.open(one) as whole, ShardedIndex.open(three) as sharded:
        for where in ("tags = 'a'", "lang contains 'en'", "yaer = 3", "year >"):
            messages = []
            for index in (whole, sharded):
                with pytest.raises(FilterError) as caught:
                    index.search_text(["wind"], where=where)
                messages.append(str(caught.value))
            assert messages[0] == messages[1]


def test_what_is_committed_in_a_shard_is_seen_after_follow(three: Path) -> None:
    with ShardedIndex.open(three) as sharded:
        before = sharded.search_text(["zebra"])
        with Index.open(three / "shards/00001.index", writable=True) as index:
            index.add(
                [Document("new", "a zebra", metadata={"stripes": True})], np.ones((1, DIMENSION), np.float32)
            )
        assert before == [[]]
        assert sharded.search_text(["zebra"]) == [[]]
        assert sharded.follow()
        assert [hit.doc_id for hit in sharded.search_text(["zebra"], where="stripes = true")[0]] == ["new"]
        assert not sharded.follow()


def test_a_shard_of_other_settings_is_none_of_this_index(
    three: Path, corpus: tuple[list[Document], Float32]
) -> None:
    shutil.rmtree(three / "shards/00001.index")
    make_index(three / "shards/00001.index", Settings(dimension=DIMENSION, metric="dot"), *corpus)
    with ShardedIndex.open(three) as sharded:
        assert (
            "its metric is dot, and that of the other shards cosine"
            in sharded.take_coverage().failed["00001"]
        )


def test_a_damaged_list_of_shards_is_refused(three: Path) -> None:
    path = three / "shards.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"documents": 100', '"documents": 101', 1), encoding="utf-8")
    with pytest.raises(IndexFileError, match="its hash differs"):
        ShardedIndex.open(three)
    path.write_text(text[:50], encoding="utf-8")
    with pytest.raises(IndexFileError, match="damaged"):
        ShardedIndex.open(three)


class SlowShard(Index):
    """A shard that another machine holds, which answers when it may."""

    may_answer: Event

    def search_text(self, *arguments: Any, **options: Any) -> list[list[Hit]]:  # Any: as `Index` has them
        assert self.may_answer.wait(20)
        return super().search_text(*arguments, **options)


def test_a_shard_that_takes_too_long_is_left_out_and_comes_back(three: Path) -> None:
    """It is told apart from one that failed, and not asked again while it is still at the earlier question."""
    file = ShardsFile.read(three)
    places = [*file.shards[:2], replace(file.shards[2], location="http://other:8080/two")]
    ShardsFile(file.plan, file.settings, file.model_path, places).write(three)
    slow = SlowShard.open(three / "shards/00002.index")
    assert isinstance(slow, SlowShard)
    slow.may_answer = Event()
    gathering = GatherOptions(seconds=0.3, connect=lambda address: {"http://other:8080/two": slow}[address])
    with ShardedIndex.open(three, gathering=gathering) as sharded:
        for _ in range(2):
            hits = sharded.search_text(["wind"], k=300)[0]
            assert 0 < len(hits) < 200
            coverage = sharded.take_coverage()
            assert (str(coverage), coverage.timed_out, dict(coverage.failed)) == ("2/3", ["00002"], {})
            assert coverage.explained() == "coverage: 2/3 shards; 00002 did not answer in time"
        slow.may_answer.set()
        assert wait_until(
            lambda: (
                sharded.take_coverage().complete and len(sharded.search_text(["wind"], k=300)[0]) > len(hits)
            )
        )
        assert sharded.take_coverage().complete


def wait_until(reached: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        if reached():
            return True
    return False
