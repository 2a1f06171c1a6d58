"""Running an exported graph with OpenVINO on the CPU: fp32, bf16, and int8 as OpenVINO itself does it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import CheckpointError
from embedkit.machine import BF16_FLAGS, cpu_flags

# Importing it would report to its maker, through this package, and keep an id in the home folder; without the package it does
# neither. Nothing of embedkit goes to the network unasked.
_reporter = sys.modules.get("openvino_telemetry")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # how an import is made to fail
try:
    import openvino
    from openvino import opset13
finally:
    del sys.modules["openvino_telemetry"]
    if _reporter is not None:
        sys.modules["openvino_telemetry"] = _reporter

if TYPE_CHECKING:
    from embedkit.types import Float32, Precision

# Activations get one scale for so many neighbouring numbers of a row.
GROUP_SIZE = 128


class OpenVinoGraph:
    """A graph that OpenVINO has compiled for this processor: each call computes on one core."""

    def __init__(self, path: Path, *, precision: Precision, threads: int) -> None:
        """Read and compile a graph; `threads` calls may come at the same time.

        Raises:
            CheckpointError: the file is not a graph that this release reads.
        """
        half = precision != "fp32" and bool(cpu_flags() & set(BF16_FLAGS))
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",  # its own default is bf16
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP_SIZE if precision == "int8" else 0,
        }
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as exc:
            raise CheckpointError(
                f"{path}: OpenVINO {openvino.__version__} cannot read it ({exc}). Export the model again"
            ) from exc
        if precision == "int8":
            compress_weights(self._model)
        self._compiled: dict[str, openvino.CompiledModel] = {}
        self._compiling = threading.Lock()
        self._own = threading.local()  # a request computes for one thread at a time

    def run(self, output: str, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> Float32:
        """Compute one output of a padded batch."""
        found = self._request(output).infer({"input_ids": input_ids, "attention_mask": attention_mask})
        result: Float32 = found[0]
        return result

    def _request(self, output: str) -> openvino.InferRequest:
        requests: dict[str, openvino.InferRequest] = self._own.__dict__
        if output not in requests:
            with self._compiling:
                if output not in self._compiled:  # of the other outputs nothing is computed or copied
                    result = self._model.output(output).get_node()
                    alone = openvino.Model([result], self._model.get_parameters(), output)
                    self._compiled[output] = self._core.compile_model(alone, "CPU", self._settings)
            requests[output] = self._compiled[output].create_infer_request()
        return requests[output]


def compress_weights(model: openvino.Model) -> None:
    """Store the weights of every linear layer as int8 with one scale a column; multiplied out, they are those of before but for rounding.

    With weights of this form OpenVINO turns activations into int8, too, when they are there (dynamic quantization).
    """
    for node in model.get_ordered_ops():
        source = node.input_value(1).get_node() if node.get_type_name() == "MatMul" else None
        if source is None or source.get_type_name() != "Constant":
            continue
        weight = np.ascontiguousarray(source.get_data().T)  # (out, in)
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        stored = opset13.constant(np.rint(weight / scale).astype(np.int8))
        restored = opset13.multiply(
            opset13.convert(stored, "f32"), opset13.constant(scale.astype(np.float32))
        )
        product = opset13.matmul(node.input_value(0), restored, False, True)
        node.output(0).replace(product.output(0))


def load_graph(path: Path, *, precision: Precision, threads: int) -> OpenVinoGraph:
    """Read and compile a graph; `threads` calls may come at the same time.

    Raises:
        CheckpointError: the file is not a graph that this release reads.
    """
    return OpenVinoGraph(path, precision=precision, threads=threads)


def convert(source: Path, target: Path) -> None:
    """Turn an ONNX graph into OpenVINO's own form: `target` (.xml), and its weights beside it (.bin) in fp32."""
    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)
