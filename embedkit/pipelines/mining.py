"""The models and the index that hard negatives are mined with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedkit.data.reading import read_documents
from embedkit.data.records import Document
from embedkit.encoding.encoder import Encoder
from embedkit.errors import IndexMismatchError
from embedkit.pipelines.models import load_cross_encoder, load_encoder, or_default
from embedkit.pipelines.searching import load_query_embedder
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.mining.choosing import Score, Search
from embedkit.training.mining.cosine import CosineMeasure
from embedkit.training.rows.examples import Examples
from embedkit.types import Computing, Float32
from indexes import BuildReport, Index, Searchable, Settings, build, is_index

By = Literal["dense", "text", "both"]
# By words alone there is nothing to encode: every document gets the same vector.
WORDS_ALONE = Settings(dimension=1, metric="dot")


class MiningModels:
    """What mining searches and measures with: an encoder unless it goes by words alone, and a cross-encoder where one is named.

    The encoder is that of `index` where one is given.
    """

    def __init__(
        self,
        by: By,
        computing: Computing,
        *,
        model: str | None,
        rerank: str | None,
        index: Searchable | None = None,
        encoder: Encoder | None = None,
        cross_encoder: CrossEncoder | None = None,
    ) -> None:
        """Load the models that are not loaded already.

        Raises:
            IndexMismatchError: the index was made of ready vectors, or by another model.
            CheckpointError, DeviceError: a model cannot be loaded or computed here.
        """
        self._by = by
        self.encoder: Encoder | None = None
        if by != "text":
            self.encoder = encoder or _own_encoder(index, model, computing)
            self.encoder = self.encoder or load_encoder(or_default(model), computing)
            self.encoder.check_searchable()
        self.cross_encoder = cross_encoder
        if rerank is not None:
            self.cross_encoder = load_cross_encoder(rerank, computing)

    def fingerprints(self) -> dict[str, Any]:  # Any: JSON values
        return {
            "model": None if self.encoder is None else self.encoder.fingerprint,
            "rerank": None if self.cross_encoder is None else self.cross_encoder.folder.name,
        }

    def open_index(self, path: Path) -> Index:
        """Open the index of the corpus, or create it.

        Raises:
            IndexMismatchError: the index is of another encoder.
        """
        settings, fingerprint = WORDS_ALONE, None
        if self.encoder is not None:
            fingerprint = self.encoder.fingerprint
            settings = Settings(dimension=self.encoder.dimension, fingerprint=fingerprint)
        index = Index.open(path, writable=True) if is_index(path) else Index.create(path, settings)
        try:
            index.check_encoder(fingerprint)
        except BaseException:
            index.close()
            raise
        return index

    def fill(self, index: Index, rows: Examples, corpus: Sequence[str] | None) -> Iterator[BuildReport]:
        """Bring the index up to date: what is in it already is not encoded again."""
        documents = _positives(rows) if corpus is None else read_documents(corpus)
        return build(index, documents, embed=self._embed)

    def searches(self, index: Searchable) -> tuple[list[Search], Score | None]:
        """Return the searches, and what the margins compare."""
        found: list[Search] = []
        score: Score | None = None
        if self.encoder is not None:
            measure = CosineMeasure(
                self.encoder.encode_queries,
                self._embed,
                lambda vectors, depth: index.search(vectors, k=depth),
            )
            found.append(measure.search)
            score = measure.score
        if self._by != "dense":
            found.append(
                lambda queries, depth: index.search_text(
                    queries, k=depth, where=None, group=False, bare=False
                )
            )
        return found, score if self.cross_encoder is None else self._judge

    def _embed(self, texts: Sequence[str]) -> Float32:
        if self.encoder is None:
            return np.ones((len(texts), 1), np.float32)
        encoder = self.encoder.of_role("document")
        return encoder.encode(texts, prompt=encoder.role_prompt("document"), on_truncate="ok")

    def _judge(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        assert self.cross_encoder is not None
        groups = list(zip(queries, texts, strict=True))
        return [[float(score) for score in scores] for scores in self.cross_encoder.score_groups(groups)]


def _own_encoder(index: Searchable | None, model: str | None, computing: Computing) -> Encoder | None:
    """Load what made an index; None where there is none yet."""
    if index is None:
        return None
    encoder = load_query_embedder(index, model, computing, interactive=False, encoder=None).encoder
    if not isinstance(encoder, Encoder):
        raise IndexMismatchError(
            f"{index.path} was built by a multi-vector model; negatives are mined with one vector a text. Name another index"
        )
    return encoder


def _positives(rows: Examples) -> Iterator[Document]:
    assert rows.second is not None
    for number in np.unique(rows.second).tolist():
        yield Document(f"positive-{number}", rows.texts[number], source=rows.name)
