"""What proves that a document is as it was stored."""

from __future__ import annotations

import pytest

from indexes.storage.hashes import content_hash, is_whole


@pytest.mark.parametrize("vector", [b"", b"a ready vector"])
def test_a_document_is_whole_by_its_hash_whatever_its_vector(vector: bytes) -> None:
    digest = content_hash("d1", "title", "text", "{}", vector)
    assert is_whole(digest, "d1", "title", "text", "{}")
    assert not is_whole(digest, "d1", "title", "texts", "{}")
    assert not is_whole(digest, "d1", "title", "text", '{"a": 1}')
    assert not is_whole(digest[:23], "d1", "title", "text", "{}")


@pytest.mark.parametrize("digest", [None, 24, "a" * 24])
def test_what_is_no_hash_proves_nothing(digest: object) -> None:
    assert not is_whole(digest, "d1", "", "", "{}")
