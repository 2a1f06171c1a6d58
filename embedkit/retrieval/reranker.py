"""What a reranker is: anything that scores texts against a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Reranker(Protocol):
    """Scores (query, text) pairs jointly; a higher score is better.

    `weight` is the part of its score in the order of hits, from 0 to 1; the rest is the first stage's (`embedkit.retrieval.reranking.blend`).
    """

    @property
    def weight(self) -> float: ...

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one score for each text, as (K,) float32."""
        ...
