"""Measure vectors on the dev sets: nDCG@10 of a retrieval set, Spearman's correlation of a similarity set."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from data import DEVICE, Texts, on_device
from dev_sets import OTHERS, SIMILARITY
from numpy.typing import NDArray
from torch import Tensor

from embedkit.evaluation.agreement import spearman

DEPTH = 10
# What a choice is made by: the other retrieval sets count most, since least like them is trained on.
SHARES = {"mean varied": 0.3, "mean others": 0.45, "mean similarity": 0.25}
Results = dict[str, dict[str, float]]


def measure(vectors: Tensor, texts: Texts) -> dict[str, float]:
    """Return each dev set's score, the means of the kinds of set and their weighted mean, `score`: (M, E) of all dev texts."""
    unit = F.normalize(vectors.float(), dim=1)
    found = {}
    for name, each in texts.dev.items():
        if "q" in each:
            scores = unit[on_device(each["q"])] @ unit[on_device(each["d"])].T
            found[name] = ndcg(scores, each["rel"])
        else:
            cosines = (unit[on_device(each["a"])] * unit[on_device(each["b"])]).sum(1)
            found[name] = float(spearman(cosines.cpu().numpy(), each["s"]))
    return found | means(found)


def means(found: dict[str, float]) -> dict[str, float]:
    """Return the means of the kinds of set that there are, and `score` where there are all three."""
    kinds = {
        "mean varied": [score for name, score in found.items() if name.startswith("v_")],
        "mean others": [found[name] for name in OTHERS if name in found],
        "mean similarity": [found[name] for name in SIMILARITY if name in found],
    }
    result = {name: float(np.mean(scores)) for name, scores in kinds.items() if scores}
    if len(result) == len(kinds):
        result["score"] = sum(share * result[name] for name, share in SHARES.items())
    return result


def ndcg(scores: Tensor, rel: NDArray[np.int32]) -> float:
    """Compute the mean nDCG@10 of Q queries: scores (Q, D), rel (R, 3) of query, document, gain.

    Source: Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418, with the gain itself.
    """
    depth = min(DEPTH, scores.shape[1])
    gains = torch.zeros_like(scores)
    query, document, gain = on_device(rel).T
    gains[query, document] = gain.float()
    discount = 1 / torch.log2(torch.arange(depth, device=DEVICE) + 2.0)
    got = (gains.gather(1, scores.topk(depth, dim=1).indices) * discount).sum(1)
    best = (gains.topk(depth, dim=1).values * discount).sum(1)
    return (got / best.clamp_min(1e-9)).mean().item()
