"""`EmbedBatch`: batches as Ray Data gives them, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.distributed.embed_batch import EmbedBatch
from embedkit.encoding.encoder import Encoder


def test_a_batch_comes_back_with_the_vectors_of_its_texts(tiny_model: Path) -> None:
    embed = EmbedBatch(str(tiny_model), column="body")
    texts = np.array(["the dog runs", None, "a girl"], object)
    found = embed({"id": np.arange(3), "body": texts})
    assert list(found) == ["id", "body", "embedding"]
    expected = Encoder.load(tiny_model).encode_documents(["the dog runs", "", "a girl"])
    np.testing.assert_array_equal(found["embedding"], expected)


def test_a_missing_column_is_named(tiny_model: Path) -> None:
    with pytest.raises(KeyError, match=r"no column 'text'; columns here: id, body\. Name it with column="):
        EmbedBatch(str(tiny_model))({"id": [1], "body": ["x"]})
