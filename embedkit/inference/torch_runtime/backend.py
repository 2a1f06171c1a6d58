"""What all models run by torch share: a device, a number format, and the transformer itself, on packed tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedkit.errors import DeviceError
from embedkit.inference.backend import Backend
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.filling import fill_up
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Device, Float32, Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend(Backend):
    """The transformer of a model; None for a static one. What stands on the transformer is added by those that inherit."""

    def __init__(
        self, encoder: TransformerEncoder | None, *, device: torch.device, precision: Precision
    ) -> None:
        """The encoder is on the device and in the number format already."""
        self.encoder = encoder
        self.device = device
        self.precision = precision

    def __repr__(self) -> str:
        return f"torch on {self.device.type}, {self.precision}"

    @torch.inference_mode()
    def hidden_states(self, batch: TokenBatch) -> Float32:
        if self.encoder is None:
            return super().hidden_states(batch)
        ids, lengths, types = self._tokens(batch)
        keys = None if batch.num_keys is None else batch.num_keys.tolist()
        if keys is not None and len(lengths) > len(keys):  # the sequence that fills up
            keys.append(lengths[-1])
        found = self.encoder.forward_packed(ids, lengths, types, num_keys=keys)
        return rows(found, len(batch.input_ids))

    def _tokens(self, batch: TokenBatch) -> tuple[Tensor, Sequence[int], Tensor | None]:
        """Return a batch's ids, lengths and token types on the device, perhaps with one sequence more; see `fill_up`."""
        types = batch.token_type_ids
        tokens = (
            torch.from_numpy(batch.input_ids).to(self.device),
            batch.lengths.tolist(),
            None if types is None else torch.from_numpy(types).to(self.device),
        )
        if self.encoder is None:  # a table, which multiplies nothing
            return tokens
        return fill_up(*tokens, max_tokens=self.encoder.config.max_tokens)


def rows(found: Tensor, count: int) -> Float32:
    """Return the first rows of what a model computed, without those of a sequence that only filled up."""
    result: Float32 = found[:count].float().cpu().numpy()
    return result


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
            f"device {device!r} is not available here; available: {have}. Choose one, or --device auto"
        )
    return torch.device(device)
