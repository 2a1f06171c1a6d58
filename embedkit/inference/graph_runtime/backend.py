"""Running a sentence encoder with ONNX Runtime or OpenVINO: an exported graph, one padded piece of a batch on each core."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.folder import ModelFolder
from embedkit.inference.backend import Backend
from embedkit.inference.graph_runtime.graph import Graph, GraphRuntime, load_graph, run_padded
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead
from embedkit.machine import num_cores
from embedkit.native.threads import on_threads
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32, Precision

# Padded tokens in one call of a runtime. Measured with all-MiniLM-L6-v2 on a Zen 4 core: with 256 to 512 both runtimes are
# fastest, with 2048 a quarter slower.
PIECE_TOKENS = 512


class GraphBackend(Backend):
    """A sentence encoder as an exported graph."""

    def __init__(
        self,
        graph: Graph,
        folder: ModelFolder,
        *,
        runtime: GraphRuntime,
        precision: Precision,
        threads: int,
    ) -> None:
        self.graph, self.folder = graph, folder
        self.runtime, self.precision = runtime, precision
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=runtime)

    def __repr__(self) -> str:
        return f"{self.runtime} on cpu, {self.precision}"

    @classmethod
    def load(
        cls, folder: ModelFolder, file: Path, *, runtime: GraphRuntime, precision: Precision
    ) -> GraphBackend:
        """Load the graph that a folder was exported to.

        Raises:
            As `load_graph`.
        """
        threads = num_cores()
        graph = load_graph(file, runtime, precision=precision, threads=threads)
        return cls(graph, folder, runtime=runtime, precision=precision, threads=threads)

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        if skip:  # the graph pools all tokens
            return self._head(self.hidden_states(batch), batch.lengths, skip=skip)
        return np.concatenate(self._run("sentence_embedding", batch))

    def hidden_states(self, batch: TokenBatch) -> Float32:
        if batch.num_keys is not None:
            raise ValueError("an exported graph attends to all tokens of a text, and num_keys names some")
        padded = self._run("token_embeddings", batch)
        starts = np.cumsum([0, *(len(piece) for piece in padded)])
        kept = []
        for piece, start in zip(padded, starts, strict=False):
            lengths = batch.lengths[start : start + len(piece)]
            kept.append(piece[np.arange(piece.shape[1]) < lengths[:, None]])  # (B, T, D) -> (N, D)
        return np.concatenate(kept)

    @cached_property
    def _head(self) -> SentenceHead:
        return SentenceHead(self.folder.modules.sentence, load_sentence_weights(self.folder).dense)

    def _run(self, output: str, batch: TokenBatch) -> list[Float32]:
        """Compute one output of each piece of a batch, several at a time."""
        if batch.token_type_ids is not None and batch.token_type_ids.any():
            raise ValueError("an exported graph takes single texts, whose tokens are all of type 0")
        pieces = [batch.take(rows) for rows in cut(batch.lengths)]
        return list(on_threads(self._pool, partial(run_padded, self.graph, output), pieces))


def cut(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut B sequences, in their order, into pieces that padding leaves within PIECE_TOKENS: the rows of each."""
    pieces: list[NDArray[np.int64]] = []
    start, longest = 0, 0
    for row, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if row > start and longest * (row + 1 - start) > PIECE_TOKENS:
            pieces.append(np.arange(start, row))
            start, longest = row, length
    return [*pieces, np.arange(start, len(lengths))]
