"""A graph ready to run, whichever runtime runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.extras import load_extra
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32, Precision

GraphRuntime = Literal["onnx", "openvino"]
# runtime -> the extra that runs it, and the file that it reads
RUNNERS: dict[GraphRuntime, tuple[str, str]] = {
    "onnx": ("onnxruntime", "model.onnx"),
    "openvino": ("openvino", "model.xml"),
}


class Graph(Protocol):
    """A graph ready to run; several threads may call it at once."""

    def run(self, output: str, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> Float32:
        """Compute one output, by its name, of a padded batch: (B, T) int64 each."""
        ...


def load_graph(file: Path, runtime: GraphRuntime, *, precision: Precision, threads: int) -> Graph:
    """Load a graph into the runtime that it was written for.

    Raises:
        MissingExtraError: the runtime is not installed.
        CheckpointError: the runtime cannot read the file.
    """
    extra = load_extra(RUNNERS[runtime][0], purpose=f"the {runtime} backend")
    graph: Graph = extra.load_graph(file, precision=precision, threads=threads)
    return graph


def run_padded(graph: Graph, output: str, batch: TokenBatch) -> Float32:
    """Compute one output of packed sequences: (B, E), or (B, T, D) with padding."""
    ids, mask, _ = batch.padded(0)  # what stands at padding counts for nothing
    return graph.run(output, ids, mask.astype(np.int64))
