"""What runs a sentence encoder: the one seam behind which torch, our kernels or another runtime does the work."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.tokenization.batch import TokenBatch

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
WantedPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]  # auto: see `embedkit.inference.precision`
Runtime = Literal["native", "numpy", "torch", "onnx", "openvino"]
# auto: see `embedkit.inference.choice`
WantedRuntime = Literal["auto", "native", "numpy", "torch", "onnx", "openvino"]
Float32 = NDArray[np.float32]


class Backend(Protocol):
    """Runs a sentence encoder on one batch of tokens."""

    def forward(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        """Encode B sequences: -> (B, E) float32. The first `skip` tokens of each are not pooled."""
        ...

    def hidden_states(self, batch: TokenBatch) -> Float32:
        """Return the vectors of all N tokens before pooling: -> (N, D) float32. For transformers only."""
        ...
