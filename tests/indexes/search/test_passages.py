"""The passages of one document, with their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedkit.data.records import Document
from indexes import Index, Passage, Settings


def test_a_documents_passages_come_in_order_with_their_vectors_and_none_of_what_is_gone(
    tmp_path: Path,
) -> None:
    """Three vectors of two documents; the second has two passages."""
    vectors = np.eye(3, dtype=np.float32)
    documents = [Document("a", "one"), Document("b", "two three")]
    with Index.create(tmp_path / "x.index", Settings(dimension=3)) as index:
        index.add(documents, vectors, passages=[[Passage(0, 3)], [Passage(0, 3), Passage(4, 9)]])
        hits, found = index.passages("b")
        assert [(hit.text, hit.passage, hit.start) for hit in hits] == [("two", 0, 0), ("three", 1, 4)]
        np.testing.assert_array_equal(found, vectors[1:])
        assert index.passages("c")[0] == []
        index.delete(["b"])
        hits, found = index.passages("b")
        assert hits == []
        assert found.shape == (0, 3)
