"""What a masked language model puts in place of [MASK]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.errors import RecordError

MASK = "[MASK]"


@dataclass(frozen=True)
class Filling:
    """The likeliest tokens at one [MASK] of a text, best first, with their probabilities."""

    text: str
    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]


@torch.inference_mode()
def fill_mask(folder: ModelFolder, texts: Sequence[str], *, top_k: int = 5) -> list[Filling]:
    """Predict the token at every [MASK], text by text from left to right; the tokenizer's own mask token counts too.

    Raises:
        CheckpointError: the folder has no masked-language-model head, or the tokenizer no mask token.
        RecordError: a text has no mask, or loses one to the cut at the model's longest sequence.
    """
    model, _ = load_pretraining(folder, fresh_heads=False)
    model.eval()
    tokenizer = folder.tokenizer
    mask_id = tokenizer.special_id("mask")
    own = tokenizer.special_tokens["mask"]
    found: list[Filling] = []
    for text in texts:
        masked = text.replace(MASK, own)
        batch = tokenizer.encode([masked])
        ids = torch.from_numpy(batch.input_ids)
        places = (ids == mask_id).nonzero().flatten()
        wanted = masked.count(own)
        if not wanted or len(places) != wanted:
            raise RecordError(
                f"the text {text[:60]!r} has {wanted} {MASK}, of which {len(places)} are within the {tokenizer.max_length} "
                f"tokens that the model reads. Write at least one {MASK}, and a shorter text"
            )
        logits, _ = model(ids, batch.lengths.tolist(), places)
        probabilities, best = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]))
        for row, values in zip(best.tolist(), probabilities.tolist(), strict=True):
            words = [tokenizer.backend.decode([token]).strip() for token in row]
            tokens = tuple(
                word or str(tokenizer.backend.id_to_token(token))
                for word, token in zip(words, row, strict=True)
            )
            found.append(Filling(text, tokens, tuple(values)))
    return found
