"""Texts through a model in training: packed micro-batches within a budget of tokens, and vectors for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.model.layers import runs_of
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.ranks import Ranks, autocast
from embedkit.training.engine.recipes import Precision

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
# oneDNN compiles a kernel for every number of rows it meets and keeps a thousand of them: without this, a run on a CPU grew by
# gigabytes.
CPU_ROWS_MULTIPLE = 64
EVALUATION_WINDOW = 4096  # texts tokenized and sorted by length together


class PackedEncoder(nn.Module):
    """A sentence encoder whose forward takes packed tokens: what wrappers for many devices can call."""

    def __init__(self, model: SentenceEncoder | StaticEncoder, *, all_layers: bool = False) -> None:
        """With `all_layers`, forward gives the sentence vectors after each layer in training: (B, L, E)."""
        super().__init__()
        self.model = model
        self.all_layers = all_layers

    def forward(self, input_ids: Tensor, lengths: Sequence[int], skip: int = 0) -> Tensor:
        """Encode B packed sequences: (N,) -> (B, E); see `SentenceEncoder.forward_packed`."""
        if not isinstance(self.model, SentenceEncoder):
            return self.model.forward_packed(input_ids, lengths, skip=skip)
        count = len(lengths)
        if input_ids.device.type == "cpu" and not skip:
            input_ids, lengths = fill_up(input_ids, lengths, self.model.encoder.config.max_tokens)
        if self.all_layers and self.training:
            return encode_layers(self.model, input_ids, lengths, skip=skip)[:count]
        return self.model.forward_packed(input_ids, lengths, skip=skip)[:count]


def fill_up(input_ids: Tensor, lengths: Sequence[int], max_tokens: int) -> tuple[Tensor, Sequence[int]]:
    """Add one sequence of zeros so that the number of tokens is a multiple of 64; its vector is to be dropped."""
    missing = -len(input_ids) % min(CPU_ROWS_MULTIPLE, max_tokens)
    if not missing:
        return input_ids, lengths
    return F.pad(input_ids, (0, missing)), [*lengths, missing]


def encode_layers(
    model: SentenceEncoder, input_ids: Tensor, lengths: Sequence[int], *, skip: int = 0
) -> Tensor:
    """Pool what each layer gives into sentence vectors: (N,) -> (B, L, E); the last is what `forward_packed` returns."""
    encoder = model.encoder
    runs = runs_of(lengths)
    hidden, biases = encoder.embed(input_ids, runs, None)
    vectors = []
    for number in range(encoder.config.num_hidden_layers):
        hidden = encoder.layer(number)(hidden, runs, biases[encoder.config.layer_is_local(number)])
        last = hidden if encoder.final_norm is None else encoder.final_norm(hidden)
        vectors.append(model.pool_packed(last, lengths, skip=skip))
    return torch.stack(vectors, dim=1)


def micro_batches(lengths: Ints, budget: int) -> Iterator[Ints]:
    """Cut sequences, longest first, into groups of at most `budget` tokens: their numbers, one group after another.

    A sequence longer than the budget stands alone.
    """
    order = np.argsort(-lengths, kind="stable")
    start = tokens = 0
    for place, row in enumerate(order):
        length = int(lengths[row])
        if place > start and tokens + length > budget:
            yield order[start:place]
            start, tokens = place, 0
        tokens += length
    if len(order):
        yield order[start:]


def forward(
    module: nn.Module, batch: TokenBatch, ranks: Ranks, precision: Precision, *, skip: int = 0
) -> Tensor:
    """Encode a batch as it is, in the run's precision: -> (B, E) float32, on the device."""
    ids = torch.from_numpy(batch.input_ids).to(ranks.device, non_blocking=True)
    with autocast(ranks, precision):
        embeddings: Tensor = module(ids, batch.lengths.tolist(), skip)
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def embed_texts(
    module: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    ranks: Ranks,
    *,
    precision: Precision,
    budget: int,
    prompt: str = "",
    skip: int = 0,
) -> Floats:
    """Encode texts without gradients, in evaluation mode: -> (N, E)."""
    was_training = module.training
    module.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), EVALUATION_WINDOW):
            window = [prompt + text for text in texts[start : start + EVALUATION_WINDOW]]
            batch = tokenizer.encode(window)
            found: Floats | None = None
            for rows in micro_batches(batch.lengths, budget):
                part = forward(module, batch.take(rows), ranks, precision, skip=skip).cpu().numpy()
                found = np.empty((len(batch), part.shape[1]), np.float32) if found is None else found
                found[rows] = part
            if found is not None:
                parts.append(found)
    module.train(was_training)
    return np.concatenate(parts)
