"""Search among token vectors: MaxSim of what is stored, exactly and by lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.retrieval.token_vectors import TokenVectors
from indexes import Index, Settings, build, build_ann, compact, stats, tune, verify
from indexes.multi_vector import scoring
from indexes.multi_vector.probing import Probing
from indexes.multi_vector.search import search_tokens
from tests.indexes.fakes import DIMENSION, create_tokens, documents, embed, embed_tokens, halves

COUNT = 300


@pytest.fixture(params=[True, False], ids=["kernels", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(scoring, "can_score", lambda: False)


def topics(count: int, seed: int = 0) -> TokenVectors:
    """Texts of 5 to 20 tokens of 200 topics in 32 dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((200, 32))
    counts = rng.integers(5, 20, count)
    vectors = centres[rng.integers(0, 200, counts.sum())] + 0.5 * rng.standard_normal((counts.sum(), 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenVectors(vectors.astype(np.float32), counts.astype(np.int64))


def of_topics(folder: Path, count: int = 3000, storage: str = "2-bit") -> Index:
    index = Index.create(folder, Settings(dimension=32, storage=storage, kind="multi-vector"))  # type: ignore[arg-type]
    vectors = topics(count)
    for start in (0, count // 2):
        some = np.arange(start, start + count // 2)
        index.add([Document(f"d{n}", f"text {n}", metadata={"n": int(n)}) for n in some], vectors.take(some))
    return index


def stored(index: Index) -> TokenVectors:
    parts = [segment.gather(np.arange(len(segment))) for segment in index.snapshot.segments]  # type: ignore[attr-defined]
    return TokenVectors.concatenate(parts)


def maxsim(query: np.ndarray, texts: TokenVectors) -> np.ndarray:
    return np.array([(query @ texts.text(at).T).max(axis=1).sum() for at in range(len(texts))])


@pytest.mark.parametrize("storage", ["2-bit", "4-bit"])
def test_a_score_is_the_sum_of_the_best_cosines_of_what_is_stored(
    tmp_path: Path, storage: str, either: None
) -> None:
    with create_tokens(tmp_path / "i", COUNT, storage) as index:
        queries = embed_tokens(["Note 7 of topic", "about version"])
        found = index.search(queries, k=COUNT, exact=True)
        for number in range(2):
            exact = maxsim(queries.text(number), stored(index))
            assert len(found[number]) == COUNT
            scores = {hit.doc_id: hit.score for hit in found[number]}
            np.testing.assert_allclose([scores[f"note-{at:04d}"] for at in range(COUNT)], exact, atol=2e-5)
            assert [hit.score for hit in found[number]] == sorted(
                exact.astype(np.float32).tolist(), reverse=True
            ) or (np.diff([hit.score for hit in found[number]]) <= 0).all()
            assert found[number][0].scores == {"dense": found[number][0].score}


def test_scores_depend_on_nothing_but_query_and_text(tmp_path: Path) -> None:
    with of_topics(tmp_path / "i", 400) as index:
        queries = topics(5, seed=3)
        together = index.search(queries, k=400, exact=True)
        for number in range(5):
            assert index.search(queries.take(np.array([number])), k=400, exact=True) == [together[number]]


def test_lists_find_nearly_what_looking_at_all_finds(tmp_path: Path, either: None) -> None:
    with of_topics(tmp_path / "i") as index:
        queries = topics(30, seed=3)
        exact = index.search_ids(queries, k=10, exact=True)
        hits = 0
        few = {"nprobe": 4, "candidates": 150}
        for true, found in zip(exact, index.search_ids(queries, k=10, knobs=few), strict=True):
            both = dict(true).items() & dict(found).items()  # with the same scores, too
            hits += len(both)
        assert 240 < hits <= 300
        # Every list and every candidate is everything.
        everything = {"nprobe": 10**6, "candidates": 700}
        assert index.search_ids(queries, k=10, knobs=everything, where="n < 2900") == index.search_ids(
            queries, k=10, exact=True, where="n < 2900"
        )


def test_where_lists_find_too_few_all_are_looked_at(tmp_path: Path) -> None:
    with of_topics(tmp_path / "i") as index:
        query = topics(1, seed=4)
        (found,) = search_tokens(index.snapshot, query, 500, knobs={"nprobe": 1, "candidates": 1})
        assert (found.rows[0] >= 0).sum() >= 500
        rows = np.arange(1, 3001, 2)  # of a filter
        (found,) = search_tokens(index.snapshot, query, 5, rows=rows, knobs={"nprobe": 1, "candidates": 10})
        assert set(found.rows[0].tolist()) <= set(rows.tolist())


def test_filters_deletions_groups_and_words_are_those_of_every_index(tmp_path: Path) -> None:
    with create_tokens(tmp_path / "i") as index:
        *_, report = build(index, documents(60), embed=embed_tokens, split=halves, commit_every=25)
        assert (report.added, report.passages) == (60, 120)
        query = embed_tokens(["Title 9 Note"])
        assert {hit.metadata["topic"] for hit in index.search(query, k=9, where="topic = 2")[0]} == {2}
        assert len({hit.doc_id for hit in index.search(query, k=50, group=True)[0]}) == 50
        assert index.search_text(["topic 3"], k=3)[0]
        assert index.search_ids(query, k=4) == [[(h.doc_id, h.score) for h in index.search(query, k=4)[0]]]
        index.delete(["note-0009"])
        assert "note-0009" not in {hit.doc_id for hit in index.search(query, k=200)[0]}
        *_, again = build(index, documents(60), embed=embed_tokens, split=halves)
        assert (again.added, again.unchanged) == (1, 59)


def test_a_text_without_tokens_is_empty_and_equal_texts_tie_by_id(tmp_path: Path) -> None:
    with create_tokens(tmp_path / "i") as index:
        docs = [Document(name, text) for name, text in (("b", "same words"), ("a", "same words"), ("c", "…"))]
        *_, report = build(index, docs, embed=lambda texts: embed_tokens([t.replace("…", "") for t in texts]))
        assert (report.empty, len(index)) == (1, 2)
        assert [hit.doc_id for hit in index.search(embed_tokens(["same"]), k=1)[0]] == ["a"]


def test_equal_input_gives_equal_bytes_and_a_compaction_changes_no_score(tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        with of_topics(tmp_path / name, 1000) as index:
            files.append([path.read_bytes() for path in sorted((tmp_path / name / "segments").iterdir())])
            index.delete(["d3", "d700"])
            before = index.search(topics(3, seed=5), k=20)
            list(compact(index))
            assert len(index.snapshot.segments) == 1
            assert index.search(topics(3, seed=5), k=20) == before
        assert list(verify(tmp_path / name)) == []
    assert files[0] == files[1]


def test_tuning_measures_and_stores_the_fastest_setting_that_is_good_enough(tmp_path: Path) -> None:
    with of_topics(tmp_path / "i") as index:
        assert stats(index).kind == "lists"
        for queries in (None, topics(20, seed=6)):
            *_, report = tune(index, target_recall=0.9, num_queries=30, queries=queries)
            assert report.reached
            assert report.chosen is not None
            assert report.chosen.recall >= 0.9
            assert stats(index).knobs == report.chosen.knobs == Probing.read(index.database).knobs
            assert len(stats(index).curve) == len(report.curve) > 2
        found = stats(index)
        assert found.tokens == len(topics(3000).vectors)
        assert found.bytes_per_token is not None
        assert 8 + 2 < found.bytes_per_token < 18  # of 32 numbers; short texts weigh their row and keys, too
        list(build_ann(index, "flat"))
        assert (stats(index).kind, stats(index).knobs) == ("flat", None)
        query = topics(1, seed=8)
        assert index.search(query, k=10) == index.search(query, k=10, exact=True)
    with Index.open(tmp_path / "i") as index:
        assert stats(index).kind == "flat"


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with create_tokens(tmp_path / "i", 20) as index:
        with pytest.raises(
            IndexMismatchError,
            match=r"an array of shape \(1, 16\) was given; this index holds a vector for each",
        ):
            index.search(embed(["a"]))
        with pytest.raises(IndexMismatchError, match="an array of shape"):
            index.add(documents(1, version=2), embed(["a"]))
        wide = TokenVectors(np.ones((2, 8), np.float32), np.array([2]))
        with pytest.raises(
            IndexMismatchError, match="the token vectors of 1 texts in 8 dimensions were given"
        ):
            index.search(wide)
        for value, what in ((np.nan, "holds NaN or infinity"), (0.0, "is all zeros")):
            bad = embed_tokens(["a b", "c d"])
            bad.vectors[3] = value
            with pytest.raises(IndexMismatchError, match=f"the vector of token 2 of 'note-0001' {what}"):
                index.add(documents(2, version=2), bad)
        with pytest.raises(
            IndexMismatchError, match="is a multi-vector index; hnsw takes one vector a passage"
        ):
            build_ann(index, "hnsw")
        assert index.noise is None
        assert index.score_limit is None
        hits, vectors = index.passages("note-0003")
        assert (len(hits), vectors.shape) == (1, (1, 0))
    with Index.create(tmp_path / "dense", Settings(dimension=DIMENSION)) as index:
        with pytest.raises(
            IndexMismatchError, match="TokenVectors were given; this index holds one vector a passage"
        ):
            index.add(documents(1), embed_tokens(["a"]))
        index.add(documents(1), embed(["a"]))
        with pytest.raises(IndexMismatchError, match="TokenVectors were given"):
            index.search(embed_tokens(["a"]))
    with pytest.raises(ValueError, match="storage is 'int8'; it must be one of 2-bit, 4-bit"):
        Settings(dimension=4, storage="int8", kind="multi-vector")
    with pytest.raises(ValueError, match="compared by cosine, text with text; the metric l2 cannot be had"):
        Settings(dimension=4, storage="2-bit", metric="l2", kind="multi-vector")
    with pytest.raises(ValueError, match="storage is '2-bit'; it must be one of float32"):
        Settings(dimension=4, storage="2-bit")


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    with create_tokens(tmp_path / "i") as index:
        assert index.search(embed_tokens(["a"])) == [[]]
        assert stats(index).tokens == 0
        with pytest.raises(IndexFileError, match=r"0 vectors; recall@10 needs more than 10"):
            tune(index)


def test_a_codebook_of_the_first_commit_stays(tmp_path: Path) -> None:
    with of_topics(tmp_path / "i", 600) as index:
        before = index.database.meta("codebook")
        index.add([Document("new", "x")], topics(1, seed=7))
        assert index.database.meta("codebook") == before
    with Index.open(tmp_path / "i", writable=True) as index:
        index.delete([f"d{number}" for number in range(600)])
        list(compact(index))
        index.add([Document("newer", "x")], topics(1, seed=8))
        assert index.database.meta("codebook") == before
        assert len(index.search(topics(1, seed=8))[0]) == 2
