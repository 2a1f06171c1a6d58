"""Names of types that all rooms share: where a model is computed, in which number format, and by what."""

from __future__ import annotations

from typing import Literal

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
