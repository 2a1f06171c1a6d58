"""Running an exported graph with ONNX Runtime, in fp32 on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import CheckpointError

# Release 1.31 reports to its maker and keeps an id in the user's cache folder. Nothing of embedkit goes to the network unasked;
# the variable is read when the package is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

if TYPE_CHECKING:
    from embedkit.types import Float32, Precision


class OnnxGraph:
    """A graph that ONNX Runtime has read: each call computes on the thread that makes it."""

    def __init__(self, path: Path) -> None:
        """Read a graph.

        Raises:
            CheckpointError: the file is not a graph that this release reads.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # its errors have no other common parent
            raise CheckpointError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot read it ({exc}). Export the model again"
            ) from exc

    def run(self, output: str, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> Float32:
        """Compute one output of a padded batch."""
        (found,) = self._session.run([output], {"input_ids": input_ids, "attention_mask": attention_mask})
        result: Float32 = found
        return result


def load_graph(path: Path, *, precision: Precision, threads: int) -> OnnxGraph:
    """Read a graph for fp32, the one precision; any number of threads may call it at the same time.

    Raises:
        CheckpointError: the file is not a graph that this release reads.
    """
    del precision, threads
    return OnnxGraph(path)


def convert(source: Path, target: Path) -> None:
    """Leave a graph as it is: ONNX is what ONNX Runtime reads."""
    del source, target
