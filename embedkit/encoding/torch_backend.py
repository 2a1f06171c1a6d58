"""Running a sentence encoder with torch, on packed tokens."""

from __future__ import annotations

import numpy as np
import torch

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.sentence_folder import load_model
from embedkit.encoding.backend import Device, Float32, Precision
from embedkit.encoding.devices import BF16_FLAGS, FP16_FLAGS, cpu_flags
from embedkit.errors import DeviceError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch

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
    def load(
        cls,
        folder: ModelFolder,
        *,
        device: Device = "auto",
        precision: Precision = "fp32",
        force: bool = False,
    ) -> TorchBackend:
        """Load a folder's weights onto a device.

        Raises:
            DeviceError: the device is not there, or the precision is slow there and `force` is False.
            CheckpointError: the weights do not fit the folder's config.
        """
        chosen = choose_device(device)
        check_precision(precision, chosen, force=force)
        return cls(load_model(folder), device=chosen, precision=precision)

    def forward(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        size = len(batch)
        if self.device.type == "cpu" and isinstance(self.model, SentenceEncoder):  # a table has no products
            batch = fill_up(batch, min(CPU_ROWS_MULTIPLE, self.model.encoder.config.max_tokens))
        with torch.inference_mode():
            ids = torch.from_numpy(batch.input_ids).to(self.device)
            types = batch.token_type_ids
            type_ids = None if types is None else torch.from_numpy(types).to(self.device)
            embeddings = self.model.forward_packed(ids, batch.lengths.tolist(), type_ids, skip=skip)
            result: Float32 = embeddings[:size].float().cpu().numpy()
            return result


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


def check_precision(precision: Precision, device: torch.device, *, force: bool = False) -> None:
    """Refuse a half precision that this processor only emulates.

    Raises:
        DeviceError: it does, and `force` is False.
    """
    if device.type != "cpu" or precision == "fp32" or force:
        return
    wanted = BF16_FLAGS if precision == "bf16" else FP16_FLAGS
    if not cpu_flags() & set(wanted):
        raise DeviceError(
            f"precision {precision!r}: this processor has none of {', '.join(wanted)} and would emulate it, slower "
            "than fp32. Use --precision fp32, or --force-precision to have it all the same"
        )
