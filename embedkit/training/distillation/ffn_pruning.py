"""Make feed-forward layers narrower: keep the inner units that contribute most on real text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from embedkit.errors import TrainingError
from embedkit.model.feed_forward import FeedForward
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.tokenizer import Tokenizer

SAMPLE = 512  # texts that the contributions are measured on
WINDOW = 32


def contributions(
    model: SentenceEncoder, tokenizer: Tokenizer, texts: Sequence[str], layers: Sequence[int]
) -> list[Tensor]:
    """Measure what each inner unit of some feed-forward layers adds to the output: one (I,) tensor a layer.

    A unit's contribution is the mean of its squared activation over the tokens of the texts, times the squared length of its
    column of the second matrix: the squared length of what it adds to a token's vector.
    Source: Molchanov et al. 2017, https://arxiv.org/abs/1611.06440, section 2.2, whose criteria by weight and by activation this joins.
    """
    chosen = [_feed_forward(model, layer) for layer in layers]
    sums = [torch.zeros(mlp.down.in_features) for mlp in chosen]

    def watch(mlp: FeedForward, total: Tensor) -> RemovableHandle:
        return mlp.down.register_forward_pre_hook(
            lambda _module, inputs: _add(total, inputs[0].float().square().sum(dim=0))
        )

    hooks = [watch(mlp, total) for mlp, total in zip(chosen, sums, strict=True)]
    try:
        with torch.inference_mode():
            for start in range(0, min(SAMPLE, len(texts)), WINDOW):
                batch = tokenizer.encode(list(texts[start : start + WINDOW]))
                model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist(), None)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        total * mlp.down.weight.detach().float().square().sum(dim=0)
        for mlp, total in zip(chosen, sums, strict=True)
    ]


def _add(total: Tensor, more: Tensor) -> None:
    total += more


def strongest(contribution: Tensor, size: int) -> Tensor:
    """Return which units to keep, (size,), in their old order.

    Raises:
        TrainingError: there are fewer units.
    """
    if size > len(contribution):
        raise TrainingError(
            f"student.intermediate_size is {size}; the teacher's feed-forward layers have {len(contribution)} units, of which "
            "some can be kept. Choose fewer"
        )
    return contribution.topk(size).indices.sort().values


def narrowed(weights: dict[str, Tensor], units: Tensor) -> dict[str, Tensor]:
    """Keep some inner units of one layer's weights, which are named as in `EncoderLayer`."""
    kept = dict(weights)
    kept["mlp.up.weight"] = weights["mlp.up.weight"][units]
    if "mlp.up.bias" in weights:
        kept["mlp.up.bias"] = weights["mlp.up.bias"][units]
    kept["mlp.down.weight"] = weights["mlp.down.weight"][:, units]
    return kept


def _feed_forward(model: SentenceEncoder, layer: int) -> FeedForward:
    mlp = model.encoder.layer(layer).mlp
    assert isinstance(mlp, FeedForward)  # a teacher with experts has no layers to choose
    if mlp.gated:
        raise TrainingError(
            "student.intermediate_size: the teacher's feed-forward layers are gated, which cannot be narrowed. Leave it out"
        )
    return mlp
