"""Attention whose work grows with the tokens, not with their square: low-rank mixtures of keys, and random features.

Of a run of C sequences of T tokens, queries, keys and values are (C, H, T, d) each. A sequence's result depends on its own tokens
alone, whatever stands beside or behind them, so that padded and packed batches agree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEATURE_FLOOR = 1e-6  # added to every feature, as the authors' code does: no row is left without any weight


def low_rank(keys: Tensor, mixtures: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mix the keys (or values) of all tokens of a sequence into R of them.

    A sequence of T tokens is read as the paper's of a fixed length n with zeros behind it: its tokens meet the first T columns alone,
    and padding counts as zero.

    Shapes:
        keys: (C, H, T, d); mixtures: (R, n), n >= T; attention_mask: (C, T) bool
        returns: (C, H, R, d)
    Source: Wang et al. 2020, https://arxiv.org/abs/2006.04768, eq. 7, with mixtures that all heads of a layer share.
    """
    if attention_mask is not None:
        keys = keys.masked_fill(~attention_mask[:, None, :, None], 0.0)
    return mixtures[:, : keys.shape[-2]] @ keys


def orthogonal_features(count: int, size: int, *, like: Tensor) -> Tensor:
    """Draw directions, (count, size), orthogonal within each `size` of them, as long as normal vectors of that size are.

    Source: Choromanski et al. 2021, https://arxiv.org/abs/2009.14794, section 2.4 and appendix B.1.
    """
    blocks = -(-count // size)
    normal = torch.randn(blocks, size, size, dtype=torch.float64, device=like.device)
    orthogonal, upper = torch.linalg.qr(normal)
    # Signs as they come would favour some directions (Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050, section 5).
    orthogonal = orthogonal * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    directions = orthogonal.mT.reshape(blocks * size, size)[:count]
    lengths = torch.randn(count, size, dtype=torch.float64, device=like.device).norm(dim=1, keepdim=True)
    drawn: Tensor = directions * lengths
    return drawn.to(like.dtype)


def random_features(
    x: Tensor, features: Tensor, attention_mask: Tensor | None = None, *, each: bool
) -> Tensor:
    """Map queries or keys to positive features whose products are near exp(q·k / √d), up to a factor.

    The factor, which a softmax divides away again, keeps the largest exponent at 0: of each row (`each`, for queries) or of each
    sequence and head (for keys).

    Shapes:
        x: (C, H, T, d); features: (m, d); attention_mask: (C, T) bool
        returns: (C, H, T, m) at least fp32, 0 at padding
    Source: Choromanski et al. 2021, lemma 1 and section 2.4 (FAVOR+).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x = x.to(wide) / x.shape[-1] ** 0.25
    exponents = x @ features.to(wide).mT - x.square().sum(dim=-1, keepdim=True) / 2
    if attention_mask is not None:
        exponents = exponents.masked_fill(~attention_mask[:, None, :, None], -math.inf)
    largest = exponents.amax(dim=-1 if each else (-2, -1), keepdim=True)
    found = (exponents - largest).exp() + FEATURE_FLOOR
    return found if attention_mask is None else found * attention_mask[:, None, :, None]


def random_feature_attention(
    query: Tensor, key: Tensor, value: Tensor, features: Tensor, attention_mask: Tensor | None
) -> Tensor:
    """Attend by random features: the sums over keys are formed once, and no score of a single pair is.

    Shapes:
        query, key, value: (C, H, T, d); features: (m, d); attention_mask: (C, T) bool
        returns: (C, H, T, d)
    Source: Choromanski et al. 2021, eq. 4.
    """
    with torch.autocast(query.device.type, enabled=False):  # exponents of half precision have two digits
        queries = random_features(query, features, each=True)
        keys = random_features(key, features, attention_mask, each=False)  # (C, H, T, m)
        summed = keys.mT @ value.to(keys.dtype)  # (C, H, m, d)
        total = queries @ keys.sum(dim=-2)[..., None]  # (C, H, T, 1)
        return (queries @ summed / total).to(value.dtype)


def random_feature_weights(
    query: Tensor, key: Tensor, features: Tensor, attention_mask: Tensor | None
) -> Tensor:
    """Return the weights that `random_feature_attention` gives without forming them: (C, H, T, T), rows sum to 1."""
    queries = random_features(query, features, each=True)
    products = queries @ random_features(key, features, attention_mask, each=False).mT
    return products / products.sum(dim=-1, keepdim=True)
