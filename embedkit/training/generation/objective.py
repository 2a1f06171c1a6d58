"""Teacher forcing: what the decoder says after each token of the true targets, and the loss of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.generation.targets import Targets
from embedkit.model.costs import encoder_flops
from embedkit.model.filling import CPU_ROWS_MULTIPLE
from embedkit.model.text_generator import TextGenerator
from embedkit.model.vocabulary_loss import vocabulary_loss
from embedkit.tokenization.batch import TokenBatch
from embedkit.training.engine.ranks import Ranks, autocast

Ints = NDArray[np.int64]
NOTHING = -1  # where nothing is to be said


class TeacherForcing(nn.Module):
    """A text generator whose forward gives sums over the targets' tokens: what wrappers for many devices can call."""

    def __init__(self, model: TextGenerator, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing

    def forward(
        self,
        shown: Tensor,
        said: Tensor,
        lengths: Sequence[int],
        source_ids: Tensor | None = None,
        source_lengths: Sequence[int] = (),
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Return (3,): the smoothed loss and the negative log-likelihood, in nats, and how many tokens were the likeliest.

        Shapes:
            shown, said: (N,) of sequences one after another, `said` negative where nothing is to be said
            source_ids: (M,) of B sources; counts: how many of the sequences each of them has, None for one each
        """
        source = None
        if source_ids is not None:
            source = self.model.encode(source_ids, source_lengths)
            counts = counts if counts is not None else [1] * len(source_lengths)
        shown, said, lengths, counts = self._filled_up(shown, said, lengths, counts)
        hidden = self.model(shown, lengths, source, counts)
        weight, bias = self.model.output_weights
        return torch.stack(vocabulary_loss(hidden, weight, bias, said, smoothing=self.label_smoothing))

    def _filled_up(
        self, shown: Tensor, said: Tensor, lengths: Sequence[int], counts: Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Sequence[int], Sequence[int] | None]:
        """On a CPU, make the number of tokens a multiple of 64 (see `fill_up`) by a sequence of the last source that says nothing."""
        longest = self.model.config.max_position_embeddings
        missing = -len(shown) % min(CPU_ROWS_MULTIPLE, longest)
        if shown.device.type != "cpu" or not missing:
            return shown, said, lengths, counts
        if counts is not None:
            counts = [*counts[:-1], counts[-1] + 1]
        return (
            F.pad(shown, (0, missing)),
            F.pad(said, (0, missing), value=NOTHING),
            [*lengths, missing],
            counts,
        )


def forced(
    module: nn.Module,
    targets: Targets,
    ranks: Ranks,
    sources: TokenBatch | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Run a batch through `TeacherForcing`, in the run's precision: -> (3,) sums."""

    def move(array: Ints) -> Tensor:
        return torch.from_numpy(array).to(ranks.device, non_blocking=True)

    given: tuple[object, ...] = ()
    if sources is not None:
        given = (move(sources.input_ids), sources.lengths.tolist(), counts)
    with autocast(ranks):
        sums: Tensor = module(move(targets.shown), move(targets.said), targets.lengths.tolist(), *given)
    return sums


def generator_flops(model: TextGenerator, targets: Ints, sources: Ints | None, seen: Ints | None) -> float:
    """Count the multiplications and additions of a forward pass, the scores of the vocabulary included.

    Shapes:
        targets: (N,) lengths; sources: (B,) lengths; seen: (N,) the length of each target's source
    """
    config = model.config
    total = float(targets.sum())
    of_source = [".key_value."] if sources is not None else []
    weights = sum(
        p.numel()
        for name, p in model.decoder.layers.named_parameters()
        if p.ndim > 1 and not any(part in name for part in of_source)
    )
    attention = (
        2 * config.attention_size * config.num_hidden_layers * float((targets**2).sum())
    )  # half is hidden
    flops = 2 * (weights + config.vocab_size * config.hidden_size) * total + attention
    if model.encoder is None or sources is None or seen is None:
        return flops
    keys_values = 4 * config.attention_size * (config.encoder_size or 0) * config.num_hidden_layers
    cross = 4 * config.attention_size * config.num_hidden_layers * float((targets * seen).sum())
    return (
        flops
        + encoder_flops(model.encoder.config, sources.tolist())
        + keys_values * float(sources.sum())
        + cross
    )
