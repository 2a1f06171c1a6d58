"""Sets that a model is measured with while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.training.engine.evaluation_sets import Floats, load_evaluation_set
from tests.judged import DOCUMENTS, write_self_asking_set


def one_hot(texts: Sequence[str], role: str) -> Floats:
    """Give each document a direction of its own, that of d1 and d3 and of d2 and d4 half in common."""
    places = {text: number for number, text in enumerate(DOCUMENTS.values())}
    vectors = np.eye(len(places), dtype=np.float32)
    vectors[0, 2] = vectors[1, 3] = 0.5
    return vectors[[places[text] for text in texts]]


def test_a_query_that_is_a_document_is_no_answer_to_itself(tmp_path: Path) -> None:
    found = load_evaluation_set(str(write_self_asking_set(tmp_path / "argu")))
    assert found.ignore_identical_ids
    assert found.measure(one_hot) == 1.0
