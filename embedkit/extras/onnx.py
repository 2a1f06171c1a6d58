"""Writing a graph of ONNX operators, one node at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[np.float32] | NDArray[np.int64]

Attribute = int | float | str | Sequence[int]

OPSET = 20  # the first whose Gelu is one operator; ONNX Runtime reads it since 1.17, OpenVINO since 2024.0
IR_VERSION = 9  # the file format of that opset, for readers that are older than the package that writes
# A protobuf ends at 2 GiB: larger weights go into a second file beside it.
ONE_FILE_BYTES = 2**31 - 2**24


class GraphWriter:
    """Collects the nodes and constants of one graph; every method that adds something returns its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._bytes = 0

    def constant(self, name: str, array: Array | Sequence[int] | float) -> str:
        """Add a constant, once under each name; plain integers become int64, a plain float a float32 scalar."""
        if name not in self._constants:
            plain = np.float32 if isinstance(array, float) else None
            values = np.ascontiguousarray(array, plain) if np.ndim(array) else np.asarray(array, plain)
            self._constants[name] = onnx.numpy_helper.from_array(values, name)
            self._bytes += values.nbytes
        return name

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Attribute) -> str:
        """Add an operator with one output."""
        return self.nodes(operator, *inputs, count=1, name=name, **attributes)[0]

    def nodes(
        self, operator: str, *inputs: str, count: int, name: str = "", **attributes: Attribute
    ) -> list[str]:
        """Add an operator with several outputs."""
        name = name or f"{operator}_{len(self._nodes)}"
        outputs = [name] if count == 1 else [f"{name}.{number}" for number in range(count)]
        self._nodes.append(onnx.helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def save(
        self,
        path: Path,
        *,
        inputs: dict[str, tuple[str | int, ...]],
        outputs: dict[str, tuple[str | int, ...]],
        producer: str,
    ) -> None:
        """Write the graph; inputs are int64, outputs float32, a name in a shape is an axis of any size."""

        def values(shapes: dict[str, tuple[str | int, ...]], kind: int) -> list[onnx.ValueInfoProto]:
            return [onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]

        graph = onnx.helper.make_graph(
            self._nodes,
            "sentence_encoder",
            values(inputs, onnx.TensorProto.INT64),
            values(outputs, onnx.TensorProto.FLOAT),
            list(self._constants.values()),
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=producer,
        )
        large = self._bytes > ONE_FILE_BYTES
        onnx.save_model(model, str(path), save_as_external_data=large, location=f"{path.name}.data")
        onnx.checker.check_model(str(path))
