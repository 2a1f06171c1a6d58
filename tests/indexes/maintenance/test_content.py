"""The hash of what an index holds: the same however many commits made it, another where anything differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from indexes import Index, compact, content_hash
from indexes.types import Storage
from tests.indexes.fakes import DIMENSION, create

DOCUMENTS = [Document(f"d{number}", f"note {number}") for number in range(40)]
VECTORS = np.random.default_rng(0).standard_normal((40, DIMENSION)).astype(np.float32)


def filled(path: Path, storage: Storage, parts: list[int]) -> Index:
    index = create(path, storage=storage)
    for start, stop in zip([0, *parts], [*parts, 40], strict=True):
        index.add(DOCUMENTS[start:stop], VECTORS[start:stop])
    return index


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "binary"])
def test_the_hash_does_not_depend_on_commits_nor_on_compacting(tmp_path: Path, storage: Storage) -> None:
    with (
        filled(tmp_path / "two", storage, [30]) as two,
        filled(tmp_path / "four", storage, [30, 33, 37]) as four,
    ):
        before = content_hash(four)
        assert content_hash(two) == before
        list(compact(four))
        assert content_hash(four) == before
        four.add([Document("d0", "another")], VECTORS[:1])
        assert content_hash(four) != before
