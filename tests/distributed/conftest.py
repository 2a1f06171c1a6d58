from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import write_corpus
from tests.tiny import write_static_model


@pytest.fixture(scope="session")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of token vectors: its bits depend on no other text, on any processor."""
    return write_static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Two files of JSON lines, 300 documents in all."""
    return write_corpus(tmp_path)
