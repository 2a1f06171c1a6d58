"""Exact search equals sorting all scores, whatever was added, replaced, deleted and filtered before."""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.native.search import can_search
from indexes import Index, Settings, compact
from indexes.candidates import Candidates
from indexes.search.exact import FAISS_SAVES, MissedFaiss
from indexes.search.hits import Names, name_hits
from indexes.search.search import SearchRequest, search_made
from indexes.storage.codes import FloatArray, decode, encode
from indexes.storage.documents import Passage
from indexes.types import Metric, Storage
from tests.indexes.fakes import DIMENSION, create, documents, embed

CASES: list[tuple[Metric, Storage]] = [
    ("cosine", "float32"),
    ("cosine", "float16"),
    ("cosine", "int8"),
    ("cosine", "binary"),
    ("dot", "float32"),
    ("dot", "int8"),
    ("l2", "float32"),
    ("l2", "float16"),
    ("l2", "int8"),
]


def expected(
    stored: dict[str, FloatArray], query: FloatArray, metric: Metric, k: int
) -> list[tuple[str, float]]:
    """Sort all documents by score and id: the slow, obvious twin."""
    a = query.astype(np.float64)
    b = np.array(list(stored.values()), np.float64).reshape(len(stored), len(query))
    scores = -((a - b) ** 2).sum(axis=1) if metric == "l2" else (a * b).sum(axis=1)
    scored = sorted(zip((-scores.astype(np.float32)).tolist(), stored, strict=True))
    return [(doc_id, -score) for score, doc_id in scored[:k]]


def as_stored(index: Index, vectors: FloatArray) -> FloatArray:
    """Bring vectors to what the index keeps of them."""
    if index.settings.metric == "cosine":
        norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        vectors = (vectors / norms).astype(np.float32)
    raw = index.database.meta("scales")
    scales = None if raw is None else np.frombuffer(raw, "<f4")
    return decode(encode(vectors, index.settings.storage, scales), scales)


def names_of(found: list[list[Hit]]) -> list[list[tuple[str, float]]]:
    return [[(hit.doc_id, hit.score) for hit in hits] for hits in found]


# Few distinct small whole numbers: many equal scores, so that the order by id is put to the test.
small_vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"), st.lists(st.tuples(st.integers(0, 30), small_vectors), min_size=1, max_size=40)
        ),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 30), max_size=5)),
        st.tuples(st.just("compact"), st.none()),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(params=["kernels", "numpy"])
def scoring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of scoring in turn: the kernels, and numpy or faiss, as where there are no kernels."""
    if request.param == "kernels" and not can_search():
        pytest.skip("the kernels do not run on this processor or were not compiled")
    monkeypatch.setattr("indexes.search.exact.can_search", lambda: request.param == "kernels")
    monkeypatch.setattr("indexes.search.snapshot.can_search", lambda: request.param == "kernels")
    return str(request.param)


@pytest.mark.usefixtures("scoring")
@pytest.mark.parametrize(("metric", "storage"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=steps,
    queries=st.lists(small_vectors, min_size=1, max_size=4),
    k=st.integers(1, 12),
    parity=st.integers(0, 2),
)
def test_search_equals_sorting_all_scores(
    tmp_path_factory: pytest.TempPathFactory,
    metric: Metric,
    storage: Storage,
    steps: list[tuple[str, Any]],
    queries: list[list[int]],
    k: int,
    parity: int,
) -> None:
    folder = tmp_path_factory.mktemp("index") / "i"
    stored: dict[str, FloatArray] = {}
    with Index.create(folder, Settings(dimension=3, metric=metric, storage=storage)) as index:
        for step, what in steps:
            if step == "add":
                latest = dict(what)  # an id stands once in a call
                docs = [Document(f"d{n:02d}", f"text {n}", "", {"even": n % 2 == 0}) for n in latest]
                vectors = np.asarray(list(latest.values()), np.float32)
                index.add(docs, vectors)
                kept = as_stored(index, vectors)
                stored.update({doc.doc_id: vector for doc, vector in zip(docs, kept, strict=True)})
            elif step == "delete":
                index.delete([f"d{n:02d}" for n in what])
                for n in what:
                    stored.pop(f"d{n:02d}", None)
            else:
                list(compact(index))
        where = [None, "even = true", "even = false"][parity]
        some = {
            doc_id: vector
            for doc_id, vector in stored.items()
            if parity == 0 or (int(doc_id[1:]) % 2 == 0) == (parity == 1)
        }
        array = np.asarray(queries, np.float32)
        found = index.search(array, k=k, where=where) if stored else [[] for _ in queries]
        if stored:
            assert index.search_ids(array, k=k, where=where) == names_of(found)
        unit = array / np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
        asked = unit.astype(np.float32) if metric == "cosine" else array
    for hits, query in zip(found, asked, strict=True):
        wanted = expected(some, query, metric, k)
        # Scores first: two near-equal ones may swap where this sum and the index's round apart in the last bit.
        np.testing.assert_allclose(
            [hit.score for hit in hits], [score for _, score in wanted], rtol=1e-6, atol=1e-6
        )
        assert [hit.doc_id for hit in hits] == [doc_id for doc_id, _ in wanted]


COUNT = 3000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Metric, Storage], tuple[Path, FloatArray]]:
    """Each index of many tiles, in two segments, with every third document deleted; and the vectors that it was given."""
    vectors = np.random.default_rng(3).standard_normal((COUNT, 24)).astype(np.float32)

    @cache
    def made(metric: Metric, storage: Storage) -> Path:
        folder = tmp_path_factory.mktemp("large") / "i"
        with Index.create(folder, Settings(dimension=24, metric=metric, storage=storage)) as index:
            for part in np.split(np.arange(COUNT), 2):
                index.add([Document(f"d{n:05d}", "") for n in part], vectors[part])
            index.delete([f"d{n:05d}" for n in range(0, COUNT, 3)])
        return folder

    return lambda metric, storage: (made(metric, storage), vectors)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("num_queries", [1, 7])
@pytest.mark.usefixtures("scoring")
def test_search_over_many_tiles_equals_sorting_all_scores(
    large: Callable[[Metric, Storage], tuple[Path, FloatArray]],
    storage: Storage,
    metric: Metric,
    num_queries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, vectors = large(metric, storage)
    queries = np.random.default_rng(4).standard_normal((num_queries, 24)).astype(np.float32)
    with Index.open(folder) as index:
        with monkeypatch.context() as without:
            without.setattr("indexes.search.exact.FAISS_SAVES", dict.fromkeys(FAISS_SAVES, 0.0))
            found = index.search(queries, k=20)
            without.setattr("indexes.search.exact.num_threads", lambda: 3)
            without.setattr("embedkit.native.search.RANGE_ROWS", 500)
            assert index.search(queries, k=20) == found
        monkeypatch.setattr(
            "indexes.search.exact.FAISS_START", 0
        )  # the codes scanned by faiss where they lie
        monkeypatch.setattr("indexes.search.tiles.TILE_BYTES", 4096)
        monkeypatch.setattr("indexes.search.tiles.QUERY_BLOCK", 3)
        monkeypatch.setattr("indexes.search.exact.SCAN_BLOCK", 3)
        assert index.search(queries, k=20) == found
        monkeypatch.setattr("indexes.search.scan.THREADS_WORTH", 0)
        monkeypatch.setattr("indexes.search.scan.num_threads", lambda: 3)
        assert index.search(queries, k=20) == found
        stored = as_stored(index, vectors)
    living = {f"d{n:05d}": stored[n] for n in range(COUNT) if n % 3}
    unit = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    for hits, query in zip(found, unit if metric == "cosine" else queries, strict=True):
        wanted = expected(living, query, metric, 20)
        assert [hit.doc_id for hit in hits] == [doc_id for doc_id, _ in wanted]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in wanted], rtol=1e-6)


@pytest.mark.usefixtures("scoring")
def test_equal_vectors_come_in_the_order_of_their_ids_however_many_they_are(tmp_path: Path) -> None:
    names = np.random.default_rng(0).permutation(500)
    with create(tmp_path / "i") as index:
        docs = [Document(f"d{n:03d}", "same") for n in names]
        index.add(docs, np.ones((500, DIMENSION), np.float32))
        hits = index.search(np.ones((1, DIMENSION), np.float32), k=5)[0]
    assert [hit.doc_id for hit in hits] == ["d000", "d001", "d002", "d003", "d004"]
    np.testing.assert_allclose([hit.score for hit in hits], 1.0, rtol=1e-6)


def test_search_returns_fewer_hits_than_k_rather_than_padding(tmp_path: Path) -> None:
    with create(tmp_path / "i", 3) as index:
        assert len(index.search(embed(["a", "b"]), k=10)[1]) == 3
        index.delete(["note-0001"])
        assert [hit.doc_id for hit in index.search(embed(["a"]), k=10)[0]].count("note-0001") == 0
        assert len(index.search(embed(["a"]), k=10)[0]) == 2


def test_an_empty_index_has_no_hits(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        assert index.search(embed(["a"]), k=3) == [[]]
        assert index.search_text(["a"], k=3) == [[]]


@pytest.mark.usefixtures("scoring")
def test_a_score_does_not_depend_on_the_batch_it_was_asked_in(tmp_path: Path) -> None:
    queries = embed([f"query {number}" for number in range(9)])
    with create(tmp_path / "i", 300) as index:
        together = index.search(queries, k=20)
        assert [index.search(queries[i : i + 1], k=20)[0] for i in range(9)] == together


def test_ids_that_were_read_once_are_remembered_and_stay_right_when_documents_change(tmp_path: Path) -> None:
    queries = embed([f"Title {number} Note {number} of version 1" for number in range(20)])
    with create(tmp_path / "i", 60) as index:
        first = index.search_ids(queries, k=5)
        assert first == index.search_ids(queries, k=5) == names_of(index.search(queries, k=5))
        index.delete([first[0][0][0]])
        index.add(documents(30, version=2), embed([f"another {number}" for number in range(30)]))
        assert index.search_ids(queries, k=5) == names_of(index.search(queries, k=5)) != first


def test_the_memory_for_ids_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.search.hits.MAX_NAMES", 10)
    queries = embed([f"query {number}" for number in range(30)])
    with create(tmp_path / "i", 200, metric="dot") as index:
        names: Names = {}
        for query in queries:
            found = index.snapshot.search_exact(query[None], 7)
            hits = name_hits(index.database, index.snapshot, found, names, k=7, width=7, group=False)
            assert hits == names_of(index.search(query[None], k=7))
            assert len(names) <= 17


def test_the_cosine_does_not_depend_on_the_lengths_of_vectors(tmp_path: Path) -> None:
    with create(tmp_path / "i", 50) as index:
        found = index.search(embed(["a"]) * 1000, k=5)
        docs = documents(50)
        index.add(docs, 0.001 * embed([f"{doc.title} {doc.text}" for doc in docs]))
        again = index.search(embed(["a"]), k=5)
    np.testing.assert_allclose([h.score for h in found[0]], [h.score for h in again[0]], rtol=1e-5)
    assert all(-1.001 < hit.score < 1.001 for hit in found[0])


def test_group_gives_each_document_once_with_its_best_passage(tmp_path: Path) -> None:
    from indexes import Passage

    text = "one two three four"
    cuts = [Passage(0, 3), Passage(4, 7), Passage(8, 13)]
    with create(tmp_path / "i") as index:
        docs = [Document(f"d{n}", text) for n in range(4)]
        vectors = np.random.default_rng(1).standard_normal((12, DIMENSION)).astype(np.float32)
        index.add(docs, vectors, passages=[cuts] * 4)
        query = np.random.default_rng(2).standard_normal((1, DIMENSION)).astype(np.float32)
        every = index.search(query, k=12)[0]
        grouped = index.search(query, k=4, group=True)[0]
        assert index.search_ids(query, k=4, group=True) == names_of([grouped])
    best: dict[str, Hit] = {}
    for hit in every:
        best.setdefault(hit.doc_id, hit)
    assert grouped == list(best.values())
    assert {hit.text for hit in every} == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(DIMENSION), "the vector of 'b' (number 2 of 2) is all zeros; cosine needs a direction"),
        (np.full(DIMENSION, np.nan), "the vector of 'b' (number 2 of 2) holds NaN or infinity"),
        (np.full(DIMENSION, np.inf), "the vector of 'b' (number 2 of 2) holds NaN or infinity"),
    ],
)
def test_a_vector_without_a_score_is_refused_by_name(
    tmp_path: Path, vector: FloatArray, message: str
) -> None:
    with create(tmp_path / "i") as index:
        vectors = np.stack([np.ones(DIMENSION), vector]).astype(np.float32)
        with pytest.raises(IndexMismatchError) as caught:
            index.add([Document("a", ""), Document("b", "")], vectors)
        assert message in str(caught.value)
        assert len(index) == 0


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    with create(tmp_path / "i", 3) as index:
        with pytest.raises(
            IndexMismatchError, match=r"shape \(1, 8\); 1 texts in an index of dimension 16 need \(1, 16\)"
        ):
            index.search(np.ones((1, 8), np.float32))
        with pytest.raises(IndexMismatchError, match=r"shape \(1, 16\); 2 texts .* need \(2, 16\)"):
            index.add([Document("a", ""), Document("b", "")], np.ones((1, 16), np.float32))


def test_values_beyond_float16_are_refused_where_they_would_become_infinite(tmp_path: Path) -> None:
    with (
        create(tmp_path / "i", metric="dot", storage="float16") as index,
        pytest.raises(IndexMismatchError, match="holds 70000; float16 reaches 65504"),
    ):
        index.add([Document("a", "")], np.full((1, DIMENSION), 70000, np.float32))


def test_binary_storage_finds_what_its_vectors_say(tmp_path: Path) -> None:
    """Hamming distance chooses 400 of 4,000, the int8 vectors order them: recall@10 of this seed is above .9."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 64))
    vectors = (centres[rng.integers(0, 40, 4000)] + 0.7 * rng.standard_normal((4000, 64))).astype(np.float32)
    queries = vectors[:50] + 0.2 * rng.standard_normal((50, 64)).astype(np.float32)
    docs = [Document(str(number), "") for number in range(4000)]
    results = {}
    for storage in ("float32", "binary"):
        with Index.create(tmp_path / storage, Settings(dimension=64, storage=storage)) as index:
            index.add(docs, vectors)
            index.delete(["7", "8"])
            results[storage] = index.search(queries, k=10)
            assert len(index.search(queries[:1], k=3998)[0]) == 3998
    recall = np.mean(
        [
            len({h.doc_id for h in a} & {h.doc_id for h in b}) / 10
            for a, b in zip(results["float32"], results["binary"], strict=True)
        ]
    )
    assert recall > 0.9
    assert not {"7", "8"} & {hit.doc_id for hits in results["binary"] for hit in hits}


def test_faiss_is_worth_its_import_once_an_index_has_missed_it_for_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 fp16 vectors of 16 numbers lose 0.11 ms a query: 906 queries make up for the 100 ms of the import."""
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    with create(tmp_path / "i", 3000, storage="float16") as index:
        segments = index.snapshot.dense
    first, other = MissedFaiss(), MissedFaiss()
    assert [first.worth_importing(segments) for _ in range(906)].index(True) == 905
    assert not other.worth_importing(segments)  # an index counts for itself
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert other.worth_importing(segments)
    assert not other.worth_importing([])


def test_a_sample_of_the_vectors_comes_from_all_that_is_alive(tmp_path: Path) -> None:
    with create(tmp_path / "i", 100) as index:
        index.add(documents(150)[100:], embed([str(number) for number in range(50)]))
        index.delete(["note-0000", "note-0149"])
        whole = index.snapshot.sample(1000)
        assert whole.shape == (148, DIMENSION)
        np.testing.assert_array_equal(index.snapshot.sample(4), whole[[0, 49, 98, 147]])
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    with create(tmp_path / "none") as index:
        assert index.snapshot.sample(4).shape == (0, DIMENSION)


def test_queries_may_be_lists_and_a_lone_vector_is_told_what_it_lacks(tmp_path: Path) -> None:
    with create(tmp_path / "i", 20) as index:
        query = embed(["a"])
        assert index.search(query.tolist()) == index.search(query)
        with pytest.raises(
            IndexMismatchError, match=r"shape \(16,\); this index needs \(Q, 16\): a row a query"
        ):
            index.search(query[0])
        with pytest.raises(
            TypeError, match=r"queries is the string 'note'; it must be a sequence of strings"
        ):
            index.search_text("note")


def test_bare_hits_are_those_that_a_search_finds_and_are_filled_with_what_it_reads(tmp_path: Path) -> None:
    with create(tmp_path / "a.index") as index:
        whole = [Document(f"d{n}", f"note {n} of words {n % 3}", f"title {n}", {"n": n}) for n in range(40)]
        passages = [[Passage(0, 6), Passage(7, -1)] if n % 2 else [Passage(0, -1)] for n in range(40)]
        count = sum(map(len, passages))
        vectors = np.random.default_rng(0).standard_normal((count, DIMENSION)).astype(np.float32)
        index.add(whole, vectors, passages=passages)
        queries = np.random.default_rng(1).standard_normal((3, DIMENSION)).astype(np.float32)
        for group in (False, True):
            found = index.search(queries, k=12, group=group)
            bare = index.search(queries, k=12, group=group, bare=True)
            assert [[(hit.doc_id, hit.passage, hit.score, hit.scores) for hit in hits] for hits in bare] == [
                [(hit.doc_id, hit.passage, hit.score, hit.scores) for hit in hits] for hits in found
            ]
            assert not any(hit.text or hit.title or hit.metadata for hits in bare for hit in hits)
            assert index.fill(bare) == found
            words = index.search_text(["words 2", "note"], k=7, group=group)
            assert index.fill(index.search_text(["words 2", "note"], k=7, group=group, bare=True)) == words
        assert index.fill([[], []]) == [[], []]


@pytest.mark.parametrize(("metric", "storage"), CASES)
def test_hits_by_words_can_have_the_scores_that_a_search_by_vectors_gives(
    tmp_path: Path, scoring: str, metric: Metric, storage: Storage
) -> None:
    with create(tmp_path / "a.index", metric=metric, storage=storage) as index:
        random = np.random.default_rng(0)
        for part in range(2):  # segments
            some = [Document(f"d{n}", f"note {n % 3}") for n in range(30 * part, 30 * part + 30)]
            index.add(some, random.standard_normal((30, DIMENSION)).astype(np.float32))
        index.delete(["d3", "d40"])
        queries = random.standard_normal((2, DIMENSION)).astype(np.float32)
        by_vectors = [dict(hits) for hits in names_of(index.search(queries, k=60))]
        for bare in (False, True):
            found = index.search_text(["note 1", "2"], k=7, bare=bare, vectors=queries)
            assert [[{**hit.scores} for hit in hits] for hits in found] == [
                [{"text": hit.score, "dense": by_vectors[query][hit.doc_id]} for hit in hits]
                for query, hits in enumerate(found)
            ]
            alone = index.search_text(["note 1", "2"], k=7, bare=bare)
            assert names_of(found) == names_of(alone)
            assert all(hits for hits in found)
        assert index.search_text(["zebra"], vectors=queries[:1]) == [[]]


def test_a_bare_hit_whose_document_is_damaged_is_not_filled(tmp_path: Path) -> None:
    with create(tmp_path / "a.index") as index:
        index.add(documents(3), embed([document.text for document in documents(3)]))
        (bare,) = index.search(embed(["topic"]), k=1, bare=True)
        with index.database.transaction():
            index.database.execute("UPDATE documents SET text = 'other' WHERE doc_id = ?", (bare[0].doc_id,))
        with pytest.raises(IndexFileError, match="its hash differs"):
            index.fill([bare])
        with pytest.raises(IndexFileError, match="has no passage"):
            index.fill([[Hit("nobody", 1.0)]])


@pytest.mark.parametrize(("count", "widths"), [(2, [12]), (3, [12, 48, 100])])
def test_a_grouped_search_looks_further_only_while_there_are_other_documents(
    tmp_path: Path, count: int, widths: list[int]
) -> None:
    """Two are found at once; a third, which the filter's rows or the index hold, may be further down."""
    asked: list[int] = []

    def find(queries: FloatArray, width: int, request: SearchRequest) -> Iterator[Candidates]:
        asked.append(width)
        yield Candidates.none(len(queries), width)

    with create(tmp_path / "i", 100) as index:
        request = SearchRequest(k=3, group=True)
        found = search_made(
            find, index.snapshot, embed(["x"]), request, lambda _, width: [["a", "b"]], lambda: count
        )
    assert found == [["a", "b"]]
    assert asked == widths


@pytest.mark.parametrize("most", [0, 2, 1000])
def test_bare_hits_are_the_same_however_much_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What was looked up of rows is kept from one search to the next, up to a limit; documents that came or went meanwhile are seen."""
    monkeypatch.setattr("indexes.search.searcher.MAX_PASSAGES", most)
    queries = np.eye(DIMENSION, dtype=np.float32)[:2]
    with create(tmp_path / "i", 12) as index:
        for gone in (["note-0003"], ["note-0000", "note-0007"], []):
            for group in (False, True):
                whole = index.search(queries, k=5, group=group)
                bare = index.search(queries, k=5, group=group, bare=True)
                assert names_of(bare) == names_of(whole)
                assert [[hit.passage for hit in hits] for hits in bare] == [
                    [hit.passage for hit in hits] for hits in whole
                ]
                assert index.fill(bare) == whole
                words = index.search_text(["topic"], k=5, group=group, bare=True)
                assert index.fill(words) == index.search_text(["topic"], k=5, group=group)
            index.delete(gone)
