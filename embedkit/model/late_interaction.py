"""MaxSim of whole batches, for training: each text is one row, its token vectors one after another."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_COSINES = 2**24  # of query tokens with document tokens that are in memory together: 64 MiB in fp32


class MaxSimilarity:
    """Compares texts by the mean over the query's tokens of the largest cosine with any token of the document, from -1 to 1.

    A text is a row of T·E numbers, the unit vectors of its tokens and zeros where it has fewer; queries and documents may differ in T.
    The paper sums over the query's tokens; the mean orders the documents of a query alike, and keeps its size whatever their number.
    It stands where losses take a `Similarity`.
    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832, eq. 3.
    """

    kind = "maxsim"
    experts = None

    def __init__(self, size: int) -> None:
        """`size` is E."""
        self.size = size

    def matrix(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare every query with every document: (N, T·E), (M, T'·E) -> (N, M)."""
        queries, documents = self._tokens(first), self._tokens(second)
        absent = ~_there(documents).flatten()  # (M·T')
        flat = documents.flatten(0, 1)  # (M·T', E)
        step = max(1, CHUNK_COSINES // max(1, queries.shape[1] * len(flat)))
        found = []
        for some in torch.split(queries, step):
            cosines = (some @ flat.T).masked_fill(absent, -2)  # (n, T, M·T')
            best = cosines.view(*cosines.shape[:2], *documents.shape[:2]).amax(dim=-1)  # (n, T, M)
            found.append(_mean(best, some))
        return torch.cat(found) if found else first.new_zeros(0, len(second))

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare each query with its partner: (..., T·E), (..., T'·E) -> (...)."""
        queries, documents = self._tokens(first), self._tokens(second)
        cosines = queries @ documents.mT  # (..., T, T')
        best = cosines.masked_fill(~_there(documents)[..., None, :], -2).amax(dim=-1)  # (..., T)
        return _mean(best[..., None], queries)[..., 0]

    def _tokens(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:-1], rows.shape[-1] // self.size, self.size)


def _there(tokens: Tensor) -> Tensor:
    """Say where there is a token: (..., T, E) -> (..., T) bool."""
    return tokens.detach().abs().amax(dim=-1) > 0


def _mean(best: Tensor, queries: Tensor) -> Tensor:
    """Average over the tokens that a query has: (..., T, M), (..., T, E) -> (..., M); a query or document without any scores 0."""
    there = _there(queries)[..., None]
    best = best.masked_fill((best < -1.5) | ~there, 0)
    return best.sum(dim=-2) / there.sum(dim=-2).clamp(min=1)
