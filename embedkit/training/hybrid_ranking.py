"""A linear map behind the pooling that is learned from hybrid search: mapped vectors rank documents as their words and vectors do together.

Words find what vectors miss, above all the terms and names of a subject that the model hardly knows. All vectors stand fixed and only the
map is trained, so it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import linear, log_softmax, normalize, softmax

from embedkit.errors import TrainingError
from embedkit.training.whitening import LinearMap
from embedkit.types import Float32

# Chosen on the collections of docs/adapt.md, together with the strength of whitening.
BATCH = 256  # queries
EPOCHS = 10  # at most: few queries would be learned by heart
RATE = 3e-3  # of Adam, in standard deviations of the weights that the map begins with
TEMPERATURE = 0.05  # what the mapped vectors' cosines are divided by
TEACHER_TEMPERATURE = 0.5  # what hybrid scores are divided by, in standard deviations
_NONE = -1e4  # the score of what does not count


@dataclass(frozen=True, kw_only=True)
class AskedPassages:
    """What is learned from: vectors before normalization, and what the words of each query find.

    Shapes: Q queries, N passages, E dimensions, at most K hits by words.
        queries: (Q, E); passages: (N, E) float32
        query_documents: (Q,), passage_documents: (N,) int64 which document a text is from: passages of a query's own do not count
        hits: (Q, K) int64 numbers of passages, -1 where there are fewer; scores: (Q, K) float32 by BM25, 0 where there is no hit
    """

    queries: Float32
    passages: Float32
    query_documents: NDArray[np.int64]
    passage_documents: NDArray[np.int64]
    hits: NDArray[np.int64]
    scores: Float32


def learn_hybrid_ranking(
    start: LinearMap, asked: AskedPassages, *, steps: int, seed: int, pace: float = 1.0
) -> Iterator[LinearMap]:
    """Train the map `start` at the share `pace` of the usual rate, and yield what has become of it, after each of `most_steps`.

    The teacher's score of a passage is the mean of two, each centred and divided by its standard deviation over all passages: the cosine
    of the vectors as `start` maps them, and BM25 of the words. The loss is the Kullback–Leibler divergence of the distributions that the
    softmax makes of the teacher's scores and of the cosines.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2, of rankings.

    Raises:
        TrainingError: the loss is not finite.
    """
    draw = torch.Generator().manual_seed(seed)
    size = float(np.linalg.norm(asked.passages, axis=1).mean()) or 1.0  # so that the rate suits any model
    queries, passages = (
        torch.from_numpy(each / np.float32(size)) for each in (asked.queries, asked.passages)
    )
    weight = torch.tensor(start.weight, dtype=torch.float32)
    given = np.zeros(len(start.weight)) if start.bias is None else start.bias
    bias = torch.tensor(given / size, dtype=torch.float32)
    before = _mapped(queries, weight, bias), _mapped(passages, weight, bias)
    optimizer = torch.optim.Adam(
        [weight.requires_grad_(), bias.requires_grad_()], lr=pace * RATE * float(weight.detach().std())
    )
    for step in range(most_steps(steps, len(queries))):
        batch = torch.randint(len(queries), (BATCH,), generator=draw)
        own = torch.from_numpy(asked.query_documents)[batch, None] == torch.from_numpy(
            asked.passage_documents
        )
        teacher = _standard(before[0][batch] @ before[1].T) + _standard(_by_words(asked, batch))
        wanted = softmax((teacher / 2).masked_fill(own, _NONE) / TEACHER_TEMPERATURE, dim=1)
        cosines = _mapped(queries[batch], weight, bias) @ _mapped(passages, weight, bias).T
        found = log_softmax((cosines / TEMPERATURE).masked_fill(own, _NONE), dim=1)
        loss = -(wanted * found).sum(dim=1).mean()  # less a constant
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss of step {step + 1} of learning from hybrid search is not finite: the model's vectors are not. Leave it out "
                "(--ranking-steps 0), or use another model"
            )
        yield LinearMap(weight.detach().double().numpy(), bias.detach().double().numpy() * size)


def most_steps(steps: int, queries: int) -> int:
    """Return how many of the steps are taken with so many queries: as many as read each of them `EPOCHS` times."""
    return min(steps, -(-EPOCHS * queries // BATCH))


def _mapped(vectors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return normalize(linear(vectors, weight, bias))


def _by_words(asked: AskedPassages, batch: torch.Tensor) -> torch.Tensor:
    """Return the BM25 scores of some queries with all passages: (B, N)."""
    found = torch.zeros(len(batch), len(asked.passages))
    hits, scores = (torch.from_numpy(each)[batch] for each in (asked.hits, asked.scores))
    return found.scatter_add_(1, hits.clamp(min=0), scores)


def _standard(scores: torch.Tensor) -> torch.Tensor:
    """Centre each row's scores and divide them by their standard deviation; where all are equal they are 0."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
