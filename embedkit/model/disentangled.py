"""Disentangled attention: what the distance between two tokens adds to their score, by content and position apart.

1. Every distance, or bucket of distances, has a vector; all layers share them.
2. Each layer makes a query and a key of it.
3. A token's query is compared with the keys of the distances to all others, and their keys with the distances' queries.
Source: He et al. 2021, https://arxiv.org/abs/2006.03654, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig


@dataclass(frozen=True)
class Distances:
    """The distances' vectors, (2·span, D), and which of them stands between query i and key j, (T, T) long."""

    vectors: Tensor
    index: Tensor
    content_to_position: bool
    position_to_content: bool


def distance_index(length: int, config: DisentangledConfig, device: torch.device) -> Tensor:
    """Number the distances i - j from query i to key j, shifted by the span: (T, T) long in [0, 2·span).

    With 8 buckets up to 64 tokens: distances 0 to 4 are themselves; 5 to 10, 11 to 26 and 27 on are 5, 6 and 7.
    """
    distance = torch.arange(
        1 - length, length
    )  # on the CPU: what lies on a border must not depend on the device
    if config.position_buckets:
        middle = config.position_buckets // 2
        size = distance.abs()
        # As in the authors' code, in fp32: a bucket's border is where the logarithm is rounded up.
        share = torch.log(size.clamp(min=middle - 1).clamp(min=1) / middle) / torch.log(
            torch.tensor((config.max_relative_positions - 1) / middle)
        )
        far = torch.ceil(share * (middle - 1)) + middle
        distance = torch.where(size <= middle, distance.float(), far * distance.sign()).long()
    number = (distance + config.span).clamp(0, 2 * config.span - 1).to(device)
    position = torch.arange(length, device=device)
    return number[position[:, None] - position[None, :] + length - 1]


def disentangled_scores(
    query: Tensor, key: Tensor, of_distances: tuple[Tensor, Tensor], distances: Distances
) -> Tensor:
    """Return what distances add to the products of queries and keys, not yet scaled.

    Shapes:
        query, key: (count, H, T, d); of_distances: queries and keys of the distances, (H, 2·span, d) each
        returns: (count, H, T, T)
    """
    position_query, position_key = of_distances
    index = distances.index.expand(*query.shape[:2], -1, -1)
    scores: list[Tensor] = []
    if distances.content_to_position:
        scores.append((query @ position_key.mT).gather(-1, index))
    if (
        distances.position_to_content
    ):  # row j of the product is key j's, which all queries read by their distance to it
        scores.append((key @ position_query.mT).gather(-1, index.mT).mT)
    return torch.stack(scores).sum(dim=0)


class DistanceTable(nn.Module):
    """The vectors of all distances, and their norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert config.disentangled is not None
        self.config = config.disentangled
        self.vectors = nn.Embedding(2 * self.config.span, config.hidden_size)
        self.norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if self.config.norm_rel_ebd else None
        )

    def forward(self, lengths: Sequence[int], device: torch.device) -> list[Distances]:
        """Return the distances within sequences of some lengths."""
        vectors = self.vectors.weight if self.norm is None else self.norm(self.vectors.weight)
        found = {length: distance_index(length, self.config, device) for length in set(lengths)}
        parts = self.config.content_to_position, self.config.position_to_content
        return [Distances(vectors, found[length], *parts) for length in lengths]


class FirstConvolution(nn.Module):
    """A convolution of the embeddings, added to what the first layer gives, and a norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert config.disentangled is not None
        own = config.disentangled
        size = config.hidden_size
        self.act = own.conv_act
        self.conv = nn.Conv1d(
            size, size, own.conv_kernel_size, padding=own.conv_kernel_size // 2, groups=own.conv_groups
        )
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, embedded: Tensor, hidden: Tensor, counts: Sequence[tuple[int, int]]) -> Tensor:
        """Add the convolution within each sequence: (N, D) -> (N, D); `counts` sequences of a length lie after one another."""
        pieces = torch.split(embedded, [count * length for count, length in counts])
        found = []
        for piece, (count, length) in zip(pieces, counts, strict=True):
            rows = piece.view(count, length, -1).mT  # (count, D, T)
            found.append(self.conv(rows).mT.reshape(len(piece), -1))
        mixed = torch.cat(found)
        mixed = torch.tanh(mixed) if self.act == "tanh" else nn.functional.gelu(mixed)
        normed: Tensor = self.norm(hidden + mixed)
        return normed


def has_convolution(config: EncoderConfig) -> bool:
    """Say whether an encoder's first layer is followed by a convolution."""
    return config.disentangled is not None and config.disentangled.conv_kernel_size > 0
