"""Running a sentence encoder with torch, on packed tokens."""

from __future__ import annotations

import numpy as np
import torch

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.sentence_folder import load_model
from embedkit.errors import DeviceError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Device, DeviceType, Float32, Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# oneDNN compiles a kernel for every number of rows it meets and keeps a thousand of them: without this, memory grew by
# 30 MB for every thousand texts, up to a gigabyte, and each new size cost milliseconds.
CPU_ROWS_MULTIPLE = 64


class TorchBackend:
    """A `Backend` over a sentence encoder of either kind; the weights are cast once, sums of the pooling stay in fp32."""

    def __init__(
        self, model: SentenceEncoder | StaticEncoder, *, device: torch.device, precision: Precision
    ) -> None:
        self.model: SentenceEncoder | StaticEncoder = model.to(device=device, dtype=DTYPES[precision]).eval()
        self.device = device
        self.precision = precision

    def __repr__(self) -> str:
        return f"torch on {self.device.type}, {self.precision}"

    @classmethod
    def load(cls, folder: ModelFolder, *, device: DeviceType, precision: Precision) -> TorchBackend:
        """Load a folder's weights onto a device that is there.

        Raises:
            CheckpointError: the weights do not fit the folder's config.
        """
        return cls(load_model(folder), device=torch.device(device), precision=precision)

    def forward(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        size = len(batch)
        batch = self._filled(batch)
        with torch.inference_mode():
            ids, types = batch_tensors(batch, self.device)
            embeddings = self.model.forward_packed(ids, batch.lengths.tolist(), types, skip=skip)
            result: Float32 = embeddings[:size].float().cpu().numpy()
            return result

    def hidden_states(self, batch: TokenBatch) -> Float32:
        size = len(batch.input_ids)
        if not isinstance(self.model, SentenceEncoder):
            raise TypeError("a static encoder has no hidden states")
        batch = self._filled(batch)
        with torch.inference_mode():
            ids, types = batch_tensors(batch, self.device)
            hidden = self.model.encoder.forward_packed(ids, batch.lengths.tolist(), types)
            result: Float32 = hidden[:size].float().cpu().numpy()
            return result

    def _filled(self, batch: TokenBatch) -> TokenBatch:
        if self.device.type != "cpu" or not isinstance(
            self.model, SentenceEncoder
        ):  # a table has no products
            return batch
        return fill_up(batch, min(CPU_ROWS_MULTIPLE, self.model.encoder.config.max_tokens))


def batch_tensors(batch: TokenBatch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a batch's ids and token types, (N,) each, on a device."""
    types = batch.token_type_ids
    return (
        torch.from_numpy(batch.input_ids).to(device),
        None if types is None else torch.from_numpy(types).to(device),
    )


def fill_up(batch: TokenBatch, multiple: int) -> TokenBatch:
    """Add one sequence of zeros so that the number of tokens is a multiple; its vector is to be dropped."""
    missing = -len(batch.input_ids) % multiple
    if not missing:
        return batch
    zeros = np.zeros(missing, dtype=np.int64)
    types = batch.token_type_ids
    return TokenBatch(
        np.concatenate([batch.input_ids, zeros]),
        np.append(batch.lengths, missing),
        None if types is None else np.concatenate([types, zeros]),
    )


def choose_device(device: Device) -> torch.device:
    """Turn a name into a device; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: the device is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[device]:
        have = ", ".join(name for name, is_there in there.items() if is_there)
        raise DeviceError(
            f"device {device!r} is not to be had here; there is: {have}. Choose one, or --device auto"
        )
    return torch.device(device)
