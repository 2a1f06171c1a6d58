"""Find hard negatives for pairs: texts of the same source that the teacher finds near the query, but not too near."""

from __future__ import annotations

import numpy as np
import torch
from data import Numbers, Texts, on_device
from progress import say
from teacher import Teacher

CANDIDATES = 8  # of a query: the right text and seven negatives
NEAREST = 48
WINDOW = 2048


def mine(texts: Texts, teacher: Teacher, sources: list[str], *, margin: float) -> dict[str, Numbers]:
    """Return the sources with enough negatives: (P, 48) numbers of texts, -1 where there are fewer."""
    found = {source: negatives(texts.pairs[source], teacher, margin=margin) for source in sources}
    count = {source: float((rows >= 0).sum(1).mean()) for source, rows in found.items()}
    say("negatives:", {source: round(each, 1) for source, each in count.items()})
    return {source: rows for source, rows in found.items() if count[source] > CANDIDATES - 1}


@torch.no_grad()
def negatives(pairs: Numbers, teacher: Teacher, *, margin: float) -> Numbers:
    """Find the nearest other texts whose cosine is at most (1 - margin) of the right one's: (P, 2) -> (P, 48).

    Source: Moreira et al. 2024, NV-Retriever, https://arxiv.org/abs/2407.15831, section 3 ("TopK-PercPos").
    """
    documents, own = np.unique(pairs[:, 1], return_inverse=True)
    out = np.full((len(pairs), NEAREST), -1, np.int32)
    vectors = teacher.of(documents)
    for start in range(0, len(pairs), WINDOW):
        part = slice(start, start + WINDOW)
        cosines = teacher.of(pairs[part, 0]) @ vectors.T  # (n, N)
        right = on_device(own[part])[:, None]
        too_near = cosines > (1 - margin) * cosines.gather(1, right)
        cosines = cosines.masked_fill(too_near, -2).scatter_(
            1, right, torch.full_like(right, -2, dtype=cosines.dtype)
        )
        values, places = cosines.topk(min(NEAREST, len(documents)), dim=1)
        found = np.where((values < -1).cpu().numpy(), -1, documents[places.cpu().numpy()])
        out[part, : found.shape[1]] = found
    return out
