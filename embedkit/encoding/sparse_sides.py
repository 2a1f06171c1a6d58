"""What weighs the terms of one role's texts: a masked language model, or a table of weights of tokens."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.sparse import SparseSide, read_term_weights
from embedkit.inference.backend import Backend
from embedkit.inference.choice import CPU_TOKEN_BUDGET, Choice, token_budget
from embedkit.inference.loading import choose, load_backend
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
        self.backend, self._table = backend, table
        self._computing = Lock()  # calls from several threads share the processor's cores one after another

    @property
    def token_budget(self) -> int:
        """The tokens of a batch, padded to its longest sequence, at most."""
        return CPU_TOKEN_BUDGET if self.choice is None else token_budget(self.choice)

    def weigh(self, batch: TokenBatch) -> SparseVectors:
        """Return one row for each of B sequences; one without tokens has no terms."""
        if self._table is not None:
            return _known_tokens(batch, self._table)
        order = [np.flatnonzero(batch.lengths == 0)]
        found = [SparseVectors.none(self.part.dimension, len(order[0]))]
        assembled = np.flatnonzero(batch.lengths)
        pooling = self.part.pooling
        assert self.backend is not None
        assert pooling is not None
        for some in padded_batches(batch.lengths[assembled], self.token_budget):
            for rows in np.array_split(
                assembled[some], -(-len(some) * self.part.dimension // _BATCH_WEIGHTS)
            ):
                with self._computing:
                    dense = self.backend.term_weights(batch.take(rows), pooling)
                found.append(SparseVectors.from_dense(dense))
                order.append(rows)
        return SparseVectors.concatenate(found).take(np.argsort(np.concatenate(order)))

    def of_texts(self, sequences: SparseVectors, owners: NDArray[np.int64]) -> SparseVectors:
        """Pool the rows of each text's sequences: `owners` (C,) says which text each is (a chunk) of."""
        num_texts = int(owners[-1]) + 1 if len(owners) else 0
        if num_texts == len(owners):
            return sequences
        dimension = sequences.dimension
        keys = np.repeat(owners, sequences.counts) * dimension + sequences.terms
        sorting = np.argsort(keys, kind="stable")
        keys, weights = keys[sorting], sequences.weights[sorting]
        firsts = np.flatnonzero(np.diff(keys, prepend=-1))
        # A table gives a term the same weight in all of them.
        adds = self.part.pooling is not None and self.part.pooling.strategy == "sum"
        if len(firsts):
            weights = (np.add if adds else np.maximum).reduceat(weights, firsts)
        texts, terms = np.divmod(keys[firsts], dimension)
        counts = np.bincount(texts, minlength=num_texts)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return SparseVectors(starts, terms.astype(np.int32), np.asarray(weights, np.float32), dimension)


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


def _known_tokens(batch: TokenBatch, table: Float32) -> SparseVectors:
    """Give each token that a sequence holds, once, its weight."""
    sequences = np.repeat(np.arange(len(batch)), batch.lengths)
    keys = np.unique(sequences * len(table) + batch.input_ids)  # by sequence, then by token
    sequences, terms = np.divmod(keys, len(table))
    weights = table[terms]
    kept = weights != 0
    starts = np.concatenate(
        [np.zeros(1, np.int64), np.cumsum(np.bincount(sequences[kept], minlength=len(batch)))]
    )
    return SparseVectors(starts, terms[kept].astype(np.int32), weights[kept], len(table))
