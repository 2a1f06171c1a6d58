"""A batch's texts on one device or many: each encodes its share, in parts, and weights get the mean of all gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import micro_batches
from embedkit.training.engine.gather import gather_rows
from embedkit.training.engine.ranks import Ranks

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BatchPart:
    """Some texts of a batch that go through the model together: their numbers in the batch, and their tokens.

    The first `skip` tokens of each are not pooled.
    """

    numbers: Ints
    tokens: TokenBatch
    skip: int


def shard(
    tokens: TokenBatch, groups: Ints, skips: Sequence[int], ranks: Ranks, *, budget: int
) -> tuple[list[BatchPart], Ints]:
    """Share the texts of a batch among the devices, longest first, and cut this one's share into parts of `budget` tokens.

    Texts of group g skip `skips[g]` tokens; a part's texts skip alike.

    Shapes:
        tokens: U texts; groups: (U,)
        returns: this device's parts, and (ranks * W,) the number of the text that each row of all devices' vectors is of, in
            the order of their parts, -1 where a device has fewer than W
    """
    longest_first = np.argsort(-tokens.lengths, kind="stable")
    width = -(-len(longest_first) // ranks.world)
    alike = len(set(skips)) == 1
    orders = np.full((ranks.world, width), -1, dtype=np.int64)
    own: list[BatchPart] = []
    for rank in range(ranks.world):
        share = longest_first[rank :: ranks.world]
        found: list[tuple[Ints, int]] = []
        for skip in dict.fromkeys(skips):
            chosen = share if alike else share[np.array(skips)[groups[share]] == skip]
            found += [(chosen[rows], skip) for rows in micro_batches(tokens.lengths[chosen], budget)]
        if found:
            flat = np.concatenate([numbers for numbers, _ in found])
            orders[rank, : len(flat)] = flat
        if rank == ranks.rank:
            own = [BatchPart(numbers, tokens.take(numbers), skip) for numbers, skip in found]
    return own, orders.flatten()


def in_order(embeddings: Tensor, order: Ints, ranks: Ranks, *, count: int) -> Tensor:
    """Gather the vectors of all devices and lay them in the order of the batch's texts: the counterpart of `shard`.

    Shapes:
        embeddings: (rows of this device's parts, ...); order: as `shard` returned it
        returns: (count, ...)
    """
    if ranks.world > 1:
        missing = len(order) // ranks.world - len(embeddings)
        filling = embeddings.new_zeros(missing, *embeddings.shape[1:])
        embeddings = gather_rows(torch.cat([embeddings, filling]))
    places = np.empty(count, dtype=np.int64)
    real = np.flatnonzero(order >= 0)
    places[order[real]] = real
    return embeddings[torch.from_numpy(places).to(ranks.device)]


def average_gradients(module: nn.Module, ranks: Ranks) -> None:
    """Replace each gradient by its mean over the devices, in one exchange; a weight without one counts as zero."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])
    dist.all_reduce(flat)
    flat /= ranks.world
    for parameter, part in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
        parameter.grad = part.view_as(parameter)
