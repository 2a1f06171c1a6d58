"""Texts through a model in training: packed micro-batches within a budget of tokens, and vectors for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.model.filling import fill_up
from embedkit.model.layers import runs_of
from embedkit.model.routing import current_log
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sparse import SparseModel
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import micro_batches
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.ranks import Ranks, autocast
from embedkit.training.engine.routing_tally import Tally

Floats = NDArray[np.float32]
EVALUATION_WINDOW = 4096  # texts tokenized and sorted by length together


class PackedEncoder(nn.Module):
    """A sentence encoder whose forward takes packed tokens: what wrappers for many devices can call."""

    def __init__(
        self, model: SentenceEncoder | StaticEncoder | SparseModel, *, all_layers: bool = False
    ) -> None:
        """With `all_layers`, forward gives the sentence vectors after each layer in training: (B, L, E)."""
        super().__init__()
        self.model = model
        self.all_layers = all_layers

    def forward(self, input_ids: Tensor, lengths: Sequence[int], skip: int = 0) -> Tensor:
        """Encode B packed sequences: (N,) -> (B, E); see `SentenceEncoder.forward_packed`."""
        if not isinstance(self.model, SentenceEncoder):
            return self.model.forward_packed(input_ids, lengths, skip=skip)
        count = len(lengths)
        if (log := current_log()) is not None:
            log.real_tokens, log.real_sequences = len(input_ids), count
        if not skip:
            max_tokens = self.model.encoder.config.max_tokens
            input_ids, lengths, _ = fill_up(input_ids, lengths, max_tokens=max_tokens)
        if self.all_layers and self.training:
            return encode_layers(self.model, input_ids, lengths, skip=skip)[:count]
        return self.model.forward_packed(input_ids, lengths, skip=skip)[:count]


def encode_layers(
    model: SentenceEncoder, input_ids: Tensor, lengths: Sequence[int], *, skip: int = 0
) -> Tensor:
    """Pool what each layer gives into sentence vectors: (N,) -> (B, L, E); the last is what `forward_packed` returns."""
    states = islice(model.encoder.states(input_ids, runs_of(lengths), None), 1, None)
    finished = map(model.encoder.finish, states)
    return torch.stack([model.pool_packed(state, lengths, skip=skip) for state in finished], dim=1)


def forward(module: nn.Module, batch: TokenBatch, ranks: Ranks, *, skip: int = 0) -> Tensor:
    """Encode a batch as it is, in the run's precision: -> (B, E) float32, on the device."""
    ids = torch.from_numpy(batch.input_ids).to(ranks.device, non_blocking=True)
    with autocast(ranks):
        embeddings: Tensor = module(ids, batch.lengths.tolist(), skip)
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def embed_texts(
    module: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    ranks: Ranks,
    *,
    budget: int,
    prompt: str = "",
    skip: int = 0,
    tally: Tally | None = None,
) -> Floats:
    """Encode texts without gradients, in evaluation mode: -> (N, E); `tally` counts what routers do."""
    was_training = module.training
    module.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), EVALUATION_WINDOW):
            window = [prompt + text for text in texts[start : start + EVALUATION_WINDOW]]
            batch = tokenizer.encode(window)
            found: Floats | None = None
            for rows in micro_batches(batch.lengths, budget):
                tokens = batch.take(rows)
                with nullcontext() if tally is None else tally.watching(tokens.input_ids):
                    part = forward(module, tokens, ranks, skip=skip).cpu().numpy()
                found = np.empty((len(batch), part.shape[1]), np.float32) if found is None else found
                found[rows] = part
            if found is not None:
                parts.append(found)
    module.train(was_training)
    return np.concatenate(parts)
