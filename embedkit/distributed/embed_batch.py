"""`EmbedBatch`: a model as the callable class that Ray Data's `map_batches` takes, for those who have such a pipeline already.

It needs no Ray by itself: a batch is a mapping of column names to arrays, and comes back with one column more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedkit.pipelines.models import load_encoder, or_default
from embedkit.types import Computing, TextRole

if TYPE_CHECKING:
    import numpy as np

Batch = Mapping[str, Any]  # of arrays, of whatever types the pipeline has


class EmbedBatch:
    """Adds the vectors of a column of texts to batches; the model is loaded once in each actor.

    Texts are encoded as an index and a search do it, with the model's prompt for documents or queries. Name precision and backend where
    workers differ: what is fastest on each ("auto") need not give the same bits.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded or computed here.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        column: str = "text",
        output: str = "embedding",
        role: TextRole = "document",
        computing: Computing | None = None,
    ) -> None:
        from embedkit.encoding.embedder import Embedder

        encoder = load_encoder(or_default(model), computing or Computing(precision="fp32"), measure=False)
        self.column, self.output = column, output
        self._embed = Embedder(encoder, role)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray[Any, Any]]:  # Any: as above
        """Return the batch with its vectors: (N, E) float32 under `output`.

        Raises:
            KeyError: there is no such column.
            TypeError: a text is no string; None counts as an empty one.
        """
        if self.column not in batch:
            raise KeyError(
                f"no column {self.column!r}; columns here: {', '.join(batch)}. Name it with column="
            )
        texts = ["" if text is None else text for text in list(batch[self.column])]
        return {**batch, self.output: self._embed(texts)}
