"""Search on a torch device finds what exact search finds."""

from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import DeviceError
from indexes import Index
from tests.conftest import DEVICES
from tests.indexes.fakes import create, documents, embed


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_search_on_a_device_equals_exact_search(
    tmp_path: Path, metric: str, storage: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.search.gpu._TILE_BYTES", 4096)
    monkeypatch.setattr("indexes.search.gpu._SCORE_BYTES", 4 * 1024 * 4)  # four of the six queries, then two
    queries = embed([f"query {number}" for number in range(6)])
    with create(tmp_path / "i", 1500, metric=metric, storage=storage) as index:
        index.add([Document(f"same{n:03d}", "same") for n in range(100)], np.repeat(queries[:1], 100, axis=0))
        index.delete([doc.doc_id for doc in documents(1500)[::3]])
        wanted = index.search(queries, k=10)
        some = index.search(queries, k=10, where="topic = 3")
    with Index.open(tmp_path / "i", device=device) as index:
        assert index.search(queries, k=10) == wanted
        assert index.search(queries, k=10, where="topic = 3") == some


def test_a_device_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    create(tmp_path / "i", 3).close()
    with (
        Index.open(tmp_path / "i", device="quantum") as index,
        pytest.raises(DeviceError, match="device 'quantum': "),
    ):
        index.search(embed(["a"]))
