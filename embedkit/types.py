"""Names of types that all rooms share: where a model is computed, in which number format, and by what.

The command line takes its choices from here, so numpy is loaded only where `Float32` is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

Device = Literal["auto", "cpu", "cuda", "mps"]
DeviceType = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
WantedPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]  # auto: see `embedkit.inference.precision`
Runtime = Literal["native", "numpy", "torch", "onnx", "openvino"]
# auto: see `embedkit.inference.choice`
WantedRuntime = Literal["auto", "native", "numpy", "torch", "onnx", "openvino"]

# Of a text that is longer than the model reads: cut and count it, refuse it, average its pieces' vectors, or cut it silently.
OnTruncate = Literal["warn", "error", "chunk", "ok"]
TextRole = Literal["query", "document"]


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What computes a model: where, in which number format, by which runtime."""

    device: Device = "auto"
    precision: WantedPrecision = "auto"
    backend: WantedRuntime = "auto"
    force_precision: bool = False  # take a half precision even where the processor emulates it

    @property
    def index_device(self) -> str | None:
        """The device as `Index.open` takes it: an index is searched by the CPU unless a GPU was asked for."""
        return "cuda" if self.device == "cuda" else None


def __getattr__(name: str) -> Any:  # Any: whatever the name stands for
    if name == "Float32":
        import numpy as np
        from numpy.typing import NDArray

        return NDArray[np.float32]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
