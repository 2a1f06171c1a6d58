"""Fixed-dimensional encodings: by a worked example, near to MaxSim, and in an ordinary index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexMismatchError
from embedkit.retrieval.token_vectors import TokenVectors
from indexes import Index, Settings
from indexes.multi_vector.fde import FixedEncoder
from indexes.storage.codes import FloatArray
from tests.indexes.multi_vector.test_search import maxsim, topics


class Worked(FixedEncoder):
    """Two dimensions, whose signs are the two bits: four quadrants, nothing shortened, one repetition."""

    @property
    def _planes(self) -> FloatArray:
        return np.eye(2, dtype=np.float32)[None]


def texts(*rows: list[list[float]]) -> TokenVectors:
    vectors = np.array([vector for some in rows for vector in some], np.float32).reshape(-1, 2)
    return TokenVectors(vectors, np.array([len(some) for some in rows]))


def test_a_query_adds_up_what_a_document_averages_and_fills_up() -> None:
    encoder = Worked(dimension=2, bits=2, repetitions=1, projected=2)
    assert encoder.width == 8
    given = texts([[3, 1], [1, 3], [-2, 1]], [], [[-1, -1]])
    # parts: 0 both negative, 1 x > 0, 2 y > 0, 3 both
    assert encoder.queries(given).tolist() == [
        [0, 0, 0, 0, -2, 1, 4, 4],
        [0] * 8,
        [-1, -1, 0, 0, 0, 0, 0, 0],
    ]
    # Part 0 differs from part 2 in one bit and from 3 in two; part 1 from 3 in one (the first vector there), from 2 in two.
    assert encoder.documents(given).tolist() == [
        [-2, 1, 3, 1, -2, 1, 2, 2],
        [0] * 8,
        [-1, -1] * 4,
    ]


def test_products_are_near_to_maxsim_and_rank_alike() -> None:
    documents, queries = topics(200, seed=1), topics(20, seed=2)
    encoder = FixedEncoder(dimension=32, bits=4, repetitions=40, projected=32)
    products = encoder.queries(queries) @ encoder.documents(documents).T
    exact = np.stack([maxsim(queries.text(at), documents) for at in range(20)])
    assert np.corrcoef(products.ravel(), exact.ravel())[0, 1] > 0.85
    best = np.argmax(exact, axis=1)
    among = np.argsort(-products, axis=1)[:, :20]
    assert np.mean([row in some for row, some in zip(best, among, strict=True)]) >= 0.9


def test_shortened_encodings_keep_most_of_it_and_equal_encoders_make_equal_ones() -> None:
    documents, queries = topics(200, seed=1), topics(20, seed=2)
    long, short = (FixedEncoder(dimension=32, bits=4, projected=32, final=final) for final in (None, 2048))
    assert (long.width, short.width) == (20 * 16 * 32, 2048)
    full, less = (each.queries(queries) @ each.documents(documents).T for each in (long, short))
    assert np.corrcoef(full.ravel(), less.ravel())[0, 1] > 0.8
    again = FixedEncoder(dimension=32, bits=4, projected=32, final=2048)
    np.testing.assert_array_equal(again.documents(documents), short.documents(documents))
    assert not np.array_equal(
        FixedEncoder(dimension=32, seed=1).queries(queries), FixedEncoder(dimension=32).queries(queries)
    )


def test_it_is_the_first_stage_of_an_ordinary_index(tmp_path: Path) -> None:
    documents, queries = topics(300, seed=1), topics(5, seed=2)
    encoder = FixedEncoder(dimension=32, bits=4, projected=32)
    with Index.create(tmp_path / "i", Settings(dimension=encoder.width, metric="dot")) as index:
        index.add([Document(str(at), "") for at in range(300)], encoder.documents(documents))
        found = index.search_ids(encoder.queries(queries), k=60)
    for number in range(5):
        best = int(np.argmax(maxsim(queries.text(number), documents)))
        assert str(best) in dict(found[number])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(IndexMismatchError, match="of 32 dimensions were given; the encoding is of 16"):
        FixedEncoder(dimension=16).queries(topics(1))
    with pytest.raises(ValueError, match="all sizes must be at least 1"):
        FixedEncoder(dimension=16, repetitions=0)
