"""What weighs the terms of one role's texts: a masked language model, or a table of weights of tokens."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.sparse import SparseSide, read_term_weights
from embedkit.inference.backend import Backend
from embedkit.inference.choice import Choice, token_budget
from embedkit.inference.loading import choose, load_backend
from embedkit.model.sparse_config import TermPooling
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import padded_batches
from embedkit.types import Computing, Float32

_BATCH_WEIGHTS = 2**23  # of a batch's sequences, 32 MB: with a large vocabulary it has fewer


class Side:
    """Sparse vectors of tokenized texts of one role."""

    def __init__(
        self, part: SparseSide, *, backend: Backend | None, choice: Choice | None, table: Float32 | None
    ) -> None:
        """Use `load_side`: either there is a backend, with what chose it, or a table of weights (V,)."""
        self.part, self.choice = part, choice
        self._backend, self._table = backend, table
        self._computing = Lock()  # calls from several threads share the processor's cores one after another

    def weigh(self, batch: TokenBatch, owners: NDArray[np.int64]) -> SparseVectors:
        """Return one row a text: `owners` (C,) says which text each sequence is (a chunk) of."""
        if self._table is not None:
            return _known_tokens(batch, owners, self._table)
        found: list[SparseVectors] = []
        order: list[NDArray[np.int64]] = []
        budget, assembled = self._budget(), np.flatnonzero(batch.lengths)
        pooling = self.part.pooling
        assert self._backend is not None
        assert pooling is not None
        for some in padded_batches(batch.lengths[assembled], budget):
            for rows in np.array_split(
                assembled[some], -(-len(some) * self.part.dimension // _BATCH_WEIGHTS)
            ):
                with self._computing:
                    dense = self._backend.term_weights(batch.take(rows), pooling)
                found.append(SparseVectors.from_dense(dense))
                order.append(rows)
        return _by_owner(found, order, owners, self.part.dimension, pooling)

    def _budget(self) -> int:
        assert self.choice is not None
        return token_budget(self.choice)


def load_side(part: SparseSide, *, computing: Computing, interactive: bool, measure: bool) -> Side:
    """Load what a folder has for the texts of a role.

    Raises:
        CheckpointError: the weights do not fit the folder.
        DeviceError: the device, or the precision with this model, is not available here.
    """
    if part.model is None:
        return Side(part, backend=None, choice=None, table=read_term_weights(part))
    choice = choose(
        part.model,
        output="term_weights",
        device=computing.device,
        precision=computing.precision,
        force=computing.force_precision,
        backend=computing.backend,
        interactive=interactive,
        measure=measure,
    )
    return Side(part, backend=load_backend(part.model, choice), choice=choice, table=None)


def _known_tokens(batch: TokenBatch, owners: NDArray[np.int64], table: Float32) -> SparseVectors:
    """Give each token that a text holds, once, its weight."""
    texts = np.repeat(owners, batch.lengths)
    keys = np.unique(texts * len(table) + batch.input_ids)  # by text, then by token
    texts, terms = np.divmod(keys, len(table))
    weights = table[terms]
    kept = weights != 0
    counts = np.bincount(texts[kept], minlength=int(owners[-1]) + 1 if len(owners) else 0)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return SparseVectors(starts, terms[kept].astype(np.int32), weights[kept], len(table))


def _by_owner(
    found: list[SparseVectors],
    order: list[NDArray[np.int64]],
    owners: NDArray[np.int64],
    dimension: int,
    pooling: TermPooling,
) -> SparseVectors:
    """Put the rows of sequences in the order of their texts, those of one text pooled; one without tokens has no terms."""
    num_texts = int(owners[-1]) + 1 if len(owners) else 0
    if not found:
        return SparseVectors(
            np.zeros(num_texts + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), dimension
        )
    rows = SparseVectors.concatenate(found)
    texts = np.repeat(owners[np.concatenate(order)], rows.counts)
    keys = texts * dimension + rows.terms
    sorting = np.argsort(keys, kind="stable")
    keys, weights = keys[sorting], rows.weights[sorting]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    pool = np.maximum if pooling.strategy == "max" else np.add
    weights = pool.reduceat(weights, firsts) if len(firsts) else weights
    texts, terms = np.divmod(keys[firsts], dimension)
    counts = np.bincount(texts, minlength=num_texts)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return SparseVectors(starts, terms.astype(np.int32), np.asarray(weights, np.float32), dimension)
