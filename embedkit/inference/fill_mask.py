"""What a masked language model puts in place of [MASK]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.checkpoint.folder import ModelFolder
from embedkit.errors import RecordError
from embedkit.inference.loading import choose, load_backend
from embedkit.types import Device, Float32, WantedPrecision

MASK = "[MASK]"


@dataclass(frozen=True)
class Filling:
    """The likeliest tokens at one [MASK] of a text, best first, with their probabilities."""

    text: str
    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]


def fill_mask(
    folder: ModelFolder,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    device: Device = "cpu",
    precision: WantedPrecision = "fp32",
) -> list[Filling]:
    """Predict the token at every [MASK], text by text from left to right; the tokenizer's own mask token counts too.

    Raises:
        CheckpointError: the folder has no masked-language-model head, or the tokenizer no mask token.
        DeviceError: the device, or the precision with this model, is not available here.
        RecordError: a text has no mask, or loses one to the cut at the model's longest sequence.
    """
    choice = choose(folder, output="mlm_logits", device=device, precision=precision)
    backend = load_backend(folder, choice)
    tokenizer = folder.tokenizer
    mask_id = tokenizer.special_id("mask")
    own = tokenizer.special_tokens["mask"]
    found: list[Filling] = []
    for text in texts:
        masked = text.replace(MASK, own)
        batch = tokenizer.encode([masked])
        places = np.flatnonzero(batch.input_ids == mask_id)
        wanted = masked.count(own)
        if not wanted or len(places) != wanted:
            raise RecordError(
                f"the text {text[:60]!r} has {wanted} {MASK}, of which {len(places)} are within the {tokenizer.max_length} "
                f"tokens that the model reads. Write at least one {MASK}, and a shorter text"
            )
        for row in _softmax(backend.mlm_logits(batch, places)):
            best = np.argsort(-row, kind="stable")[:top_k]
            words = [tokenizer.backend.decode([token]).strip() for token in best.tolist()]
            tokens = tuple(
                word or str(tokenizer.backend.id_to_token(token))
                for word, token in zip(words, best.tolist(), strict=True)
            )
            found.append(Filling(text, tokens, tuple(row[best].tolist())))
    return found


def _softmax(logits: Float32) -> Float32:
    """Turn the logits of each row into probabilities."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Float32 = powers / powers.sum(axis=-1, keepdims=True)
    return result
